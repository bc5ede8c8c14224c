"""From a model of the stack to its files: the lock first, then the catalogue, then the hub."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from llmctl import files
from llmctl.core.artifact import (
    Artifact,
    ModelFile,
    RepoFile,
    RepoInfo,
    choose,
    is_safe_path,
    local_paths,
    no_projector,
    shards,
)
from llmctl.core.capabilities import Capabilities
from llmctl.core.catalog import Catalog, parse_catalog
from llmctl.core.lock import Lock, parse_lock
from llmctl.core.reference import is_reference, parse_reference
from llmctl.core.stack import ModelSpec
from llmctl.errors import ConfigError, HubError
from llmctl.hub.base import Hub
from llmctl.paths import StackPaths, builtin_catalog


def load_catalog() -> Catalog:
    """The catalogue that comes with llmctl."""
    return parse_catalog(json.loads(builtin_catalog().read_text(encoding="utf-8")))


def read_lock(paths: StackPaths) -> Lock:
    """The stack's lock, empty when there is none."""
    return parse_lock(files.read_text(paths.lock_file), paths.lock_file.name)


def capabilities(specs: Iterable[ModelSpec]) -> dict[str, Capabilities]:
    """What may be demanded of each of these models, by name; models nothing is known of are absent."""
    catalog = load_catalog()
    entries = {spec.name: catalog.get(spec.source or "") for spec in specs}
    return {name: entry.capabilities for name, entry in entries.items() if entry}


def resolve(paths: StackPaths, spec: ModelSpec, hub: Hub | None) -> Artifact:
    """The files that a model of the stack means, with its template choice.

    Args:
        paths: The stack directory.
        spec: The model.
        hub: Where a repository that was never pulled is looked up, None to stay offline.

    Raises:
        ConfigError: unknown name, missing local file, nothing fitting in the repository, or the
            network would be needed and is not allowed.
        HubError: the hub does not answer, or not with what was asked for.
    """
    artifact = find(paths, spec, hub)
    if spec.template != "auto":
        return dataclasses.replace(artifact, template=spec.template)
    return artifact


def find(
    paths: StackPaths,
    spec: ModelSpec,
    hub: Hub | None,
    *,
    fresh: bool = False,
    blind: bool = False,
) -> Artifact:
    """`resolve` before the spec's own template is applied: what the lock records.

    Args:
        paths: The stack directory.
        spec: The model.
        hub: Where a repository is looked up, None to stay offline.
        fresh: Whether to look anew where the lock has an answer.
        blind: Whether a repository without a projector is an answer, too.
    """
    locked = None if fresh else read_lock(paths).models.get(spec.name)
    if spec.model is not None:
        return _local(paths, spec, locked)
    source = spec.source or ""
    catalog = load_catalog()
    entry = catalog.get(source)
    if entry and entry.bundled:
        # What comes with llmctl changes with llmctl; a lock could not bring older files back.
        return entry.artifact(spec.name)
    if locked and locked.source == source:
        return locked
    if not is_reference(source):
        return catalog.find(source).artifact(spec.name)
    reference = parse_reference(source)
    if hub is None:
        raise ConfigError(
            f"{source}: was never pulled, so its files are not known without the network",
            hint=f"llmctl models pull {source}",
        )
    info = hub.describe(reference.repo, reference.revision)
    artifact = candidates(spec.name, source, info)[0]
    if artifact.projector is None and not blind:
        raise no_projector(info)
    return artifact


def candidates(
    name: str, source: str, info: RepoInfo, model: str | None = None
) -> tuple[Artifact, ...]:
    """What an hf:// reference may mean: one artifact a projector, the likeliest by name first.

    Without any projector in the repository it is one artifact that has none.

    Args:
        name: The model's name here.
        source: The reference.
        info: What the repository holds.
        model: The language model's first file, where it was chosen already.

    Raises:
        ConfigError: the repository holds no fitting model.
    """
    choice = choose(info, model or parse_reference(source).quant)
    return tuple(
        _from_repo(name, source, info, choice.model, projector)
        for projector in choice.projectors or (None,)
    )


def _from_repo(
    name: str,
    source: str,
    info: RepoInfo,
    model: tuple[RepoFile, ...],
    projector: RepoFile | None,
) -> Artifact:
    chosen = (*model, projector) if projector else model
    places = local_paths(name, tuple(file.path for file in chosen))
    found = tuple(
        ModelFile(path=place, size=file.size, sha256=file.sha256, remote=file.path)
        for place, file in zip(places, chosen, strict=True)
    )
    return Artifact(
        name=name,
        source=source,
        repo=info.repo,
        commit=info.commit,
        licence=info.licence,
        template="tokenizer",
        model=found[: len(model)],
        projector=found[-1] if projector else None,
    )


def pin(artifact: Artifact, revision: str | None, hub: Hub) -> Artifact:
    """A catalogue artifact with the commit, sizes and hashes that the hub has now.

    Raises:
        HubError: a file is gone, or is no longer the one whose SHA-256 the catalogue knows.
    """
    if artifact.repo is None or artifact.commit is not None:
        return artifact
    info = hub.describe(artifact.repo, revision)
    projector = artifact.projector
    return dataclasses.replace(
        artifact,
        commit=info.commit,
        licence=artifact.licence or info.licence,
        model=tuple(_pinned(file, info) for file in artifact.model),
        projector=_pinned(projector, info) if projector else None,
    )


def _pinned(file: ModelFile, info: RepoInfo) -> ModelFile:
    listed = next((one for one in info.files if one.path == file.remote), None)
    if listed is None:
        gguf = [one.path for one in info.files if is_safe_path(one.path)]
        raise HubError(
            f"{info.repo}: has no file {file.remote} any more",
            hint=f"take another file of it: hf://{info.repo}:FILE.gguf",
            details="\n".join(gguf) or None,
        )
    if file.sha256 and listed.sha256 and file.sha256 != listed.sha256:
        raise HubError(
            f"{info.repo}: {file.remote} was changed on the hub since the catalogue was written"
            f" (SHA-256 {file.sha256[:12]}..., now {listed.sha256[:12]}...)",
            hint=f"to take the new one knowingly: source: hf://{info.repo}",
        )
    return dataclasses.replace(file, size=listed.size, sha256=file.sha256 or listed.sha256)


def _local(paths: StackPaths, spec: ModelSpec, locked: Artifact | None) -> Artifact:
    """The artifact of local files; hashes from the lock while the files keep their size."""
    given = ((spec.model or ""), *((spec.mmproj,) if spec.mmproj else ()))
    source = "file:" + ",".join(given)
    known = {}
    if locked and locked.source == source:
        known = {file.original.path: file.original for file in locked.files}
    model = tuple(_local_file(paths, spec.name, part, known) for part in shards(spec.model or ""))
    projector = _local_file(paths, spec.name, spec.mmproj, known) if spec.mmproj else None
    if projector and known and locked and (was := locked.projector) and was.repair:
        # Repaired by an earlier pull; it stays so while the original is the same.
        projector = was if projector == was.original else projector
    return Artifact(
        name=spec.name,
        source=source,
        repo=None,
        commit=None,
        licence=None,
        template="tokenizer",
        model=model,
        projector=projector,
    )


def _local_file(paths: StackPaths, name: str, given: str, known: dict[str, ModelFile]) -> ModelFile:
    origin = local_origin(paths, given)
    inside = origin.is_relative_to(paths.models)
    place = origin.relative_to(paths.models).as_posix() if inside else f"{name}/{origin.name}"
    if not is_safe_path(place):
        raise ConfigError(
            f"{name}: {place}: LocalAI takes no path with '..', a backslash, a leading dot or"
            " control characters",
            hint="rename the file",
        )
    if origin.is_file():
        size = origin.stat().st_size
    elif place in known and (paths.models / place).is_file():
        return known[place]  # linked earlier; the original may go
    else:
        raise ConfigError(
            f"{name}: {origin} does not exist", hint="paths are relative to the stack file"
        )
    same = place in known and known[place].size == size
    return ModelFile(path=place, size=size, sha256=known[place].sha256 if same else None)


def local_origin(paths: StackPaths, given: str) -> Path:
    """Where a local file of the stack lies, absolute; symbolic links are left as they are."""
    return Path(os.path.normpath(paths.root / Path(given).expanduser()))
