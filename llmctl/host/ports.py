"""Who holds a TCP port."""

from __future__ import annotations

import errno
import socket

UNKNOWN_OWNER = "another process"


def port_owner(host: str, port: int) -> str | None:
    """Who holds a TCP port: "python3 (pid 123)", or "another process" when that is not visible.

    Args:
        host: The IP address to listen on.
        port: 1 to 65535.

    Returns:
        None when a service could listen there, or when it could not for a reason that is nobody's
        doing (no permission for a low port, no such address); the engine will name that one.
    """
    try:
        with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
            # As container engines do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return _listener_on(host, port) if error.errno == errno.EADDRINUSE else None
    return None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _listener_on(host: str, port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and _overlap(host, connection.laddr.ip):
                if connection.pid is None:
                    return UNKNOWN_OWNER
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return UNKNOWN_OWNER
    return UNKNOWN_OWNER


def _overlap(one: str, other: str) -> bool:
    anywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return one == other or one in anywhere or other in anywhere
