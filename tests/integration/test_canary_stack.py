"""README's demonstration: the canary behind the real LiteLLM proxy, as `make demo` runs it.

As root it runs in a network namespace that has nothing but loopback.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.stack import Stack, clean_environment

ROOT = Path(__file__).parents[2]
PORTS = "gateway: {port: 28200}\nlocalai: {port: 28280}\n"


@pytest.fixture(scope="module")
def stack(offline: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("demo")
    text = (ROOT / "demo" / "llmctl.yaml").read_text(encoding="utf-8")
    environment = clean_environment() | {
        "DOCKER_HOST": "unix:///nowhere.sock",
        "HF_HUB_OFFLINE": "1",
    }
    found = Stack(root, "demo", environment, "", "http://127.0.0.1:28200", offline)
    found.configure(text + PORTS)
    (root / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "star.png", root / "docs")
    found.ok("up")
    yield found
    found.run("down")


def test_the_examples_of_the_readme_are_true(stack: Stack) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```console\n(.*?)```", readme, re.DOTALL)
    examples = re.findall(r"^\$ llmctl (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert len(examples) == 4
    for command, printed in examples:
        arguments = shlex.split(command.removesuffix(" -C demo"))
        assert stack.ok(*arguments).stdout == printed, command


def test_the_smoke_test_demands_the_right_colour_and_shape(stack: Stack) -> None:
    report = stack.json("smoke-test")
    assert report["ok"] is True
    pictures = [c for c in report["checks"] if c["check"] == "picture"]
    assert len(pictures) >= 6
    assert all(c["names_colour"] and c["names_shape"] for c in pictures)


def test_the_demo_names_what_it_drew(stack: Stack) -> None:
    for _ in range(5):
        shown = stack.json("demo")
        assert all(a["names_colour"] and a["names_shape"] for a in shown["answers"]), shown


def test_pulling_the_canary_needs_no_network(stack: Stack) -> None:
    stack.ok("models", "pull", "canary")
    stack.ok("models", "verify", "canary")
