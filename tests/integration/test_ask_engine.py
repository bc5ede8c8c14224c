"""`llmctl ask` and `llmctl demo` with real llama.cpp behind LocalAI's surface."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmctl.core.picture import Colour, Shape, data_uri, draw
from tests.peer import Response, closed_port, peer
from tests.world.stand_in import StandIn, command, running
from tests.world.tiny_model import WITH_PICTURE, WITHOUT_PICTURE, write_pair

PNG = draw(Shape.STAR, Colour.GREEN, size=64)
ROOT = Path(__file__).parents[2]


class Stack:
    """A stack directory whose gateway is the engine itself."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMCTL_")}
        self.environment = environment | {
            "PYTHONPATH": str(ROOT),
            "LLMCTL_GATEWAY_PORT": str(port),
            "LLMCTL_GPU": "none",
        }

    def run(
        self, *arguments: str, code: int = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `llmctl ARGUMENTS` and demand its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "llmctl", *arguments],
            cwd=self.root,
            env=self.environment,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, (done.stdout + done.stderr).decode()
        return done

    def ask(self, *words: str, stdin: bytes = b"") -> Any:
        """The JSON document of `llmctl ask`."""
        return json.loads(self.run("ask", *words, "-o", "json", stdin=stdin).stdout)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("ask")
    port = closed_port()
    found = Stack(root, port)
    write_pair(root / "models")
    found.run("config", "render")
    backends = root / "backends"
    installed = command("--models", root / "models", "--backends", backends, "--port", port,
                        "backends", "install", "llama-cpp")  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    with running(root / "models", backends, port, root / "localai.log") as server:
        assert isinstance(server, StandIn)
        yield found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_each_format_reaches_the_model(stack: Stack, kind: str) -> None:
    with Image.open(io.BytesIO(PNG)) as image:
        image.convert("RGB").save(stack.root / f"picture.{kind.lower()}", kind)
    found = stack.ask(f"picture.{kind.lower()}", "どんな画像ですか？")
    assert found["answer"].strip() == WITH_PICTURE
    assert found["pictures"][0]["format"] == kind.lower()
    assert found["prompt_tokens"] > found["completion_tokens"] > 0
    assert found["finish_reason"] == "stop"


def test_stdin_address_and_data_uri(stack: Stack) -> None:
    """The address is of this machine, which LocalAI itself refuses to fetch from."""
    with peer(lambda _: Response(200, PNG)) as server:
        for source in ("-", f"{server.url}/private.png", data_uri(PNG)):
            found = stack.ask(source, "What is this?", stdin=PNG)
            assert found["answer"].strip() == WITH_PICTURE
            assert found["pictures"][0]["bytes"] == len(PNG)


def test_several_pictures(stack: Stack) -> None:
    (stack.root / "a.png").write_bytes(PNG)
    one = stack.ask("a.png", "Compare.")
    two = stack.ask("a.png", "a.png", "Compare.")
    assert two["answer"].strip() == WITH_PICTURE
    assert two["prompt_tokens"] > one["prompt_tokens"]


def test_words_alone(stack: Stack) -> None:
    assert stack.ask("Hello")["answer"].strip() == WITHOUT_PICTURE
    plain = stack.run("ask", "Hello")
    assert plain.stdout.decode().strip() == WITHOUT_PICTURE
    assert plain.stderr == b""
    assert stack.run("ask", "Hello", "-o", "quiet").stdout.decode().strip() == WITHOUT_PICTURE


def test_a_cut_answer(stack: Stack) -> None:
    done = stack.run("ask", "Hello", "--max-tokens", "2")
    said = done.stdout.decode().strip()
    assert WITHOUT_PICTURE.startswith(said)
    assert 0 < len(said) < len(WITHOUT_PICTURE)
    assert "--max-tokens 4" in done.stderr.decode()


def test_a_model_that_the_services_do_not_know(stack: Stack) -> None:
    done = stack.run("ask", "Hello", "--set", "models=moondream2", code=5)
    assert "HTTP 404" in done.stderr.decode()
    assert "do not know moondream2" in done.stderr.decode()


def test_the_demo(stack: Stack) -> None:
    text = stack.run("demo").stdout.decode()
    assert "\x1b" not in text  # no terminal
    assert re.search(r"drawn: (\w+ \w+) \(.+の.+\)", text)
    assert text.count(WITH_PICTURE) == 2
    assert text.count("names neither colour nor shape") == 2
    assert stack.environment["LLMCTL_GATEWAY_PORT"] in text
    picture = stack.root / ".llmctl" / "demo.png"
    with Image.open(picture) as image:
        assert image.size == (336, 336)


def test_the_demos_curl_works_as_printed(stack: Stack) -> None:
    found = json.loads(stack.run("demo", "-o", "json").stdout)
    assert [one["answer"].strip() for one in found["answers"]] == [WITH_PICTURE] * 2
    assert found["curl"] in stack.run("demo").stdout.decode()
    done = subprocess.run(
        ["sh", "-ec", found["curl"]], cwd=stack.root, capture_output=True, check=True
    )
    answer = json.loads(done.stdout)["choices"][0]["message"]["content"]
    assert answer.strip() == WITH_PICTURE


def test_the_demo_needs_a_running_stack(tmp_path: Path) -> None:
    done = Stack(tmp_path, closed_port()).run("demo", code=5)
    told = done.stderr.decode()
    assert "the gateway is not running" in told
    assert " up" in told.splitlines()[-1]
