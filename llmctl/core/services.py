"""The services of a stack by engine: their names, and where each answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.deployment import Rendered
from llmctl.core.hostfacts import GpuChoice, HostFacts
from llmctl.core.secret import Secret
from llmctl.core.stack import Stack

LOCALAI = "localai"
LITELLM = "litellm"
INSTALL = "localai-backend"
LLAMA = "llama"
LOCALAI_PORT = 8080
LITELLM_PORT = 4000


@dataclass(frozen=True)
class Backend:
    """What answers behind the gateway.

    Attributes:
        service: Name of the service.
        kind: "localai" (several models, loaded on request) or "llama" (llama.cpp's server, one model).
        port: Port on 127.0.0.1 of the host.
        models: Names of the models it serves.
    """

    service: str
    kind: str
    port: int
    models: tuple[str, ...]

    @property
    def url(self) -> str:
        """Its base URL from the host, without /v1."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Hop:
    """A place where the model can be asked.

    Attributes:
        name: "engine" (directly) or "gateway" (through LiteLLM).
        base_url: Up to and including /v1.
        key: Sent as a bearer token.
        models: The models that can be asked there, None for all.
    """

    name: str
    base_url: str
    key: Secret | None = None
    models: tuple[str, ...] | None = None


def backends(stack: Stack, engine: str) -> tuple[Backend, ...]:
    """One LocalAI for all models in Docker; one llama.cpp server a model as local processes.

    The latter take consecutive ports from `localai.port` on, and carry the model's name when there
    are several.
    """
    names = tuple(model.name for model in stack.models)
    if engine != "process":
        return (Backend(LOCALAI, "localai", stack.localai_port, names),)
    if len(names) == 1:
        return (Backend(LLAMA, "llama", stack.localai_port, names),)
    return tuple(
        Backend(f"{LLAMA}-{name}", "llama", stack.localai_port + i, (name,))
        for i, name in enumerate(names)
    )


def api_base(stack: Stack, engine: str, model: str) -> str:
    """Where the gateway finds a model: by name on the stack's network, or on the host's loopback."""
    if engine != "process":
        return f"http://{LOCALAI}:{LOCALAI_PORT}/v1"
    (found,) = [b for b in backends(stack, engine) if model in b.models]
    return f"{found.url}/v1"


@dataclass(frozen=True)
class Surroundings:
    """What a deployment depends on besides the stack.

    Attributes:
        directory: Absolute path of the stack directory on the engine's host.
        host: Facts about the host.
        gpu: The GPU that was chosen.
        machine: The engine's architecture, "amd64" or "arm64".
        host_gateway: Address at which containers reach the host, None when unknown.
        key_digest: Digest of the gateway key, None when there is none.
        key_file: Absolute path of the key file.
        templates: Template name -> (origin, text).
        engine: Kind of the engine, "docker" or "process".
        python: The interpreter that runs local processes; its directory holds `litellm`.
        rendered: What was rendered the last time, None when that is not known.
    """

    directory: str
    host: HostFacts
    gpu: GpuChoice
    machine: str
    host_gateway: str | None
    key_digest: str | None
    key_file: str
    templates: Mapping[str, tuple[str, str]]
    engine: str = "docker"
    python: str = ""
    rendered: Rendered | None = None
