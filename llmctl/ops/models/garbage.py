"""What takes room and is of no use any more: unfinished transfers, originals, orphans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmctl import files
from llmctl.errors import LlmctlError
from llmctl.hub.base import partial_progress
from llmctl.ops.models.disk import HashCache
from llmctl.ops.models.origins import REPAIRED
from llmctl.ops.models.sources import read_lock
from llmctl.paths import StackPaths

Why = Literal["unfinished", "original", "unused"]


@dataclass(frozen=True)
class Partial:
    """A transfer under way, or left behind by one that was cut off; the next pull goes on with it.

    Attributes:
        path: Where it lies, relative to the stack directory.
        file: The file's name.
        done: Bytes that are here.
        total: Bytes in all, None when that is not known.
    """

    path: str
    file: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Garbage:
    """A file that can go.

    Attributes:
        path: Where it lies, relative to the stack directory.
        bytes: What it takes on disk.
        why: "unfinished": a transfer; "original": a repaired copy is used instead; "unused": pulled
            once, and no model has it any more.
    """

    path: str
    bytes: int
    why: Why


def partials(paths: StackPaths) -> tuple[Partial, ...]:
    """Every unfinished transfer of this stack, by name."""
    if not paths.partial.is_dir():
        return ()
    found = []
    for place in sorted(paths.partial.iterdir()):
        if place.suffix != ".journal" and place.is_file():
            done, total = partial_progress(place) or (place.stat().st_size, None)
            name = _turn(place).rpartition(".")[0] or place.name
            found.append(Partial(str(place.relative_to(paths.root)), name, done, total))
    return tuple(found)


def garbage(paths: StackPaths) -> tuple[Garbage, ...]:
    """What `collect` would delete. A user's own files are never among it."""
    return tuple(_garbage(paths))


def collect(paths: StackPaths) -> tuple[Garbage, ...]:
    """Delete what is of no use; a transfer that is under way is left alone.

    Raises:
        LlmctlError: a file cannot be deleted.
    """
    gone = []
    cache = HashCache(paths)
    for one in _garbage(paths):
        place = paths.root / one.path
        if one.why == "unfinished":
            try:
                with files.exclusive(paths.locks / _turn(place), "llmctl models gc"):
                    files.delete(place)
                    files.delete(place.with_name(f"{place.name}.journal"))
            except LlmctlError:
                if place.exists():
                    continue  # another process is at work on it
        else:
            files.delete(place)
            cache.forget(place.relative_to(paths.models).as_posix())
        gone.append(one)
    cache.save()
    return tuple(gone)


def _turn(place: Path) -> str:
    """The name of the lock that is held while this unfinished file is worked on."""
    return place.name.removesuffix(REPAIRED)


def _garbage(paths: StackPaths) -> Iterator[Garbage]:
    if paths.partial.is_dir():
        for place in sorted(paths.partial.iterdir()):
            if place.is_file() and place.suffix != ".journal":
                # Blocks, not length: an unfinished file may have holes.
                size = place.stat().st_blocks * 512
                yield Garbage(str(place.relative_to(paths.root)), size, "unfinished")
    if not paths.lock_file.exists():
        return  # it may be in another branch: without it nothing tells what is used
    lock = read_lock(paths)
    used = {file.path for artifact in lock.models.values() for file in artifact.files}
    originals = {
        file.repair.original
        for artifact in lock.models.values()
        for file in artifact.files
        if file.repair
    }
    cache = HashCache(paths)
    for path in cache.paths():
        place = paths.models / path
        if path in used or not cache.fetched(path) or not place.is_file():
            continue
        if cache.get(path) is None:
            continue  # somebody has written another file of that name since
        why: Why = "original" if path in originals else "unused"
        yield Garbage(str(place.relative_to(paths.root)), place.stat().st_size, why)
