"""The HTTP client against servers that behave, and servers that do not."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl import http
from llmctl.core.secret import Secret
from llmctl.errors import UnhealthyError
from tests.peer import Request, Response, as_events, as_json, closed_port, peer, raw_peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = Secret("sk-visible-nowhere")


def test_an_answer_is_read_whole() -> None:
    with peer(lambda _: Response(200, "はい".encode(), {"X-Thing": "1"})) as server:
        reply = http.get(f"{server.url}/readyz", timeout=5)
    assert (reply.status, reply.text, reply.ok) == (200, "はい", True)
    assert reply.headers["x-thing"] == "1"
    assert reply.elapsed_s > 0
    assert server.requests[0].path == "/readyz"
    assert "authorization" not in server.requests[0].headers


def test_an_error_status_is_an_answer() -> None:
    with peer(lambda _: as_json({"error": {"message": "no"}}, 503)) as server:
        reply = http.get(server.url, timeout=5)
    assert (reply.status, reply.ok) == (503, False)
    assert reply.json() == {"error": {"message": "no"}}


def test_a_body_and_a_key_are_sent() -> None:
    with peer(lambda _: as_json({})) as server:
        http.post_json(server.url, {"text": "画像"}, key=KEY, timeout=5)
    request = server.requests[0]
    assert request.document == {"text": "画像"}
    assert request.headers["authorization"] == f"Bearer {KEY.reveal()}"
    assert request.headers["content-type"] == "application/json"


def test_neither_proxy_nor_netrc_get_hold_of_a_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with peer(lambda _: Response(200)) as server:
        assert http.get(server.url, timeout=5).status == 200
    assert "authorization" not in server.requests[0].headers


def test_a_redirect_is_not_followed() -> None:
    with peer(lambda _: Response(302, headers={"Location": "/elsewhere"})) as server:
        assert http.get(server.url, key=KEY, timeout=5).status == 302
    assert [request.path for request in server.requests] == ["/"]


def test_an_error_does_not_spoil_the_next_request() -> None:
    """As LiteLLM: after an error the connection is closed, without a word, a moment later."""
    go_on = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")
        go_on.wait(0.2)  # what is sent in the meantime is never read

    with raw_peer(talk) as url:
        assert [http.get(url, timeout=5).text for _ in range(3)] == ["oops"] * 3


def test_refused() -> None:
    with pytest.raises(http.UnreachableError, match="connection refused") as caught:
        http.get(f"http://127.0.0.1:{closed_port()}/", key=KEY, timeout=5)
    assert caught.value.failure is http.Failure.REFUSED
    assert KEY.reveal() not in str(caught.value)


def test_unresolved() -> None:
    with pytest.raises(http.UnreachableError) as caught:
        http.get("http://no-such-host.invalid/", timeout=5)
    assert caught.value.failure is http.Failure.UNRESOLVED


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nonly",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["closed", "short", "chunk cut", "not HTTP"],
)
def test_lost(sent: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(sent)

    with raw_peer(talk) as url, pytest.raises(http.UnreachableError) as caught:
        http.get(url, timeout=5)
    assert caught.value.failure is http.Failure.LOST


def test_silence_is_a_timeout() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(http.UnreachableError) as caught:
            http.get(url, timeout=0.2)
    assert caught.value.failure is http.Failure.TIMEOUT


def test_a_trickle_is_a_timeout() -> None:
    """Each byte comes in time, the answer never does."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        pause = threading.Event()
        for _ in range(200):  # far longer than the timeout, but not for ever
            pause.wait(0.02)
            connection.sendall(b".")

    with raw_peer(talk) as url, pytest.raises(http.UnreachableError) as caught:
        http.get(url, timeout=0.3)
    assert caught.value.failure is http.Failure.TIMEOUT


def test_a_body_that_is_no_json_is_named() -> None:
    with peer(lambda _: Response(200, b"<html>hello")) as server:
        reply = http.get(server.url, timeout=5)
    with pytest.raises(UnhealthyError, match="HTTP 200 without JSON: <html>hello"):
        reply.json()


# --- streams ---------------------------------------------------------------------------------


def test_events_are_yielded_as_they_arrive() -> None:
    """The second event is only sent after the first was received."""
    first_received = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b'data: {"n": 1}\n\n'
        assert first_received.wait(5)
        yield b'data: {"n": 2}\n\ndata: [DONE]\n\n'

    def answer(_: Request) -> Response:
        return Response(200, pieces(), {"Content-Type": "text/event-stream"})

    with peer(answer) as server:
        events = http.stream_json(server.url, {}, key=KEY, timeout=5)
        first = next(events)
        first_received.set()
        (second,) = events
    assert [first.data, second.data] == [{"n": 1}, {"n": 2}]
    assert 0 < first.at_s <= second.at_s
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY.reveal()}"


def test_a_stream_may_end_with_the_connection_instead_of_a_length() -> None:
    lines = [b'data: {"n": 1}\n\n', b'data: {"n": 2}']
    response = Response(200, lines, {"Content-Type": "text/event-stream"}, chunked=False)
    with peer(lambda _: response) as server:
        found = [event.data for event in http.stream_json(server.url, {}, timeout=5)]
    assert found == [{"n": 1}, {"n": 2}]


def test_an_error_inside_a_stream_is_an_event() -> None:
    with peer(lambda _: as_events({"error": {"message": "backend not found"}})) as server:
        (event,) = http.stream_json(server.url, {}, timeout=5)
    assert event.data == {"error": {"message": "backend not found"}}


def test_a_stream_that_is_plain_json_is_one_event() -> None:
    with peer(lambda _: as_json({"error": "no"})) as server:
        (event,) = http.stream_json(server.url, {}, timeout=5)
    assert event.data == {"error": "no"}


def test_a_refused_stream_carries_its_answer() -> None:
    with (
        peer(lambda _: as_json({"error": {"message": "no such model"}}, 404)) as server,
        pytest.raises(http.StatusError, match=r"404.*no such model") as caught,
    ):
        list(http.stream_json(server.url, {}, timeout=5))
    assert caught.value.reply.status == 404


def test_an_event_that_is_no_json_is_named() -> None:
    response = Response(200, [b"data: oops\n\n"], {"Content-Type": "text/event-stream"})
    with (
        peer(lambda _: response) as server,
        pytest.raises(UnhealthyError, match="without JSON: oops"),
    ):
        list(http.stream_json(server.url, {}, timeout=5))


def test_a_stream_that_breaks_is_lost() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        connection.sendall(head + b'Transfer-Encoding: chunked\r\n\r\n10\r\ndata: {"n": 1}\n\n\r\n')

    with raw_peer(talk) as url:
        events = http.stream_json(url, {}, timeout=5)
        assert next(events).data == {"n": 1}
        with pytest.raises(http.UnreachableError) as caught:
            next(events)
    assert caught.value.failure is http.Failure.LOST


STREAM = (
    ": comment, as LiteLLM and proxies send to keep a connection\n\n"
    'event: message\r\nid: 1\r\ndata: {"text": "赤い円"}\r\n\r\n'
    'data:{"no": "space"}\n\n'
    "\n\n"
    "data: two\ndata: lines\n\n"
    "data: [DONE]\n\n"
    "data: too late\n\n"
).encode()


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_how_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    blocks = [STREAM[a:b] for a, b in pairwise(edges)]
    assert list(http.event_texts(iter(blocks))) == [
        '{"text": "赤い円"}',
        '{"no": "space"}',
        "two\nlines",
    ]
