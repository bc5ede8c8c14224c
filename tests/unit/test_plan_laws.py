"""The laws of planning, for every deployment and every world hypothesis can think of."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.deployment import Deployment, ServiceSpec, container_name
from llmctl.core.observed import Observed
from llmctl.core.plan import Plan, plan
from llmctl.core.plan_text import plan_text
from llmctl.ops.converge import Applier
from tests.fakes import Container, FakeEngine
from tests.unit.strategies import STACK, deployments, worlds

T = TypeVar("T")


class World:
    """A fake engine and a fake disk, started from an observation."""

    def __init__(self, desired: Deployment, seen: Observed) -> None:
        self.engine = FakeEngine()
        self.engine.images = dict(seen.images)
        self.engine.networks = dict.fromkeys(seen.networks, STACK)
        self.engine.volumes = dict.fromkeys(seen.volumes, STACK)
        by_name = {container_name(STACK, s.service): s for s in desired.services}
        for service in seen.services:
            some = by_name.get(container_name(STACK, service.service))
            spec = some or ServiceSpec(service.service, "a:1", job=service.service == "job")
            self.engine.containers[service.container] = Container(STACK, spec, service)
        self.files = dict(seen.files)
        self.models = set(seen.models)
        self.desired = desired

    def observe(self) -> Observed:
        images = tuple(spec.image for spec in self.desired.services)
        return dataclasses.replace(
            self.engine.observe(STACK, images), files=self.files, models=frozenset(self.models)
        )

    def apply(self, todo: Plan) -> None:
        wanted = {m.name: m for m in self.desired.models}
        rendered = {f.path: f for f in self.desired.files}
        Applier(
            self.engine,
            self.desired,
            fetch=lambda name: self.models.update((name, path) for path, _ in wanted[name].files),
            write=lambda path: self.files.__setitem__(path, rendered[path].sha256),
            ready=lambda _service: None,
            listen=lambda _event: None,
        ).apply(todo)


@given(deployments(), worlds())
def test_after_applying_a_plan_nothing_is_left_to_do(desired: Deployment, seen: Observed) -> None:
    world = World(desired, seen)
    world.apply(plan(desired, world.observe()))
    assert plan(desired, world.observe()).actions == ()


@given(deployments(), worlds())
def test_a_plan_survives_json(desired: Deployment, seen: Observed) -> None:
    todo = plan(desired, seen)
    assert Plan.from_json(json.loads(json.dumps(todo.to_json()))) == todo


@given(deployments(), worlds(), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_of_what_is_seen(
    desired: Deployment, seen: Observed, rng: random.Random
) -> None:
    def shuffled(items: tuple[T, ...]) -> tuple[T, ...]:
        mixed = list(items)
        rng.shuffle(mixed)
        return tuple(mixed)

    other = dataclasses.replace(
        seen,
        services=shuffled(seen.services),
        networks=shuffled(seen.networks),
        volumes=shuffled(seen.volumes),
        images=dict(shuffled(tuple(seen.images.items()))),
    )
    assert plan(desired, other) == plan(desired, seen)


@given(worlds())
def test_the_plan_for_nothing_removes_all_of_ours(seen: Observed) -> None:
    nothing = Deployment(STACK, "/d", purge=True)
    world = World(nothing, seen)
    world.apply(plan(nothing, world.observe()))
    left = world.observe()
    assert (left.services, left.networks, left.volumes) == ((), (), ())


@given(worlds())
def test_down_keeps_the_volumes(seen: Observed) -> None:
    nothing = Deployment(STACK, "/d")
    world = World(nothing, seen)
    world.apply(plan(nothing, world.observe()))
    assert set(world.observe().volumes) == set(seen.volumes)


@given(deployments(), worlds())
def test_every_plan_can_be_read(desired: Deployment, seen: Observed) -> None:
    todo = plan(desired, seen)
    text = plan_text(todo)
    assert len(text.splitlines()) >= max(len(todo.actions), 1)
