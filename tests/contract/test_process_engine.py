"""What the process engine adds to the contract: supervision, and pids that are not mixed up."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from llmctl.core.deployment import ServiceSpec
from llmctl.engine import process as module
from llmctl.engine.process import ProcessEngine
from llmctl.engine.supervise import STATE, identity, read_json, same_process, write_json
from llmctl.errors import EngineError, ImageNotFoundError

DEADLINE_S = 20.0
NAME = "s-web"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ProcessEngine]:
    found = ProcessEngine(tmp_path)
    yield found
    for service in found.observe("s", ()).services:
        found.remove(service.container)


def start(engine: ProcessEngine, *command: str, **environment: str) -> None:
    spec = ServiceSpec("web", "psutil", command=command, environment=tuple(environment.items()))
    engine.create("s", "/d", "", spec, NAME)
    engine.start(NAME)


def state(tmp_path: Path) -> dict[str, object]:
    return read_json(tmp_path / NAME / STATE)


def pid(tmp_path: Path, who: str) -> int:
    found = state(tmp_path)[who]
    assert isinstance(found, dict)
    return int(found["pid"])


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_crashed_service_is_started_again(engine: ProcessEngine, tmp_path: Path) -> None:
    start(engine, "sh", "-c", "echo started; sleep 600")
    first = pid(tmp_path, "child")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: pid(tmp_path, "child") != first and state(tmp_path)["state"] == "running")
    lines = list(engine.logs(NAME, tail=None, follow=False))
    assert lines == ["started", "supervisor: ended with 137, again in 0.5 s", "started"]


def test_a_service_that_always_crashes_shows_as_restarting(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    start(engine, "sh", "-c", "exit 3")
    eventually(lambda: state(tmp_path).get("state") == "restarting")
    seen = engine.inspect(NAME)
    assert seen is not None
    assert seen.state in {"restarting", "running"}
    engine.stop(NAME)
    seen = engine.inspect(NAME)
    assert seen is not None
    assert (seen.state, seen.exit_code) == ("exited", 3)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_killed_supervisor_takes_its_child_along(engine: ProcessEngine, tmp_path: Path) -> None:
    start(engine, "sleep", "600")
    child = state(tmp_path)["child"]
    os.kill(pid(tmp_path, "supervisor"), signal.SIGKILL)
    eventually(lambda: not same_process(child))
    seen = engine.inspect(NAME)
    assert seen is not None
    assert seen.state == "dead"
    engine.start(NAME)
    eventually(lambda: state(tmp_path).get("state") == "running")


def test_what_the_child_started_ends_with_it(engine: ProcessEngine, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    start(engine, "sh", "-c", f"sleep 600 & echo $! > {note}; wait")
    eventually(lambda: note.exists() and note.read_text(encoding="utf-8").strip() != "")
    grandchild = identity(int(note.read_text(encoding="utf-8")))
    assert grandchild is not None
    engine.remove(NAME)
    eventually(lambda: not same_process(grandchild))


def test_a_reused_pid_is_never_signalled(engine: ProcessEngine, tmp_path: Path) -> None:
    """The recorded pid belongs to somebody else now: here to this very test."""
    start(engine, "sleep", "600")
    real = state(tmp_path)
    mine = {"pid": os.getpid(), "start": psutil.Process().create_time() - 3600}
    write_json(tmp_path / NAME / STATE, real | {"supervisor": mine, "child": mine})
    seen = engine.inspect(NAME)
    assert seen is not None
    assert seen.state == "dead"
    engine.stop(NAME)  # would end the test run
    write_json(tmp_path / NAME / STATE, real)


def test_the_users_secrets_do_not_reach_a_service(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    start(engine, "env", GREETING="こんにちは")
    eventually(
        lambda: any("GREETING" in line for line in engine.logs(NAME, tail=None, follow=False))
    )
    text = "\n".join(engine.logs(NAME, tail=None, follow=False))
    assert "GREETING=こんにちは" in text
    assert "hf_secret" not in text


def test_a_program_that_is_not_there_is_named(engine: ProcessEngine) -> None:
    with pytest.raises(EngineError, match="could not start s-web") as caught:
        start(engine, "/no/such/program")
    assert "/no/such/program" in caught.value.message


def test_a_compromised_release_is_refused(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_version", lambda _name: "1.82.7")
    with pytest.raises(EngineError, match="litellm 1.82.7 must not be used"):
        engine.pull_image("litellm", print)


def test_a_missing_package_is_named_with_the_command(engine: ProcessEngine) -> None:
    with pytest.raises(ImageNotFoundError, match="no-such-package is not installed") as caught:
        engine.pull_image("no-such-package", print)
    assert caught.value.hint == "pip install 'llmctl[local]'"


def test_logs_follow_until_the_end(engine: ProcessEngine) -> None:
    start(engine, "sh", "-c", "echo 一; sleep 0.5; echo 二; sleep 600")
    lines = engine.logs(NAME, tail=None, follow=True)
    assert [next(lines), next(lines)] == ["一", "二"]
    engine.stop(NAME)
    assert list(lines) == []


def test_damaged_files_are_not_fatal(engine: ProcessEngine, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "spec.json").write_text("{", encoding="utf-8")
    assert engine.observe("s", ()).services == ()
    assert json.dumps(read_json(tmp_path / "nothing")) == "{}"
