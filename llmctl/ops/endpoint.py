"""Where a stack's services answer, seen from this machine."""

from __future__ import annotations

from llmctl.core.services import Hop, backends
from llmctl.core.stack import LOOPBACK, Stack
from llmctl.ops.engines import connect, kind_of
from llmctl.ops.keys import key_in_use
from llmctl.ops.readiness import Endpoints
from llmctl.paths import StackPaths

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def endpoints(
    paths: StackPaths, stack: Stack, kind: str | None = None, host_gateway: str | None = None
) -> Endpoints:
    """Base URLs, key and models of a stack.

    Args:
        paths: Its directory, for the key.
        stack: What the user wants.
        kind: The engine's kind if it is known, else the engine is looked for.
        host_gateway: The engine's bridge address if it is known; else the engine is asked, and
            only when the gateway listens there alone.
    """
    return Endpoints(
        backends=backends(stack, kind or kind_of(paths, stack)),
        gateway=gateway_url(paths, stack, host_gateway),
        key=key_in_use(paths, stack),
        models=tuple(model.name for model in stack.models),
    )


def gateway_url(paths: StackPaths, stack: Stack, host_gateway: str | None = None) -> str:
    """The gateway's base URL without /v1, on loopback when it listens there."""
    hosts = [_EVERYWHERE.get(host, host) for host in stack.gateway_hosts]
    host = next((host for host in hosts if host in LOOPBACK), hosts[0])
    if host == "host-gateway":
        host = host_gateway or connect(paths, stack).info().host_gateway or "127.0.0.1"
    bracketed = f"[{host}]" if ":" in host else host
    return f"http://{bracketed}:{stack.gateway_port}"


def hops(paths: StackPaths, stack: Stack) -> tuple[Hop, ...]:
    """The way of a request, engine first: where each stage can be asked directly."""
    found = endpoints(paths, stack)
    direct = [
        Hop("engine", f"{backend.url}/v1", None, backend.models) for backend in found.backends
    ]
    return (*direct, Hop("gateway", f"{found.gateway}/v1", found.key, found.models))
