"""A file in one piece, from a host that cannot send parts: every failure begins it again."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from llmctl.hub.address import Address
from llmctl.hub.base import OnBytes
from llmctl.hub.failures import BrokenError, TransferError, UnusableError
from llmctl.hub.journal import BLOCK
from llmctl.hub.pace import Patience
from llmctl.hub.ranges import open_whole

_TRIES = 3


def fetch_whole(
    address: Address, aside: Path, size: int | None, patience: Patience, on_bytes: OnBytes
) -> str:
    """Put the file at `aside`, synced, and return its SHA-256 in lower-case hex.

    Raises:
        TransferError: it cannot be had; nothing is left, for nothing could be continued.
        OSError: the disk refuses.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            return _once(address, aside, size, patience, on_bytes)
        except TransferError as error:
            aside.unlink(missing_ok=True)
            if (
                not error.passes
                or attempt == _TRIES
                or (error.wait_s or 0) > patience.longest_wait_s
            ):
                raise
            time.sleep(max(patience.pause_s(attempt), error.wait_s or 0))
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    raise AssertionError


def _once(
    address: Address, aside: Path, size: int | None, patience: Patience, on_bytes: OnBytes
) -> str:
    digest = hashlib.sha256()
    done = 0
    with open_whole(address, patience) as body, aside.open("wb") as file:
        if size is not None and body.total not in {None, size}:
            raise UnusableError(body.host, f"sends {body.total} bytes, {size} were announced")
        total = size if size is not None else body.total
        on_bytes(0, total)
        while piece := body.read(BLOCK):
            done += len(piece)
            if total is not None and done > total:
                raise UnusableError(body.host, f"sends more than the {total} bytes announced")
            file.write(piece)
            digest.update(piece)
            on_bytes(done, total)
        if total is not None and done < total:
            raise BrokenError(body.host, "ended early")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
