"""What runs, whether it answers, and whether it is what the stack file says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from llmctl import http
from llmctl.core.deployment import container_name
from llmctl.core.observed import ObservedService, spec_fields
from llmctl.core.services import LITELLM, LLAMA, LOCALAI, Backend
from llmctl.core.stack import Stack
from llmctl.engine.base import Engine
from llmctl.errors import LlmctlError
from llmctl.ops.choosing import kept_settings
from llmctl.ops.endpoint import endpoints
from llmctl.ops.measuring import Measured, measured
from llmctl.ops.readiness import Endpoints, loaded_models
from llmctl.paths import StackPaths

PROBE_S = 3.0


@dataclass(frozen=True)
class ServiceStatus:
    """One service.

    Attributes:
        service: Its name.
        state: The container's state, "missing" without one.
        ready: Whether it answers now.
        detail: Why not, or what is loaded.
        uptime_s: Seconds since it started, None when it does not run.
        image: Image reference.
    """

    service: str
    state: str
    ready: bool
    detail: str
    uptime_s: float | None
    image: str


@dataclass(frozen=True)
class Status:
    """A stack.

    Attributes:
        stack: Its name.
        services: What serves the models, and the gateway.
        models: (name, loaded) of each model.
        endpoint: Base URL with /v1.
        needs_key: Whether a client must send a key.
        memory: What each model was planned to take and what its engine reported, by model; for
            models whose settings came from a memory plan and whose engine said so.
    """

    stack: str
    services: tuple[ServiceStatus, ...]
    models: tuple[tuple[str, bool], ...]
    endpoint: str
    needs_key: bool
    memory: Mapping[str, Measured]

    @property
    def healthy(self) -> bool:
        """Every service answers and every model is in memory."""
        return all(s.ready for s in self.services) and all(loaded for _, loaded in self.models)


def status(paths: StackPaths, stack: Stack, engine: Engine) -> Status:
    """Look at a stack; changes nothing, and waits at most a few seconds."""
    found = {
        service.service: service
        for service in engine.observe(stack.name, ()).services
        if service.container == container_name(stack.name, service.service)
    }
    where = endpoints(paths, stack, engine.info().kind)
    loaded: set[str] = set()
    rows = []
    for backend in where.backends:
        names, answer = _backend(found.get(backend.service), backend)
        loaded |= names
        rows.append(_row(backend.service, found.get(backend.service), *answer))
    rows.append(_row(LITELLM, found.get(LITELLM), *_gateway(found.get(LITELLM), where)))
    return Status(
        stack=stack.name,
        services=tuple(rows),
        models=tuple((model.name, model.name in loaded) for model in stack.models),
        endpoint=f"{where.gateway}/v1",
        needs_key=stack.needs_key,
        memory=_memory(paths, loaded),
    )


def _memory(paths: StackPaths, loaded: Collection[str]) -> dict[str, Measured]:
    """What was measured of the models in memory, where it was with the settings that they have."""
    known = measured(paths)
    found = {}
    for name, choice in kept_settings(paths).items():
        one = known.get(choice.subject)
        if name in loaded and one and one.lines and one.choice == choice.key:
            found[name] = one
    return found


def _backend(
    service: ObservedService | None, backend: Backend
) -> tuple[frozenset[str], tuple[bool, str]]:
    """(models in memory, (whether it answers, what it says))."""
    if service is None or service.state != "running":
        return frozenset(), (False, "")
    path = "readyz" if backend.kind == "localai" else "health"
    try:
        reply = http.get(f"{backend.url}/{path}", timeout=PROBE_S)
        if not reply.ok:
            return frozenset(), (False, f"HTTP {reply.status}")
        loaded = loaded_models(backend) if backend.kind == "localai" else frozenset(backend.models)
    except LlmctlError as error:
        return frozenset(), (False, error.message)
    return loaded, (True, "loaded: " + (", ".join(sorted(loaded)) or "nothing"))


def _gateway(service: ObservedService | None, where: Endpoints) -> tuple[bool, str]:
    if service is None or service.state != "running":
        return False, ""
    try:
        reply = http.get(f"{where.gateway}/v1/models", key=where.key, timeout=PROBE_S)
    except LlmctlError as error:
        return False, error.message
    if not reply.ok:
        return False, f"HTTP {reply.status}"
    names = [str(entry.get("id")) for entry in reply.json().get("data") or []]
    return True, "serves: " + ", ".join(names)


def _row(name: str, service: ObservedService | None, ready: bool, detail: str) -> ServiceStatus:  # noqa: FBT001
    if service is None:
        return ServiceStatus(
            name, "missing", ready=False, detail="llmctl up", uptime_s=None, image=""
        )
    if service.state != "running" and service.exit_code is not None:
        detail = f"exit code {service.exit_code}: llmctl logs {name}"
    return ServiceStatus(
        name,
        service.state,
        ready,
        detail,
        _seconds_since(service.started) if service.state == "running" else None,
        str(spec_fields(service.spec).get("image", "")),
    )


def _seconds_since(moment: str | None) -> float | None:
    if not moment:
        return None
    # Docker writes nanoseconds; Python reads microseconds.
    whole, _, rest = moment.partition(".")
    started = datetime.fromisoformat(whole.rstrip("Z")).replace(tzinfo=UTC)
    del rest
    return max((datetime.now(UTC) - started).total_seconds(), 0.0)


def service_container(stack: Stack, service: str | None, engine: Engine) -> str:
    """The container of a service that a user names; the one that runs the models for None.

    Raises:
        LlmctlError: there is none; the message lists those there are.
    """
    names = sorted(found.service for found in engine.observe(stack.name, ()).services)
    if service is None:
        service = next((n for n in names if n == LOCALAI or n.startswith(LLAMA)), LOCALAI)
    if service not in names:
        there = f"there are {', '.join(names)}" if names else "nothing of this stack is there"
        raise LlmctlError(
            f'no service "{service}": {there}', hint="llmctl status" if names else "llmctl up"
        )
    return container_name(stack.name, service)
