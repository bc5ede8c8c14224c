"""Two processes that want the same model at once make one transfer between them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.gguf import FIRST_READ
from tests.world.gguf_bytes import language, projector
from tests.world.hub import Fault, LocalHub, Repo

TEXT = language(width=256, vocabulary=60)
EYES = projector(width=256)
ANY = "hf://org/any-GGUF"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub({"org/any-GGUF": Repo({"m.gguf": TEXT, "mmproj.gguf": EYES})}) as hub:
        yield hub


def start(hub: LocalHub, stack: Path, home: Path) -> subprocess.Popen[str]:
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "LLMCTL_")) and not key.lower().endswith("_proxy")
    }
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "LLMCTL_ENGINE": "docker"}
    return subprocess.Popen(
        [sys.executable, "-m", "llmctl", "models", "pull", ANY, "-C", str(stack), "-o", "json"],
        env=clean | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read its stderr up to a line that matches; it fails when the process ends before."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError("".join(lines))


def test_one_transfer(hub: LocalHub, tmp_path: Path) -> None:
    """The hub holds the file back half-way until the second process waits for the first."""
    stack = tmp_path / "stack"
    stack.mkdir()
    release = threading.Event()
    half = threading.Event()

    def watch(name: str, sent: int) -> None:
        if name == "m.gguf" and sent >= FIRST_READ + len(TEXT) // 2:
            half.set()

    hub.watch = watch
    # The first request is for the header; the next one is the transfer.
    hub.faults.append(
        Fault("^/[0-9a-f]{64}/m.gguf", cut=len(TEXT) // 2, until=release, times=1, skip=1)
    )
    with start(hub, stack, tmp_path / "a") as first:
        assert half.wait(30)
        with start(hub, stack, tmp_path / "b") as second:
            told = read_until(
                second, r"any/m\.gguf: .*waiting for llmctl models pull any \(pid (\d+)\)"
            )
            assert int(told[1]) == first.pid
            release.set()
            outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    # Two headers, and the file once.
    assert hub.sent["m.gguf"] == len(TEXT) + 2 * FIRST_READ
    assert hub.sent["mmproj.gguf"] <= len(EYES) + 2 * FIRST_READ
    (one,), (two,) = (json.loads(out) for out, _ in outputs)
    assert "any/m.gguf" in one["downloaded"]
    assert two["already"][0] == "any/m.gguf"
    brought = sorted(one["downloaded"] + two["downloaded"])
    assert brought == ["any/m.gguf", "any/mmproj.gguf"]
    assert (stack / "models/any/m.gguf").read_bytes() == TEXT
    assert list((stack / "models/.partial").iterdir()) == []
    lock = json.loads((stack / "llmctl.lock").read_text())
    assert list(lock["models"]) == ["any"]


def test_the_second_goes_on_when_the_first_is_killed(hub: LocalHub, tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    stack.mkdir()
    release = threading.Event()
    half = threading.Event()

    def watch(name: str, sent: int) -> None:
        if name == "m.gguf" and sent >= FIRST_READ + len(TEXT) // 2:
            half.set()

    hub.watch = watch
    hub.faults.append(
        Fault("^/[0-9a-f]{64}/m.gguf", cut=len(TEXT) // 2, until=release, times=1, skip=1)
    )
    with start(hub, stack, tmp_path / "a") as first:
        assert half.wait(30)
        with start(hub, stack, tmp_path / "b") as second:
            read_until(second, r"waiting for llmctl models pull any")
            first.kill()
            out, told = second.communicate(timeout=60)
    release.set()
    assert second.returncode == 0, told
    assert json.loads(out)[0]["downloaded"] == ["any/m.gguf", "any/mmproj.gguf"]
    assert (stack / "models/any/m.gguf").read_bytes() == TEXT
    assert list((stack / "models/.partial").iterdir()) == []
