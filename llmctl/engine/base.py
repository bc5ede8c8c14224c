"""What llmctl asks of an engine. `tests/contract` holds every implementation to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from llmctl.core.deployment import ServiceSpec
from llmctl.core.events import Listener
from llmctl.core.observed import Observed, ObservedService


@dataclass(frozen=True)
class EngineInfo:
    """Facts about a running engine.

    Attributes:
        kind: "docker".
        version: Its version, for messages.
        machine: "amd64", "arm64", or what it says.
        nvidia: Whether it can pass NVIDIA GPUs; None when it does not tell.
        host_gateway: Address at which containers reach the host, None when unknown.
    """

    kind: str
    version: str
    machine: str
    nvidia: bool | None
    host_gateway: str | None


class Engine(Protocol):
    """Creates, observes and removes what carries one stack's labels, and touches nothing else.

    Every method raises `EngineError` (or a subclass) with the engine's own words and a next step.
    Removing what is not there is not an error; everything else that is missing is.
    """

    def info(self) -> EngineInfo:
        """Facts about the engine; EngineUnreachableError when none answers."""

    def observe(self, stack: str, images: tuple[str, ...]) -> Observed:
        """Everything with the stack's label, and which of `images` are here."""

    def inspect(self, container: str) -> ObservedService | None:
        """One container by name, None when there is none or it is not ours."""

    def pull_image(self, image: str, listen: Listener) -> None:
        """Pull with progress; ImageNotFoundError when it does not exist."""

    def create_network(self, stack: str, network: str) -> None:
        """Create a network with the stack's label."""

    def remove_network(self, network: str) -> None:
        """Remove a network."""

    def create_volume(self, stack: str, volume: str) -> None:
        """Create a volume with the stack's label."""

    def remove_volume(self, volume: str) -> None:
        """Remove a volume and its contents."""

    def create(
        self, stack: str, directory: str, network: str, spec: ServiceSpec, container: str
    ) -> None:
        """Create a container with labels, attached to the network under its service's name."""

    def start(self, container: str) -> None:
        """Start it; when the engine refuses, its words are translated (GPU, port, mount)."""

    def stop(self, container: str) -> None:
        """Stop it gracefully, then firmly; stopping a stopped one is not an error."""

    def rename(self, container: str, name: str) -> None:
        """Give it another name."""

    def remove(self, container: str) -> None:
        """Stop and remove it."""

    def logs(self, container: str, *, tail: int | None, follow: bool) -> Iterator[str]:
        """Its log lines, oldest first; with `follow` until it ends or the caller stops."""

    def port_holder(self, port: int) -> str | None:
        """Name of the container that publishes this host port, whoever made it."""
