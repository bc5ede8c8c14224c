"""A file from the hub to disk, right or not at all: which way, what a wrong one means."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llmctl import files
from llmctl.core.artifact import RepoFile
from llmctl.errors import DiskFullError
from llmctl.hub.address import Address
from llmctl.hub.base import OnBytes
from llmctl.hub.failures import (
    BrokenError,
    ChangedError,
    NoRangeError,
    TransferError,
    UnusableError,
    WrongContentError,
)
from llmctl.hub.journal import read_journal
from llmctl.hub.pace import Patience
from llmctl.hub.ranges import open_range, open_whole
from llmctl.hub.store import Store, discard
from llmctl.hub.transfer import Transfer
from llmctl.hub.whole import fetch_whole

T = TypeVar("T")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def fetch(
    address: Address,
    file: RepoFile,
    content: str,
    aside: Path,
    patience: Patience,
    on_bytes: OnBytes,
) -> str:
    """Put a file whole at `aside`, and return its SHA-256 in lower-case hex.

    A content that changes under way, or that turns out wrong at the end, is fetched once more from
    the beginning.

    Args:
        address: Where it comes from.
        file: What the hub announced.
        content: Names the content; what lies at `aside` under the same name is continued.
        aside: Where it goes to.
        patience: With the network.
        on_bytes: Hears of progress.

    Raises:
        TransferError: it cannot be had.
        DiskFullError: no room.
        OSError: the disk refuses otherwise.
    """
    try:
        return _attempt(address, file, content, aside, patience, on_bytes)
    except (ChangedError, WrongContentError):
        discard(aside)
    try:
        return _attempt(address, file, content, aside, patience, on_bytes)
    except (ChangedError, WrongContentError, UnusableError):
        discard(aside)
        raise


def read(address: Address, start: int, stop: int, patience: Patience) -> bytes:
    """Bytes [start, stop) of a file; fewer only where it ends.

    Raises:
        TransferError: they cannot be had.
    """
    if start >= stop:
        return b""
    return _tried(patience, lambda: _read(address, start, stop, patience))


def _read(address: Address, start: int, stop: int, patience: Patience) -> bytes:
    try:
        body = open_range(address, start, stop, None, patience)
    except NoRangeError:
        if start:
            raise
        body = open_whole(address, patience)
    came = bytearray()
    with body:
        if body.start == body.stop:
            return b""  # the file ends before `start`
        while len(came) < stop - start and (piece := body.read(stop - start - len(came))):
            came += piece
    end = stop if body.total is None else min(stop, body.total)
    if body.stop is not None and start + len(came) < end:
        raise BrokenError(body.host, "ended early")
    return bytes(came)


def _attempt(
    address: Address,
    file: RepoFile,
    content: str,
    aside: Path,
    patience: Patience,
    on_bytes: OnBytes,
) -> str:
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        size = file.size
        if size is None:
            size = _tried(patience, lambda: _size(address, patience))
        sha256 = _in_parts(address, content, size, aside, patience, on_bytes)
    except NoRangeError:
        discard(aside)
        try:
            sha256 = fetch_whole(address, aside, file.size, patience, on_bytes)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _full(aside, file.size) from error
            raise
    if file.sha256 is not None and sha256 != file.sha256:
        discard(aside)
        raise WrongContentError("", f"SHA-256 {file.sha256} was expected, {sha256} came")
    return sha256


def _in_parts(
    address: Address,
    content: str,
    size: int,
    aside: Path,
    patience: Patience,
    on_bytes: OnBytes,
) -> str:
    try:
        store = Store(aside, content, size)
        try:
            _refuse_full_disk(aside, size - store.blocks.done)
            sha256 = Transfer(address, store, patience, on_bytes).run()
        except BaseException:
            store.close()
            if not store.blocks.done:
                discard(aside)
            raise
        store.finish()
    except OSError as error:
        if error.errno in _NO_ROOM:
            done = recorded.done if (recorded := read_journal(aside)) else 0
            raise _full(aside, size - done) from error
        raise
    return sha256


def _size(address: Address, patience: Patience) -> int:
    """Bytes of a file of which the hub's listing does not say it."""
    with open_range(address, 0, 1, None, patience) as body:
        if body.total is None:
            raise NoRangeError(body.host)
        return body.total


def _tried(patience: Patience, ask: Callable[[], T]) -> T:
    """What `ask` gives, with some patience for failures that may pass."""
    failures = 0
    while True:
        try:
            return ask()
        except TransferError as error:
            failures += 1
            at_once = isinstance(error, BrokenError) and error.at_once
            wait_s = error.wait_s or 0.0
            if (
                not error.passes
                or at_once
                or failures >= patience.tries
                or wait_s > patience.longest_wait_s
            ):
                raise
            time.sleep(max(patience.pause_s(failures), wait_s))


def _refuse_full_disk(aside: Path, missing: int) -> None:
    if missing > files.free_bytes(aside.parent):
        raise _full(aside, missing)


def _full(aside: Path, missing: int | None) -> DiskFullError:
    needed = f"{missing / 1e9:.2f} GB more are needed" if missing is not None else "more is needed"
    free = files.free_bytes(aside.parent) / 1e9
    return DiskFullError(
        f"{aside.parent}: the disk is full: {needed} for {aside.name}, {free:.2f} GB are free",
        hint="free some space, then run it again; what has come is kept",
    )
