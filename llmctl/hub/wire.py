"""One GET at a time: connections that are kept, proxies, certificates. Follows no redirect."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from llmctl.hub.failures import broken
from llmctl.hub.pace import MOST_CONNECTIONS, Patience

if TYPE_CHECKING:
    from urllib3 import PoolManager
    from urllib3.response import BaseHTTPResponse


# Enough for 40 MB/s over each connection at 100 ms from end to end and back.
_UNREAD = 4 << 20


class Wire:
    """The network as this environment has it; may be used by several threads at once."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._pools: dict[tuple[str | None, bool], PoolManager] = {}
        self._lock = threading.Lock()

    def get(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """The answer to a GET, its content unread. The caller reads it up or closes it.

        Raises:
            TransferError: no answer came.
        """
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        patience = self._patience
        try:
            return self._pool(url).request(
                "GET",
                url,
                headers=dict(headers),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=Timeout(connect=patience.connect_s, read=patience.stall_s),
            )
        except (HTTPError, OSError) as error:
            raise broken(host_of(url), error) from error

    def _pool(self, url: str) -> PoolManager:
        from urllib3 import PoolManager, ProxyManager, make_headers

        proxy = proxy_for(url)
        tls = any(address.startswith("https:") for address in (url, proxy or ""))
        with self._lock:
            if (pool := self._pools.get((proxy, tls))) is not None:
                return pool
            # Reading all the authorities takes a tenth of a second.
            context = tls_context() if tls else None
            if proxy is None:
                pool = PoolManager(
                    maxsize=MOST_CONNECTIONS, ssl_context=context, socket_options=_options()
                )
            else:
                parts = urlsplit(proxy)
                login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
                pool = ProxyManager(
                    parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
                    maxsize=MOST_CONNECTIONS,
                    ssl_context=context,
                    socket_options=_options(),
                    proxy_headers=make_headers(proxy_basic_auth=login) if parts.username else None,
                )
            self._pools[proxy, tls] = pool
            return pool


def _options() -> list[tuple[int, int, int]]:
    """What is set on every socket: no delay, and on Linux no more than `_UNREAD` bytes in wait.

    What the system has received and a killed process has not read is fetched again.
    """
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if hasattr(socket, "TCP_WINDOW_CLAMP"):
        options.append((socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, _UNREAD))
    return options


def host_of(url: str) -> str:
    """The host's name in an address."""
    return urlsplit(url).hostname or url


def proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name for this address."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def tls_context() -> ssl.SSLContext:
    """Trusts the system's authorities, certifi's, and those of REQUESTS_CA_BUNDLE.

    SSL_CERT_FILE, which OpenSSL reads itself, replaces the first two.
    """
    import certifi

    context = ssl.create_default_context()
    if "SSL_CERT_FILE" not in os.environ:
        context.load_verify_locations(certifi.where())
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (bundle := os.environ.get(name)) and Path(bundle).exists():
            is_directory = Path(bundle).is_dir()
            context.load_verify_locations(
                capath=bundle if is_directory else None, cafile=None if is_directory else bundle
            )
    return context
