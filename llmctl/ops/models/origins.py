"""Where the files of a model come from: the hub, llmctl's own package, or this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmctl import files
from llmctl.core.artifact import Artifact, ModelFile, RepoFile, shards
from llmctl.core.events import Listener, Note, Progress
from llmctl.core.stack import ModelSpec
from llmctl.errors import HubError, LlmctlError
from llmctl.hub.base import Hub
from llmctl.ops.models.sources import load_catalog, local_origin
from llmctl.paths import StackPaths, bundled_directory

REPAIRED = ".repaired"
"""Behind the name of an unfinished transfer: the copy that is made of it, under the same lock."""


@dataclass(frozen=True)
class Brought:
    """How a file came.

    Attributes:
        sha256: Its SHA-256 where that was computed on the way, else None.
        transferred: Bytes that were sent or copied out of the package; None when it was linked to
            something on this machine.
    """

    sha256: str | None
    transferred: int | None


class Origin(Protocol):
    """Where a model's files come from."""

    def bring(self, file: ModelFile, aside: Path, listen: Listener) -> Brought:
        """Put the file whole at `aside`, whose directory exists; its content is unchecked."""

    def wrong(self, what: str) -> LlmctlError:
        """The error for a file that is not what it should be."""


@dataclass(frozen=True)
class FromHub:
    """A commit of a repository."""

    hub: Hub
    repo: str
    commit: str

    def bring(self, file: ModelFile, aside: Path, listen: Listener) -> Brought:
        """Link what the hub's own client has in its cache, else transfer it."""
        wanted = RepoFile(file.remote or "", file.size, file.sha256)
        cached = self.hub.cached(self.repo, self.commit, wanted)
        if cached is not None and file.sha256 is not None:
            # Without a hash to check it by, a file in somebody's cache is only a file.
            sha256 = _hashed(cached, file, listen)
            if sha256 == file.sha256:
                _clear(aside)
                linked = files.link_or_copy(cached, aside)
                verb = "linked to" if linked else "copied from"
                listen(Note(f"{file.path}: {verb} the hub client's cache, {cached.resolve()}"))
                return Brought(sha256, None)

        def heard(done: int, total: int | None) -> None:
            listen(Progress(file.path, done, total or file.size))

        sha256 = self.hub.download(self.repo, self.commit, wanted, aside, heard)
        return Brought(sha256, aside.stat().st_size)

    def wrong(self, what: str) -> LlmctlError:
        """A proxy or mirror is the usual cause."""
        return HubError(
            f"the hub sent {what}; nothing was kept",
            hint="run it again; if it stays so, a proxy or mirror alters the file\n"
            "(HF_ENDPOINT, HTTPS_PROXY)",
        )


@dataclass(frozen=True)
class FromPackage:
    """A directory of llmctl's package."""

    directory: Path

    def bring(self, file: ModelFile, aside: Path, listen: Listener) -> Brought:
        """Copy it; the package is never linked to, so that nothing can change it."""
        del listen
        origin = packaged(self.directory, file)
        files.copy(origin, aside)
        return Brought(None, aside.stat().st_size)

    def wrong(self, what: str) -> LlmctlError:
        """The installation is damaged."""
        return LlmctlError(
            f"llmctl's package holds {what}; nothing was kept",
            hint=_REINSTALL,
        )


_REINSTALL = "pipx reinstall llmctl   # in a checkout: git restore llmctl"


@dataclass(frozen=True)
class FromHere:
    """Files that the stack names, by their path below models/."""

    origins: Mapping[str, Path]

    def bring(self, file: ModelFile, aside: Path, listen: Listener) -> Brought:
        """Link a file from outside models/ into it, or copy it from another file system."""
        origin = self.origins[file.path]
        linked = files.link_or_copy(origin, aside)
        listen(Note(f"{file.path}: {'linked to' if linked else 'copied from'} {origin}"))
        return Brought(None, None)

    def wrong(self, what: str) -> LlmctlError:
        """The file changed under our hands."""
        return LlmctlError(f"the stack names {what}", hint="llmctl models pull")


def origin_of(paths: StackPaths, spec: ModelSpec, artifact: Artifact, hub: Hub) -> Origin:
    """Where the files of this artifact come from."""
    if spec.model is not None:
        return FromHere(local_origins(paths, spec, artifact))
    if directory := package_directory(artifact):
        return FromPackage(directory)
    if artifact.repo is None or artifact.commit is None:
        raise AssertionError(artifact)  # pinned by the caller
    return FromHub(hub, artifact.repo, artifact.commit)


def packaged(directory: Path, file: ModelFile) -> Path:
    """Where a file lies in llmctl's package; LlmctlError when it is not there."""
    place = directory / (file.remote or "")
    if not place.is_file():
        raise LlmctlError(f"{place}: is missing, although it comes with llmctl", hint=_REINSTALL)
    return place


def package_directory(artifact: Artifact) -> Path | None:
    """The directory of a model that comes with llmctl, None for any other."""
    entry = load_catalog().get(artifact.source)
    return bundled_directory(entry.bundled) if entry and entry.bundled else None


def local_origins(paths: StackPaths, spec: ModelSpec, artifact: Artifact) -> dict[str, Path]:
    """Where a local model's files lie, by their path below models/; empty for any other model."""
    if spec.model is None:
        return {}
    given = (*shards(spec.model), *((spec.mmproj,) if spec.mmproj else ()))
    return {
        file.original.path: local_origin(paths, text)
        for text, file in zip(given, artifact.files, strict=True)
    }


def partial_of(paths: StackPaths, artifact: Artifact, file: ModelFile) -> Path:
    """Where a file lies until it is whole: the same place for the same content."""
    content = file.sha256 or f"{artifact.repo}@{artifact.commit}/{file.remote}"
    key = hashlib.sha256(f"{file.path}\n{content}".encode()).hexdigest()[:12]
    return paths.partial / f"{Path(file.path).name}.{key}"


def _hashed(cached: Path, file: ModelFile, listen: Listener) -> str:
    size = cached.stat().st_size

    def heard(done: int) -> None:
        listen(Progress(file.path, done, size, detail="checking the copy in the hub's cache"))

    return files.sha256_of(cached, heard)


def _clear(aside: Path) -> None:
    """Give up an unfinished transfer: the whole file is here."""
    for place in aside.parent.glob(f"{aside.name}*"):
        files.delete(place)
