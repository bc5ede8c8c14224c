"""Wait until a service really answers: not "the container runs", but "the model replied".

LocalAI's port stays closed until it is ready, its /readyz says nothing about the model, and the
gateway's /health/readiness is 200 with the engine down; each step here asks for the thing itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llmctl import http
from llmctl.core.events import Listener, Progress, Step
from llmctl.core.load_errors import explain_load_failure, is_out_of_memory
from llmctl.core.secret import Secret
from llmctl.core.services import LITELLM, Backend
from llmctl.engine.base import Engine
from llmctl.errors import LlmctlError, OutOfMemoryError, UnhealthyError

POLL_S = 0.05
STATE_EVERY_S = 0.5
RESTARTS_SEEN = 3  # looks at a restarting container, half a second apart, before it is given up
REQUEST_TIMEOUT_S = 10.0
LOG_LINES = 25
SIGKILLED = 137  # 128 + SIGKILL


@dataclass(frozen=True)
class Endpoints:
    """Where the services answer, from this machine.

    Attributes:
        backends: What serves the models behind the gateway.
        gateway: Base URL without /v1.
        key: The gateway's key, None when it is open.
        models: Names of the models served.
    """

    backends: tuple[Backend, ...]
    gateway: str
    key: Secret | None
    models: tuple[str, ...]


@dataclass(frozen=True)
class Watch:
    """One wait: on which container, until when, and who hears of it.

    Attributes:
        engine: Who knows the container's state.
        container: Its name.
        deadline_s: `time.monotonic()` value after which the wait has failed.
        budget_s: The length of the whole wait, for the message.
        listen: Hears the progress.
    """

    engine: Engine
    container: str
    deadline_s: float
    budget_s: float
    listen: Listener

    def left(self) -> float:
        """Seconds until the deadline, at least a moment."""
        return max(self.deadline_s - time.monotonic(), 0.1)


def wait_for(service: str, endpoints: Endpoints, watch: Watch) -> None:
    """Wait until the service does its work.

    Raises:
        UnhealthyError: its container died, the deadline passed, or it answers with an error; the
            message carries the first error and the last log lines.
    """
    if service == LITELLM:
        _gateway_ready(endpoints, watch)
        for model in endpoints.models:
            _one_token(model, endpoints, watch)
        return
    (backend,) = [b for b in endpoints.backends if b.service == service]
    if backend.kind == "localai":
        _localai_ready(backend, watch)
        for model in backend.models:
            _load(model, backend, watch)
    else:
        # llama.cpp's server answers 200 only once its model is in memory.
        with ticking(watch.listen, f"load {', '.join(backend.models)}"):
            try:
                _poll(f"{backend.url}/health", None, watch)
            except OutOfMemoryError as error:
                (error.model,) = backend.models
                raise


def _localai_ready(backend: Backend, watch: Watch) -> None:
    with ticking(watch.listen, "LocalAI starts"):
        _poll(f"{backend.url}/readyz", None, watch)
    system = _system(backend)
    backends = system.get("backends") or []
    if not any("llama-cpp" in str(name) for name in backends):
        raise UnhealthyError(
            "LocalAI runs without its llama.cpp backend: no model can be loaded",
            hint="llmctl down --volumes && llmctl up   # installs the backend again",
            details=f"GET /system: backends = {json.dumps(backends)}",
        )


def _system(backend: Backend) -> dict[str, Any]:
    reply = http.get(f"{backend.url}/system", timeout=REQUEST_TIMEOUT_S)
    if not reply.ok:
        raise UnhealthyError(
            f"{reply.url}: HTTP {reply.status}",
            hint="llmctl logs localai",
            details=reply.text[:500],
        )
    found = reply.json()
    return found if isinstance(found, dict) else {}


def loaded_models(backend: Backend) -> frozenset[str]:
    """Names of the models that LocalAI has in memory."""
    listed = _system(backend).get("loaded_models") or []
    return frozenset(str(entry.get("id")) for entry in listed if isinstance(entry, dict))


def _load(model: str, backend: Backend, watch: Watch) -> None:
    if model in loaded_models(backend):
        return
    watch.listen(Step(f"load {model} into memory"))
    with ticking(watch.listen, f"load {model}"):
        try:
            # One request, never repeated: LocalAI tells the cause once, then only "in cooldown".
            reply = http.post_json(
                f"{backend.url}/backend/load", {"model": model}, timeout=watch.left()
            )
        except http.UnreachableError as error:
            raise _died_or(error, watch) from error
    if not reply.ok:
        words = _error_text(reply)
        logs = last_lines(watch.engine, watch.container)
        cause, hint = explain_load_failure(words, "\n".join(logs))
        full = is_out_of_memory("\n".join([words, *logs]))
        failed = (OutOfMemoryError if full else UnhealthyError)(
            f"LocalAI could not load {model}: {cause}",
            hint=hint,
            details="\n".join([f"HTTP {reply.status}: {words}", *logs]),
        )
        if isinstance(failed, OutOfMemoryError):
            failed.model = model
        raise failed


def _gateway_ready(endpoints: Endpoints, watch: Watch) -> None:
    with ticking(watch.listen, "LiteLLM starts"):
        _poll(f"{endpoints.gateway}/health/liveliness", None, watch)
    reply = http.get(f"{endpoints.gateway}/v1/models", key=endpoints.key, timeout=REQUEST_TIMEOUT_S)
    if not reply.ok:
        raise UnhealthyError(
            f"the gateway does not list its models: HTTP {reply.status}",
            hint="llmctl logs litellm",
            details=_error_text(reply),
        )
    listed = {str(entry.get("id")) for entry in reply.json().get("data") or []}
    missing = [model for model in endpoints.models if model not in listed]
    if missing:
        raise UnhealthyError(
            f"the gateway does not know {', '.join(missing)}; it lists {', '.join(sorted(listed))}",
            hint="llmctl config render --check   # does litellm/litellm.yaml name it?",
        )


def _one_token(model: str, endpoints: Endpoints, watch: Watch) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say OK."}],
        "max_tokens": 1,
        "temperature": 0,
    }
    with ticking(watch.listen, f"first answer of {model}"):
        try:
            reply = http.post_json(
                f"{endpoints.gateway}/v1/chat/completions",
                body,
                key=endpoints.key,
                timeout=watch.left(),
            )
        except http.UnreachableError as error:
            raise _died_or(error, watch) from error
    if not reply.ok or not reply.json().get("choices"):
        raise UnhealthyError(
            f"{model} does not answer through the gateway: HTTP {reply.status}",
            hint="llmctl logs localai; llmctl logs litellm",
            details=_error_text(reply),
        )


def _poll(url: str, key: Secret | None, watch: Watch) -> None:
    """Ask until 200, looking at the container now and then; refused and 503 mean "not yet"."""
    look = 0.0
    restarts = 0
    last = "no answer"
    while True:
        try:
            reply = http.get(url, key=key, timeout=REQUEST_TIMEOUT_S)
        except http.UnreachableError as error:
            last = str(error)
        else:
            if reply.ok:
                return
            last = f"HTTP {reply.status}: {reply.text[:200]}"
        now = time.monotonic()
        if now >= look:
            restarts += _is_restarting(watch, restarts < RESTARTS_SEEN)
            look = now + STATE_EVERY_S
        if now >= watch.deadline_s:
            logs = last_lines(watch.engine, watch.container)
            raise UnhealthyError(
                f"{watch.container} was not ready within {watch.budget_s:.0f} s ({last})",
                hint=f"llmctl up --timeout {2 * watch.budget_s:.0f}   # when it is only slow",
                details="\n".join(logs),
            )
        time.sleep(POLL_S)


def _is_restarting(watch: Watch, once_more: bool) -> bool:  # noqa: FBT001
    """Whether the engine is starting the container again; raise when it has ended for good.

    One restart may be the cure of what happened before we looked; with `once_more` false another one
    is taken for a crash loop.
    """
    found = watch.engine.inspect(watch.container)
    if found is None:
        raise UnhealthyError(f"{watch.container} was removed while it started", hint="llmctl up")
    if found.state in {"running", "created"}:
        return False
    if found.state == "restarting" and once_more:
        return True
    code = f" with exit code {found.exit_code}" if found.exit_code is not None else ""
    killed = "\nexit code 137: it was killed, most often for want of memory" * (
        found.exit_code == SIGKILLED
    )
    logs = "\n".join(last_lines(watch.engine, watch.container))
    raise (OutOfMemoryError if is_out_of_memory(logs) else UnhealthyError)(
        f"{watch.container} died while it started (state {found.state}{code})",
        hint=f"llmctl logs {found.service}{killed}",
        details=logs,
    )


def _died_or(error: http.UnreachableError, watch: Watch) -> LlmctlError:
    """The container's death as the cause of a broken request, or the broken request itself."""
    try:
        _is_restarting(watch, once_more=False)
    except UnhealthyError as death:
        return death
    return error


def last_lines(engine: Engine, container: str, count: int = LOG_LINES) -> list[str]:
    """The last log lines; none when they cannot be read, since they are only evidence."""
    try:
        return list(engine.logs(container, tail=count, follow=False))
    except LlmctlError:
        return []


def _error_text(reply: http.Reply) -> str:
    """The message inside an OpenAI-style error, else the body's beginning.

    LocalAI's /backend/load answers with a bare {"message": ...}.
    """
    try:
        body = json.loads(reply.text)
        error = body.get("error", body)
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, AttributeError):
        return reply.text[:1000]


@contextmanager
def ticking(listen: Listener, task: str) -> Iterator[None]:
    """Tell each second how long something has taken that cannot say so itself."""
    began = time.monotonic()
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1.0):
            listen(Progress(task, time.monotonic() - began, unit="s"))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        over.set()
        thread.join()
        raise
    over.set()
    thread.join()
    listen(Progress(task, time.monotonic() - began, unit="s", finished=True))
