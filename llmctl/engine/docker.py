"""Docker Engine through its SDK; the only module that imports `docker`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from llmctl.core.deployment import Healthcheck, Mount, ServiceSpec
from llmctl.core.events import Listener
from llmctl.core.observed import (
    LABEL_DIGEST,
    LABEL_DIRECTORY,
    LABEL_SERVICE,
    LABEL_SPEC,
    LABEL_STACK,
    Observed,
    ObservedService,
    service_labels,
    stack_labels,
)
from llmctl.engine.base import EngineInfo
from llmctl.engine.docker_errors import translated, unreachable
from llmctl.engine.docker_pull import PullProgress
from llmctl.errors import EngineError

if TYPE_CHECKING:
    from docker.api.client import APIClient

STOP_SECONDS = 20
SECOND_NS = 1_000_000_000
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class DockerEngine:
    """The engine that DOCKER_HOST, or the default socket, leads to.

    It talks to the low-level client: one request per call and no hidden inspections, which is what
    keeps an `up` with nothing to do fast.
    """

    def __init__(self, timeout_s: float = 120) -> None:
        self._timeout_s = timeout_s

    @cached_property
    def _api(self) -> APIClient:
        import docker
        from docker.errors import DockerException

        try:
            return docker.from_env(timeout=int(self._timeout_s)).api
        except DockerException as error:
            raise unreachable(error) from error

    def close(self) -> None:
        """Give back the connections; a command that ends does not need to."""
        if "_api" in vars(self):
            self._api.close()

    def info(self) -> EngineInfo:
        """Facts from `/info`, and the default bridge's gateway."""
        with translated("ask the engine about itself"):
            info = self._api.info()
            bridges = self._api.networks(names=["bridge"])
        runtimes = info.get("Runtimes") or {}
        # The device driver "nvidia" is registered by a hook binary and shows nowhere in /info; a
        # runtime or a CDI directory with specifications does. Absence therefore means "unknown".
        devices = [d.get("ID", "") for d in info.get("DiscoveredDevices") or []]
        nvidia = "nvidia" in runtimes or any("nvidia.com/gpu" in d for d in devices)
        return EngineInfo(
            kind="docker",
            version=info.get("ServerVersion", "?"),
            machine=MACHINES.get(info.get("Architecture", ""), info.get("Architecture", "?")),
            nvidia=True if nvidia else None,
            host_gateway=_gateway_of(bridges),
        )

    def observe(self, stack: str, images: tuple[str, ...]) -> Observed:
        """Containers, networks and volumes with the stack's label; ids of images that are here."""
        label = {"label": f"{LABEL_STACK}={stack}"}
        with translated("list the stack's containers"):
            listed = self._api.containers(all=True, filters=label)
            networks = self._api.networks(filters=label)
            volumes = self._api.volumes(filters=label).get("Volumes") or []
            services = [self.inspect(entry["Id"]) for entry in listed]
            ids = {image: self._image_id(image) for image in dict.fromkeys(images)}
        return Observed(
            services=tuple(s for s in services if s is not None),
            networks=tuple(n["Name"] for n in networks),
            volumes=tuple(v["Name"] for v in volumes),
            images={image: found for image, found in ids.items() if found},
        )

    def _image_id(self, image: str) -> str | None:
        from docker.errors import ImageNotFound

        try:
            return str(self._api.inspect_image(image)["Id"])  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None

    def inspect(self, container: str) -> ObservedService | None:
        """One container by name or id, None when it is gone or carries no label of ours."""
        from docker.errors import NotFound

        try:
            with translated(f"inspect {container}", passing=(NotFound,)):
                found = self._api.inspect_container(container)
        except NotFound:
            return None
        labels = found["Config"].get("Labels") or {}
        if LABEL_SERVICE not in labels:
            return None
        state = found["State"]
        running = state["Status"] in {"running", "paused", "restarting"}
        started = state.get("StartedAt", "")
        return ObservedService(
            service=labels[LABEL_SERVICE],
            container=found["Name"].lstrip("/"),
            state=state["Status"],
            digest=labels.get(LABEL_DIGEST, ""),
            spec=labels.get(LABEL_SPEC, ""),
            directory=labels.get(LABEL_DIRECTORY, ""),
            image_id=found["Image"],
            created=found["Created"],
            # Docker writes year 1 for "never".
            started=None if started.startswith("0001") else started,
            exit_code=None if running else state.get("ExitCode"),
            health=(state.get("Health") or {}).get("Status"),
        )

    def pull_image(self, image: str, listen: Listener) -> None:
        """Pull an image, summing the layers into one bar."""
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(image)
        progress = PullProgress(image, listen)
        with translated(f"pull {image}", image=image):
            for line in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                progress.line(line)
        progress.finish()

    def create_network(self, stack: str, network: str) -> None:
        """Create a bridge network; the check avoids a second one of the same name."""
        with translated(f"create the network {network}"):
            if self._named(network):
                raise EngineError(
                    f"a network named {network} exists and is not llmctl's",
                    hint="set another `name:` in llmctl.yaml, or remove it: "
                    f"docker network rm {network}",
                )
            self._api.create_network(network, driver="bridge", labels=stack_labels(stack))

    def _named(self, network: str) -> bool:
        # The engine's name filter matches parts of names.
        return any(n["Name"] == network for n in self._api.networks(names=[network]))

    def remove_network(self, network: str) -> None:
        """Remove a network; one that is gone is fine."""
        with _gone_is_fine(), translated(f"remove the network {network}"):
            self._api.remove_network(network)

    def create_volume(self, stack: str, volume: str) -> None:
        """Create a local volume."""
        with translated(f"create the volume {volume}"):
            self._api.create_volume(volume, labels=stack_labels(stack))

    def remove_volume(self, volume: str) -> None:
        """Remove a volume; one that is gone is fine."""
        with _gone_is_fine(), translated(f"remove the volume {volume}"):
            self._api.remove_volume(volume)

    def create(
        self, stack: str, directory: str, network: str, spec: ServiceSpec, container: str
    ) -> None:
        """Create a container from its specification."""
        with translated(f"create {container}", image=spec.image):
            self._api.create_container(
                image=spec.image,
                name=container,
                entrypoint=list(spec.entrypoint) or None,
                command=list(spec.command) or None,
                environment=dict(spec.environment),
                labels=service_labels(stack, directory, spec),
                ports=[port.container_port for port in spec.ports],
                healthcheck=_healthcheck(spec.healthcheck),
                host_config=self._host_config(spec),
                networking_config={
                    "EndpointsConfig": {network: {"Aliases": [spec.service]}},
                },
            )

    def _host_config(self, spec: ServiceSpec) -> Any:
        published: dict[int | str, list[tuple[str, int]]] = {}
        for port in spec.ports:
            published.setdefault(port.container_port, []).append((port.host, port.host_port))
        gpu = spec.gpu
        options: dict[str, Any] = {}
        if gpu and gpu.kind == "nvidia":
            # Driver "" lets the engine choose between its NVIDIA drivers (hook or CDI).
            options["device_requests"] = [
                {
                    "Driver": "",
                    "Count": 0 if gpu.device_ids else -1,
                    "DeviceIDs": list(gpu.device_ids) or None,
                    "Capabilities": [["gpu"]],
                }
            ]
        elif gpu:
            options["devices"] = [f"{device}:{device}:rwm" for device in gpu.devices]
            options["group_add"] = list(gpu.groups)
        return self._api.create_host_config(
            port_bindings=published,
            # The SDK's Mount is a dictionary with these keys, checked by nothing but the engine.
            mounts=cast("Any", [_mount(mount) for mount in spec.mounts]),
            # PID 1 without a handler ignores SIGTERM; docker-init passes it on.
            init=True,
            restart_policy=None if spec.job else {"Name": "unless-stopped"},
            **options,
        )

    def start(self, container: str) -> None:
        """Start or unpause a container."""
        with translated(f"start {container}"):
            found = self.inspect(container)
            if found and found.state == "paused":
                self._api.unpause(container)
            else:
                self._api.start(container)

    def stop(self, container: str) -> None:
        """SIGTERM, twenty seconds, SIGKILL."""
        with translated(f"stop {container}"):
            self._api.stop(container, timeout=STOP_SECONDS)

    def rename(self, container: str, name: str) -> None:
        """Rename a container."""
        with translated(f"rename {container}"):
            self._api.rename(container, name)

    def remove(self, container: str) -> None:
        """Stop gracefully and remove, with its anonymous volumes; one that is gone is fine."""
        with _gone_is_fine(), translated(f"remove {container}"):
            self._api.stop(container, timeout=STOP_SECONDS)
            self._api.remove_container(container, v=True, force=True)

    def logs(self, container: str, *, tail: int | None, follow: bool) -> Iterator[str]:
        """Log lines of stdout and stderr, decoded as UTF-8."""
        with translated(f"read the logs of {container}"):
            blocks = self._api.logs(
                container, stream=True, follow=follow, tail="all" if tail is None else tail
            )
            rest = b""
            for block in blocks:
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace").rstrip("\r")
            if rest:
                yield rest.decode("utf-8", "replace")

    def port_holder(self, port: int) -> str | None:
        """The running container that publishes the port, ours or anyone's."""
        with translated("list containers"):
            for entry in self._api.containers():
                if any(p.get("PublicPort") == port for p in entry.get("Ports") or []):
                    return str(entry["Names"][0]).lstrip("/")
        return None


def _gateway_of(networks: list[dict[str, Any]]) -> str | None:
    for network in networks:
        if network["Name"] == "bridge":
            for pool in (network.get("IPAM") or {}).get("Config") or []:
                if pool.get("Gateway"):
                    return str(pool["Gateway"])
    return None


def _mount(mount: Mount) -> dict[str, Any]:
    # type "bind" (unlike a -v string) refuses a missing source instead of creating it as root.
    return {
        "Target": mount.target,
        "Source": mount.source,
        "Type": mount.kind,
        "ReadOnly": mount.read_only,
    }


def _healthcheck(check: Healthcheck | None) -> dict[str, Any] | None:
    if check is None:
        return None
    return {
        "test": ["CMD", *check.command],
        "interval": check.interval_s * SECOND_NS,
        "timeout": check.timeout_s * SECOND_NS,
        "retries": check.retries,
        "start_period": check.start_period_s * SECOND_NS,
    }


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    from docker.errors import NotFound

    try:
        yield
    except EngineError as error:
        if not isinstance(error.__cause__, NotFound):
            raise
