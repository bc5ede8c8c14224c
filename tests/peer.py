"""A scripted HTTP server on loopback: the stand-in for a service whose misbehaviour is the test."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


@dataclass(frozen=True)
class Request:
    """What the client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """What to answer; a body in pieces is sent piece by piece, chunked unless told otherwise."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = True


def as_json(document: Any, status: int = 200) -> Response:
    body = json.dumps(document, ensure_ascii=False).encode()
    return Response(status, body, {"Content-Type": "application/json"})


def as_events(*documents: Any, done: bool = True) -> Response:
    texts = [json.dumps(document, ensure_ascii=False) for document in documents]
    lines = [f"data: {text}\n\n".encode() for text in texts] + [b"data: [DONE]\n\n"] * done
    return Response(200, lines, {"Content-Type": "text/event-stream"})


@dataclass
class Peer:
    """A running server: its address and what it was sent."""

    url: str
    requests: list[Request] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes; with Nagle's algorithm the second waits 40 ms for an ACK.
    disable_nagle_algorithm = True

    def answer(self, request: Request) -> Response:
        raise NotImplementedError

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(self.answer(Request(self.command, self.path, headers, body)))

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if isinstance(response.body, bytes):
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)
        elif response.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in response.body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True
            self.end_headers()
            for piece in response.body:
                self.wfile.write(piece)

    do_GET = do_POST = _serve  # noqa: N815 - the names http.server looks for

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the client went away, which some tests want

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


@contextmanager
def peer(
    answer: Callable[[Request], Response], host: str = "127.0.0.1", port: int = 0
) -> Iterator[Peer]:
    """Serve `answer` until the block ends, on a free port unless one is given."""
    found = Peer("")

    class Handler(_Handler):
        def answer(self, request: Request) -> Response:
            found.requests.append(request)
            return answer(request)

    with ThreadingHTTPServer((host, port), Handler) as server:
        found.url = f"http://{host}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def raw_peer(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server below HTTP: `talk` gets each connection, which is closed when it returns."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        talk(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            # Closing alone would leave accept() waiting.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def closed_port() -> int:
    """A port on which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])
