"""`llmctl ask` against scripted gateways, and the words of its command line."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli.main import run as llmctl
from llmctl.core.picture import Colour, Shape, data_uri, draw
from llmctl.errors import LlmctlError, UsageError
from llmctl.ops import ask
from tests.peer import Peer, Request, Response, as_events, as_json, closed_port, peer

ROOT = Path(__file__).parents[2]
PNG = draw(Shape.CIRCLE, Colour.RED, size=32)
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"


def gateway(request: Request) -> Response:
    """Counts what it was shown."""
    content = request.document["messages"][0]["content"]
    seen = 0 if isinstance(content, str) else len(content) - 1
    pieces = [{"choices": [{"delta": {"content": text}}]} for text in ("枚数", "は", f"{seen}。")]
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 5 + seen, "completion_tokens": 3}
    return as_events(*pieces, end, {"choices": [], "usage": usage})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "a dog.gif").write_bytes(GIF)
    return tmp_path


def configure(url: str, more: str = "") -> None:
    port = url.rpartition(":")[2]
    Path("llmctl.yaml").write_text(f"gateway: {{port: {port}{more}}}\n")


def asked(server: Peer, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    configure(server.url)
    code = llmctl(["ask", *arguments])
    return code, [request.document for request in server.requests]


# --- the words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sources", "text"),
    [
        (["cat.png", "Why?"], ["cat.png"], "Why?"),
        (["cat.png", "a dog.gif", "-", "Which?"], ["cat.png", "a dog.gif", "-"], "Which?"),
        (["http://x/a.png", "Why?"], ["http://x/a.png"], "Why?"),
        (["data:image/png;base64,AA==", "Why?"], ["data:image/png;base64,AA=="], "Why?"),
        (["Say OK."], [], "Say OK."),
        (["何" * 300], [], "何" * 300),
        (["cat.png"], ["cat.png"], ask.DEFAULT_QUESTION),
        (["cat.png", "a dog.gif"], ["cat.png", "a dog.gif"], ask.DEFAULT_QUESTION),
        (["What is at https://x/a.png?"], [], "What is at https://x/a.png?"),
        (["cat.png", "."], ["cat.png"], "."),
    ],
)
def test_pictures_and_question(here: Path, words: list[str], sources: list[str], text: str) -> None:
    del here
    assert ask.divide(words) == (tuple(sources), text)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["dog.png", "Why?"], "dog.png: no such file"),
        (["cat.png", "What", "is", "this?"], "What: no such file"),
        (["dog.JPG"], "dog.JPG: no such file"),
        (["cat.png", "dog.jpg"], "dog.jpg: no such file"),
        (["cat.png", " "], "the question is empty"),
        (["-", "-", "Why?"], "twice"),
    ],
)
def test_words_that_make_no_sense(here: Path, words: list[str], complaint: str) -> None:
    del here
    with pytest.raises(UsageError, match=complaint):
        ask.divide(words)


# --- the pictures ----------------------------------------------------------------------------


def load(*sources: str, stdin: bytes = b"") -> tuple[ask.Picture, ...]:
    return ask.load_pictures(sources, stdin=io.BytesIO(stdin).read, timeout=5)


def test_every_kind_of_source(here: Path) -> None:
    del here
    with peer(lambda _: Response(200, PNG)) as server:
        uri = data_uri(PNG).replace("data:", "DATA:")
        found = load("cat.png", "a dog.gif", "-", f"{server.url}/x", uri, stdin=GIF)
    assert [one.data for one in found] == [PNG, GIF, GIF, PNG, PNG]
    assert [one.format.name for one in found] == ["png", "gif", "gif", "png", "png"]
    assert found[1].source == "a dog.gif"
    assert found[4].source == "DATA:image/png;base64"
    assert found[0].data_uri() == data_uri(PNG)
    assert str(PNG) not in repr(found[0])


def test_a_redirect_is_followed() -> None:
    def answer(request: Request) -> Response:
        moved = Response(302, headers={"Location": "/there"})
        return Response(200, PNG) if request.path == "/there" else moved

    with peer(answer) as server:
        (found,) = load(f"{server.url}/here")
    assert found.data == PNG


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        (Response(404), "HTTP 404"),
        (Response(200, b"<!DOCTYPE html>"), "is an HTML page"),
        (Response(200, b"RIFF\0\0\0\0WEBP"), "is WebP"),
        (Response(302, headers={"Location": "/again"}), "redirects"),
        (Response(302, headers={"Location": "ftp://x/"}), "ftp"),
    ],
)
def test_an_address_without_a_picture(
    capsys: pytest.CaptureFixture[str], response: Response, complaint: str
) -> None:
    with peer(lambda _: response) as server:
        assert llmctl(["ask", f"{server.url}/a", "Why?"]) in (1, 2)
        assert f"{server.url}/a: " in (told := capsys.readouterr().err)
    assert complaint in told


def test_an_address_where_nobody_is(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{closed_port()}/a.png"
    assert llmctl(["ask", url, "Why?"]) == 1
    told = capsys.readouterr().err
    assert f"{url}: connection refused" in told
    assert "llmctl status" not in told  # it is no service of ours


@pytest.mark.parametrize("source", ["file", "-", "url", "data"])
def test_the_limit_is_told(here: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(ask, "MOST_BYTES", 1_000_000)
    large = PNG.ljust(600_000, b"\0")
    (here / "large.png").write_bytes(large)
    with peer(lambda _: Response(200, large)) as server:
        place = {
            "file": "large.png",
            "-": "-",
            "url": f"{server.url}/a",
            "data": data_uri(large),
        }[source]
        assert load(place, stdin=large)
        with pytest.raises(UsageError, match=r"too large: .* 1 MB in all"):
            load("large.png", place, stdin=large)
        monkeypatch.setattr(ask, "MOST_BYTES", 500_000)
        with pytest.raises(LlmctlError, match="large"):
            load(place, stdin=large)


@pytest.mark.parametrize("uri", ["data:image/png,abc", "data:image/png;base64", "data:;base64,A"])
def test_a_data_uri_that_is_none(uri: str) -> None:
    with pytest.raises(UsageError, match="base64"):
        load(uri)


def test_a_file_that_cannot_be_used(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "cat.webp").write_bytes(b"RIFF\0\0\0\0WEBP")
    assert llmctl(["ask", "cat.webp", "Why?"]) == 2
    told = capsys.readouterr().err
    assert "cat.webp: is WebP, which llama.cpp does not read" in told
    assert "next:  convert cat.webp cat.png" in told


# --- asking ----------------------------------------------------------------------------------


def test_the_question_goes_to_the_gateway_with_the_pictures(here: Path) -> None:
    del here
    with peer(gateway) as server:
        code, (body,) = asked(server, "cat.png", "a dog.gif", "違いは？", "--max-tokens", "9")
    assert code == 0
    assert server.requests[0].path == "/v1/chat/completions"
    assert "authorization" not in server.requests[0].headers
    assert (body["model"], body["stream"], body["max_tokens"]) == ("llava", True, 9)
    assert body["temperature"] == 0
    text, first, second = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "違いは？"}
    assert first["image_url"]["url"] == data_uri(PNG)
    head, data = second["image_url"]["url"].split(",")
    assert (head, base64.b64decode(data)) == ("data:image/gif;base64", GIF)


def test_words_alone_are_plain_content(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del here
    with peer(gateway) as server:
        code, (body,) = asked(server, "Say OK.", "--temperature", "0.7")
    assert (code, body["messages"][0]["content"], body["temperature"]) == (0, "Say OK.", 0.7)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("枚数は0。\n", "")


def test_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del here
    with peer(gateway) as server:
        assert asked(server, "cat.png", "Why?", "-o", "json")[0] == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 <= found.pop("first_token_ms") <= found.pop("total_ms")
    assert found == {
        "model": "llava",
        "question": "Why?",
        "pictures": [{"source": "cat.png", "bytes": len(PNG), "format": "png"}],
        "answer": "枚数は1。",
        "finish_reason": "stop",
        "prompt_tokens": 6,
        "completion_tokens": 3,
    }


def test_a_key_is_sent(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with peer(gateway) as server:
        configure(server.url, ", auth: key")
        assert llmctl(["ask", "Hello"]) == 3
        assert "llmctl up" in capsys.readouterr().err
        (here / ".llmctl").mkdir()
        (here / ".llmctl/gateway.key").write_text("sk-of-the-gateway\n")
        assert llmctl(["ask", "Hello"]) == 0
    assert server.requests[0].headers["authorization"] == "Bearer sk-of-the-gateway"
    printed = capsys.readouterr()
    assert "sk-of" not in printed.out + printed.err


def test_no_gateway(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del here
    configure(f"http://127.0.0.1:{closed_port()}")
    assert llmctl(["ask", "cat.png", "Why?"]) == 5
    told = capsys.readouterr().err
    assert "the gateway is not running" in told
    assert "llmctl up" in told.splitlines()[-1]


@pytest.mark.parametrize(
    ("response", "words", "hint"),
    [
        (
            as_json({"error": {"message": "Failed to load image or audio file"}}, 400),
            "llava: HTTP 400: Failed to load image or audio file",
            "smoke-test",
        ),
        (
            as_json({"error": "request (9 tokens) exceeds the available context size"}, 400),
            "exceeds the available context size",
            "--set context=8192",
        ),
        (Response(413, b"too much"), "HTTP 413: too much", "-resize"),
        (as_json({"error": {"message": "Invalid model name passed in"}}, 400), "Invalid", " up "),
        (as_json({"error": {"message": "No connected db."}}, 400), "No connected db.", "another key"),
        (as_events({"error": {"message": "the slot broke"}}), "the slot broke", "logs"),
        (as_events({"choices": [{"delta": {"content": "A"}}]}), "no finish_reason", "logs"),
        (Response(200, [b"data: oops\n\n"], {"Content-Type": "text/event-stream"}), "without JSON", ""),
    ],
)  # fmt: skip
def test_errors_come_in_the_engines_words(
    here: Path, capsys: pytest.CaptureFixture[str], response: Response, words: str, hint: str
) -> None:
    del here
    with peer(lambda _: response) as server:
        assert asked(server, "cat.png", "Why?")[0] == 5
    told = capsys.readouterr().err
    assert words in told
    assert hint in told


def test_a_cut_and_an_empty_answer_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del here
    end = {"choices": [{"delta": {}, "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 40}}
    with peer(
        lambda _: as_events({"choices": [{"delta": {"content": "A"}}]}, end, usage)
    ) as server:
        assert asked(server, "Why?")[0] == 0
    assert "--max-tokens 1024" in capsys.readouterr().err
    with peer(gateway) as server:
        assert asked(server, "Why?", "--max-tokens", "3")[0] == 0
    assert "--max-tokens 6" in capsys.readouterr().err
    with peer(lambda _: as_events({"choices": [{"delta": {}, "finish_reason": "stop"}]})) as server:
        assert asked(server, "Why?")[0] == 0
    assert "llava said nothing" in capsys.readouterr().err


@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_the_answer_comes_piece_by_piece(here: Path, no_color: str) -> None:
    """The gateway goes on only after the first piece was seen on the terminal."""
    del here
    first_was_seen = threading.Event()

    def answer(request: Request) -> Response:
        whole = b"".join(gateway(request).body)  # type: ignore[arg-type]
        steering = as_events({"choices": [{"delta": {"content": "\x1b[2J"}}]}, done=False).body

        def pieces() -> Iterator[bytes]:
            head, rest = whole.split(b"\n\n", 1)
            yield head + b"\n\n"
            assert first_was_seen.wait(30)
            yield b"".join(steering)  # type: ignore[arg-type]
            yield rest

        return Response(200, pieces(), {"Content-Type": "text/event-stream"})

    ours, theirs = pty.openpty()
    with peer(answer) as server, closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        configure(server.url)
        process = subprocess.Popen(
            [sys.executable, "-m", "llmctl", "ask", "cat.png", "何枚？", "--show"],
            stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": no_color, "COLUMNS": "60"},
        )  # fmt: skip
        os.close(theirs)
        text = b""
        while "枚数".encode() not in text:
            text += screen.read(4096)
        first_was_seen.set()
        text += b"".join(iter(lambda: _rest(screen), b""))
        assert process.wait(30) == 0
    shown = text.decode()
    assert "枚数\N{REPLACEMENT CHARACTER}[2Jは1。\r\n" in shown
    assert "llava: 6+3 tokens, first after" in shown
    assert ("\x1b[38;2;224;0;0" in shown) is (not no_color)
    assert ("\x1b" in shown) is (not no_color)


def _rest(screen: Any) -> bytes:
    """What is on the terminal still; Linux reports a closed one as an error."""
    try:
        return bytes(screen.read(4096))
    except OSError:
        return b""


def test_show_puts_the_picture_beside_the_data(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del here
    with peer(gateway) as server:
        assert asked(server, "cat.png", "a dog.gif", "Why?", "--show")[0] == 0
    printed = capsys.readouterr()
    assert printed.out == "枚数は2。\n"
    assert "\x1b" not in printed.err  # no terminal: characters
    assert "####" in printed.err or "****" in printed.err or "++++" in printed.err
    assert "a dog.gif: no preview" in printed.err
