"""`llmctl models` against a hub on this machine, with the real client."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.cli.main import run
from llmctl.cli.output import size_text
from llmctl.core.gguf import FIRST_READ
from tests.integration.hub_cli import TOKEN, hub_of_the_commands, llmctl_json
from tests.world.gguf_bytes import language, projector
from tests.world.hub import Fault, LocalHub, Repo

TEXT = language(width=256, vocabulary=60)  # 2.5 MB
EYES = projector(width=256)  # 356 kB
HEADERS = 2 * FIRST_READ  # what is read before the download
LLAVA = "mys/ggml_llava-v1.5-7b"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    repos = {
        LLAVA: Repo({"ggml-model-q4_k.gguf": TEXT, "mmproj-model-f16.gguf": EYES}),
        "org/gated-GGUF": Repo(
            {"g-Q4_K_M.gguf": TEXT, "mmproj-g-F16.gguf": EYES},
            licence="gemma",
            gated=True,
            readers=frozenset({TOKEN}),
        ),
    }
    with hub_of_the_commands(repos, tmp_path / "home", monkeypatch) as hub:
        yield hub


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    directory = tmp_path / "stack"
    directory.mkdir()
    return directory


def test_pull_list_verify_remove(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model's whole life, with no argument: the default stack is llava."""
    (pulled,) = llmctl_json(capsys, stack, "pull")
    assert pulled["downloaded"] == ["ggml-model-q4_k.gguf", "mmproj-model-f16.gguf"]
    assert pulled["bytes"] == len(TEXT) + len(EYES)
    assert (stack / "models/ggml-model-q4_k.gguf").read_bytes() == TEXT
    assert (stack / "models/mmproj-model-f16.gguf").read_bytes() == EYES
    assert hub.sent.total() == len(TEXT) + len(EYES) + HEADERS

    hub.forget()
    (again,) = llmctl_json(capsys, stack, "pull", "llava")
    assert (again["downloaded"], again["bytes"]) == ([], 0)
    assert again["commit"] == hub.repos[LLAVA].commit
    assert (hub.requests.total(), hub.sent.total()) == (0, 0)

    rows = {row["name"]: row for row in llmctl_json(capsys, stack, "list")}
    assert rows["llava"]["bytes"] == len(TEXT) + len(EYES)
    assert rows["moondream2"]["here"] == 0

    assert [c["verdict"] for c in llmctl_json(capsys, stack, "verify")] == ["ok", "ok"]
    place = stack / "models/mmproj-model-f16.gguf"
    before = place.stat()
    place.write_bytes(EYES[:-1] + b"?")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    checks = llmctl_json(capsys, stack, "verify", "llava", code=1)
    assert [c["verdict"] for c in checks] == ["ok", "changed"]
    (mended,) = llmctl_json(capsys, stack, "pull")
    assert mended["downloaded"] == ["mmproj-model-f16.gguf"]

    removed = llmctl_json(capsys, stack, "rm", "llava", "--yes")
    assert removed["bytes"] == len(TEXT) + len(EYES)
    assert [path.name for path in (stack / "models").iterdir()] == [".partial"]


def test_a_gated_repository(hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = "hf://org/gated-GGUF"
    refused = llmctl_json(capsys, stack, "pull", source, code=3)
    assert f"{hub.url}/org/gated-GGUF" in refused["hint"]
    assert hub.sent.total() == 0


def test_the_environment_is_honoured(hub: LocalHub, stack: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_TOKEN, in a process of its own; the token is told to nobody else."""
    done = subprocess.run(
        [sys.executable, "-m", "llmctl", "models", "pull", "hf://org/gated-GGUF", "-C", str(stack)],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "home"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (stack / "models/gated/g-Q4_K_M.gguf").read_bytes() == TEXT
    assert hub.leaked == []
    # No telemetry: nothing but the repository and its files was asked for.
    assert all("org/gated-GGUF" in request or request[:4] == "CDN " for request in hub.requests)
    lock = (stack / "llmctl.lock").read_text()
    assert json.loads(lock)["models"]["gated"]["licence"] == "gemma"
    assert TOKEN not in done.stdout + done.stderr + lock
    size, both = size_text(len(TEXT)), size_text(len(TEXT) + len(EYES))
    told = rf"^   gated/g-Q4_K_M.gguf: done, {size} of {size}"
    assert re.search(told, done.stderr, re.MULTILINE)
    assert f"pulled 2 files, {both}, licence gemma" in done.stdout


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_pull_goes_on(
    hub: LocalHub,
    stack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    end: signal.Signals,
) -> None:
    """The projector is half here when the process is stopped."""
    release = threading.Event()
    # The first request is for the header.
    hub.faults.append(Fault("^/[0-9a-f]{64}/mmproj", cut=100_000, until=release, times=1, skip=1))
    with subprocess.Popen(
        [sys.executable, "-m", "llmctl", "models", "pull", "-C", str(stack)],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as pulling:
        deadline = time.monotonic() + 30
        while hub.sent["mmproj-model-f16.gguf"] < FIRST_READ + 100_000:
            assert pulling.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pulling.send_signal(end)
        _, told = pulling.communicate(timeout=30)
    release.set()
    assert pulling.returncode == (130 if end is signal.SIGINT else -signal.SIGKILL)
    if end is signal.SIGINT:
        assert "run the same command again to continue" in told
    assert [path.name for path in (stack / "models").glob("*.gguf")] == ["ggml-model-q4_k.gguf"]

    hub.forget()
    (pulled,) = llmctl_json(capsys, stack, "pull")
    assert pulled["downloaded"] == ["mmproj-model-f16.gguf"]
    assert not any("ggml-model" in request for request in hub.requests)
    assert (stack / "models/mmproj-model-f16.gguf").read_bytes() == EYES
    assert list((stack / "models/.partial").iterdir()) == []


def test_a_corrupt_file_is_refused(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.append(Fault("^/[0-9a-f]{64}/ggml", body=TEXT[:-1] + b"?"))
    error = llmctl_json(capsys, stack, "pull", code=1)
    assert "SHA-256" in error["error"]
    assert not list((stack / "models").glob("*.gguf"))
    assert list((stack / "models/.partial").iterdir()) == []
    hub.faults.clear()
    assert len(llmctl_json(capsys, stack, "pull")[0]["downloaded"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pull", "lava"), 3, "did you mean llava?"),
        (("pull", "https://hub.example/org/repo/blob/main/x.gguf"), 3, "hf://org/repo:x.gguf"),
        (("pull", "org/repo"), 3, "hf://org/repo"),
        (("pull", "hf://org/typo"), 1, "does not exist on"),
        (("pull", f"hf://{LLAVA}:Q8_0"), 3, "holds no Q8_0; it has Q4_K"),
        (("show", "lava"), 3, "did you mean llava?"),
        (("verify", "llava"), 3, "was not pulled"),
        (("rm", "llava"), 3, "was not pulled"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_mistakes_are_explained(
    stack: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    assert run(["models", *arguments, "-C", str(stack)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "next:" in captured.err


@pytest.mark.usefixtures("hub")
def test_rm_does_not_delete_unasked(
    stack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    llmctl_json(capsys, stack, "pull")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    refused = llmctl_json(capsys, stack, "rm", "llava", code=2)
    assert refused["hint"] == "llmctl models rm llava --yes"
    assert (stack / "models/ggml-model-q4_k.gguf").exists()


@pytest.mark.usefixtures("hub")
def test_rm_asks_on_a_terminal(
    stack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    llmctl_json(capsys, stack, "pull")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert run(["models", "rm", "llava", "-C", str(stack)]) == 1
    captured = capsys.readouterr()
    both = size_text(len(TEXT) + len(EYES))
    assert f"delete 2 files of llava ({both})? [y/N]" in captured.err
    assert captured.out == ""
    assert (stack / "models/ggml-model-q4_k.gguf").exists()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run(["models", "rm", "llava", "-C", str(stack)]) == 0
    assert f"llava: 2 files deleted, {both} free" in capsys.readouterr().out
    assert not (stack / "models/ggml-model-q4_k.gguf").exists()


@pytest.mark.usefixtures("hub")
def test_human_output(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "verify", "-C", str(stack)]) == 0
    assert "nothing was pulled yet" in capsys.readouterr().out
    assert run(["models", "pull", "-C", str(stack)]) == 0
    both = size_text(len(TEXT) + len(EYES))
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"llava: pulled 2 files, {both}",
        f"  models/ggml-model-q4_k.gguf  {size_text(len(TEXT))}",
        f"  models/mmproj-model-f16.gguf  {size_text(len(EYES))}",
    ]
    assert run(["models", "list", "-C", str(stack)]) == 0
    head, llava, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "MODEL", "LICENCE", "ON", "DISK", "REPOSITORY"]
    assert re.search(rf"^llava .* {both} +mys/ggml_llava-v1.5-7b$", llava)
    assert run(["models", "show", "llava", "-C", str(stack)]) == 0
    row = rf"models/mmproj-model-f16.gguf +{size_text(len(EYES))} +good"
    assert re.search(row, capsys.readouterr().out)
    assert run(["models", "pull", "-C", str(stack), "-o", "quiet"]) == 0
    assert capsys.readouterr() == (
        "models/ggml-model-q4_k.gguf\nmodels/mmproj-model-f16.gguf\n",
        "",
    )
