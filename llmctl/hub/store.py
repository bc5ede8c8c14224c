"""An unfinished file on disk: blocks written where they belong, in any order, and remembered."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

from llmctl import files
from llmctl.hub.blocks import Blocks
from llmctl.hub.journal import BLOCK, Journal, block_length, journal_of

BY_HASH = "sha256:"
# Blocks kept in memory for the hash, which follows close behind a single connection.
_RECENT = 64


class Store:
    """The file at `aside`, its journal and its blocks; for several threads at once.

    Attributes:
        blocks: Which blocks are here; touch them only while holding `changed`.
        changed: Notified whenever a block arrives, and when `stop` is called.
        stopped: Whether the transfer has ended.
        etag: What the server calls the content, as far as known.
    """

    def __init__(self, aside: Path, content: str, size: int) -> None:
        """Go on with what lies at `aside` when it is of this content, else begin.

        Raises:
            OSError: it cannot be written.
        """
        self.changed = threading.Condition()
        self.stopped = False
        self._aside = aside
        self._recent: dict[int, bytes] = {}
        self._wanted = 0
        aside.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(aside, content, size)
        recorded = self._journal.recorded
        # Hosts of a CDN may name one content differently; where its SHA-256 is known, that decides.
        self.etag = None if content.startswith(BY_HASH) else recorded.etag
        self._checksums = dict(recorded.checksums)
        self.blocks = Blocks(size, recorded.checksums)
        self._descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self._descriptor).st_size > size:
            os.ftruncate(self._descriptor, size)

    def name(self, etag: str) -> None:
        """Remember what the server calls the content."""
        with self.changed:
            if self.etag is None:
                self.etag = etag
                self._journal.record_etag(etag)

    def put(self, index: int, block: bytes) -> None:
        """Write a block and remember it.

        Raises:
            OSError: it cannot be written; the block does not count.
        """
        at, rest = index * BLOCK, memoryview(block)
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            at, rest = at + written, rest[written:]
        self._journal.record(index, zlib.crc32(block))
        with self.changed:
            self.blocks.arrived(index)
            self._checksums.pop(index, None)
            if self._wanted <= index < self._wanted + _RECENT:
                self._recent[index] = block
            self.changed.notify_all()

    def next_block(self, index: int) -> bytes | None:
        """A block for the hash, waited for; None once the transfer was stopped.

        One that an earlier run wrote is checked; if it is damaged it counts as missing, and is
        waited for again.
        """
        while True:
            with self.changed:
                self._wanted = index
                self.changed.wait_for(lambda: self.stopped or self.blocks.is_here(index))
                if self.stopped:
                    return None
                checksum = self._checksums.get(index)
                recent = self._recent.pop(index, None)
            if recent is not None:
                return recent
            block = os.pread(self._descriptor, block_length(index, self.blocks.size), index * BLOCK)
            if checksum is None or zlib.crc32(block) == checksum:
                return block
            with self.changed:
                self.blocks.lost(index)

    def sync(self) -> None:
        """Make what has come so far survive a power cut: the bytes, then the claim to have them."""
        os.fsync(self._descriptor)
        self._journal.sync()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def close(self) -> None:
        """End writing; file and journal stay. No other thread may be at work any more."""
        os.close(self._descriptor)
        self._journal.close()

    def finish(self) -> None:
        """The file is whole: close it for good and drop the journal."""
        os.fsync(self._descriptor)
        self.close()
        self._journal.discard()
        files.sync_directory(self._aside.parent)


def discard(aside: Path) -> None:
    """Delete an unfinished file and its journal."""
    files.delete(journal_of(aside))
    files.delete(aside)
