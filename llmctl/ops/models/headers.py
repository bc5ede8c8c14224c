"""GGUF headers, from a file here or from the hub: read as far as they go and no further."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmctl import files
from llmctl.core.gguf import FIRST_READ, NEXT_READ, GgufError, GgufHeader, HeaderReader, not_gguf
from llmctl.hub.base import Hub

_MOST = 8 << 20  # bytes asked for at once


def read_header(read: Callable[[int, int], bytes]) -> GgufHeader:
    """A header by way of `read(start, stop)`, which gives fewer bytes only at the end of the file.

    Raises:
        GgufError: it is none, or the file ends inside it.
    """
    reader, step = HeaderReader(), FIRST_READ
    while True:
        start = reader.position
        data = read(start, start + step)
        if header := reader.feed(data):
            return header
        if not reader.position:
            raise not_gguf(data)
        if len(data) < step:
            raise GgufError(
                f"ends inside its GGUF header, after {reader.position} bytes",
                hint="download it again",
            )
        step = min(reader.left() + NEXT_READ, _MOST)


def local_header(place: Path) -> GgufHeader:
    """The header of a file on disk."""
    return read_header(lambda start, stop: files.read_range(place, start, stop))


def remote_header(hub: Hub, repo: str, commit: str, remote: str) -> GgufHeader:
    """The header of a file of a repository; HubError when it cannot be had."""
    return read_header(lambda start, stop: hub.read(repo, commit, remote, start, stop))
