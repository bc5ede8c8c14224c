"""Write the rendered configuration, and never over something a person wrote."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from llmctl import files
from llmctl.core.deployment import RenderedFile
from llmctl.core.events import Listener, Note
from llmctl.core.render import is_pristine
from llmctl.errors import ConfigError
from llmctl.paths import StackPaths


@dataclass(frozen=True)
class FileState:
    """One rendered file against what lies on disk.

    Attributes:
        path: POSIX path relative to the stack directory.
        state: "same", "new" (nothing there), "stale" (we wrote it, it must change), or "edited"
            (somebody else wrote or changed it).
        diff: Unified diff from disk to rendered.
    """

    path: str
    state: str
    diff: str


def compare(paths: StackPaths, rendered: Sequence[RenderedFile]) -> tuple[FileState, ...]:
    """Each rendered file against the disk."""
    return tuple(_compare_one(paths, file) for file in rendered)


def write(
    paths: StackPaths, rendered: Sequence[RenderedFile], *, force: bool, listen: Listener
) -> tuple[str, ...]:
    """Write what differs and return its paths; all or nothing where a hand has been at work.

    Raises:
        ConfigError: a file was written or edited by hand and `force` is not set; nothing is
            written then.
    """
    states = {state.path: state for state in compare(paths, rendered)}
    edited = [state for state in states.values() if state.state == "edited"]
    if edited and not force:
        raise edited_by_hand(edited)
    written = []
    for file in rendered:
        state = states[file.path]
        if state.state == "same":
            continue
        target = paths.root / file.path
        if state.state == "edited":
            copy = files.back_up(target)
            listen(Note(f"{file.path}: your version is kept as {copy.name}"))
        files.write_atomic(target, file.content)
        written.append(file.path)
    return tuple(written)


def edited_by_hand(edited: Sequence[FileState]) -> ConfigError:
    """The refusal to overwrite files of a person."""
    names = ", ".join(state.path for state in edited)
    return ConfigError(
        f"{names}: edited by hand, llmctl would write something else",
        hint="llmctl config render --diff    # see the difference\n"
        "llmctl config render --force   # overwrite; your version is kept as .bak\n"
        "to keep your change, make it in llmctl.yaml or in templates/",
        details="\n".join(state.diff for state in edited),
    )


def hashes_on_disk(paths: StackPaths, rendered: Sequence[RenderedFile]) -> dict[str, str]:
    """Path -> SHA-256 of the files that exist."""
    found = {}
    for file in rendered:
        text = files.read_text(paths.root / file.path)
        if text is not None:
            found[file.path] = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return found


def _compare_one(paths: StackPaths, file: RenderedFile) -> FileState:
    there = files.read_text(paths.root / file.path)
    if there == file.content:
        return FileState(file.path, "same", "")
    state = "new" if there is None else "stale" if is_pristine(file.path, there) else "edited"
    diff = difflib.unified_diff(
        (there or "").splitlines(),
        file.content.splitlines(),
        fromfile=f"{file.path} (on disk)",
        tofile=f"{file.path} (rendered)",
        lineterm="",
    )
    return FileState(file.path, state, "\n".join(diff))
