"""Applying plans to the fake engine: order, restoring, ports, jobs."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from llmctl.core.deployment import Deployment, Mount, Port, ServiceSpec
from llmctl.core.events import Event, Note
from llmctl.core.plan import ReplaceService, plan
from llmctl.errors import EngineError, UnhealthyError
from llmctl.ops.converge import Applier
from tests.fakes import FakeEngine

JOB = ServiceSpec("job", "a:1", job=True, mounts=(Mount("volume", "v", "/v"),))
WEB = ServiceSpec("web", "a:1", mounts=(Mount("volume", "v", "/v"),))
WANTED = Deployment("s", "/d", network="s", volumes=("v",), services=(JOB, WEB))


class Bench:
    """A fake engine and an applier over it that records events."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.events: list[Event] = []
        self.failing: set[str] = set()

    def ready(self, service: str) -> None:
        if service in self.failing:
            raise UnhealthyError(f"{service} does not answer")

    def apply(self, wanted: Deployment) -> None:
        images = tuple(spec.image for spec in wanted.services)
        todo = plan(wanted, self.engine.observe(wanted.stack, images))

        def nothing(_name: str) -> None:
            raise AssertionError("no files in these plans")

        Applier(self.engine, wanted, nothing, nothing, self.ready, self.events.append).apply(todo)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def changed(**fields: object) -> Deployment:
    web = dataclasses.replace(WEB, **fields)  # type: ignore[arg-type]
    return dataclasses.replace(WANTED, services=(JOB, web))


def test_a_first_run_creates_in_order(bench: Bench) -> None:
    bench.apply(WANTED)
    assert bench.engine.calls == [
        "pull_image a:1",
        "create_network s",
        "create_volume v",
        "create s-job",
        "start s-job",
        "create s-web",
        "start s-web",
    ]


def test_a_second_run_calls_nothing(bench: Bench) -> None:
    bench.apply(WANTED)
    bench.engine.calls.clear()
    bench.apply(WANTED)
    assert bench.engine.calls == []


def test_a_changed_setting_replaces_one_container_and_says_why(bench: Bench) -> None:
    bench.apply(WANTED)
    wanted = changed(environment=(("A", "1"),))
    todo = plan(wanted, bench.engine.observe("s", ("a:1",)))
    (action,) = todo.actions
    assert isinstance(action, ReplaceService)
    assert [(c.field, c.old, c.new) for c in action.changes] == [("environment A", "", "1")]
    bench.engine.calls.clear()
    bench.apply(wanted)
    assert bench.engine.calls == [
        "remove s-web.old",
        "stop s-web",
        "rename s-web s-web.old",
        "create s-web",
        "start s-web",
        "remove s-web.old",
    ]


def test_a_replacement_that_is_not_ready_gives_way_to_the_old_one(bench: Bench) -> None:
    bench.apply(WANTED)
    bench.failing.add("web")
    with pytest.raises(UnhealthyError, match="web does not answer"):
        bench.apply(changed(environment=(("A", "1"),)))
    kept = bench.engine.containers["s-web"]
    assert (kept.spec, kept.seen.state) == (WEB, "running")
    assert set(bench.engine.containers) == {"s-job", "s-web"}
    assert any(
        isinstance(e, Note) and "previous container runs again" in e.text for e in bench.events
    )


def test_a_replacement_that_does_not_start_gives_way_too(bench: Bench) -> None:
    bench.apply(WANTED)
    bench.engine.refuse_start["web"] = "no GPU"
    wanted = changed(environment=(("A", "1"),))
    todo = plan(wanted, bench.engine.observe("s", ("a:1",)))
    real_start, starts = bench.engine.start, []

    def start(container: str) -> None:
        starts.append(container)
        if len(starts) > 1:
            bench.engine.refuse_start.clear()
        real_start(container)

    bench.engine.start = start  # type: ignore[method-assign]
    applier = Applier(bench.engine, wanted, print, print, bench.ready, bench.events.append)
    with pytest.raises(EngineError, match="could not start"):
        applier.apply(todo)
    assert bench.engine.containers["s-web"].spec == WEB


def test_an_interrupted_replacement_is_continued(bench: Bench) -> None:
    bench.apply(WANTED)
    wanted = changed(environment=(("A", "1"),))

    def interrupted(_service: str) -> None:
        raise KeyboardInterrupt

    images = ("a:1",)
    applier = Applier(bench.engine, wanted, print, print, interrupted, bench.events.append)
    with pytest.raises(KeyboardInterrupt):
        applier.apply(plan(wanted, bench.engine.observe("s", images)))
    bench.engine.calls.clear()
    bench.apply(wanted)
    assert bench.engine.calls == ["remove s-web.old"]
    assert bench.engine.containers["s-web"].seen.state == "running"


def test_a_container_the_engine_refuses_to_start_is_not_left_behind(bench: Bench) -> None:
    bench.engine.refuse_start["web"] = "could not select device driver"
    with pytest.raises(EngineError, match="could not start"):
        bench.apply(WANTED)
    assert "s-web" not in bench.engine.containers


def test_a_job_that_fails_ends_the_run_with_its_log(bench: Bench) -> None:
    bench.engine.dies["job"] = 3
    with pytest.raises(EngineError, match="job failed with exit code 3") as caught:
        bench.apply(WANTED)
    assert caught.value.details == "job started"
    bench.engine.dies.clear()
    bench.apply(WANTED)
    assert bench.engine.containers["s-job"].seen.exit_code == 0


def test_a_lost_volume_makes_its_job_run_again(bench: Bench) -> None:
    bench.apply(WANTED)
    del bench.engine.volumes["v"]
    bench.engine.calls.clear()
    bench.apply(WANTED)
    assert bench.engine.calls == ["create_volume v", "remove s-job", "create s-job", "start s-job"]


def test_a_stopped_service_is_started_again(bench: Bench) -> None:
    bench.apply(WANTED)
    bench.engine.stop("s-web")
    bench.engine.calls.clear()
    bench.apply(WANTED)
    assert bench.engine.calls == ["start s-web"]


def test_a_taken_port_is_found_before_anything_is_done(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        wanted = changed(ports=(Port("127.0.0.1", number, 80),))
        bench.engine.ports_of_others[number] = "their-web"
        with pytest.raises(
            EngineError, match=f"port 127.0.0.1:{number} is taken by the container"
        ) as caught:
            bench.apply(wanted)
    assert bench.engine.calls == []
    assert "docker stop their-web" in (caught.value.hint or "")


def test_a_port_our_own_container_holds_is_no_conflict(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        ports = (Port("127.0.0.1", number, 80),)
        bench.engine.ports_of_others[number] = "s-web"
        bench.apply(changed(ports=ports))
    assert "start s-web" in bench.engine.calls
