"""A file in parts: over as many connections as help, continued, hashed while it comes.

The calling thread decides everything: which part comes next, over how many connections, what a
failure means. Each part has a thread of its own that only reads and writes; one more thread
computes the SHA-256 in order, behind them.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from dataclasses import dataclass

from llmctl.hub.address import Address
from llmctl.hub.base import OnBytes
from llmctl.hub.failures import (
    BrokenError,
    NoRangeError,
    OddAnswerError,
    TransferError,
    UnusableError,
)
from llmctl.hub.journal import BLOCK, block_length
from llmctl.hub.pace import Patience, Width
from llmctl.hub.ranges import Body, open_range
from llmctl.hub.store import Store

_TICK_S = 0.1
_SYNC_S = 5.0
# A part is long enough that asking for it costs little, and short enough to share the rest fairly.
_PART_S = 8.0
_BELIEVED = 3
_FIRST_PART, _SMALLEST_PART, _LARGEST_PART = (n * (1 << 20) // BLOCK for n in (32, 4, 256))


@dataclass(frozen=True)
class _Ended:
    """A part's thread has ended, with `error` or all of the part."""

    part: _Part
    error: Exception | None


@dataclass(frozen=True)
class _Hashed:
    """The file is whole, and this is its SHA-256."""

    sha256: str


@dataclass(frozen=True)
class _Failed:
    """A thread that fetches nothing cannot go on."""

    error: Exception


class _Part:
    """Some blocks in a row, fetched by a thread of its own.

    Attributes:
        taken: The blocks.
        received: Bytes that came, whole blocks or not.
        pending: Of these, the bytes of the block that is not whole yet.
    """

    def __init__(self, transfer: Transfer, taken: range) -> None:
        self.taken = taken
        self.received = 0
        self.pending = 0
        self._transfer = transfer
        self._body: Body | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End soon; on return nothing is written any more."""
        with self._lock:
            self._stopped = True
            body = self._body
        if body:
            body.interrupt()
            self._thread.join()
        # One that still connects has nothing to write, and ends by itself.

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._fetch()
        except Exception as caught:  # noqa: BLE001 - handed to the calling thread, which raises it
            error = caught
        self._transfer.events.put(_Ended(self, error))

    def _fetch(self) -> None:
        transfer = self._transfer
        start = self.taken.start * BLOCK
        stop = min(self.taken.stop * BLOCK, transfer.store.blocks.size)
        with open_range(
            transfer.address, start, stop, transfer.store.etag, transfer.patience
        ) as body:
            with self._lock:
                if self._stopped:
                    return
                self._body = body
            if body.total not in {None, transfer.store.blocks.size}:
                raise UnusableError(
                    body.host,
                    f"has {body.total} bytes of it, {transfer.store.blocks.size} were announced",
                )
            if body.stop == body.start:
                raise OddAnswerError(body.host, f"answers that the file ends before byte {start}")
            if body.etag:
                transfer.store.name(body.etag)
            for index in self.taken:
                block = self._block(body, block_length(index, transfer.store.blocks.size))
                if block is None:
                    return
                transfer.store.put(index, block)
                self.pending = 0

    def _block(self, body: Body, length: int) -> bytes | None:
        """The next block; None when nobody wants it any more."""
        pieces: list[bytes] = []
        while self.pending < length:
            piece = body.read(length - self.pending)
            if self._stopped:
                return None
            if not piece:
                raise BrokenError(body.host, "ended early")
            self.received += len(piece)
            self.pending += len(piece)
            pieces.append(piece)
        return b"".join(pieces)


class Transfer:
    """One file on its way to a `Store`.

    Args:
        address: Where it comes from; the host must be able to send parts.
        store: Where it goes to.
        patience: With the network.
        on_bytes: Hears of progress, in the calling thread.
    """

    def __init__(
        self, address: Address, store: Store, patience: Patience, on_bytes: OnBytes
    ) -> None:
        self.address = address
        self.store = store
        self.patience = patience
        self.events: queue.SimpleQueue[_Ended | _Hashed | _Failed] = queue.SimpleQueue()
        self._on_bytes = on_bytes
        self._width = Width()
        self._parts: set[_Part] = set()
        self._ended_bytes = 0
        self._told = -1
        self._failures = 0
        self._without_range = 0
        self._failed_at = -1
        self._resume_at = 0.0
        self._window = (time.monotonic(), 0)
        self._rate = 0.0

    def run(self) -> str:
        """Fetch what is missing and return the SHA-256 of the whole, in lower-case hex.

        Whatever happens, on return no thread writes to the store any more.

        Raises:
            TransferError: it cannot go on.
            OSError: the disk refuses.
        """
        hashing = threading.Thread(target=self._hash, daemon=True)
        syncing = threading.Thread(target=self._sync, daemon=True)
        hashing.start()
        syncing.start()
        try:
            while True:
                self._start_parts()
                self._tell()
                try:
                    event = self.events.get(timeout=self._tick_s())
                except queue.Empty:
                    self._measure()
                    continue
                match event:
                    case _Hashed():
                        self._tell()
                        return event.sha256
                    case _Failed():
                        raise event.error
                    case _Ended():
                        self._ended(event)
        finally:
            self.store.stop()
            for part in self._parts:
                part.stop()
            hashing.join()
            syncing.join()

    @property
    def _received(self) -> int:
        return self._ended_bytes + sum(part.received for part in self._parts)

    def _tick_s(self) -> float:
        """How long to wait for news: not beyond the end of a pause."""
        pause = self._resume_at - time.monotonic()
        return min(_TICK_S, pause) if pause > 0 else _TICK_S

    def _start_parts(self) -> None:
        if time.monotonic() < self._resume_at:
            return
        while len(self._parts) < self._width.wanted:
            with self.store.changed:
                taken = self.store.blocks.take(self._part_blocks())
            if taken is None:
                return
            self._parts.add(_Part(self, taken))

    def _part_blocks(self) -> int:
        """How long the next part is to be; smaller towards the end, so that all end together."""
        share = self.store.blocks.missing // (2 * self._width.wanted)
        if not self._rate:
            return max(_SMALLEST_PART, min(_FIRST_PART, share))
        lasting = int(self._rate / self._width.wanted * _PART_S) // BLOCK
        return max(_SMALLEST_PART, min(_LARGEST_PART, lasting, share))

    def _ended(self, event: _Ended) -> None:
        """A part has ended: go on, try again, or give up."""
        self._parts.discard(event.part)
        self._ended_bytes += event.part.received
        with self.store.changed:
            self.store.blocks.given_back(event.part.taken)
        error = event.error
        if error is None:
            self._measure()
            return
        if not isinstance(error, TransferError):
            raise error
        if self._parts and error.passes:
            # The others go on without it; perhaps the host bears no more of them.
            self._width.failed(len(self._parts))
            return
        if not self._may_pass(error):
            raise error
        done = self.store.blocks.done
        self._failures = 1 if done > self._failed_at else self._failures + 1
        self._failed_at = done
        if self._failures >= self.patience.tries:
            raise error
        pause = self.patience.pause_s(self._failures)
        self._resume_at = time.monotonic() + max(pause, error.wait_s or 0.0)

    def _may_pass(self, error: TransferError) -> bool:
        """Whether to try again, as far as this failure alone tells."""
        if isinstance(error, NoRangeError) and self.store.blocks.done:
            # What is here would be lost: believe it only the third time.
            self._without_range += 1
            return self._without_range < _BELIEVED
        if isinstance(error, BrokenError) and error.at_once and not self._received:
            return False
        return error.passes and (error.wait_s or 0.0) <= self.patience.longest_wait_s

    def _measure(self) -> None:
        """Judge the number of connections by what came in the last window."""
        now, received = time.monotonic(), self._received
        began, before = self._window
        if now - began < self.patience.window_s:
            return
        self._window = now, received
        if received > before:
            self._rate = (received - before) / (now - began)
            if len(self._parts) >= self._width.wanted:
                self._width.measured(self._rate)

    def _tell(self) -> None:
        done = self.store.blocks.done + sum(part.pending for part in self._parts)
        if done != self._told:
            self._told = done
            self._on_bytes(min(done, self.store.blocks.size), self.store.blocks.size)

    def _hash(self) -> None:
        digest = hashlib.sha256()
        try:
            for index in range(len(self.store.blocks)):
                block = self.store.next_block(index)
                if block is None:
                    return
                digest.update(block)
        except Exception as error:  # noqa: BLE001 - raised by the calling thread
            self.events.put(_Failed(error))
        else:
            self.events.put(_Hashed(digest.hexdigest()))

    def _sync(self) -> None:
        """Now and then, so that a power cut costs seconds, and the end has little left to write."""
        store = self.store
        try:
            while True:
                with store.changed:
                    if store.changed.wait_for(lambda: store.stopped, timeout=_SYNC_S):
                        return
                store.sync()
        except Exception as error:  # noqa: BLE001 - raised by the calling thread
            self.events.put(_Failed(error))
