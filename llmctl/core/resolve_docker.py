"""The services of a stack as containers: LocalAI, the installation of its backend, LiteLLM."""

from __future__ import annotations

import hashlib

from llmctl.core.artifact import Artifact
from llmctl.core.deployment import (
    Deployment,
    GpuRequest,
    Healthcheck,
    Mount,
    Port,
    RenderedFile,
    ServiceSpec,
)
from llmctl.core.services import (
    INSTALL,
    LITELLM,
    LITELLM_PORT,
    LOCALAI,
    LOCALAI_PORT,
    Surroundings,
)
from llmctl.core.stack import Stack
from llmctl.errors import ConfigError

LOCALAI_VERSION = "v4.9.0"
KEY_TARGET = "/run/secrets/gateway.key"

# Image tag and the backend variant that LocalAI chooses inside it.
_VARIANTS = {
    "none": ("", "cpu"),
    "nvidia": ("-gpu-nvidia-cuda-12", "cuda12"),
    "amd": ("-gpu-hipblas", "rocm"),
    "intel": ("-gpu-intel", "intel"),
    "vulkan": ("-gpu-vulkan", "vulkan"),
}
_ARM64_IMAGES = {"none", "vulkan"}

# The receipt lies in the volume it speaks for, so that a new container needs no network and no
# gallery to know that the backend is there. `$@` are the arguments of `backends install`.
_INSTALL_SCRIPT = (
    "receipt=/backends/.llmctl-installed; "
    'if [ -e "$receipt" ]; then echo "already installed: $(cat "$receipt")"; exit 0; fi; '
    '/entrypoint.sh backends install "$@" && echo "$*" > "$receipt"'
)
# The key reaches the proxy's environment from a 0600 file: `docker inspect` never shows it.
_KEYED_START = (
    f'LITELLM_MASTER_KEY="$(cat {KEY_TARGET})" && export LITELLM_MASTER_KEY && exec litellm "$@"'
)
_PROBE = (
    "import urllib.request as r;"
    f"r.urlopen('http://127.0.0.1:{LITELLM_PORT}/health/liveliness', timeout=5)"
)


def containers(
    stack: Stack,
    artifacts: tuple[Artifact, ...],
    around: Surroundings,
    files: tuple[RenderedFile, ...],
) -> Deployment:
    """What runs in Docker for a stack with these rendered files."""
    image = stack.localai_image or _localai_image(around)
    backends = _backends_volume(stack, around.gpu.kind, image)
    volumes = (backends, f"{stack.name}_configuration", f"{stack.name}_data")
    install = _install_job(stack, image, backends)
    return Deployment(
        stack=stack.name,
        directory=around.directory,
        network=stack.name,
        volumes=volumes,
        services=(
            install,
            _localai(stack, artifacts, around, image, volumes, install, files),
            _litellm(stack, around, files),
        ),
    )


def _localai_image(around: Surroundings) -> str:
    kind = around.gpu.kind
    if around.machine == "arm64" and kind not in _ARM64_IMAGES:
        raise ConfigError(
            f"LocalAI publishes no {kind} image for arm64 that llmctl could choose",
            hint="set localai.image in llmctl.yaml (Jetson and DGX Spark have tags of their own),\n"
            "or run on the CPU: llmctl up --gpu none",
        )
    return f"localai/localai:{LOCALAI_VERSION}{_VARIANTS[kind][0]}"


def _backends_volume(stack: Stack, kind: str, image: str) -> str:
    """A volume per hardware variant, image and backend.

    LocalAI keeps whatever runnable backend it finds, so a volume filled by a CPU image would keep a
    GPU image on the CPU, and one filled by an older version would mix ABIs.
    """
    origin = hashlib.sha256(f"{image}\n{stack.localai_backend}".encode()).hexdigest()[:8]
    return f"{stack.name}_backends-{_VARIANTS[kind][1]}-{origin}"


def _install_job(stack: Stack, image: str, volume: str) -> ServiceSpec:
    backend = stack.localai_backend
    # An OCI reference carries no name; LocalAI wants the one that the YAML files use.
    arguments = (backend, "llama-cpp") if "://" in backend else (backend,)
    return ServiceSpec(
        service=INSTALL,
        image=image,
        job=True,
        entrypoint=("/bin/sh", "-c"),
        command=(_INSTALL_SCRIPT, "install", *arguments),
        mounts=(Mount("volume", volume, "/backends"),),
    )


def _localai(
    stack: Stack,
    artifacts: tuple[Artifact, ...],
    around: Surroundings,
    image: str,
    volumes: tuple[str, ...],
    install: ServiceSpec,
    files: tuple[RenderedFile, ...],
) -> ServiceSpec:
    backends, configuration, data = volumes
    weights = [(f"/models/{f.path}", f.sha256 or "") for a in artifacts for f in a.files]
    rendered = [(f"/{f.path}", f.sha256) for f in files if f.path.startswith("models/")]
    return ServiceSpec(
        service=LOCALAI,
        image=image,
        environment=(
            # Nothing is looked up outside: models and backends are already here.
            ("LOCALAI_BACKEND_GALLERIES", "[]"),
            # What llama.cpp says of its memory is compared with the plan (`llmctl status`).
            ("LOCALAI_ENABLE_BACKEND_LOGGING", "true"),
            ("LOCALAI_GALLERIES", "[]"),
            # MB of a request body; the default of 15 refuses a larger photograph.
            ("LOCALAI_UPLOAD_LIMIT", "64"),
            ("LOCALAI_VRAM_WARM_LIMIT", "0"),
        ),
        mounts=(
            Mount("bind", f"{around.directory}/models", "/models"),
            Mount("volume", backends, "/backends"),
            Mount("volume", configuration, "/configuration"),
            Mount("volume", data, "/data"),
        ),
        ports=(Port("127.0.0.1", stack.localai_port, LOCALAI_PORT),),
        gpu=_gpu_request(stack, around),
        files=tuple(sorted(weights + rendered)),
        requires=((install.service, install.digest),),
    )


def _gpu_request(stack: Stack, around: Surroundings) -> GpuRequest | None:
    kind = around.gpu.kind
    if kind == "none":
        return None
    if kind == "nvidia":
        return GpuRequest("nvidia", device_ids=stack.gpu_devices)
    groups = {node.group for node in around.host.render_nodes if node.group is not None}
    devices = ["/dev/dri"]
    if kind == "amd":
        devices = ["/dev/kfd", "/dev/dri"]
        if around.host.kfd_group is not None:
            groups.add(around.host.kfd_group)
    return GpuRequest(kind, devices=tuple(devices), groups=tuple(map(str, sorted(groups))))


def _litellm(stack: Stack, around: Surroundings, files: tuple[RenderedFile, ...]) -> ServiceSpec:
    config = next(f for f in files if f.path.startswith("litellm/"))
    target = "/etc/litellm/litellm.yaml"
    arguments = ("--config", target, "--port", str(LITELLM_PORT))
    mounts = [Mount("bind", f"{around.directory}/litellm", "/etc/litellm", read_only=True)]
    keyed = around.key_digest is not None
    if keyed:
        mounts.append(Mount("bind", around.key_file, KEY_TARGET, read_only=True))
    return ServiceSpec(
        service=LITELLM,
        image=stack.litellm_image,
        entrypoint=("/bin/sh", "-c") if keyed else (),
        command=(_KEYED_START, "litellm", *arguments) if keyed else arguments,
        environment=(
            # The bundled price list: fetching a fresh one delays an offline start by 10 s.
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
            ("LITELLM_TELEMETRY", "False"),
            # A proxy from the Docker client's configuration must not swallow requests to LocalAI.
            ("NO_PROXY", f"{LOCALAI},localhost,127.0.0.1"),
            ("no_proxy", f"{LOCALAI},localhost,127.0.0.1"),
        ),
        mounts=tuple(mounts),
        ports=tuple(
            Port(host, stack.gateway_port, LITELLM_PORT) for host in _gateway_hosts(stack, around)
        ),
        # The image has no curl.
        healthcheck=Healthcheck(
            ("python3", "-c", _PROBE), interval_s=15, timeout_s=10, retries=4, start_period_s=60
        ),
        files=((target, config.sha256),),
        secrets=(("gateway.key", around.key_digest),) if around.key_digest else (),
    )


def _gateway_hosts(stack: Stack, around: Surroundings) -> tuple[str, ...]:
    hosts = []
    for host in stack.gateway_hosts:
        if host != "host-gateway":
            hosts.append(host)
        elif around.host_gateway:
            hosts.append(around.host_gateway)
        else:
            raise ConfigError(
                "gateway.host: host-gateway: the engine does not tell its bridge's address",
                hint="docker network inspect bridge   # write the Gateway address there instead",
            )
    return tuple(dict.fromkeys(hosts))
