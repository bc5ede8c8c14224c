"""Looks at /proc, /sys and /dev that may hang, fail, or find nonsense there."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

PROBE_DEADLINE_S = 2.0
# No file of /proc and /sys that is read whole is longer; a link to /dev/zero would be.
LONGEST_TEXT = 1 << 20
LARGEST_MEMORY = 1 << 50  # bytes; more is nonsense


def in_time(what: str, probe: Callable[[], T], otherwise: T, problems: list[str]) -> T:
    """What `probe` finds, or `otherwise` when it fails or hangs, as a wedged driver can make it.

    Args:
        what: What is looked for, for the sentence that goes to `problems`: "AMD's and Intel's GPUs".
        probe: The look; it goes on in its thread when it is given up.
        otherwise: What is taken for found then.
        problems: Gets a sentence then.
    """
    found: list[T] = []
    failed: list[Exception] = []

    def look() -> None:
        try:
            found.append(probe())
        except Exception as error:  # noqa: BLE001 - told as a problem; what a host says is not ours
            failed.append(error)

    thread = threading.Thread(target=look, daemon=True, name=f"llmctl: {what}")
    thread.start()
    thread.join(PROBE_DEADLINE_S)
    if found:
        return found[0]
    if failed:
        problems.append(f"{what}: {type(failed[0]).__name__}: {failed[0]}")
    else:
        problems.append(
            f"{what}: no answer within {PROBE_DEADLINE_S:g} s; a driver may be stuck (see `dmesg`)"
        )
    return otherwise


def text(path: Path) -> str | None:
    """A small file's text without the space around it; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_TEXT).decode("utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """A file that holds one whole number; None for any other."""
    return whole(text(path))


def whole(word: str | None) -> int | None:
    """A decimal number of at most 63 bits; None for anything else."""
    if word is None or not re.fullmatch(r"[0-9]{1,19}", word):
        return None
    value = int(word)
    return value if value < 1 << 63 else None


def memory_size(path: Path) -> int | None:
    """A file that holds bytes of a GPU's memory; None for what no GPU has."""
    size = number(path)
    return size if size is not None and size <= LARGEST_MEMORY else None


def printable(name: str) -> str:
    """A name that a device or a process gave itself, without what would steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
