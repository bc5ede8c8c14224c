"""What runs, whether it answers, and whether it is what the stack file says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from llmctl import http
from llmctl.core.deployment import container_name
from llmctl.core.observed import ObservedService, spec_fields
from llmctl.core.resolve import INSTALL, LITELLM, LOCALAI
from llmctl.core.stack import Stack
from llmctl.engine.base import Engine
from llmctl.errors import LlmctlError
from llmctl.ops.endpoint import endpoints
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
        services: LocalAI and LiteLLM.
        models: (name, loaded) of each model.
        endpoint: Base URL with /v1.
        needs_key: Whether a client must send a key.
    """

    stack: str
    services: tuple[ServiceStatus, ...]
    models: tuple[tuple[str, bool], ...]
    endpoint: str
    needs_key: bool

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
    where = _where(paths, stack)
    loaded, localai = _localai(found.get(LOCALAI), where)
    gateway = _gateway(found.get(LITELLM), where)
    return Status(
        stack=stack.name,
        services=(
            _row(LOCALAI, found.get(LOCALAI), *localai),
            _row(LITELLM, found.get(LITELLM), *gateway),
        ),
        models=tuple((model.name, model.name in loaded) for model in stack.models),
        endpoint=f"{where.gateway}/v1",
        needs_key=stack.needs_key,
    )


def _where(paths: StackPaths, stack: Stack) -> Endpoints:
    return endpoints(paths, stack)


def _localai(
    service: ObservedService | None, where: Endpoints
) -> tuple[frozenset[str], tuple[bool, str]]:
    if service is None or service.state != "running":
        return frozenset(), (False, "")
    try:
        reply = http.get(f"{where.localai}/readyz", timeout=PROBE_S)
        if not reply.ok:
            return frozenset(), (False, f"HTTP {reply.status}")
        loaded = loaded_models(where)
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


def service_container(stack: Stack, service: str) -> str:
    """The container of a service a user may name: localai, litellm, or the install job."""
    if service not in (LOCALAI, LITELLM, INSTALL):
        raise LlmctlError(f'no service "{service}"', hint=f"one of {LOCALAI}, {LITELLM}, {INSTALL}")
    return container_name(stack.name, service)
