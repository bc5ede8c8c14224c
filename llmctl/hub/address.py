"""From a file's address at the hub to the host that sends it: redirects, and who gets the token."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from llmctl.hub.failures import RefusedError, UnusableError
from llmctl.hub.wire import Wire, host_of

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

MOST_REDIRECTS = 10
_ANSWERS = {200, 206, 416}
_REDIRECTS = {301, 302, 303, 307, 308}
# What hosts answer when a signature has run out, or the object has moved.
_RAN_OUT = {401, 403, 404, 410} | _REDIRECTS


class Address:
    """A file's address; where it redirects to is kept until that is refused.

    Args:
        wire: The network.
        url: The address at the hub; a user name and password in it are sent as such.
        headers: Sent everywhere, but `Authorization` only to the origin of `url`.
    """

    def __init__(self, wire: Wire, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._origin = _origin(parts)
        self._headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        secret = next((v for k, v in headers.items() if k.lower() == "authorization"), None)
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            secret = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._secret = secret
        self._wire = wire
        self._known: str | None = None
        self._lock = threading.Lock()

    @property
    def remote(self) -> str:
        """The path, without host and query."""
        return urlsplit(self._url).path

    def get(self, headers: Mapping[str, str]) -> tuple[str, BaseHTTPResponse]:
        """The sending host's name and its answer: 200, 206 or 416.

        Raises:
            TransferError: no answer, another status, or redirects without end.
        """
        known = self._known
        if known is not None:
            response = self._ask(known, headers)
            if response.status in _ANSWERS:
                return host_of(known), response
            response.close()
            if response.status not in _RAN_OUT:
                raise self._refused(known, response)
            with self._lock:
                if self._known == known:
                    self._known = None
        return self._follow(headers)

    def _follow(self, headers: Mapping[str, str]) -> tuple[str, BaseHTTPResponse]:
        url = self._url
        seen = [url]
        while True:
            response = self._ask(url, headers)
            if response.status in _ANSWERS:
                self._known = url
                return host_of(url), response
            if response.headers.get("Content-Length") == "0":
                response.drain_conn()  # ends the answer, so that the connection can be used again
            response.close()
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or target is None:
                raise self._refused(url, response)
            url = urljoin(url, target)
            if urlsplit(url).scheme not in {"http", "https"}:
                raise UnusableError(host_of(seen[-1]), "redirects to something that is not HTTP")
            if url in seen or len(seen) > MOST_REDIRECTS:
                hosts = dict.fromkeys(map(host_of, [*seen, url]))
                raise UnusableError(
                    host_of(self._url), f"redirects in a circle ({' -> '.join(hosts)})"
                )
            seen.append(url)

    def _ask(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        sent = {**self._headers, **headers}
        if self._secret and _origin(urlsplit(url)) == self._origin:
            sent["Authorization"] = self._secret
        return self._wire.get(url, sent)

    def _refused(self, url: str, response: BaseHTTPResponse) -> RefusedError:
        at_hub = _origin(urlsplit(url)) == self._origin
        return RefusedError(host_of(url), response.status, response.headers, at_hub=at_hub)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
