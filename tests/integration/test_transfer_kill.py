"""A transfer killed at any byte goes on where it was, and the file is right."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.core.artifact import RepoFile
from llmctl.hub.base import partial_progress
from llmctl.hub.huggingface import HuggingFaceHub
from tests.world.hub import LocalHub, Repo

REPO = "org/vision-GGUF"
SIZE = 24 << 20
CONTENT = random.Random(7).randbytes(SIZE)
FILE = RepoFile("model.gguf", SIZE, hashlib.sha256(CONTENT).hexdigest())
# Of the file, at most this much may be sent a second time after a kill.
TWICE = 8 << 20
CLIENT = """
import sys
from pathlib import Path
from llmctl.core.artifact import RepoFile
from llmctl.hub.huggingface import HuggingFaceHub
from llmctl.hub.pace import Patience
endpoint, commit, path, size, sha256, aside = sys.argv[1:]
HuggingFaceHub(endpoint, False, Patience(window_s=0.1)).download(
    "org/vision-GGUF", commit, RepoFile(path, int(size), sha256), Path(aside), lambda *_: None
)
"""


def start(hub: LocalHub, aside: Path) -> subprocess.Popen[bytes]:
    arguments = (hub.url, hub.repos[REPO].commit, FILE.path, SIZE, FILE.sha256, aside)
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *map(str, arguments)],
        env={k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
    )


@pytest.mark.parametrize("seed", range(30))
def test_a_killed_transfer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Odd seeds: a hub that limits each connection, so that the kill meets several of them."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    at = random.Random(seed).randrange(1, SIZE)
    aside = tmp_path / "model.gguf"
    with LocalHub({REPO: Repo({FILE.path: CONTENT})}, rate=4e7 if seed % 2 else None) as hub:
        process = start(hub, aside)

        def kill(_: str, sent: int) -> None:
            if sent >= at and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(timeout=30)

        hub.watch = kill
        assert process.wait(timeout=60) == -signal.SIGKILL
        hub.watch = hub.rate = None
        left = partial_progress(aside)
        sha256 = HuggingFaceHub(hub.url, token=False).download(
            REPO, hub.repos[REPO].commit, FILE, aside, lambda *_: None
        )
        assert sha256 == FILE.sha256
        with aside.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == FILE.sha256
        assert [path.name for path in tmp_path.iterdir()] == [aside.name]
        twice = hub.sent[FILE.path] - SIZE
        assert 0 <= twice < TWICE, f"killed at {at}, {left} recorded"
