"""Bring a model's files here: whole and verified under their final name, or not at all.

Before the first byte the headers are read and judged (`examining`). A transfer that was cut off
goes on where it was, and two processes that want the same file make one transfer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl import files
from llmctl.core.artifact import Artifact, ModelFile, Repair
from llmctl.core.events import Listener, Note, Progress
from llmctl.core.lock import Lock, format_lock
from llmctl.core.stack import ModelSpec
from llmctl.errors import ConfigError, DiskFullError
from llmctl.hub.base import Hub, partial_progress
from llmctl.ops.models.disk import HashCache, State, fault, hashed_state, state
from llmctl.ops.models.origins import REPAIRED, FromHere, Origin, origin_of, partial_of
from llmctl.ops.models.sources import find, read_lock, resolve
from llmctl.paths import StackPaths

if TYPE_CHECKING:
    from llmctl.core.verdict import Finding, Formats
    from llmctl.ops.models.examining import Examined


def _default_formats() -> Formats:
    from llmctl.core.verdict import formats_of

    return formats_of("docker", None)


@dataclass(frozen=True)
class PullOptions:
    """How to pull.

    Attributes:
        formats: Tells what the engine takes; asked only when there is something to pull.
        frozen: Take exactly what the lock says, or refuse.
        upgrade: Look anew at what the hub has, whatever the lock says.
        force: Go on although the headers say that it cannot work.
        keep_original: Keep the file that a repaired one was made from.
        memory: Of a repository's quantisations take the best that fits so many bytes of a GPU.
    """

    formats: Callable[[], Formats] = _default_formats
    frozen: bool = False
    upgrade: bool = False
    force: bool = False
    keep_original: bool = True
    memory: int | None = None


_LOOK_EVERY = 5
DEFAULTS = PullOptions()


@dataclass(frozen=True)
class PullResult:
    """What a pull did.

    Attributes:
        artifact: The model's files, each with size and SHA-256.
        downloaded: Paths of the files that were transferred, or copied out of llmctl's package.
        already: Paths of those that were here, or were linked from elsewhere on this machine.
        bytes: Bytes of the files that were transferred.
        changes: With `upgrade`, what is different from what the lock said.
    """

    artifact: Artifact
    downloaded: tuple[str, ...]
    already: tuple[str, ...]
    bytes: int
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Work:
    """One pull under way."""

    paths: StackPaths
    artifact: Artifact
    origin: Origin
    cache: HashCache
    listen: Listener
    options: PullOptions


def pull(
    paths: StackPaths,
    spec: ModelSpec,
    hub: Hub,
    listen: Listener,
    options: PullOptions = DEFAULTS,
) -> PullResult:
    """Make every file of a model be here, verified, and recorded in the lock.

    When the lock is satisfied nothing is asked of the network and nothing is hashed.

    Raises:
        ConfigError: see `resolve`; the headers say that it cannot work; `frozen`, and the lock does
            not say what to take; or a file that llmctl did not put there is in the way.
        HubError: a file cannot be had, or is not what was announced; nothing wrong is left.
        LlmctlError: the same of a file that comes with llmctl.
        DiskFullError: told before the first byte where the sizes are known.
    """
    before = read_lock(paths).models.get(spec.name)
    cache = HashCache(paths)
    artifact = find(paths, spec, hub, fresh=options.upgrade)
    if options.memory is not None:
        from llmctl.ops.models.within import best_within

        artifact = best_within(spec, hub, options.memory)
    if options.frozen:
        _refuse_unlocked(paths, spec, before, artifact)
    known = False
    if before is not None and before == artifact and before.model[0].header:
        artifact, known = before, True  # the lock has what the headers say, too
    if known and all(state(paths, file, cache) is State.GOOD for file in artifact.files):
        present = tuple(file.path for file in artifact.files)
        if not options.keep_original and spec.model is None:
            _discard_originals(paths, artifact, cache)
            cache.save()
        return PullResult(resolve(paths, spec, None), (), present, 0)
    # Imported here, as the rest that a pull with nothing to do does not need.
    from llmctl.ops.models.examining import disk_findings, examined_for

    if known and spec.model is None:
        # The lock's files were judged when they were pulled; only the disk may be another.
        _refuse(artifact, disk_findings(paths, artifact))
    else:
        examined = examined_for(paths, spec, artifact, hub, options.formats())
        artifact = _accepted(examined, before, listen, force=options.force)
    work = _Work(paths, artifact, origin_of(paths, spec, artifact, hub), cache, listen, options)
    _refuse_strangers(work)
    fetched: dict[str, int | None] = {}
    try:
        for file in artifact.files:
            fetched[file.path] = _bring(work, file)
        artifact = _recorded(work)
    finally:
        # What is done stays known, also when the next file fails.
        cache.save()
    with files.turn(paths.locks / "lock", "llmctl models pull", lambda _holder: None):
        # Another process may have recorded another model meanwhile.
        write_lock(paths, read_lock(paths).with_model(artifact))
    _tell_orphans(paths, before, listen)
    downloaded = tuple(path for path, size in fetched.items() if size is not None)
    return PullResult(
        resolve(paths, spec, None),
        downloaded,
        tuple(path for path in fetched if path not in downloaded),
        sum(size or 0 for size in fetched.values()),
        _changes(before, artifact) if options.upgrade else (),
    )


def write_lock(paths: StackPaths, lock: Lock) -> None:
    """Write `llmctl.lock`."""
    files.write_atomic(paths.lock_file, format_lock(lock))


def _refuse_unlocked(
    paths: StackPaths, spec: ModelSpec, locked: Artifact | None, artifact: Artifact
) -> None:
    """`--frozen` takes what the lock says, so it must say it, and of this source."""
    if locked == artifact:
        return
    said = f"was pulled from {locked.source}" if locked else "is not in it"
    if locked and locked.source == artifact.source:
        said = "has other files now"
    raise ConfigError(
        f"--frozen: {paths.lock_file.name} does not say what to take for {spec.name}: it {said}",
        hint=f"llmctl models pull {spec.name}   # without --frozen; then commit llmctl.lock",
    )


def _accepted(
    examined: Examined, before: Artifact | None, listen: Listener, *, force: bool
) -> Artifact:
    """The artifact to bring, when nothing speaks against it."""
    if not force:
        _refuse(examined.artifact, examined.findings)
    for finding in examined.findings:
        listen(Note(finding.message, warning=finding.level != "note"))
    was = before.projector if before else None
    now = examined.artifact.projector
    if was and now and was.repair and was.original == now.original and was.path == now.path:
        # Repaired before: what the copy has to be is known.
        now = dataclasses.replace(now, size=was.size, sha256=was.sha256, repair=was.repair)
    return dataclasses.replace(examined.artifact, projector=now)


def _refuse(artifact: Artifact, findings: tuple[Finding, ...]) -> None:
    """An error when one of the findings says that it cannot work."""
    from llmctl.core.verdict import refused

    against = refused(findings)
    if not against:
        return
    first, *more = against
    error = DiskFullError if first.code == "disk-full" else ConfigError
    raise error(
        f"{artifact.name}: {first.message}",
        hint=first.hint,
        details="\n".join(one.message for one in more) or None,
    )


def _refuse_strangers(work: _Work) -> None:
    """A file that we did not put there may be all that someone has of it."""
    lock = read_lock(work.paths)
    wanted = {one.path: one for f in work.artifact.files for one in (f.original, f)}
    for file in wanted.values():
        place = work.paths.models / file.path
        if not place.exists() or lock.owners(file.path) or work.cache.fetched(file.path):
            continue
        if not _is_here(work, file):
            raise ConfigError(
                f"{place}: is in the way: it is another file than the one to pull, and llmctl did"
                " not put it there",
                hint=f"mv {place} {place}.mine   # or rm, if it is a broken download",
            )


def _is_here(work: _Work, file: ModelFile) -> bool:
    """Whether the file is in its place, hashing it where that is needed to tell."""
    place = work.paths.models / file.path
    if isinstance(work.origin, FromHere) and file.path in work.origin.origins:
        origin = work.origin.origins[file.path]
        if not origin.is_file() or (place.exists() and place.samefile(origin)):
            return place.is_file()
        if file.sha256 is None:
            return False  # anything of that name would do; it has to be this one
    if file.repair and file.sha256 is None:
        return False
    return hashed_state(work.paths, file, work.cache, work.listen) is State.GOOD


def _bring(work: _Work, file: ModelFile) -> int | None:
    """Make one file be here; the bytes transferred, None when it was here or was linked."""
    aside = partial_of(work.paths, work.artifact, file.original)
    with files.turn(
        work.paths.locks / aside.name,
        f"llmctl models pull {work.artifact.name}",
        _while_waiting(work, file),
    ):
        work.cache.reload()
        if _is_here(work, file):
            return None
        size = None
        if not _is_here(work, file.original):
            size = _fetch(work, file.original)
        if file.repair:
            _repair(work, file, file.repair)
        work.cache.save()
    return size


def _while_waiting(work: _Work, file: ModelFile) -> Callable[[str], None]:
    """Show how far the process is that has the file's turn."""
    aside = partial_of(work.paths, work.artifact, file.original)

    ticks = itertools.count()

    def waiting(holder: str) -> None:
        if next(ticks) % _LOOK_EVERY:
            return  # of a large file the journal is long
        done, total = partial_progress(aside) or (0, file.original.size)
        work.listen(Progress(file.path, done, total, detail=f"waiting for {holder}"))

    return waiting


def _fetch(work: _Work, file: ModelFile) -> int | None:
    """Bring a file aside, check it, and give it its name."""
    aside = partial_of(work.paths, work.artifact, file)
    aside.parent.mkdir(parents=True, exist_ok=True)
    brought = work.origin.bring(file, aside, work.listen)
    size = aside.stat().st_size
    sha256 = brought.sha256
    if sha256 is None:
        work.listen(Progress(file.path, size, size, detail="checking SHA-256"))
        sha256 = files.sha256_of(aside)
    if (instead := fault(aside)) is not None:
        wrong = instead
    elif file.size is not None and size != file.size:
        wrong = f"{size} bytes instead of {file.size}"
    elif file.sha256 is not None and sha256 != file.sha256:
        wrong = f"SHA-256 {sha256} instead of {file.sha256}"
    else:
        files.put_in_place(aside, work.paths.models / file.path)
        work.cache.put(file.path, sha256, fetched=True)
        work.listen(Progress(file.path, size, size, finished=True))
        return brought.transferred
    files.delete(aside)
    raise work.origin.wrong(f"{file.remote or file.path}: {wrong}")


def _repair(work: _Work, file: ModelFile, repair: Repair) -> None:
    """Write the repaired copy beside its original."""
    from llmctl.ops.models.repairing import write_repaired

    original = work.paths.models / repair.original
    aside = partial_of(work.paths, work.artifact, file.original)
    aside = aside.with_name(f"{aside.name}{REPAIRED}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    total = original.stat().st_size

    def heard(done: int) -> None:
        work.listen(Progress(file.path, done, total, detail="writing the repaired copy"))

    sha256 = write_repaired(original, repair.kind, aside, heard)
    files.put_in_place(aside, work.paths.models / file.path)
    work.cache.put(file.path, sha256, fetched=True)
    work.listen(Progress(file.path, total, total, finished=True))
    work.listen(
        Note(f'{file.path}: states its projector type now ("{repair.kind}"), as llama.cpp demands')
    )


def _recorded(work: _Work) -> Artifact:
    """The artifact with the size and hash of every file as it lies on disk."""

    def measured(path: str) -> tuple[int, str | None]:
        unknown = ModelFile(path)
        hashed_state(work.paths, unknown, work.cache, work.listen)
        return (work.paths.models / path).stat().st_size, work.cache.get(path)

    def record(file: ModelFile) -> ModelFile:
        size, sha256 = measured(file.path)
        repair = file.repair
        if repair and (repair.size is None or repair.sha256 is None):
            was = measured(repair.original)
            repair = dataclasses.replace(repair, size=was[0], sha256=was[1])
        return dataclasses.replace(file, size=size, sha256=sha256, repair=repair)

    artifact = work.artifact
    recorded = dataclasses.replace(
        artifact,
        model=tuple(map(record, artifact.model)),
        projector=record(artifact.projector) if artifact.projector else None,
    )
    if not work.options.keep_original and not isinstance(work.origin, FromHere):
        _discard_originals(work.paths, recorded, work.cache)
    return recorded


def _discard_originals(paths: StackPaths, artifact: Artifact, cache: HashCache) -> None:
    """Delete what repaired copies were made from."""
    for file in artifact.files:
        if file.repair:
            files.delete(paths.models / file.repair.original)
            cache.forget(file.repair.original)


def _tell_orphans(paths: StackPaths, before: Artifact | None, listen: Listener) -> None:
    """Name files that the model had under its old source and that nothing uses any more."""
    lock = read_lock(paths)
    for file in before.files if before else ():
        place = paths.models / file.path
        if place.is_file() and not lock.owners(file.path):
            listen(
                Note(
                    f"{place} ({place.stat().st_size / 1e9:.1f} GB) is no longer used;"
                    " `llmctl models gc` deletes it"
                )
            )


def _changes(before: Artifact | None, now: Artifact) -> tuple[str, ...]:
    """What an upgrade changed, in words."""
    if before is None:
        return ("it was never pulled before",)
    if before.repo != now.repo or before.source != now.source:
        return (f"source: {before.source} -> {now.source}",)
    old = {file.original.path: file.original for file in before.files}
    new = {file.original.path: file.original for file in now.files}
    changes = [f"{path}: is no longer a part of it" for path in old.keys() - new.keys()]
    changes += [f"{path}: is new" for path in new.keys() - old.keys()]
    changes += [
        f"{path}: SHA-256 {(old[path].sha256 or '?')[:12]}... -> {(new[path].sha256 or '?')[:12]}..."
        for path in old.keys() & new.keys()
        if old[path].sha256 != new[path].sha256
    ]
    if not changes and before.commit != now.commit:
        return (f"commit {before.commit} -> {now.commit}; the files are the same",)
    return tuple(sorted(changes))
