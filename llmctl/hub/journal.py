"""What of a file is on disk already: one line a block, beside the unfinished file.

The first line says which content and size it is; each further line is a block's number and CRC-32,
appended once the block is written, or the ETag under which it came. A line that a kill tore, or
that a power cut filled with rubbish, does not parse and counts as never written. A block that is
claimed and damaged is found by its checksum when the file is hashed.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 1 << 18
"""Bytes of a block: what a kill costs at most for each connection."""

_RECORD = re.compile(rb"(\d{1,9}) ([0-9a-f]{8})")


@dataclass
class Recorded:
    """What a journal says.

    Attributes:
        content: Which content the file is to have.
        size: Its bytes.
        etag: The ETag under which it came, None when the server gave none.
        checksums: CRC-32 by number of block.
        length: Bytes of the journal that can be trusted.
    """

    content: str
    size: int
    etag: str | None = None
    checksums: dict[int, int] = field(default_factory=dict)
    length: int = 0

    @property
    def done(self) -> int:
        """Bytes on disk."""
        return sum(block_length(index, self.size) for index in self.checksums)


def journal_of(aside: Path) -> Path:
    """Where the journal of an unfinished file lies."""
    return aside.with_name(f"{aside.name}.journal")


def block_length(index: int, size: int) -> int:
    """Bytes of a block of a file of `size` bytes; the last one may be shorter."""
    return max(0, min(BLOCK, size - index * BLOCK))


def partial_progress(aside: Path) -> tuple[int, int | None] | None:
    """Bytes done and bytes in all of a transfer under way or left behind; None when there is none.

    Any process may ask while another one transfers.
    """
    recorded = read_journal(aside)
    return (recorded.done, recorded.size) if recorded else None


def read_journal(aside: Path) -> Recorded | None:
    """What is recorded for `aside`; None when nothing usable is."""
    try:
        text = journal_of(aside).read_bytes()
        held = aside.stat().st_size
    except OSError:
        return None
    lines = text.split(b"\n")
    if len(lines) == 1:
        return None
    try:
        first = json.loads(lines[0])
        recorded = Recorded(str(first["content"]), int(first["size"]))
    except (ValueError, KeyError, TypeError):
        return None
    for line in lines[1:-1]:
        if found := _RECORD.fullmatch(line):
            index = int(found[1])
            length = block_length(index, recorded.size)
            if 0 < length <= held - index * BLOCK:
                recorded.checksums[index] = int(found[2], 16)
        elif line.startswith(b"etag "):
            recorded.etag = line[5:].decode("utf-8", errors="replace")
    recorded.length = len(text) - len(lines[-1])
    return recorded


class Journal:
    """An open journal; `record` may be called by several threads at once."""

    def __init__(self, aside: Path, content: str, size: int) -> None:
        """Go on with the journal of this very content, or begin a new one.

        Raises:
            OSError: it cannot be written.
        """
        self._path = journal_of(aside)
        found = read_journal(aside)
        if found is None or (found.content, found.size) != (content, size):
            first = json.dumps({"content": content, "size": size}).encode() + b"\n"
            self._path.write_bytes(first)
            found = Recorded(content, size, length=len(first))
        self.recorded = found
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, found.length)

    def record(self, index: int, checksum: int) -> None:
        """A block is on disk."""
        os.write(self._descriptor, b"%d %08x\n" % (index, checksum))

    def record_etag(self, etag: str) -> None:
        """The server names the content so."""
        os.write(self._descriptor, b"etag %s\n" % etag.replace("\n", "").encode())

    def sync(self) -> None:
        """Make what was recorded survive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """End writing; the journal stays for the next run."""
        os.close(self._descriptor)

    def discard(self) -> None:
        """Delete a closed journal."""
        self._path.unlink(missing_ok=True)
