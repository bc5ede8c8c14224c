"""The services of a stack as local processes: llama.cpp's own server for each model, and LiteLLM."""

from __future__ import annotations

from llmctl.core.artifact import Artifact
from llmctl.core.deployment import Deployment, Port, RenderedFile, ServiceSpec
from llmctl.core.render import LITELLM_FILE
from llmctl.core.services import LITELLM, Backend, Surroundings, backends
from llmctl.core.stack import Stack
from llmctl.errors import ConfigError

# `$1` is the key file: the key reaches the proxy's environment, and no command line.
_KEYED_START = 'LITELLM_MASTER_KEY="$(cat "$1")" && export LITELLM_MASTER_KEY && shift && exec "$@"'


def processes(
    stack: Stack,
    artifacts: tuple[Artifact, ...],
    around: Surroundings,
    files: tuple[RenderedFile, ...],
) -> Deployment:
    """What runs as local processes for a stack with these rendered files.

    Raises:
        ConfigError: an address that only Docker can offer, or ports that meet.
    """
    served = backends(stack, "process")
    if stack.gateway_port in {backend.port for backend in served}:
        raise ConfigError(
            f"gateway.port {stack.gateway_port} is also the port of a model (localai.port and up)",
            hint="localai: {port: 28080}",
        )
    return Deployment(
        stack=stack.name,
        directory=around.directory,
        services=(
            *(
                _llama(backend, artifact, around, files)
                for backend, artifact in zip(served, artifacts, strict=True)
            ),
            _litellm(stack, around, files),
        ),
    )


def _llama(
    backend: Backend, artifact: Artifact, around: Surroundings, files: tuple[RenderedFile, ...]
) -> ServiceSpec:
    config = f"models/{artifact.name}.yaml"
    mine = {config, f"models/{artifact.name}.tmpl"}
    weights = [(f"models/{f.path}", f.sha256 or "") for f in artifact.files]
    return ServiceSpec(
        service=backend.service,
        image="xllamacpp",
        command=(
            around.python,
            "-m",
            "llmctl.llama_server",
            "--config",
            f"{around.directory}/{config}",
            "--port",
            str(backend.port),
        ),
        ports=(Port("127.0.0.1", backend.port, backend.port),),
        files=tuple(sorted(weights + [(f.path, f.sha256) for f in files if f.path in mine])),
    )


def _litellm(stack: Stack, around: Surroundings, files: tuple[RenderedFile, ...]) -> ServiceSpec:
    host = _only_host(stack)
    program = (
        f"{around.python.rpartition('/')[0]}/litellm",
        "--config",
        f"{around.directory}/{LITELLM_FILE}",
        "--host",
        host,
        "--port",
        str(stack.gateway_port),
    )
    keyed = around.key_digest is not None
    (config,) = [f for f in files if f.path == LITELLM_FILE]
    return ServiceSpec(
        service=LITELLM,
        image="litellm",
        entrypoint=("/bin/sh", "-c") if keyed else (),
        command=(_KEYED_START, "litellm", around.key_file, *program) if keyed else program,
        environment=(
            # The bundled price list: fetching a fresh one delays an offline start by 10 s.
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
            ("LITELLM_TELEMETRY", "False"),
        ),
        ports=(Port(host, stack.gateway_port, stack.gateway_port),),
        files=((config.path, config.sha256),),
        secrets=(("gateway.key", around.key_digest),) if around.key_digest else (),
    )


def _only_host(stack: Stack) -> str:
    if len(stack.gateway_hosts) > 1 or "host-gateway" in stack.gateway_hosts:
        raise ConfigError(
            "gateway.host: a local process listens on one address, not on "
            + ", ".join(stack.gateway_hosts),
            hint="gateway: {host: 0.0.0.0}   # asks for a key; or engine: docker",
        )
    return stack.gateway_hosts[0]
