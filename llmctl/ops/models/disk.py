"""What lies on disk, and whether it is what it should be, without hashing gigabytes each time."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import Any

from llmctl import files
from llmctl.core.artifact import Artifact, ModelFile
from llmctl.core.events import Listener, Progress
from llmctl.core.filetype import HEAD, identify
from llmctl.errors import ConfigError
from llmctl.paths import StackPaths


class State(Enum):
    """How a file on disk stands to what it should be."""

    ABSENT = "absent"
    WRONG = "wrong"
    UNCHECKED = "unchecked"
    GOOD = "good"


class HashCache:
    """SHA-256 by path, valid while size, modification time and inode stay the same.

    Several processes may work with it; each writes only what it found out itself.
    """

    def __init__(self, paths: StackPaths) -> None:
        self._paths = paths
        self._entries = self._load()
        self._mine: dict[str, dict[str, Any] | None] = {}

    def get(self, path: str) -> str | None:
        """The file's hash, None when it was never hashed or has changed since."""
        entry = self._entries.get(path)
        return entry["sha256"] if entry and entry["stat"] == self._stat(path) else None

    def put(self, path: str, sha256: str, *, fetched: bool | None = None) -> None:
        """Remember a hash that was just computed.

        Args:
            path: The file, relative to models/.
            sha256: Its hash.
            fetched: Whether llmctl put the file there; None leaves what is known of that.
        """
        if fetched is None:
            fetched = self.fetched(path)
        entry = {"stat": self._stat(path), "sha256": sha256, "fetched": fetched}
        self._entries[path] = self._mine[path] = entry

    def fetched(self, path: str) -> bool:
        """Whether llmctl put that file there, so that it may also delete it."""
        return bool(self._entries.get(path, {}).get("fetched"))

    def paths(self) -> tuple[str, ...]:
        """Every path there is an entry for."""
        return tuple(sorted(self._entries))

    def forget(self, path: str) -> None:
        """Drop a file that is gone."""
        if self._entries.pop(path, None) is not None:
            self._mine[path] = None

    def reload(self) -> None:
        """See what other processes have found out since."""
        self._entries = self._load()
        for path, entry in self._mine.items():
            if entry is None:
                self._entries.pop(path, None)
            else:
                self._entries[path] = entry

    def save(self) -> None:
        """Write the cache when something in it changed."""
        if not self._mine:
            return
        with files.turn(self._paths.locks / "hashes", "llmctl", lambda _holder: None):
            self.reload()
            text = json.dumps(dict(sorted(self._entries.items())), indent=1, ensure_ascii=False)
            files.write_atomic(self._paths.hash_cache, text + "\n")
        self._mine = {}

    def _stat(self, path: str) -> list[int]:
        stat = (self._paths.models / path).stat()
        return [stat.st_size, stat.st_mtime_ns, stat.st_ino]

    def _load(self) -> dict[str, dict[str, Any]]:
        try:
            entries = json.loads(files.read_text(self._paths.hash_cache) or "{}")
        except (ValueError, ConfigError):
            return {}  # only a cache: what cannot be read is computed again
        if not isinstance(entries, dict):
            return {}
        return {
            path: entry
            for path, entry in entries.items()
            if isinstance(entry, dict) and {"stat", "sha256"} <= entry.keys()
        }


def missing(paths: StackPaths, artifact: Artifact) -> tuple[ModelFile, ...]:
    """The files that are absent, of the wrong size, or known to have the wrong SHA-256.

    Hashes nothing: a file of the right size that was never hashed counts as there.
    """
    cache = HashCache(paths)
    return tuple(
        file for file in artifact.files if state(paths, file, cache) in {State.ABSENT, State.WRONG}
    )


def state(paths: StackPaths, file: ModelFile, cache: HashCache) -> State:
    """How the file on disk stands to `file`, from its stat and the cache alone."""
    place = paths.models / file.path
    if not os.path.lexists(place):
        return State.ABSENT
    if not place.is_file() or (file.size is not None and place.stat().st_size != file.size):
        return State.WRONG
    sha256 = cache.get(file.path)
    if sha256 is None or file.sha256 is None:
        return State.UNCHECKED if sha256 is None else State.GOOD
    return State.GOOD if sha256 == file.sha256 else State.WRONG


def hashed_state(paths: StackPaths, file: ModelFile, cache: HashCache, listen: Listener) -> State:
    """As `state`, hashing the file where that is needed to tell."""
    first = state(paths, file, cache)
    if first is not State.UNCHECKED:
        return first
    place = paths.models / file.path
    if fault(place) is not None:
        return State.WRONG
    cache.put(file.path, hash_with_progress(paths, file.path, listen))
    return state(paths, file, cache)


def hash_with_progress(paths: StackPaths, path: str, listen: Listener) -> str:
    """SHA-256 of a file below models/, telling how far it is."""
    place = paths.models / path
    size = place.stat().st_size
    detail = "checking SHA-256"

    def heard(done: int) -> None:
        listen(Progress(path, done, size, detail=detail))

    sha256 = files.sha256_of(place, heard)
    listen(Progress(path, size, size, detail=detail, finished=True))
    return sha256


def fault(place: Path) -> str | None:
    """What a file is instead of a GGUF, None when it begins like one."""
    return identify(files.head(place, HEAD))
