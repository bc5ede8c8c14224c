"""The contract of an engine, held by the fake in memory and by the real Docker Engine alike."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmctl.core.codec import canonical
from llmctl.core.deployment import GpuRequest, Healthcheck, Mount, Port, ServiceSpec, container_name
from llmctl.core.events import Event
from llmctl.core.observed import ObservedService
from llmctl.engine.base import Engine
from llmctl.engine.docker import DockerEngine
from llmctl.engine.process import ProcessEngine
from llmctl.errors import EngineError, ImageNotFoundError
from tests.fakes import FakeEngine
from tests.world.images import TINY

STACK, OTHER = "llmctl-contract", "llmctl-contract-other"
DEADLINE_S = 30.0


@dataclass
class Lab:
    """An engine under test, with an image that is there."""

    engine: Engine
    image: str
    ends_with: Callable[[str, int], None]

    def service(self, name: str = "web", **fields: object) -> ServiceSpec:
        return dataclasses.replace(
            ServiceSpec(name, self.image, command=("sh", "-c", "echo one; echo 二; sleep 600")),
            **fields,  # type: ignore[arg-type]
        )

    def job(self, code: int) -> ServiceSpec:
        self.ends_with("job", code)
        return ServiceSpec(
            "job", self.image, job=True, command=("sh", "-c", f"echo done; exit {code}")
        )

    def create(self, spec: ServiceSpec, stack: str = STACK) -> str:
        name = container_name(stack, spec.service)
        self.engine.create(stack, "/somewhere", stack, spec, name)
        return name

    def eventually(
        self, container: str, check: Callable[[ObservedService], bool]
    ) -> ObservedService:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            found = self.engine.inspect(container)
            assert found is not None
            if check(found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)


def clean(engine: Engine) -> None:
    for stack in (STACK, OTHER):
        seen = engine.observe(stack, ())
        for service in seen.services:
            engine.remove(service.container)
        for network in seen.networks:
            engine.remove_network(network)
        for volume in seen.volumes:
            engine.remove_volume(volume)


@pytest.fixture(params=["fake", "process", pytest.param("docker", marks=pytest.mark.docker)])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    if request.param == "fake":
        fake = FakeEngine(images=(TINY,), registry=(TINY,))
        bench = Lab(fake, TINY, fake.dies.__setitem__)
    elif request.param == "process":
        # An image is an installed distribution there.
        bench = Lab(ProcessEngine(tmp_path / "processes"), "psutil", lambda _service, _code: None)
    else:
        request.getfixturevalue("images")
        bench = Lab(DockerEngine(), TINY, lambda _service, _code: None)
    clean(bench.engine)
    for stack in (STACK, OTHER):
        bench.engine.create_network(stack, stack)
    yield bench
    clean(bench.engine)
    if isinstance(bench.engine, DockerEngine):
        bench.engine.close()


def test_info_tells_version_and_architecture(lab: Lab) -> None:
    info = lab.engine.info()
    assert info.version
    assert info.machine in {"amd64", "arm64"}
    assert info.host_gateway is None or info.host_gateway.count(".") == 3


def test_a_created_container_is_observed_with_its_specification(lab: Lab) -> None:
    spec = lab.service()
    name = lab.create(spec)
    (seen,) = lab.engine.observe(STACK, (lab.image,)).services
    assert (seen.service, seen.container, seen.state) == ("web", name, "created")
    assert (seen.digest, seen.spec, seen.directory) == (spec.digest, canonical(spec), "/somewhere")
    assert seen.started is None
    assert lab.engine.inspect(name) == seen
    assert seen.image_id == lab.engine.observe(STACK, (lab.image,)).images[lab.image]


def test_images_that_are_not_here_are_left_out(lab: Lab) -> None:
    assert set(lab.engine.observe(STACK, (lab.image, "llmctl-test/nope:1")).images) == {lab.image}


def test_stacks_do_not_see_each_other(lab: Lab) -> None:
    lab.create(lab.service())
    lab.create(lab.service(), OTHER)
    lab.engine.create_volume(STACK, f"{STACK}_v")
    seen = lab.engine.observe(OTHER, ())
    assert [s.container for s in seen.services] == [f"{OTHER}-web"]
    assert (seen.networks, seen.volumes) == ((OTHER,), ())


def test_start_stop_start(lab: Lab) -> None:
    name = lab.create(lab.service())
    lab.engine.start(name)
    running = lab.eventually(name, lambda s: s.state == "running")
    assert running.started is not None
    assert running.exit_code is None
    lab.engine.stop(name)
    assert lab.eventually(name, lambda s: s.state == "exited").exit_code is not None
    lab.engine.stop(name)
    lab.engine.start(name)
    lab.eventually(name, lambda s: s.state == "running")


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_ends_with_its_code(lab: Lab, code: int) -> None:
    name = lab.create(lab.job(code))
    lab.engine.start(name)
    assert lab.eventually(name, lambda s: s.state == "exited").exit_code == code


def test_rename_frees_the_name(lab: Lab) -> None:
    name = lab.create(lab.service())
    lab.engine.rename(name, f"{name}.old")
    assert lab.engine.inspect(name) is None
    lab.create(lab.service(environment=(("A", "1"),)))
    assert {s.container for s in lab.engine.observe(STACK, ()).services} == {name, f"{name}.old"}


def test_a_name_is_taken_once(lab: Lab) -> None:
    lab.create(lab.service())
    with pytest.raises(EngineError, match="exists"):
        lab.create(lab.service())


def test_remove_ends_a_running_container_and_may_be_repeated(lab: Lab) -> None:
    name = lab.create(lab.service())
    lab.engine.start(name)
    lab.engine.remove(name)
    assert lab.engine.inspect(name) is None
    lab.engine.remove(name)


def test_logs_are_whole_lines_of_utf8(lab: Lab) -> None:
    name = lab.create(lab.service())
    lab.engine.start(name)
    lab.eventually(name, lambda s: s.state == "running")
    deadline = time.monotonic() + DEADLINE_S
    wanted = ["web started"] if isinstance(lab.engine, FakeEngine) else ["one", "二"]
    while list(lab.engine.logs(name, tail=None, follow=False)) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(lab.engine.logs(name, tail=1, follow=False)) == wanted[-1:]


def test_networks_and_volumes_come_and_go(lab: Lab) -> None:
    with pytest.raises(EngineError):
        lab.engine.create_network(STACK, STACK)
    lab.engine.create_volume(STACK, f"{STACK}_v")
    assert lab.engine.observe(STACK, ()).volumes == (f"{STACK}_v",)
    for _ in range(2):
        lab.engine.remove_volume(f"{STACK}_v")
        lab.engine.remove_network(STACK)
    seen = lab.engine.observe(STACK, ())
    assert (seen.networks, seen.volumes) == ((), ())


def test_an_image_that_does_not_exist_is_named(lab: Lab) -> None:
    with pytest.raises(ImageNotFoundError, match="llmctl-test/nope:1"):
        lab.create(lab.service(image="llmctl-test/nope:1"))


def test_no_port_is_held_by_nobody(lab: Lab) -> None:
    assert lab.engine.port_holder(48001) is None
    name = lab.create(lab.service(ports=(Port("127.0.0.1", 48001, 80),)))
    lab.engine.start(name)
    lab.eventually(name, lambda s: s.state == "running")
    assert lab.engine.port_holder(48001) == name


# What only a real engine can show


@pytest.fixture
def docker_lab(images: None) -> Iterator[Lab]:
    del images
    with closing(DockerEngine()) as engine:
        bench = Lab(engine, TINY, lambda _service, _code: None)
        clean(engine)
        engine.create_network(STACK, STACK)
        yield bench
        clean(engine)


@pytest.mark.docker
def test_docker_gives_the_container_what_the_specification_says(docker_lab: Lab) -> None:
    docker_lab.engine.create_volume(STACK, f"{STACK}_v")
    spec = docker_lab.service(
        environment=(("GREETING", "こんにちは"),),
        command=("sh", "-c", 'echo "$GREETING"; ls -d /v /etc/host; touch /etc/host/x; sleep 600'),
        mounts=(
            Mount("volume", f"{STACK}_v", "/v"),
            Mount("bind", "/tmp", "/etc/host", read_only=True),
        ),
        healthcheck=Healthcheck(("true",), 1, 1, 1, 0),
    )
    name = docker_lab.create(spec)
    docker_lab.engine.start(name)
    docker_lab.eventually(name, lambda s: s.health == "healthy")
    lines = list(docker_lab.engine.logs(name, tail=None, follow=False))
    assert "こんにちは" in lines  # stdout and stderr arrive in either order
    assert "/v" in lines
    assert any("Read-only file system" in line for line in lines)


@pytest.mark.docker
def test_docker_services_find_each_other_by_name(docker_lab: Lab) -> None:
    web = docker_lab.service(
        "web", command=("sh", "-c", "mkdir /w; echo hi > /w/x; httpd -f -p 80 -h /w")
    )
    docker_lab.engine.start(docker_lab.create(web))
    ask = "until wget -q -O - http://web/x; do sleep 0.1; done"
    name = docker_lab.create(docker_lab.service("client", job=True, command=("sh", "-c", ask)))
    docker_lab.engine.start(name)
    assert docker_lab.eventually(name, lambda s: s.state == "exited").exit_code == 0
    assert list(docker_lab.engine.logs(name, tail=None, follow=False))[-1] == "hi"


@pytest.mark.docker
def test_docker_refuses_a_port_in_use_with_our_words(docker_lab: Lab) -> None:
    ports = (Port("127.0.0.1", 48002, 80),)
    docker_lab.engine.start(docker_lab.create(docker_lab.service("one", ports=ports)))
    two = docker_lab.create(docker_lab.service("two", ports=ports))
    with pytest.raises(EngineError, match=r"port 127.0.0.1:48002 is taken") as caught:
        docker_lab.engine.start(two)
    assert "gateway.port" in (caught.value.hint or "")


@pytest.mark.docker
def test_docker_refuses_a_missing_bind_source_instead_of_making_it(docker_lab: Lab) -> None:
    spec = docker_lab.service(mounts=(Mount("bind", "/nowhere/at/all", "/x"),))
    with pytest.raises(EngineError, match="does not see /nowhere/at/all"):
        docker_lab.create(spec)


@pytest.mark.docker
def test_docker_pull_of_an_unknown_image_is_explained(docker_lab: Lab) -> None:
    heard: list[Event] = []
    with pytest.raises(EngineError) as caught:
        docker_lab.engine.pull_image("llmctl-test/nope:1", heard.append)
    assert "llmctl-test/nope:1" in caught.value.message
    assert caught.value.hint
    assert caught.value.details


@pytest.mark.docker
def test_docker_without_nvidia_support_is_named(docker_lab: Lab) -> None:
    name = docker_lab.create(docker_lab.service(gpu=GpuRequest("nvidia")))
    with pytest.raises(EngineError, match="cannot pass an NVIDIA GPU") as caught:
        docker_lab.engine.start(name)
    assert "nvidia-container-toolkit" in (caught.value.hint or "")
    assert "could not select device driver" in (caught.value.details or "")
