"""Before the download: read the headers, pair model and projector, and say what speaks against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmctl import files
from llmctl.core.artifact import Artifact, ModelFile, Repair
from llmctl.core.gguf import GgufError, GgufHeader
from llmctl.core.language import LanguageFacts, language_facts
from llmctl.core.projector import ProjectorFacts, is_projector, projector_facts
from llmctl.core.reference import is_reference, parse_reference
from llmctl.core.repair import repaired_name
from llmctl.core.stack import ModelSpec
from llmctl.core.verdict import (
    Finding,
    Formats,
    in_order,
    judge,
    language_header,
    projector_header,
    refused,
)
from llmctl.errors import GateError
from llmctl.hub.base import Hub, partial_progress
from llmctl.ops.models.disk import HashCache, State, state
from llmctl.ops.models.headers import local_header, remote_header
from llmctl.ops.models.origins import local_origins, package_directory, packaged, partial_of
from llmctl.ops.models.sources import candidates, load_catalog, pin, read_lock
from llmctl.paths import StackPaths

MOST_PROJECTORS = 8  # whose headers are read; a repository with more has one an encoder size


@dataclass(frozen=True)
class Examined:
    """What the headers say of a model before its weights are here.

    Attributes:
        artifact: Its files: the projector that fits, marked for repair where it needs it.
        language: The language model; None when its header could not be read.
        projector: The projector, likewise, or None when there is none.
        findings: What speaks against it and what has to be known, the gravest first.
        headers: The headers that were read, by the file's path; for the memory plan.
    """

    artifact: Artifact
    language: LanguageFacts | None
    projector: ProjectorFacts | None
    findings: tuple[Finding, ...]
    headers: dict[str, GgufHeader]

    @property
    def works(self) -> bool:
        """Whether nothing speaks against it that llmctl cannot mend."""
        return not refused(self.findings)


def examine(
    choices: tuple[Artifact, ...],
    header_of: Callable[[Artifact, ModelFile], GgufHeader],
    formats: Formats,
    *,
    vicuna: bool,
) -> Examined:
    """Read the headers of a model and judge them.

    Args:
        choices: What it may consist of, differing in the projector; the likeliest first.
        header_of: Reads the header of one of its files.
        formats: What the engine takes.
        vicuna: Whether the stack brings a prompt format of its own.

    Raises:
        HubError: the hub does not answer; what it refuses for its terms is a finding instead.
    """
    first = choices[0]
    headers: dict[str, GgufHeader] = {}
    found: list[Finding] = []

    def read(artifact: Artifact, file: ModelFile) -> GgufHeader | None:
        try:
            header = header_of(artifact, file)
        except GgufError as error:
            found.append(Finding("refuse", "not-gguf", f"{_name(file)}: {error}", error.hint))
            return None
        except GateError as error:
            found.append(Finding("refuse", "gated", error.message, error.hint))
            return None
        found.extend(_size(file, header))
        headers[file.path] = header
        return header

    header = read(first, first.model[0])
    if header is not None and is_projector(header):
        found.append(_swapped(first.model[0], "a projector, not a language model"))
        header = None
    language = language_facts(header) if header is not None else None
    if any(one.code == "gated" for one in found):
        return Examined(first, None, None, in_order(found), headers)
    if language is not None:
        found.extend(_parts(first, language))
    before = list(found)
    best: Examined | None = None
    for choice in choices[:MOST_PROJECTORS]:
        found[:] = before
        eyes = _projector(choice, read, found)
        if choice.projector is None or eyes is not None:
            found.extend(judge(language, eyes, formats, vicuna=vicuna))
        examined = Examined(
            _with_facts(choice, language, eyes), language, eyes, in_order(found), headers
        )
        if examined.works:
            return examined
        best = best or examined
    if best is None:
        raise AssertionError(choices)
    return best


def examined_for(
    paths: StackPaths, spec: ModelSpec, artifact: Artifact, hub: Hub, formats: Formats
) -> Examined:
    """A model of the stack as its origin has it now, judged, the room on the disk included.

    Raises:
        HubError: the hub does not answer, or a file is gone or changed there.
    """
    choices: tuple[Artifact, ...] = (artifact,)
    locked = read_lock(paths).models.get(spec.name)
    if artifact.repo is not None and artifact.commit is None:
        entry = load_catalog().get(artifact.source)
        choices = (pin(artifact, entry.revision if entry else None, hub),)
    elif spec.model is None and is_reference(artifact.source) and artifact != locked:
        reference = parse_reference(artifact.source)
        info = hub.describe(reference.repo, reference.revision)
        choices = candidates(spec.name, artifact.source, info, artifact.model[0].remote)
    examined = examine(
        choices,
        reader(paths, hub, _places(paths, spec, artifact)),
        formats,
        vicuna="vicuna" in {spec.template, artifact.template},
    )
    found = examined.findings
    if spec.model is not None:
        # Who names a local file without its projector may want just that.
        found = tuple(
            dataclasses.replace(one, level="warn") if one.code == "no-projector" else one
            for one in found
        )
    if package_directory(artifact):
        found = ()  # llmctl's own files are good by their SHA-256, checked when they are copied
    findings = (*found, *disk_findings(paths, examined.artifact))
    return dataclasses.replace(examined, findings=in_order(findings))


def disk_findings(paths: StackPaths, artifact: Artifact) -> tuple[Finding, ...]:
    """Whether there is no room for what pulling it would write."""
    needed, free = needed_bytes(paths, artifact), files.free_bytes(paths.models)
    if needed <= free:
        return ()
    return (
        Finding(
            "refuse",
            "disk-full",
            f"{paths.models}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free",
            "free some space, or put models/ on another disk with a symbolic link",
        ),
    )


def needed_bytes(paths: StackPaths, artifact: Artifact) -> int:
    """Bytes that pulling would still write, repaired copies included."""
    cache = HashCache(paths)
    needed = 0
    for file in artifact.files:
        original = file.original
        place = paths.models / original.path
        size = original.size or 0
        if state(paths, file, cache) is State.GOOD:
            continue
        if file.repair:
            needed += size
        local = artifact.source.startswith("file:")  # linked, where the file system can
        if local or (place.is_file() and place.stat().st_size == size):
            continue
        partial = partial_progress(partial_of(paths, artifact, original))
        needed += size - (partial[0] if partial else 0)
    return needed


def reader(
    paths: StackPaths, hub: Hub, origins: Mapping[str, Path]
) -> Callable[[Artifact, ModelFile], GgufHeader]:
    """How to read a file's header: here when it is here in full, else from the hub.

    Args:
        paths: The stack directory.
        hub: The hub.
        origins: Where files lie that come from elsewhere on this machine, by their path.
    """

    def header_of(artifact: Artifact, file: ModelFile) -> GgufHeader:
        original = file.original
        place = paths.models / original.path
        if original.path in origins:
            return local_header(origins[original.path])
        here = place.is_file() and original.size in {None, place.stat().st_size}
        if artifact.repo is None or artifact.commit is None or here:
            return local_header(place)
        return remote_header(hub, artifact.repo, artifact.commit, original.remote or "")

    return header_of


def _places(paths: StackPaths, spec: ModelSpec, artifact: Artifact) -> dict[str, Path]:
    """Where files lie that come from elsewhere on this machine, by their path below models/."""
    if directory := package_directory(artifact):
        return {file.path: packaged(directory, file) for file in artifact.files}
    origins = local_origins(paths, spec, artifact)
    return {path: place for path, place in origins.items() if place.is_file()}


def _projector(
    choice: Artifact,
    read: Callable[[Artifact, ModelFile], GgufHeader | None],
    found: list[Finding],
) -> ProjectorFacts | None:
    if choice.projector is None or (header := read(choice, choice.projector)) is None:
        return None
    if not is_projector(header):
        found.append(_swapped(choice.projector, "a language model, not a projector"))
        return None
    return projector_facts(header)


def _with_facts(
    artifact: Artifact, language: LanguageFacts | None, eyes: ProjectorFacts | None
) -> Artifact:
    """The artifact with what the headers say, its projector marked for repair where needed."""
    first, *rest = artifact.model
    if language is not None:
        first = dataclasses.replace(first, header=language_header(language))
    projector = artifact.projector
    if projector is not None and eyes is not None:
        if eyes.repair and projector.repair is None:
            projector = ModelFile(
                path=repaired_name(projector.path),
                remote=projector.remote,
                repair=Repair(eyes.repair, projector.path, projector.size, projector.sha256),
            )
        projector = dataclasses.replace(projector, header=projector_header(eyes))
    return dataclasses.replace(artifact, model=(first, *rest), projector=projector)


def _size(file: ModelFile, header: GgufHeader) -> tuple[Finding, ...]:
    size = file.original.size
    if size is None or size >= header.file_size:
        return ()
    return (
        Finding(
            "refuse",
            "truncated",
            f"{_name(file)}: has {size} bytes, and its header speaks of {header.file_size}: it is"
            " not whole where it comes from",
            "take another conversion of the model",
        ),
    )


def _parts(artifact: Artifact, language: LanguageFacts) -> tuple[Finding, ...]:
    if language.part == 0 and language.parts == len(artifact.model):
        return ()
    return (
        Finding(
            "refuse",
            "shards-incomplete",
            f"{_name(artifact.model[0])}: is part {language.part + 1} of {language.parts}, and"
            f" {len(artifact.model)} of them are named here",
            "name the first part, NAME-00001-of-0000N.gguf, with all others beside it",
        ),
    )


def _swapped(file: ModelFile, what: str) -> Finding:
    return Finding(
        "refuse",
        "wrong-kind",
        f"{_name(file)}: is {what}",
        "the projector is the file with mmproj in its name",
    )


def _name(file: ModelFile) -> str:
    return file.remote or f"models/{file.original.path}"
