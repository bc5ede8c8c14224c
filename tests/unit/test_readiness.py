"""Waiting for services: what is asked, and what is said when the answer never comes."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from llmctl.core.deployment import ServiceSpec
from llmctl.core.events import silent
from llmctl.core.secret import Secret
from llmctl.core.services import Backend
from llmctl.errors import UnhealthyError
from llmctl.ops.readiness import Endpoints, Watch, wait_for
from tests.fakes import FakeEngine
from tests.peer import Request, Response, as_json, closed_port, peer

Answers = dict[str, Any]
GOOD: Answers = {
    "GET /readyz": [Response(503), Response(200)],
    "GET /system": as_json({"backends": ["llama-cpp"], "loaded_models": []}),
    "POST /backend/load": as_json({"loaded": ["llava"]}),
    "GET /health/liveliness": as_json("I'm alive!"),
    "GET /v1/models": as_json({"data": [{"id": "llava"}]}),
    "POST /v1/chat/completions": as_json({"choices": [{"message": {"content": "OK"}}]}),
}


class Script:
    """Answers by method and path; a list is worked off, its last entry repeats."""

    def __init__(self, **changed: Any) -> None:
        self.answers = {**GOOD, **changed}

    def __call__(self, request: Request) -> Response:
        found = self.answers[f"{request.method} {request.path}"]
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]  # type: ignore[no-any-return]
        return found  # type: ignore[no-any-return]


def watch(engine: FakeEngine, container: str = "s-localai", budget_s: float = 20) -> Watch:
    return Watch(engine, container, time.monotonic() + budget_s, budget_s, silent)


@pytest.fixture
def engine() -> FakeEngine:
    fake = FakeEngine(images=("a:1",))
    fake.create_network("s", "s")
    for service in ("localai", "litellm"):
        fake.create("s", "/d", "s", ServiceSpec(service, "a:1"), f"s-{service}")
        fake.start(f"s-{service}")
    return fake


def endpoints(url: str, key: Secret | None = None) -> Endpoints:
    port = int(url.rpartition(":")[2])
    return Endpoints((Backend("localai", "localai", port, ("llava",)),), url, key, ("llava",))


def failure(service: str, engine: FakeEngine, **changed: Any) -> UnhealthyError:
    with peer(Script(**changed)) as found, pytest.raises(UnhealthyError) as caught:
        wait_for(service, endpoints(found.url), watch(engine, f"s-{service}"))
    return caught.value


def test_localai_is_ready_when_the_model_is_loaded(engine: FakeEngine) -> None:
    with peer(Script()) as found:
        wait_for("localai", endpoints(found.url), watch(engine))
        asked = [f"{r.method} {r.path}" for r in found.requests]
    assert asked == [
        "GET /readyz",
        "GET /readyz",
        "GET /system",
        "GET /system",
        "POST /backend/load",
    ]
    assert found.requests[-1].document == {"model": "llava"}


def test_a_loaded_model_is_not_loaded_again(engine: FakeEngine) -> None:
    loaded = as_json({"backends": ["cuda12-llama-cpp"], "loaded_models": [{"id": "llava"}]})
    with peer(Script(**{"GET /system": loaded})) as found:
        wait_for("localai", endpoints(found.url), watch(engine))
    assert "POST" not in {r.method for r in found.requests}


def test_a_server_without_its_backend_is_not_ready(engine: FakeEngine) -> None:
    error = failure("localai", engine, **{"GET /system": as_json({"backends": []})})
    assert "without its llama.cpp backend" in error.message


def test_the_first_load_error_is_kept_and_never_asked_for_twice(engine: FakeEngine) -> None:
    words = (
        "Failed to load model: /models/a.gguf (with mmproj: /models/b.gguf): unknown projector type"
    )
    refusal = as_json({"error": {"code": 500, "message": words, "type": ""}}, 500)
    cooldown = as_json({"error": {"message": "in cooldown"}}, 503)
    error = failure("localai", engine, **{"POST /backend/load": [refusal, cooldown]})
    assert "states no type" in error.message
    assert words in (error.details or "")
    assert "localai started" in (error.details or "")  # the last log lines


def test_a_container_that_died_is_named_with_its_last_lines(engine: FakeEngine) -> None:
    found = engine.containers["s-localai"]
    found.seen = dataclasses.replace(found.seen, state="exited", exit_code=137)
    found.lines.append("Killed")
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(UnhealthyError) as caught:
        wait_for("localai", endpoints(url), watch(engine))
    assert caught.value.message == (
        "s-localai died while it started (state exited with exit code 137)"
    )
    assert "want of memory" in (caught.value.hint or "")
    assert (caught.value.details or "").endswith("Killed")


def test_a_container_that_is_just_being_restarted_gets_its_chance(engine: FakeEngine) -> None:
    found = engine.containers["s-localai"]
    running = found.seen
    found.seen = dataclasses.replace(running, state="restarting")

    def answer(request: Request) -> Response:
        if found.seen.state == "restarting":
            found.seen = running
            return Response(503)
        return script(request)

    script = Script()
    with peer(answer) as service:
        wait_for("localai", endpoints(service.url), watch(engine))


def test_a_crash_loop_is_given_up_long_before_the_deadline(engine: FakeEngine) -> None:
    found = engine.containers["s-localai"]
    found.seen = dataclasses.replace(found.seen, state="restarting")
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(UnhealthyError, match="died while it started .state restarting"):
        wait_for("localai", endpoints(url), watch(engine, budget_s=600))


def test_the_deadline_names_what_came_last(engine: FakeEngine) -> None:
    with (
        peer(Script(**{"GET /readyz": Response(503, b"starting")})) as found,
        pytest.raises(UnhealthyError) as caught,
    ):
        wait_for("localai", endpoints(found.url), watch(engine, budget_s=0.3))
    assert "was not ready within 0 s (HTTP 503: starting)" in caught.value.message
    assert "--timeout" in (caught.value.hint or "")


def test_the_gateway_is_ready_when_an_answer_came_through_it(engine: FakeEngine) -> None:
    with peer(Script()) as found:
        wait_for("litellm", endpoints(found.url, Secret("sk-x")), watch(engine, "s-litellm"))
    asked = [f"{r.method} {r.path}" for r in found.requests]
    assert asked == ["GET /health/liveliness", "GET /v1/models", "POST /v1/chat/completions"]
    assert found.requests[-1].headers["authorization"] == "Bearer sk-x"
    assert found.requests[-1].document["max_tokens"] == 1


def test_a_gateway_that_does_not_list_the_model_is_not_ready(engine: FakeEngine) -> None:
    error = failure("litellm", engine, **{"GET /v1/models": as_json({"data": [{"id": "other"}]})})
    assert "does not know llava; it lists other" in error.message


def test_a_gateway_without_its_engine_is_not_ready(engine: FakeEngine) -> None:
    words = {"error": {"message": "Connection error to localai:8080"}}
    error = failure("litellm", engine, **{"POST /v1/chat/completions": as_json(words, 500)})
    assert "does not answer through the gateway: HTTP 500" in error.message
    assert error.details == "Connection error to localai:8080"
