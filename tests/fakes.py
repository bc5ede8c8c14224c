"""An engine in memory that keeps the contract; `tests/contract` holds it to the same suite."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmctl.core.codec import canonical
from llmctl.core.deployment import ServiceSpec
from llmctl.core.events import Listener, Progress
from llmctl.core.observed import Observed, ObservedService
from llmctl.engine.base import EngineInfo
from llmctl.errors import EngineError, ImageNotFoundError


@dataclass
class Container:
    """What the fake knows of a container."""

    stack: str
    spec: ServiceSpec
    seen: ObservedService
    lines: list[str] = field(default_factory=list)


class FakeEngine:
    """Keeps containers, networks and volumes in dictionaries.

    Attributes:
        refuse_start: Service name -> the words with which its start fails.
        dies: Service name -> exit code with which it ends right after its start.
        calls: Names of the changing methods called, with their subject.
        registry: Images that can be pulled; None for all.
    """

    def __init__(
        self, *, images: tuple[str, ...] = (), registry: tuple[str, ...] | None = None
    ) -> None:
        self.images = {image: f"sha256:{image}" for image in images}
        self.registry = registry
        self.containers: dict[str, Container] = {}
        self.networks: dict[str, str] = {}
        self.volumes: dict[str, str] = {}
        self.refuse_start: dict[str, str] = {}
        self.dies: dict[str, int] = {}
        self.calls: list[str] = []
        self.ports_of_others: dict[int, str] = {}
        self._clock = itertools.count(1)

    def info(self) -> EngineInfo:
        return EngineInfo("fake", "1", "amd64", nvidia=False, host_gateway="172.17.0.1")

    def observe(self, stack: str, images: tuple[str, ...]) -> Observed:
        return Observed(
            services=tuple(c.seen for c in self.containers.values() if c.stack == stack),
            networks=tuple(n for n, owner in self.networks.items() if owner == stack),
            volumes=tuple(v for v, owner in self.volumes.items() if owner == stack),
            images={image: self.images[image] for image in images if image in self.images},
        )

    def inspect(self, container: str) -> ObservedService | None:
        found = self.containers.get(container)
        return found.seen if found else None

    def pull_image(self, image: str, listen: Listener) -> None:
        self._called("pull_image", image)
        if self.registry is not None and image not in self.registry:
            raise ImageNotFoundError(f"image not found: {image}", hint="check localai.image")
        self.images[image] = f"sha256:{image}"
        listen(Progress(image, 1, 1, finished=True))

    def create_network(self, stack: str, network: str) -> None:
        self._called("create_network", network)
        if network in self.networks:
            raise EngineError(f"a network named {network} exists")
        self.networks[network] = stack

    def remove_network(self, network: str) -> None:
        self._called("remove_network", network)
        self.networks.pop(network, None)

    def create_volume(self, stack: str, volume: str) -> None:
        self._called("create_volume", volume)
        self.volumes.setdefault(volume, stack)

    def remove_volume(self, volume: str) -> None:
        self._called("remove_volume", volume)
        self.volumes.pop(volume, None)

    def create(
        self, stack: str, directory: str, network: str, spec: ServiceSpec, container: str
    ) -> None:
        self._called("create", container)
        if container in self.containers:
            raise EngineError(f"a container named {container} exists")
        if network not in self.networks:
            raise EngineError(f"no network {network}")
        if spec.image not in self.images:
            raise ImageNotFoundError(f"image not found: {spec.image}", hint="check localai.image")
        seen = ObservedService(
            service=spec.service,
            container=container,
            state="created",
            digest=spec.digest,
            spec=canonical(spec),
            directory=directory,
            image_id=self.images[spec.image],
            created=f"{next(self._clock):09d}",
            exit_code=0,
        )
        self.containers[container] = Container(stack, spec, seen)

    def start(self, container: str) -> None:
        self._called("start", container)
        found = self._get(container)
        if found.spec.service in self.refuse_start:
            raise EngineError(
                f"could not start {container}", details=self.refuse_start[found.spec.service]
            )
        code = self.dies.get(found.spec.service, 0 if found.spec.job else None)
        started = f"{next(self._clock):09d}"
        state = "running" if code is None else "exited"
        found.seen = dataclasses.replace(found.seen, state=state, exit_code=code, started=started)
        found.lines.append(f"{found.spec.service} started")

    def stop(self, container: str) -> None:
        self._called("stop", container)
        found = self._get(container)
        if found.seen.state == "running":
            found.seen = dataclasses.replace(found.seen, state="exited", exit_code=143)

    def rename(self, container: str, name: str) -> None:
        self._called("rename", f"{container} {name}")
        found = self._get(container)
        if name in self.containers:
            raise EngineError(f"a container named {name} exists")
        found.seen = dataclasses.replace(found.seen, container=name)
        self.containers[name] = self.containers.pop(container)

    def remove(self, container: str) -> None:
        self._called("remove", container)
        self.containers.pop(container, None)

    def logs(self, container: str, *, tail: int | None, follow: bool) -> Iterator[str]:
        del follow
        lines = self._get(container).lines
        yield from lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]

    def port_holder(self, port: int) -> str | None:
        for name, found in self.containers.items():
            if found.seen.state == "running" and any(p.host_port == port for p in found.spec.ports):
                return name
        return self.ports_of_others.get(port)

    def _get(self, container: str) -> Container:
        if container not in self.containers:
            raise EngineError(f"no container {container}")
        return self.containers[container]

    def _called(self, method: str, subject: str) -> None:
        self.calls.append(f"{method} {subject}")
