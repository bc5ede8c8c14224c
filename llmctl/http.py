"""The one HTTP client: what a service answered, or why nothing came back.

It ignores proxy variables, ~/.netrc and redirects: every address it is given is a service of the
stack, and neither a request nor a key may go elsewhere. It never retries; who waits, polls.
`fetch` alone is for the rest of the world, and is as a browser or curl would be there.

Each request has a connection of its own. A kept one can be closed by the server while the next
request is under way, as LiteLLM does after each HTTP 500, and a sound service would look broken; on
loopback a connection costs less than a millisecond.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from llmctl.errors import LlmctlError, UnhealthyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import requests

    from llmctl.core.secret import Secret

BLOCK = 1 << 16
# A service of ours takes a connection at once or is not there; only its answer may take long.
CONNECT_TIMEOUT_S = 5.0


class Failure(StrEnum):
    """Why no answer came."""

    REFUSED = "refused"  # nobody listens on the port
    UNRESOLVED = "unresolved"  # the host name has no address
    TIMEOUT = "timeout"  # the time is over
    LOST = "lost"  # the connection broke: reset, closed early, or not HTTP


class UnreachableError(UnhealthyError):
    """No (whole) answer came from `url`.

    Attributes:
        failure: Which of the ways to fail it was.
        url: The address asked.
    """

    def __init__(self, failure: Failure, url: str, message: str) -> None:
        super().__init__(message, hint="llmctl status   # then: llmctl logs")
        self.failure = failure
        self.url = url


@dataclass(frozen=True)
class Reply:
    """A whole answer, whatever its status.

    Attributes:
        url: The address asked.
        status: HTTP status.
        body: The bytes as sent; kept out of the repr.
        headers: By lower-case name.
        elapsed_s: Seconds from the request to the last byte.
    """

    url: str
    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300  # noqa: PLR2004 - that is the definition

    @property
    def text(self) -> str:
        """The body as UTF-8, broken bytes replaced."""
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON; UnhealthyError when it is none."""
        return _parsed(self.text, self.url, self.status)


@dataclass(frozen=True)
class ServerEvent:
    """One event of a stream.

    Attributes:
        data: The JSON document it carried; an error of the server's is `{"error": ...}`.
        at_s: Seconds from the request to its arrival.
    """

    data: Any
    at_s: float


class StatusError(UnhealthyError):
    """A stream was asked for, and a status that is no success came; `reply` is the whole answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.url}: HTTP {reply.status}: {_shortened(reply.text)}")
        self.reply = reply


def get(url: str, *, key: Secret | None = None, timeout: float) -> Reply:
    """GET `url`; see `post_json` for arguments and errors."""
    return _whole("GET", url, None, key, timeout)


def post_json(url: str, body: Any, *, key: Secret | None = None, timeout: float) -> Reply:
    """POST `body` as JSON and read the whole answer, whatever its status.

    Args:
        url: Where to.
        body: What `json.dumps` takes.
        key: Sent as `Authorization: Bearer`.
        timeout: Seconds for the whole exchange; a server silent for that long at the very end can
            stretch it to twice as much.

    Raises:
        UnreachableError: no whole answer came.
    """
    return _whole("POST", url, body, key, timeout)


def stream_json(
    url: str, body: Any, *, key: Secret | None = None, timeout: float
) -> Iterator[ServerEvent]:
    """POST `body` as JSON and yield the server-sent events of the answer as they arrive.

    A stream ends at `data: [DONE]` or with the connection. A 200 answer that is plain JSON, which
    is how some servers report an error, is yielded as one event.

    Args:
        url: Where to.
        body: What `json.dumps` takes.
        key: Sent as `Authorization: Bearer`.
        timeout: Seconds for the whole exchange, as in `post_json`.

    Raises:
        StatusError: the status is not 200.
        UnreachableError: no answer came, or the connection broke before the end.
        UnhealthyError: an event is no JSON.
    """
    with _exchange("POST", url, body, key, timeout) as exchange:
        if exchange.response.status_code != 200:  # noqa: PLR2004
            raise StatusError(exchange.reply())
        kind = exchange.response.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() == "application/json":
            reply = exchange.reply()
            yield ServerEvent(reply.json(), reply.elapsed_s)
            return
        for text in event_texts(exchange.blocks()):
            yield ServerEvent(_parsed(text, url, 200), exchange.elapsed_s())


def fetch(url: str, *, limit: int, timeout: float) -> bytes:
    """The content at an address anywhere: redirects are followed, proxy variables obeyed.

    Args:
        url: http or https.
        limit: Most bytes that are taken.
        timeout: Seconds for all of it.

    Raises:
        LlmctlError: no such address, a status that is no success, more than `limit` bytes, or the
            time is over.
    """
    import requests
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    began = time.monotonic()
    headers = {"User-Agent": "llmctl", "Accept": "image/png, image/jpeg, image/gif, image/bmp"}
    body = bytearray()
    try:
        with requests.get(url, headers=headers, timeout=timeout, stream=True) as response:
            if not response.ok:
                raise _not_fetched(url, f"HTTP {response.status_code}")
            while block := response.raw.read1(BLOCK, decode_content=True):
                body += block
                if len(body) > limit:
                    raise _not_fetched(url, f"is larger than {limit / 1e6:.0f} MB")
                if time.monotonic() - began > timeout:
                    raise _not_fetched(url, f"not all of it came within {timeout:g} s")
    except (requests.Timeout, ReadTimeoutError) as error:
        raise _not_fetched(url, f"not all of it came within {timeout:g} s") from error
    except (requests.ConnectionError, HTTPError) as error:
        raise _not_fetched(
            url, _unreachable(url, error).message.removeprefix(f"{url}: ")
        ) from error
    except requests.RequestException as error:
        raise _not_fetched(url, str(error)) from error  # no valid address, redirects in a circle
    return bytes(body)


def _not_fetched(url: str, why: str) -> LlmctlError:
    return LlmctlError(f"{url}: {why}", hint="download it with a browser, and give the file")


def event_texts(blocks: Iterator[bytes]) -> Iterator[str]:
    """The `data` of each server-sent event, up to `[DONE]` or the end, however the bytes are cut.

    Comments, other fields and empty events are left out; a last event without its blank line
    counts, because some servers close at once. The format: WHATWG HTML, "Server-sent events".
    """
    data: list[str] = []
    for line in _lines(blocks):
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
            continue
        text, data = "\n".join(data), []
        if text.strip() == "[DONE]":
            return
        if text.strip():
            yield text
    text = "\n".join(data)
    if text.strip() not in ("", "[DONE]"):
        yield text


def _lines(blocks: Iterator[bytes]) -> Iterator[str]:
    """Lines that end in LF or CRLF, decoded whole, so that no character is cut in two."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
    if rest:
        yield rest.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class _Exchange:
    """A request whose answer is being read."""

    url: str
    response: requests.Response
    began: float
    timeout: float

    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    def blocks(self) -> Iterator[bytes]:
        """The body in the pieces in which it arrives."""
        # read1 gives what is there; read would wait for a full block and hide the first token.
        while block := self.response.raw.read1(BLOCK, decode_content=True):
            if self.elapsed_s() > self.timeout:
                raise _late(self.url, self.timeout)
            yield block

    def reply(self) -> Reply:
        body = b"".join(self.blocks())
        headers = {name.lower(): value for name, value in self.response.headers.items()}
        return Reply(self.url, self.response.status_code, body, headers, self.elapsed_s())


def _whole(method: str, url: str, body: Any, key: Secret | None, timeout: float) -> Reply:
    with _exchange(method, url, body, key, timeout) as exchange:
        return exchange.reply()


@contextmanager
def _exchange(
    method: str, url: str, body: Any, key: Secret | None, timeout: float
) -> Iterator[_Exchange]:
    """Send a request and hold its answer open; failures while it is read are translated too."""
    import requests
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    began = time.monotonic()
    headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
    try:
        with (
            _session() as session,
            session.request(
                method,
                url,
                json=body,
                headers=headers,
                timeout=(min(timeout, CONNECT_TIMEOUT_S), timeout),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            yield _Exchange(url, response, began, timeout)
    except (requests.Timeout, ReadTimeoutError) as error:
        raise _late(url, timeout) from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise _unreachable(url, error) from error
    except (HTTPError, OSError) as error:
        # The body is read below `requests`, where a broken connection is urllib3's.
        raise _unreachable(url, error) from error


def _session() -> requests.Session:
    import requests

    session = requests.Session()
    session.trust_env = False
    # Compressed streams arrive late and in lumps.
    session.headers.update(
        {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "llmctl"}
    )
    return session


def _late(url: str, timeout: float) -> UnreachableError:
    return UnreachableError(Failure.TIMEOUT, url, f"{url}: no whole answer within {timeout:g} s")


def _unreachable(url: str, error: Exception) -> UnreachableError:
    from urllib3.exceptions import NameResolutionError

    causes = list(_causes(error))
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return UnreachableError(Failure.REFUSED, url, f"{url}: connection refused")
    if any(isinstance(cause, NameResolutionError) for cause in causes):
        return UnreachableError(Failure.UNRESOLVED, url, f"{url}: the host name has no address")
    return UnreachableError(Failure.LOST, url, f"{url}: the connection broke ({causes[-1]})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it wraps; the libraries use `reason`, `args` and `__cause__` for that."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop()
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [*cause.args, getattr(cause, "reason", None), cause.__context__, cause.__cause__]


def _parsed(text: str, url: str, status: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UnhealthyError(f"{url}: HTTP {status} without JSON: {_shortened(text)}") from error


def _shortened(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
