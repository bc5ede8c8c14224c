"""`fit`: whether a model fits a machine, from the headers of its files, here or on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.artifact import Artifact, RepoInfo, choose, is_projector_name, is_safe_path, shards
from llmctl.core.artifact import quantisation as label_of
from llmctl.core.events import Listener, Step
from llmctl.core.fitting import Fit, Wish, devices_of, fit, next_gib, with_room
from llmctl.core.gguf import GgufError, GgufHeader
from llmctl.core.gpus import Gpu, Hardware
from llmctl.core.language import language_facts
from llmctl.core.memory import Device, Model, Projector, Table, table
from llmctl.core.projector import is_projector
from llmctl.core.stack import ModelSpec, Stack
from llmctl.core.verdict import Formats
from llmctl.errors import ConfigError, EngineError, GateError, UsageError
from llmctl.hub.base import Hub
from llmctl.ops import engines
from llmctl.ops.choosing import kept_settings
from llmctl.ops.measuring import Measured, measured
from llmctl.ops.models.examining import Examined, reader
from llmctl.ops.models.headers import local_header, remote_header
from llmctl.ops.models.inspecting import inspect
from llmctl.ops.models.origins import local_origins
from llmctl.ops.survey import serves
from llmctl.paths import StackPaths


@dataclass(frozen=True)
class Subject:
    """A model to plan.

    Attributes:
        name: As the user calls it.
        label: Its quantisation.
        model: The language model.
        projector: Its projector.
        artifact: Its files, None for files named on the command line.
        notes: What is to be known of it, a sentence each.
    """

    name: str
    label: str
    model: Model
    projector: Projector | None
    artifact: Artifact | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """A machine to plan for.

    Attributes:
        hardware: All it has.
        devices: What the engine is given of it: GPUs, then the host.
        notes: What is to be known of it, a sentence each.
    """

    hardware: Hardware
    devices: tuple[Device, ...]
    notes: tuple[str, ...] = ()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs among the devices."""
        names = {device.name for device in self.devices}
        return tuple(
            gpu
            for gpu in self.hardware.gpus
            if gpu.name in names or f"{gpu.name} #{gpu.index}" in names
        )


@dataclass(frozen=True)
class Report:
    """A model on a machine.

    Attributes:
        subject: The model.
        place: The machine.
        fit: Settings and what they take.
        next_gib: What one GiB more would buy, None for nothing.
    """

    subject: Subject
    place: Place
    fit: Fit
    next_gib: str | None

    @property
    def notes(self) -> tuple[str, ...]:
        """Everything the reader should know."""
        return (*self.subject.notes, *self.place.notes, *self.fit.estimate.notes)


def report(subject: Subject, place: Place, wish: Wish, *, exact: bool) -> Report:
    """Plan a model; `exact` chooses nothing that is not asked for."""
    model, projector, devices = subject.model, subject.projector, place.devices
    found = fit(model, projector, wish, devices, exact=exact)
    more = next_gib(model, projector, wish, devices, found, exact=exact)
    return Report(subject, place, found, more)


def place_of(hardware: Hardware, kind: str | None = None, only: tuple[str, ...] = ()) -> Place:
    """A machine whose engine gets the GPUs of one kind; None for that of the first GPU."""
    devices = devices_of(hardware, kind, only)
    notes = list(hardware.problems)
    names = {device.name for device in devices}
    left = [gpu for gpu in hardware.gpus if gpu.name not in names and not gpu.shared]
    left = [gpu for gpu in left if f"{gpu.name} #{gpu.index}" not in names]
    if left and len(devices) > 1:
        notes.append(f"not used beside the others: {', '.join(gpu.name for gpu in left)}")
    return Place(hardware, devices, tuple(notes))


def stack_place(paths: StackPaths, stack: Stack, hardware: Hardware) -> Place:
    """The machine as `up` would use it for this stack.

    What the stack's own running engine holds counts as free: it would be replaced.
    """
    engine = engines.connect(paths, stack)
    kind = None if stack.gpu == "auto" else stack.gpu
    place = place_of(
        hardware, "none" if engines.kind(engine) == "process" else kind, stack.gpu_devices
    )
    kept = kept_settings(paths)
    known = measured(paths)
    lacking: dict[str, int] = {}
    for settled in kept.values():
        for name, size in known.get(settled.subject, Measured()).less().items():
            lacking[name] = lacking.get(name, 0) - size
    if lacking:
        note = "what an earlier load took beyond its plan is not counted as free"
        devices = with_room(place.devices, lacking)
        place = Place(hardware, devices, (*place.notes, note))
    try:
        own = bool(kept) and serves(stack, engine)
    except EngineError:
        own = False
    if not own:
        return place
    devices = place.devices
    for settled in kept.values():
        devices = with_room(devices, settled.taken)
    note = "what this stack's running engine holds is counted as free"
    return Place(hardware, devices, (*place.notes, note))


def from_files(places: Sequence[Path]) -> Subject:
    """A model from files on this machine, told apart by their headers; shards are found beside.

    Raises:
        ConfigError: a file is missing or damaged, or what is given is no single model.
    """
    headers: dict[Path, GgufHeader] = {}
    for place in places:
        for part in map(Path, shards(str(place))):
            if not part.is_file():
                raise ConfigError(f"{part}: does not exist", hint=f"ls -l {part.parent}")
            headers[part] = headers.get(part) or _local(part)
    eyes = [place for place, header in headers.items() if is_projector(header)]
    parts = [place for place in headers if place not in eyes]
    groups = {shards(str(place))[0] for place in parts}
    if len(groups) != 1 or len(eyes) > 1:
        raise UsageError(
            f"expected one language model and at most one projector, got {len(groups)} and {len(eyes)}",
            hint="llmctl fit model.gguf mmproj-model.gguf",
        )
    first = headers[parts[0]]
    return Subject(
        name=parts[0].name,
        label=language_facts(first).quantisation,
        model=Model.of([headers[place] for place in sorted(parts)]),
        projector=Projector.of(headers[eyes[0]]) if eyes else None,
        notes=() if eyes else _beside(parts[0]),
    )


def _local(place: Path) -> GgufHeader:
    try:
        return local_header(place)
    except GgufError as error:
        raise GgufError(f"{place}: {error.message}", hint=error.hint) from error


def _beside(place: Path) -> tuple[str, ...]:
    """A projector that lies beside the model and was not named may have been meant."""
    found = [other.name for other in place.parent.glob("*.gguf") if is_projector_name(other.name)]
    if len(found) != 1:
        return ()
    return (f"{found[0]} lies beside it and is not counted: name it too, if it belongs to it",)


def from_spec(paths: StackPaths, spec: ModelSpec, hub: Hub, formats: Formats) -> Subject:
    """A model of the stack, the catalogue or the hub; nothing but headers is transferred.

    Raises:
        ConfigError: it leads to no model, or its header is damaged.
        HubError: the hub does not answer.
    """
    examined = inspect(paths, spec, hub, formats).examined
    artifact = examined.artifact
    headers = [_header(examined, artifact.model[0].path, artifact.model[0].original.path)]
    read = reader(paths, hub, local_origins(paths, spec, artifact))
    headers += [read(artifact, part) for part in artifact.model[1:]]
    eyes = artifact.projector
    projector = _header(examined, eyes.path, eyes.original.path) if eyes else None
    refused = [one.message for one in examined.findings if one.level == "refuse"]
    return Subject(
        name=spec.name,
        label=language_facts(headers[0]).quantisation,
        model=Model.of(headers),
        projector=Projector.of(projector) if projector else None,
        artifact=artifact,
        notes=tuple(f"whatever fits, it cannot work: {message}" for message in refused),
    )


def _header(examined: Examined, *paths: str) -> GgufHeader:
    """A header that was read under one of these paths, or the reason why it was not."""
    for path in paths:
        if path in examined.headers:
            return examined.headers[path]
    for one in examined.findings:
        if one.code == "gated":
            raise GateError(one.message, hint=one.hint)
        if one.level == "refuse":
            raise ConfigError(one.message, hint=one.hint)
    raise ConfigError(f"{paths[0]}: its header could not be read", hint="llmctl models inspect")


def combinations(
    subject: Subject, place: Place, wish: Wish, hub: Hub | None, listen: Listener
) -> Table:
    """Every quantisation of its repository × cache type × context × slots.

    Args:
        subject: The model; without a repository its own quantisation is the only one.
        place: The machine.
        wish: What is wanted: the rows that would do.
        hub: Where the other quantisations' headers are read.
        listen: Hears which one is being read.
    """
    models = {subject.label: subject.model}
    artifact = subject.artifact
    if hub is not None and artifact is not None and artifact.repo and artifact.commit:
        info = hub.describe(artifact.repo, artifact.commit)
        models = _quantisations(info, hub, listen) or models
    # The cache type is what the table varies, so the one asked for only ranks the rows.
    found = fit(subject.model, subject.projector, wish, place.devices, exact=True)
    return table(models, place.devices, found.settings, subject.projector)


def _quantisations(info: RepoInfo, hub: Hub, listen: Listener) -> dict[str, Model]:
    """The quantisations of a repository, the largest first."""
    paths = [file.path for file in info.files if is_safe_path(file.path)]
    labels = dict.fromkeys(label_of(path) for path in paths if not is_projector_name(path))
    found: dict[str, Model] = {}
    for label in filter(None, labels):
        try:
            parts = choose(info, label).model
            listen(Step(f"read the header of {parts[0].path}"))
            headers = [remote_header(hub, info.repo, info.commit, part.path) for part in parts]
            found[label] = Model.of(headers)
        except ConfigError:
            continue  # shards are missing, or several files claim the name: none to recommend
    return dict(sorted(found.items(), key=lambda item: -item[1].weight_bytes))
