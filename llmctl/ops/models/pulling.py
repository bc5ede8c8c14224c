"""Bring a model's files here: whole and verified under their final name, or not at all."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmctl import files
from llmctl.core.artifact import Artifact, ModelFile, shards
from llmctl.core.events import Listener, Note, Progress
from llmctl.core.lock import Lock, format_lock
from llmctl.core.stack import ModelSpec
from llmctl.errors import ConfigError, DiskFullError, HubError, LlmctlError
from llmctl.hub.base import Hub
from llmctl.ops.models.disk import HashCache, State, fault, hashed_state, state
from llmctl.ops.models.sources import find, load_catalog, local_origin, pin, read_lock, resolve
from llmctl.paths import StackPaths, bundled_directory


@dataclass(frozen=True)
class PullResult:
    """What a pull did.

    Attributes:
        artifact: The model's files, each with size and SHA-256.
        downloaded: Paths of the files that were transferred, or copied out of llmctl's package.
        already: Paths of those that were here, or were linked from elsewhere on this machine.
        bytes: Bytes that were transferred.
    """

    artifact: Artifact
    downloaded: tuple[str, ...]
    already: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class _Origin:
    """Where files come from.

    Attributes:
        sender: Who that is, for the message about a wrong file.
        error: The kind of that error.
        hint: What mends it.
        bring: Writes a file whole to a path whose directory exists.
    """

    sender: str
    error: type[LlmctlError]
    hint: str
    bring: Callable[[ModelFile, Path], None]


def pull(paths: StackPaths, spec: ModelSpec, hub: Hub, listen: Listener) -> PullResult:
    """Make every file of a model be here, verified, and recorded in the lock.

    When the lock is satisfied nothing is asked of the network and nothing is hashed.

    Raises:
        ConfigError: see `resolve`; or a file that llmctl did not put there is in the way.
        HubError: a file cannot be had, or is not what was announced; nothing wrong is left.
        LlmctlError: the same of a file that comes with llmctl.
        DiskFullError: told before the first byte where the sizes are known.
        LlmctlError: another pull is at work in this models directory.
    """
    lock = read_lock(paths)
    cache = HashCache(paths)
    artifact = find(paths, spec, hub)
    if lock.models.get(spec.name) == artifact and all(
        state(paths, file, cache) is State.GOOD for file in artifact.files
    ):
        present = tuple(file.path for file in artifact.files)
        return PullResult(resolve(paths, spec, None), (), present, 0)
    with working(paths, f"llmctl models pull {spec.name}"):
        try:
            if spec.model is not None:
                _bring_local(paths, spec, artifact, cache, listen)
                fetch: tuple[ModelFile, ...] = ()
            else:
                artifact, origin = _origin(artifact, hub, listen)
                fetch = _to_fetch(paths, artifact, cache, listen)
                _refuse_strangers(paths, lock, fetch)
                _refuse_full_disk(paths, fetch)
                for file in fetch:
                    _fetch(paths, file, origin, cache=cache, listen=listen)
            artifact = _recorded(paths, artifact, cache, listen)
        finally:
            # What is done stays known, also when the next file fails.
            cache.save()
        write_lock(paths, read_lock(paths).with_model(artifact))
        _tell_orphans(paths, lock.models.get(spec.name), listen)
    downloaded = tuple(file.path for file in fetch)
    sizes = {file.path: file.size or 0 for file in artifact.files}
    return PullResult(
        resolve(paths, spec, None),
        downloaded,
        tuple(path for path in sizes if path not in downloaded),
        sum(sizes[path] for path in downloaded),
    )


@contextmanager
def working(paths: StackPaths, holder: str) -> Iterator[None]:
    """Alone at work in the models directory; what killed runs left in `.partial` is cleared."""
    partial = partial_directory(paths)
    with files.exclusive(partial / "lock", holder):
        _clear(partial)
        try:
            yield
        finally:
            _clear(partial)


def partial_directory(paths: StackPaths) -> Path:
    """Where files lie until they are whole: on the same file system, hidden from LocalAI."""
    return paths.models / ".partial"


def write_lock(paths: StackPaths, lock: Lock) -> None:
    """Write `llmctl.lock`."""
    files.write_atomic(paths.lock_file, format_lock(lock))


def _clear(partial: Path) -> None:
    for child in partial.iterdir():
        if child.is_dir():
            shutil.rmtree(child, ignore_errors=True)
        elif child.name != "lock":
            child.unlink(missing_ok=True)


def _origin(artifact: Artifact, hub: Hub, listen: Listener) -> tuple[Artifact, _Origin]:
    """The artifact as its origin has it now, and the origin."""
    entry = load_catalog().get(artifact.source)
    if entry and entry.bundled:
        return artifact, _from_package(bundled_directory(entry.bundled))
    pinned = pin(artifact, entry.revision if entry else None, hub)
    return pinned, _from_hub(pinned, hub, listen)


def _from_package(directory: Path) -> _Origin:
    reinstall = "pipx reinstall llmctl   # in a checkout: git restore llmctl"

    def bring(file: ModelFile, aside: Path) -> None:
        origin = directory / (file.remote or "")
        if not origin.is_file():
            raise LlmctlError(
                f"{origin}: is missing, although it comes with llmctl", hint=reinstall
            )
        files.copy(origin, aside)

    return _Origin("llmctl's package holds", LlmctlError, reinstall, bring)


def _from_hub(artifact: Artifact, hub: Hub, listen: Listener) -> _Origin:
    repo, commit = artifact.repo, artifact.commit
    if repo is None or commit is None:
        raise AssertionError(artifact)  # pinned by the caller

    def bring(file: ModelFile, aside: Path) -> None:
        def heard(done: int, total: int | None) -> None:
            listen(Progress(file.path, done, total or file.size))

        hub.download(repo, commit, file.remote or "", aside, heard)

    hint = "run it again; if it stays so, a proxy or mirror alters the file\n(HF_ENDPOINT, HTTPS_PROXY)"
    return _Origin("the hub sent", HubError, hint, bring)


def _to_fetch(
    paths: StackPaths, artifact: Artifact, cache: HashCache, listen: Listener
) -> tuple[ModelFile, ...]:
    return tuple(
        file
        for file in artifact.files
        if hashed_state(paths, file, cache, listen) is not State.GOOD
    )


def _refuse_strangers(paths: StackPaths, lock: Lock, fetch: tuple[ModelFile, ...]) -> None:
    """A file that we did not put there may be all that someone has of it."""
    for file in fetch:
        place = paths.models / file.path
        if place.exists() and not lock.owners(file.path):
            raise ConfigError(
                f"{place}: is in the way: it is another file than the one to pull, and llmctl did"
                " not put it there",
                hint=f"mv {place} {place}.mine   # or rm, if it is a broken download",
            )


def _refuse_full_disk(paths: StackPaths, fetch: tuple[ModelFile, ...]) -> None:
    needed = sum(file.size or 0 for file in fetch)
    free = files.free_bytes(paths.models)
    if needed > free:
        raise DiskFullError(
            f"{paths.models}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free",
            hint="free some space, or put models/ on another disk with a symbolic link",
        )


def _fetch(
    paths: StackPaths, file: ModelFile, origin: _Origin, *, cache: HashCache, listen: Listener
) -> None:
    """Bring a file aside, check it, and give it its name."""
    partial = partial_directory(paths) / file.path
    partial.parent.mkdir(parents=True, exist_ok=True)
    origin.bring(file, partial)
    size = partial.stat().st_size
    listen(Progress(file.path, size, size, detail="checking SHA-256"))
    sha256 = files.sha256_of(partial)
    _refuse_wrong(partial, file, origin, size, sha256)
    files.put_in_place(partial, paths.models / file.path)
    cache.put(file.path, sha256)
    listen(Progress(file.path, size, size, finished=True))


def _tell_orphans(paths: StackPaths, before: Artifact | None, listen: Listener) -> None:
    """Name files that the model had under its old source and that nothing uses any more."""
    lock = read_lock(paths)
    for file in before.files if before else ():
        place = paths.models / file.path
        if place.is_file() and not lock.owners(file.path):
            listen(Note(f"{place} ({place.stat().st_size / 1e9:.1f} GB) is no longer used"))


def _refuse_wrong(partial: Path, file: ModelFile, origin: _Origin, size: int, sha256: str) -> None:
    """An error when what came is not what was announced; it is deleted."""
    if (instead := fault(partial)) is not None:
        wrong = f"{origin.sender} {instead}"
    elif file.size is not None and size != file.size:
        wrong = f"{file.size} bytes were expected, {size} came"
    elif file.sha256 is not None and sha256 != file.sha256:
        wrong = f"SHA-256 {file.sha256} was expected, {sha256} came"
    else:
        return
    partial.unlink()
    raise origin.error(f"{file.remote}: {wrong}; nothing was kept", hint=origin.hint)


def _bring_local(
    paths: StackPaths, spec: ModelSpec, artifact: Artifact, cache: HashCache, listen: Listener
) -> None:
    """Link local files from outside models/ into it; those inside are used where they are."""
    given = (*shards(spec.model or ""), *((spec.mmproj,) if spec.mmproj else ()))
    if artifact.projector is None:
        listen(Note(f"{spec.name}: without mmproj it will not see pictures", warning=True))
    for text, file in zip(given, artifact.files, strict=True):
        origin, place = local_origin(paths, text), paths.models / file.path
        if (instead := fault(origin if origin.is_file() else place)) is not None:
            raise ConfigError(f"{origin}: is {instead}", hint="a model is a GGUF file")
        if not origin.is_file() or (place.exists() and place.samefile(origin)):
            continue
        if hashed_state(paths, file, cache, listen) is State.GOOD and file.sha256:
            continue  # copied earlier, from another file system
        _refuse_strangers(paths, read_lock(paths), (file,))
        partial = partial_directory(paths) / file.path
        partial.parent.mkdir(parents=True, exist_ok=True)
        linked = files.link_or_copy(origin, partial)
        files.put_in_place(partial, place)
        listen(Note(f"{file.path}: {'linked to' if linked else 'copied from'} {origin}"))


def _recorded(
    paths: StackPaths, artifact: Artifact, cache: HashCache, listen: Listener
) -> Artifact:
    """The artifact with the size and hash of every file as it lies on disk."""

    def record(file: ModelFile) -> ModelFile:
        hashed_state(paths, dataclasses.replace(file, size=None, sha256=None), cache, listen)
        size = (paths.models / file.path).stat().st_size
        return dataclasses.replace(file, size=size, sha256=cache.get(file.path))

    projector = artifact.projector
    return dataclasses.replace(
        artifact,
        model=tuple(map(record, artifact.model)),
        projector=record(projector) if projector else None,
    )
