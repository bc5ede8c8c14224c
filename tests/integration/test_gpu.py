"""GPU requests through a real Docker Engine whose NVIDIA hook is a stand-in (tests/world/gpu_shim)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from llmctl.core.deployment import GpuRequest, ServiceSpec
from llmctl.engine.docker import DockerEngine
from llmctl.errors import EngineError
from tests.world import daemon as daemons
from tests.world import images as world_images
from tests.world.daemon import Daemon
from tests.world.gpu_shim import GPUS
from tests.world.images import TINY

pytestmark = pytest.mark.docker

STACK = "llmctl-gpu"
SERVICE = ServiceSpec("web", TINY, command=("sh", "-c", "nvidia-smi -L; sleep 600"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A second private engine, whose NVIDIA device driver is registered."""
    if os.geteuid() != 0 and os.environ.get("REQUIRE_DOCKER") != "1":
        pytest.skip("a private Docker Engine needs root")
    root = tmp_path_factory.mktemp("gpu") / "engine"
    with daemons.running(root, with_gpu_shim=True) as found:
        with closing(docker.DockerClient(base_url=found.docker_host)) as client:
            world_images.ensure(client, ["tiny"], say=print)
        yield found


@pytest.fixture
def engine(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    monkeypatch.setenv("DOCKER_HOST", daemon.docker_host)
    with closing(DockerEngine()) as found:
        found.create_network(STACK, STACK)
        yield found
        for service in found.observe(STACK, ()).services:
            found.remove(service.container)
        found.remove_network(STACK)


def create(engine: DockerEngine, gpu: GpuRequest) -> str:
    spec = dataclasses.replace(SERVICE, gpu=gpu)
    engine.create(STACK, "/d", STACK, spec, f"{STACK}-web")
    return f"{STACK}-web"


def test_all_gpus_are_asked_for(engine: DockerEngine, daemon: Daemon) -> None:
    engine.start(create(engine, GpuRequest("nvidia")))
    assert daemon.gpu.requests()[-1].visible_devices == "all"


def test_one_gpu_is_asked_for_by_uuid(engine: DockerEngine, daemon: Daemon) -> None:
    uuid = str(GPUS[1]["uuid"])
    engine.start(create(engine, GpuRequest("nvidia", device_ids=(uuid,))))
    assert daemon.gpu.requests()[-1].visible_devices == uuid


def test_a_gpu_that_is_not_there_is_explained(engine: DockerEngine) -> None:
    name = create(engine, GpuRequest("nvidia", device_ids=("GPU-no-such",)))
    with pytest.raises(EngineError, match="the NVIDIA driver refused the GPU") as caught:
        engine.start(name)
    assert "nvidia-smi -L" in (caught.value.hint or "")
    assert "unknown device" in (caught.value.details or "")


def test_device_files_and_groups_reach_the_container(engine: DockerEngine) -> None:
    """AMD's and Intel's way, with a device that every host has."""
    gpu = GpuRequest("amd", devices=("/dev/null",), groups=("4242",))
    name = create(engine, gpu)
    with closing(docker.APIClient(base_url=os.environ["DOCKER_HOST"])) as api:
        config = api.inspect_container(name)["HostConfig"]
    assert [d["PathOnHost"] for d in config["Devices"]] == ["/dev/null"]
    assert config["GroupAdd"] == ["4242"]


def test_a_device_that_is_not_there_is_explained(engine: DockerEngine, tmp_path: Path) -> None:
    device = str(tmp_path / "kfd")
    name = create(engine, GpuRequest("amd", devices=(device,)))
    with pytest.raises(EngineError, match=f"no device {device}") as caught:
        engine.start(name)
    assert "--gpu none" in (caught.value.hint or "")
