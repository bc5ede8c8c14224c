"""What should run: services, their volumes and their network, as plain values.

A `Deployment` says everything an engine needs and nothing it does not; two equal ones run the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmctl.core.codec import digest


@dataclass(frozen=True)
class Mount:
    """A directory, file or volume seen inside a container.

    Attributes:
        kind: "bind" for a path of the host, "volume" for a named volume.
        source: Absolute host path, or the volume's name.
        target: Absolute path in the container.
        read_only: Whether the container may not write there.
    """

    kind: str
    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Port:
    """A container's TCP port published on one address of the host."""

    host: str
    host_port: int
    container_port: int


@dataclass(frozen=True)
class GpuRequest:
    """What a container gets of the host's GPUs.

    Attributes:
        kind: "nvidia" (a device request to the engine), or "amd", "intel", "vulkan" (device files).
        device_ids: NVIDIA UUIDs or indexes; empty means all.
        devices: Device files, such as /dev/kfd and /dev/dri.
        groups: Numeric groups that may open them, as strings.
    """

    kind: str
    device_ids: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Healthcheck:
    """The engine's own health probe, run inside the container; times in seconds."""

    command: tuple[str, ...]
    interval_s: int
    timeout_s: int
    retries: int
    start_period_s: int


@dataclass(frozen=True)
class ServiceSpec:
    """One container.

    Attributes:
        service: Its short name and its DNS name on the stack's network.
        image: Image reference.
        job: True when it is to run once and end with 0, not to stay.
        entrypoint: Replaces the image's when not empty.
        command: Arguments.
        environment: Sorted (name, value) pairs; never a secret.
        mounts: What it sees of the host.
        ports: What the host sees of it.
        gpu: GPU request.
        healthcheck: None keeps the image's own.
        files: (path, SHA-256) of files it reads at start, so that a changed one replaces it.
        secrets: (name, digest) of secret files it reads.
        requires: (job, digest) of the jobs it builds on.
    """

    service: str
    image: str
    job: bool = False
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    gpu: GpuRequest | None = None
    healthcheck: Healthcheck | None = None
    files: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    requires: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """Identity of the whole specification."""
        return digest(self)

    @property
    def volumes(self) -> tuple[str, ...]:
        """Names of the volumes it mounts."""
        return tuple(m.source for m in self.mounts if m.kind == "volume")


@dataclass(frozen=True)
class RenderedFile:
    """A configuration file as it should be.

    Attributes:
        path: POSIX path relative to the stack directory.
        content: Whole text, stamp included.
        sha256: Of the UTF-8 content.
    """

    path: str
    content: str
    sha256: str


@dataclass(frozen=True)
class Rendered:
    """Configuration files, and what they were made of.

    Attributes:
        inputs: Digest of everything that went in.
        files: The files.
    """

    inputs: str
    files: tuple[RenderedFile, ...]


@dataclass(frozen=True)
class WantedModel:
    """A model's files that must lie on disk before anything starts.

    Attributes:
        name: The model's name in the stack.
        source: Where it comes from, for the message.
        files: (path relative to the models directory, size in bytes or None) of each file.
    """

    name: str
    source: str
    files: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Deployment:
    """Everything that should exist for one stack; empty means: nothing of it.

    Attributes:
        stack: The stack's name.
        directory: Absolute path of the stack directory, to tell two stacks of one name apart.
        network: Name of its network, None for an empty deployment.
        volumes: Names of its volumes.
        services: In the order in which they start.
        files: Rendered configuration.
        models: Files to be pulled.
        purge: Whether volumes that are not listed go too (`down --volumes`).
        rendered: Digest of what the files were made of.
    """

    stack: str
    directory: str
    network: str | None = None
    volumes: tuple[str, ...] = ()
    services: tuple[ServiceSpec, ...] = ()
    files: tuple[RenderedFile, ...] = ()
    models: tuple[WantedModel, ...] = ()
    purge: bool = False
    rendered: str = field(default="", compare=False)


def container_name(stack: str, service: str) -> str:
    """The container of a service: "llmctl-localai"."""
    return f"{stack}-{service}"


def aside_name(stack: str, service: str) -> str:
    """Where a container waits while its replacement proves itself."""
    return f"{stack}-{service}.old"
