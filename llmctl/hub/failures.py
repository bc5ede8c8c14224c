"""What can go wrong while bytes come; `errors` puts it in words.

None of them holds an address: those of a CDN are signed.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_REQUEST_TIMEOUT, _TOO_EARLY, _TOO_MANY, _SERVER_ERROR = 408, 425, 429, 500
_DIGITS = 9


class TransferError(Exception):
    """Something went wrong with a host.

    Attributes:
        host: Its name.
        passes: Whether trying again may help.
        wait_s: How long it asks us to wait, None when it does not.
    """

    passes = False
    wait_s: float | None = None

    def __init__(self, host: str, what: str = "") -> None:
        super().__init__(f"{host}: {what}" if what else host)
        self.host = host
        self.what = what


class BrokenError(TransferError):
    """No connection, or it broke off, or nothing more came. The cause says which."""

    passes = True

    @property
    def at_once(self) -> bool:
        """Whether it is told at once when nothing came yet: waiting rarely mends these."""
        return any(
            isinstance(cause, ConnectionRefusedError | socket.gaierror)
            or "Proxy" in type(cause).__name__
            for cause in chain(self)
        )


class CertificateError(TransferError):
    """The host's certificate is not trusted here, or it does not speak TLS."""


class RefusedError(TransferError):
    """The host answered with an HTTP error.

    Attributes:
        status: The HTTP status.
        code: The hub's own code for it, empty when there is none.
        said: The hub's words.
        headers: All headers.
        at_hub: Whether it was the hub, not a host that it redirects to.
    """

    def __init__(self, host: str, status: int, headers: Mapping[str, str], *, at_hub: bool) -> None:
        super().__init__(host, f"HTTP {status}")
        self.status = status
        self.code = headers.get("X-Error-Code", "")
        self.said = headers.get("X-Error-Message", "")
        self.headers = headers
        self.at_hub = at_hub
        self.passes = status >= _SERVER_ERROR or status in {
            _REQUEST_TIMEOUT,
            _TOO_EARLY,
            _TOO_MANY,
        }
        self.wait_s = wait_s(headers)


class OddAnswerError(TransferError):
    """The host answered something that does not follow from the request; `what` says it."""

    passes = True


class UnusableError(TransferError):
    """What the host answers cannot be the file, now or later; `what` says why."""


class SignInPageError(TransferError):
    """A web page came where a file was asked for."""


class NoRangeError(TransferError):
    """The host sends the whole file where a part was asked for."""


class ChangedError(TransferError):
    """The host has another content under the same address than it had before."""


class WrongContentError(TransferError):
    """The file came whole and is not what was announced; `what` says how it differs."""


def wait_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait: Retry-After in seconds or as a date; at least 0."""
    after = (headers.get("Retry-After") or "").strip()
    if after.isdecimal() and len(after) <= _DIGITS:
        return float(after)
    try:
        date = parsedate_to_datetime(after)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def broken(host: str, error: Exception) -> TransferError:
    """The failure that an exception of the HTTP library means; raise it from that exception."""
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain(error)):
        return CertificateError(host)
    return BrokenError(host, type(error).__name__)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it; the HTTP libraries wrap the system's own errors twice."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [*current.args, current.__context__, current.__cause__]
