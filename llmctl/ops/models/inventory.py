"""What is here: list, show, verify, remove."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from llmctl import files
from llmctl.core.artifact import Artifact, ModelFile
from llmctl.core.events import Listener
from llmctl.core.lock import Lock
from llmctl.errors import ConfigError
from llmctl.ops.models.disk import HashCache, hash_with_progress, state
from llmctl.ops.models.pulling import write_lock
from llmctl.ops.models.sources import load_catalog, read_lock
from llmctl.paths import StackPaths


@dataclass(frozen=True)
class Listed:
    """One line of `models list`.

    Attributes:
        name: Catalogue name, or the name it was pulled under.
        title: The model in a few words; what it was pulled from when not in the catalogue.
        licence: The licence's short name, None when not known.
        repo: `organisation/repository`, None for local files.
        here: How many of its files are on disk.
        of: How many files it has.
        bytes: What they take on disk.
        pulled: Whether the lock has it.
    """

    name: str
    title: str
    licence: str | None
    repo: str | None
    here: int
    of: int
    bytes: int
    pulled: bool


@dataclass(frozen=True)
class FileOnDisk:
    """A file of a model and how it stands on disk: absent, wrong, unchecked or good."""

    file: ModelFile
    state: str


@dataclass(frozen=True)
class Shown:
    """What is known of one model.

    Attributes:
        artifact: Its files; from the lock when it was pulled.
        title: The model in a few words, None outside the catalogue.
        pulled: Whether the lock has it.
        files: Each file with its state on disk.
    """

    artifact: Artifact
    title: str | None
    pulled: bool
    files: tuple[FileOnDisk, ...]


@dataclass(frozen=True)
class Check:
    """A file that was hashed: what the lock says, and what it is."""

    model: str
    path: str
    verdict: Literal["ok", "changed", "missing"]
    expected: str
    found: str | None


@dataclass(frozen=True)
class Removal:
    """What removing a model means.

    Attributes:
        name: The model.
        delete: Files to delete that are there, with their size in bytes.
        shared: Files that stay because another model uses them, and that model.
        left: Rendered files that stay, relative to the stack directory.
    """

    name: str
    delete: tuple[tuple[str, int], ...]
    shared: tuple[tuple[str, str], ...]
    left: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes that come free."""
        return sum(size for _, size in self.delete)


def listing(paths: StackPaths) -> tuple[Listed, ...]:
    """The catalogue in its order, then what else was pulled, by name."""
    lock = read_lock(paths)
    catalog = load_catalog()
    rows = []
    for entry in catalog.entries:
        locked = lock.models.get(entry.name)
        pulled = locked is not None and locked.source == entry.name
        artifact = locked if locked and pulled else entry.artifact(entry.name)
        rows.append(_listed(paths, artifact, entry.title, pulled=pulled))
    others = [
        _listed(paths, artifact, artifact.source, pulled=True)
        for name, artifact in sorted(lock.models.items())
        if artifact.source != name or catalog.get(name) is None
    ]
    return (*rows, *others)


def show(paths: StackPaths, name: str) -> Shown:
    """One model, by catalogue name or by the name it was pulled under.

    Raises:
        ConfigError: neither knows it.
    """
    locked = read_lock(paths).models.get(name)
    catalog = load_catalog()
    entry = catalog.get(locked.source if locked else name)
    artifact = locked or catalog.find(name).artifact(name)
    cache = HashCache(paths)
    return Shown(
        artifact=artifact,
        title=entry.title if entry else None,
        pulled=locked is not None,
        files=tuple(FileOnDisk(file, state(paths, file, cache).value) for file in artifact.files),
    )


def verify(
    paths: StackPaths, name: str | None, listen: Listener, *, deep: bool = False
) -> tuple[Check, ...]:
    """Compare every file of one pulled model, or of all, with the lock.

    A file that was hashed before is hashed again only when its size, modification time or inode
    changed; `deep` hashes every file, which finds what a disk altered by itself.

    Raises:
        ConfigError: the model was never pulled.
    """
    lock = read_lock(paths)
    chosen = [_pulled(lock, name)] if name is not None else list(lock.models.values())
    cache = HashCache(paths)
    hashes: dict[str, str | None] = {}
    checks = []
    for artifact in chosen:
        for file in artifact.files:
            if file.path not in hashes:
                known = None if deep else _known_hash(paths, file.path, cache)
                hashes[file.path] = known or _fresh_hash(paths, file.path, cache, listen)
            found = hashes[file.path]
            verdict: Literal["ok", "changed", "missing"] = (
                "ok" if found == file.sha256 else "changed"
            )
            if found is None:
                verdict = "missing"
            checks.append(Check(artifact.name, file.path, verdict, file.sha256 or "", found))
    cache.save()
    return tuple(checks)


def plan_removal(paths: StackPaths, name: str) -> Removal:
    """What `remove` would do.

    Raises:
        ConfigError: the model was never pulled.
    """
    lock = read_lock(paths)
    artifact = _pulled(lock, name)
    delete, shared = [], []
    cache = HashCache(paths)
    of_it = {file.path: file for file in artifact.files}
    for file in artifact.files:
        if file.repair and cache.fetched(file.repair.original):
            of_it[file.repair.original] = file.original
    for path in of_it:
        place = paths.models / path
        if others := [owner for owner in lock.owners(path) if owner != name]:
            shared.append((path, others[0]))
        elif place.is_file():
            delete.append((path, place.stat().st_size))
    rendered = [paths.models / f"{name}{suffix}" for suffix in (".yaml", ".tmpl")]
    return Removal(
        name,
        tuple(delete),
        tuple(shared),
        tuple(str(path.relative_to(paths.root)) for path in rendered if path.exists()),
    )


def remove(paths: StackPaths, removal: Removal) -> None:
    """Delete a model's files and its place in the lock, as planned.

    Raises:
        LlmctlError: a pull is at work, or a file cannot be deleted.
    """
    cache = HashCache(paths)
    with files.exclusive(paths.locks / "lock", f"llmctl models rm {removal.name}"):
        for path, _ in removal.delete:
            place = paths.models / path
            files.delete(place)
            cache.forget(path)
            if place.parent != paths.models and not any(place.parent.iterdir()):
                place.parent.rmdir()
        write_lock(paths, read_lock(paths).without(removal.name))
    cache.save()


def _pulled(lock: Lock, name: str) -> Artifact:
    if artifact := lock.models.get(name):
        return artifact
    near = difflib.get_close_matches(name, lock.models, n=3)
    there = f"; the lock has {', '.join(near or sorted(lock.models))}" if lock.models else ""
    raise ConfigError(f'"{name}" was not pulled{there}', hint=f"llmctl models pull {name}")


def _listed(paths: StackPaths, artifact: Artifact, title: str, *, pulled: bool) -> Listed:
    places = [paths.models / file.path for file in artifact.files]
    sizes = [place.stat().st_size for place in places if place.is_file()]
    return Listed(
        artifact.name,
        title,
        artifact.licence,
        artifact.repo,
        here=len(sizes),
        of=len(places),
        bytes=sum(sizes),
        pulled=pulled,
    )


def _known_hash(paths: StackPaths, path: str, cache: HashCache) -> str | None:
    return cache.get(path) if (paths.models / path).is_file() else None


def _fresh_hash(paths: StackPaths, path: str, cache: HashCache, listen: Listener) -> str | None:
    """The file's hash computed now, None when it is not there."""
    if not (paths.models / path).is_file():
        return None
    sha256 = hash_with_progress(paths, path, listen)
    cache.put(path, sha256)
    return sha256
