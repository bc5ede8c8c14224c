"""One part of a file, its answer checked: only bytes that belong where they are asked for.

Ranges and If-Range: RFC 9110, sections 13 to 15.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from llmctl.hub.address import Address
from llmctl.hub.failures import (
    BrokenError,
    ChangedError,
    NoRangeError,
    OddAnswerError,
    SignInPageError,
    UnusableError,
    broken,
)
from llmctl.hub.pace import Patience

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_PART, _BEYOND = 206, 416
_SPAN = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+|\*)")
_TOTAL = re.compile(r"bytes\s+\*/(\d+)")


class Body:
    """The content of an answer, to be read once; use it as a context manager.

    Attributes:
        host: Who sends it.
        start: Where in the file it begins.
        stop: Where it ends, None when the host does not say.
        total: Bytes of the whole file, None when the host does not say.
        etag: The host's name for this content.
    """

    def __init__(
        self,
        host: str,
        response: BaseHTTPResponse,
        patience: Patience,
        *,
        start: int,
        stop: int | None,
        total: int | None,
    ) -> None:
        self.host = host
        self.start = start
        self.stop = stop
        self.total = total
        self.etag: str | None = response.headers.get("ETag")
        self._response = response
        self._patience = patience
        self._window = (time.monotonic(), 0)
        self._came = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._response.close()  # one that was read up went back to its pool already

    def read(self, most: int) -> bytes:
        """The next bytes as they come, empty at the end.

        Raises:
            TransferError: it broke off, stalled, or came too slowly.
        """
        from urllib3.exceptions import HTTPError

        try:
            piece = self._response.read1(most, decode_content=False)
        except (HTTPError, OSError) as error:
            raise broken(self.host, error) from error
        self._came += len(piece)
        began, before = self._window
        lasted = (now := time.monotonic()) - began
        if lasted > self._patience.stall_s:
            if self._came - before < self._patience.slowest * lasted:
                raise BrokenError(self.host, "too slow") from TimeoutError()
            self._window = now, self._came
        return piece

    def interrupt(self) -> None:
        """Make a `read` that waits in another thread return or fail."""
        with suppress(ValueError, RuntimeError, OSError):  # it has ended by itself
            self._response.shutdown()


def open_range(
    address: Address, start: int, stop: int, etag: str | None, patience: Patience
) -> Body:
    """Bytes [start, stop) of a file, or its beginning where the host sends less.

    Args:
        address: The file.
        start: The first byte.
        stop: Behind the last byte, larger than `start`.
        etag: What the content was called before, None when not known.
        patience: With the network.

    Raises:
        NoRangeError: the host sends the whole file instead.
        ChangedError: the content is another one than before.
        TransferError: anything else.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    if etag and not etag.startswith("W/"):  # a weak one may not be sent here
        headers["If-Range"] = etag
    host, response = address.get(headers)
    return _handed(response, lambda: _part(host, response, start, stop, etag, patience, address))


def open_whole(address: Address, patience: Patience) -> Body:
    """The whole file from its first byte.

    Raises:
        TransferError: it cannot be had.
    """
    host, response = address.get({"Accept-Encoding": "identity"})
    return _handed(response, lambda: _whole(host, response, patience, address))


def _handed(response: BaseHTTPResponse, check: Callable[[], Body]) -> Body:
    """What `check` makes of an answer; one that it refuses is closed."""
    try:
        return check()
    except BaseException:
        response.close()
        raise


def _part(
    host: str,
    response: BaseHTTPResponse,
    start: int,
    stop: int,
    etag: str | None,
    patience: Patience,
    address: Address,
) -> Body:
    if response.status == _BEYOND:
        found = _TOTAL.fullmatch(response.headers.get("Content-Range", "").strip())
        return Body(
            host,
            response,
            patience,
            start=start,
            stop=start,
            total=int(found[1]) if found else None,
        )
    if response.status != _PART:
        _refuse_page(host, response, address)
    now = response.headers.get("ETag")
    if etag and now and now.removeprefix("W/") != etag.removeprefix("W/"):
        raise ChangedError(host)
    if response.status != _PART:
        raise NoRangeError(host)
    _refuse_encoding(host, response)
    span = _SPAN.fullmatch(response.headers.get("Content-Range", "").strip())
    if not span or int(span[1]) != start or not start < int(span[2]) + 1 <= stop:
        raise OddAnswerError(host, "answers with another part of the file than was asked for")
    end = int(span[2]) + 1
    announced = response.headers.get("Content-Length")
    if announced is not None and announced != str(end - start):
        raise OddAnswerError(host, "contradicts itself about how much it sends")
    total = None if span[3] == "*" else int(span[3])
    return Body(host, response, patience, start=start, stop=end, total=total)


def _whole(host: str, response: BaseHTTPResponse, patience: Patience, address: Address) -> Body:
    if response.status in {_PART, _BEYOND}:
        raise OddAnswerError(host, "answers with another part of the file than was asked for")
    _refuse_page(host, response, address)
    _refuse_encoding(host, response)
    announced = response.headers.get("Content-Length", "")
    total = int(announced) if announced.isdecimal() else None
    return Body(host, response, patience, start=0, stop=total, total=total)


def _refuse_page(host: str, response: BaseHTTPResponse, address: Address) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and not address.remote.lower().endswith((".html", ".htm")):
        raise SignInPageError(host)


def _refuse_encoding(host: str, response: BaseHTTPResponse) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in {"identity", ""}:
        raise UnusableError(host, "compresses the file, although it was asked not to")
