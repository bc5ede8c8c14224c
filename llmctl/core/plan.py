"""The difference between what should run and what runs: a list of actions, each with its reason.

`plan` is total and deterministic: it asks nothing, prints nothing and reads no clock. Everything
that shows or changes a stack (`plan`, `up`, `up --dry-run`, `down`) goes through it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llmctl.core.codec import decode, encode
from llmctl.core.deployment import Deployment, ServiceSpec, WantedModel, container_name
from llmctl.core.observed import Observed, ObservedService, spec_fields


@dataclass(frozen=True)
class Change:
    """Why a container is replaced: one field, what it was and what it becomes (as JSON text)."""

    field: str
    old: str
    new: str


@dataclass(frozen=True)
class FetchModel:
    """Pull the missing files of a model."""

    model: WantedModel


@dataclass(frozen=True)
class WriteFile:
    """Write a rendered file; `old` is the SHA-256 of what lies there, None for nothing."""

    path: str
    sha256: str
    old: str | None


@dataclass(frozen=True)
class PullImage:
    """Make an image available to the engine."""

    image: str


@dataclass(frozen=True)
class CreateNetwork:
    """Create the stack's network."""

    network: str


@dataclass(frozen=True)
class CreateVolume:
    """Create a volume."""

    volume: str


@dataclass(frozen=True)
class RunJob:
    """Run a container once; `stale` is the earlier run's container to remove first."""

    spec: ServiceSpec
    stale: str | None = None


@dataclass(frozen=True)
class CreateService:
    """Create and start a service."""

    spec: ServiceSpec


@dataclass(frozen=True)
class StartService:
    """Start a service whose container exists and is as it should be, but does not run."""

    spec: ServiceSpec
    state: str


@dataclass(frozen=True)
class ReplaceService:
    """Put a new container in the place of one that no longer fits."""

    spec: ServiceSpec
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class RemoveContainer:
    """Stop and remove a container of ours that nothing asks for."""

    service: str
    container: str


@dataclass(frozen=True)
class RemoveNetwork:
    """Remove a network of ours."""

    network: str


@dataclass(frozen=True)
class RemoveVolume:
    """Remove a volume of ours with all it holds."""

    volume: str


Action = (
    FetchModel
    | WriteFile
    | PullImage
    | CreateNetwork
    | CreateVolume
    | RunJob
    | CreateService
    | StartService
    | ReplaceService
    | RemoveContainer
    | RemoveNetwork
    | RemoveVolume
)
_ACTIONS: dict[str, type[Action]] = {kind.__name__: kind for kind in Action.__args__}


@dataclass(frozen=True)
class Plan:
    """Actions in the order in which they are applied; none means up to date."""

    stack: str
    actions: tuple[Action, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` is the inverse."""
        return {
            "stack": self.stack,
            "actions": [{"kind": type(a).__name__, **encode(a)} for a in self.actions],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote; KeyError or TypeError for anything else."""
        actions = []
        for entry in value["actions"]:
            fields = {key: item for key, item in entry.items() if key != "kind"}
            actions.append(decode(_ACTIONS[entry["kind"]], fields))
        return cls(value["stack"], tuple(actions))


def plan(desired: Deployment, observed: Observed) -> Plan:
    """What must be done so that `observed` becomes `desired`."""
    actions: list[Action] = [*_fetches(desired, observed), *_writes(desired, observed)]
    actions += [
        PullImage(image)
        for image in dict.fromkeys(spec.image for spec in desired.services)
        if image not in observed.images
    ]
    if desired.network and desired.network not in observed.networks:
        actions.append(CreateNetwork(desired.network))
    new_volumes = [v for v in desired.volumes if v not in observed.volumes]
    actions += [CreateVolume(volume) for volume in new_volumes]

    current = {c.container: c for c in observed.services}
    kept: set[str] = set()
    serving: list[Action] = []
    for spec in desired.services:
        name = container_name(desired.stack, spec.service)
        kept.add(name)
        serving += _service(spec, name, current.get(name), observed, new_volumes)
    actions += _removals(desired, observed, kept, wanted=True)
    actions += serving
    actions += _removals(desired, observed, kept, wanted=False)
    actions += [RemoveNetwork(n) for n in sorted(observed.networks) if n != desired.network]
    if desired.purge:
        actions += [RemoveVolume(v) for v in sorted(observed.volumes) if v not in desired.volumes]
    return Plan(desired.stack, tuple(actions))


def _fetches(desired: Deployment, observed: Observed) -> list[Action]:
    found: list[Action] = []
    for model in desired.models:
        missing = tuple(f for f in model.files if (model.name, f[0]) not in observed.models)
        if missing:
            found.append(FetchModel(WantedModel(model.name, model.source, missing)))
    return found


def _writes(desired: Deployment, observed: Observed) -> list[Action]:
    return [
        WriteFile(file.path, file.sha256, observed.files.get(file.path))
        for file in desired.files
        if observed.files.get(file.path) != file.sha256
    ]


def _service(
    spec: ServiceSpec,
    name: str,
    current: ObservedService | None,
    observed: Observed,
    new_volumes: list[str],
) -> list[Action]:
    if spec.job:
        done = (
            current is not None
            and current.digest == spec.digest
            and current.state == "exited"
            and current.exit_code == 0
            and not set(spec.volumes) & set(new_volumes)
        )
        return [] if done else [RunJob(spec, stale=name if current else None)]
    if current is None:
        return [CreateService(spec)]
    changes = _changes(spec, current, observed)
    if changes:
        return [ReplaceService(spec, changes)]
    # "restarting" is left to the engine: the wait for readiness tells whether it comes up.
    return [] if current.state in {"running", "restarting"} else [StartService(spec, current.state)]


def _changes(spec: ServiceSpec, current: ObservedService, observed: Observed) -> tuple[Change, ...]:
    changes = []
    if current.digest != spec.digest:
        old, new = spec_fields(current.spec), encode(spec)
        for field in sorted({*old, *new}):
            if old.get(field) != new.get(field):
                changes += _field_changes(field, old.get(field), new.get(field))
        if not changes:
            changes.append(Change("digest", current.digest, spec.digest))
    image_id = observed.images.get(spec.image)
    if image_id and current.image_id != image_id and not any(c.field == "image" for c in changes):
        changes.append(Change("image id", current.image_id, image_id))
    return tuple(changes)


def _field_changes(field: str, old: Any, new: Any) -> list[Change]:
    """One change per entry of a field of (name, value) pairs, else one for the field."""
    if field in {"environment", "files", "secrets", "requires"} and old is not None:
        before, after = dict(map(tuple, old)), dict(map(tuple, new))
        return [
            Change(f"{field} {key}", before.get(key, ""), after.get(key, ""))
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
    return [Change(field, _text(old), _text(new))]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _removals(
    desired: Deployment, observed: Observed, kept: set[str], *, wanted: bool
) -> list[Action]:
    """Containers nobody asks for, newest first.

    Those of services that are no longer wanted go before the new ones start, since they may hold
    the GPU or a port; set-aside copies of wanted ones go last.
    """
    names = {spec.service for spec in desired.services}
    extra = [
        c
        for c in observed.services
        if c.container not in kept and (c.service not in names) == wanted
    ]
    extra.sort(key=lambda c: (c.created, c.container), reverse=True)
    return [RemoveContainer(c.service, c.container) for c in extra]
