"""After a load: what the engine said is kept, told when it surprises, and counted on next time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmctl import http
from llmctl.core.events import Event, Note
from llmctl.core.services import Backend
from llmctl.core.stack import Stack, resolve_stack
from llmctl.core.tuning import EngineSettings, Settled
from llmctl.errors import LlmctlError, OutOfMemoryError, UnhealthyError
from llmctl.ops import measuring, readiness, up
from llmctl.paths import StackPaths

MIB = 1 << 20
LOG = [
    "0.1 I srv    load_model: loading model '/models/m.gguf'",
    "0.2 I load_tensors:        CUDA0 model buffer size =  1000.00 MiB",
    "0.3 I sched_reserve:      CUDA0 compute buffer size =   {compute}.00 MiB",
]
LLAMA = Backend("llama-m", "llama", 1, ("m",))
LOCALAI = Backend("localai", "localai", 1, ("m",))


class Engine:
    """An engine of which only the logs are asked for."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def logs(self, container: str, *, tail: int | None, follow: bool) -> Iterator[str]:
        assert (container, tail, follow) == ("llmctl-llama-m", measuring.LOG_LINES, False)
        yield from self.lines


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    return StackPaths.at(tmp_path)


def stack() -> Stack:
    return resolve_stack(None, file="llmctl.yaml", environment={}, flags={}).stack


def choice(**changes: Any) -> Settled:
    fields: dict[str, Any] = {
        "key": "k",
        "settings": EngineSettings(4096, 4, 33),
        "reasons": (),
        "taken": {"card": 1100 * MIB},
        "fits": True,
        "terms": {"card": {"weights": 1000 * MIB, "compute": 100 * MIB}, "RAM": {"weights": 0}},
        "subject": "s",
    }
    return Settled(**{**fields, **changes})


def log(compute: int) -> list[str]:
    return [line.format(compute=compute) for line in LOG]


def record(paths: StackPaths, engine: Any, backend: Backend = LLAMA) -> list[Event]:
    events: list[Event] = []
    measuring.record(paths, stack(), engine, backend, {"m": choice()}, events.append)
    return events


def test_a_plan_that_held_is_kept_silently(paths: StackPaths) -> None:
    assert record(paths, Engine(log(101))) == []
    found = measuring.measured(paths)["s"]
    assert found.choice == "k"
    assert found.ratio == pytest.approx(1101 / 1100)
    assert found.less() == {"card": MIB}


def test_a_surprise_is_told(paths: StackPaths) -> None:
    (note,) = record(paths, Engine(log(300)))
    assert isinstance(note, Note)
    assert "m: takes 1.18 times the memory that was planned" in note.text


def test_localai_is_asked_for_its_backends_words(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = json.dumps([{"stream": "stderr", "text": line} for line in log(100)])

    def get(url: str, **_: object) -> http.Reply:
        assert url.endswith("/api/backend-logs/m")
        return http.Reply(url, 200, said.encode(), {}, 0.0)

    monkeypatch.setattr(http, "get", get)
    record(paths, Engine([]), LOCALAI)
    assert measuring.measured(paths)["s"].ratio == 1.0


def test_an_engine_that_says_nothing_leaves_nothing(paths: StackPaths) -> None:
    class Mute(Engine):
        def logs(self, *_: object, **__: object) -> Iterator[str]:
            raise LlmctlError("gone")

    assert record(paths, Engine(["hello"])) == record(paths, Mute([])) == []
    assert not paths.measured.exists()


def test_a_damaged_file_is_only_lost_knowledge(paths: StackPaths) -> None:
    record(paths, Engine(log(100)))
    for damage in ("{", "[]", '{"version": 1}', '{"version": 1, "measured": {"s": 1}}'):
        paths.measured.write_text(damage)
        assert measuring.measured(paths) == {}


def test_running_out_of_memory_adds_up(paths: StackPaths) -> None:
    record(paths, Engine(log(110)))
    assert measuring.ran_out(paths, choice())
    assert measuring.ran_out(paths, choice())
    found = measuring.measured(paths)["s"]
    assert found.short == {"card": 2 * 256 * MIB}
    assert found.less() == {"card": (512 + 10) * MIB}
    assert found.ratio is not None  # what was measured stays


def test_on_the_cpu_there_is_no_step_down(paths: StackPaths) -> None:
    assert not measuring.ran_out(paths, choice(terms={"RAM": {"weights": 1}}))
    assert not paths.measured.exists()


@pytest.mark.parametrize("words", ["cudaMalloc failed: out of memory", "failed to create context"])
def test_readiness_knows_want_of_memory(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = http.Reply("u", 500, json.dumps({"message": words}).encode(), {}, 0.0)
    monkeypatch.setattr(http, "post_json", lambda *_, **__: reply)
    monkeypatch.setattr(readiness, "loaded_models", lambda _: frozenset())
    engine: Any = SimpleNamespace(logs=lambda *_, **__: iter(()))
    watch = readiness.Watch(engine, "c", 1e12, 1.0, lambda _event: None)
    with pytest.raises(OutOfMemoryError) as caught:
        readiness._load("m", LOCALAI, watch)
    assert caught.value.model == "m"
    assert "llmctl fit" in (caught.value.hint or "")


def survey_with(settings: EngineSettings) -> Any:
    return SimpleNamespace(
        settled={"m": choice(settings=settings)}, paths="p", stack="s", deployment=settings
    )


def failure() -> OutOfMemoryError:
    error = OutOfMemoryError("no room")
    error.model = "m"
    return error


def test_up_takes_one_step_down(monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = survey_with(EngineSettings(4096, 4, 20))
    kept: list[Any] = []
    monkeypatch.setattr(up, "step_down", lambda _paths, model: model == "m")
    monkeypatch.setattr(up, "survey", lambda *_, **__: smaller)
    monkeypatch.setattr(up, "keep", lambda _paths, found, _listen: kept.append(found))
    rendered: list[Any] = []
    monkeypatch.setattr(up, "keep_rendered", lambda _paths, made: rendered.append(made))
    events: list[Event] = []
    engine: Any = None
    found = up._one_step_down(
        survey_with(EngineSettings(4096, 4, 33)), failure(), engine, events.append
    )
    assert found is smaller
    assert kept == [smaller.settled]
    assert rendered == [smaller.deployment]
    (note,) = events
    assert isinstance(note, Note)
    assert note.warning
    assert "ran out of memory while loading" in note.text


@pytest.mark.parametrize("can", [True, False])
def test_without_a_smaller_choice_the_error_stays(
    monkeypatch: pytest.MonkeyPatch,
    can: bool,
) -> None:
    same = survey_with(EngineSettings(4096, 4, 33))
    monkeypatch.setattr(up, "step_down", lambda *_: can)
    monkeypatch.setattr(up, "survey", lambda *_, **__: same)
    error, engine = failure(), None
    with pytest.raises(UnhealthyError) as caught:
        up._one_step_down(same, error, engine, lambda _event: None)  # type: ignore[arg-type]
    assert caught.value is error
