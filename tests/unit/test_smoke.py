"""The smoke test against scripted servers that see, that are blind, and that fail in between."""

from __future__ import annotations

import base64
import io
import json
import random
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from llmctl import http
from llmctl.cli.main import run as llmctl
from llmctl.cli.smoke import human
from llmctl.core.capabilities import Capabilities
from llmctl.core.chat import Answered
from llmctl.core.events import Event, Step, silent
from llmctl.core.picture import RGB
from llmctl.core.secret import Secret
from llmctl.core.services import Hop
from llmctl.core.sight import Finding, Kind
from llmctl.core.smoke_report import SmokeReport
from llmctl.ops import smoke
from llmctl.ops.smoke import run
from tests.peer import Peer, Request, Response, as_events, as_json, closed_port, peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = Secret("sk-the-gateways-key")


@dataclass(frozen=True)
class Model:
    """A scripted model.

    Attributes:
        picture_tokens: Prompt tokens for a picture.
        looks: Whether it decodes pictures; if not, anything in a picture's place counts alike.
        counts_streams: Whether streams carry token counts.
        key: What it demands, in LiteLLM's way.
    """

    picture_tokens: int = 576
    looks: bool = True
    counts_streams: bool = True
    key: Secret | None = None

    def __call__(self, request: Request) -> Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key.reveal()}":
            return as_json({"error": {"message": "No connected db.", "code": "400"}}, 400)
        body = request.document
        text, picture = content(body)
        rise = 0
        if picture is not None:
            readable = decoded(picture) is not None
            if self.looks and not readable:
                return as_json({"error": {"message": "failed to load image"}}, 500)
            rise = self.picture_tokens
        answer = self._answer(text, picture)
        usage = {"prompt_tokens": len(text) + rise, "completion_tokens": 3}
        if not body.get("stream"):
            message = {"role": "assistant", "content": answer}
            return as_json(
                {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
            )
        pieces = [{"choices": [{"delta": {"content": c}, "finish_reason": None}]} for c in answer]
        end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        counted = [{"choices": [], "usage": usage}] if self.counts_streams else []
        return as_events({"choices": [{"delta": {"role": "assistant"}}]}, *pieces, end, *counted)

    def _answer(self, text: str, picture: str | None) -> str:
        if picture is None or self.picture_tokens == 0:
            return "画像がありません。" if "画像" in text else "Hello."
        image = decoded(picture)
        return "?" if image is None else next(n for n, rgb in RGB.items() if rgb == middle(image))


def content(body: dict[str, Any]) -> tuple[str, str | None]:
    """Text and picture URL of a chat request."""
    (message,) = body["messages"]
    if isinstance(message["content"], str):
        return message["content"], None
    text, picture = message["content"]
    return text["text"], picture["image_url"]["url"]


def decoded(uri: str) -> Image.Image | None:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except OSError:
        return None


def middle(image: Image.Image) -> Any:
    return image.getpixel((image.width // 2, image.height // 2))


def examine(
    localai: Callable[[Request], Response] | None,
    gateway: Callable[[Request], Response] | None = None,
    models: tuple[str, ...] = ("llava",),
    **settings: Any,
) -> tuple[SmokeReport, list[Peer]]:
    """Run the smoke test against scripted hops."""
    with ExitStack() as stack:
        peers, hops = [], []
        for name, answer, key in (("engine", localai, None), ("gateway", gateway, KEY)):
            if answer is not None:
                peers.append(stack.enter_context(peer(answer)))
                hops.append(Hop(name, f"{peers[-1].url}/v1", key))
        return run(hops, models, timeout=5, **{"listen": silent, **settings}), peers


def findings(report: SmokeReport) -> list[tuple[str, str, str]]:
    return [
        (c.hop, f"{c.kind} {c.language}{' stream' * c.streaming}", str(c.verdict.finding))
        for c in report.checks
    ]


def test_a_model_that_sees_passes_everywhere() -> None:
    report, peers = examine(Model(), Model(key=KEY))
    assert report.ok
    assert report.hints == ()
    names = [
        "text en",
        "text ja",
        "no picture en",
        "picture en",
        "no picture ja",
        "picture ja",
        "picture en stream",
    ]
    assert findings(report) == [(hop, n, "ok") for hop in ("engine", "gateway") for n in names]
    assert all(r.path == "/v1/chat/completions" for p in peers for r in p.requests)
    assert [len(p.requests) for p in peers] == [7, 7]
    pictures = [c for c in report.checks if c.kind is Kind.PICTURE]
    assert {c.picture_tokens for c in pictures} == {576}
    assert all(c.latency_s > 0 for c in report.checks)
    assert all((c.first_token_s is not None) is c.streaming for c in report.checks)


def test_the_control_is_the_same_question_without_the_picture() -> None:
    _, (server,) = examine(Model())
    asked = [content(request.document) for request in server.requests]
    for language in ("en", "ja"):
        same = [picture for text, picture in asked if text == smoke.QUESTION[language]]
        assert same.count(None) == 1
        assert len(same) >= 2


def test_pictures_show_what_is_reported_and_differ() -> None:
    report, (server,) = examine(Model())
    drawings = [c.drawing for c in report.checks if c.drawing]
    sent = [content(r.document)[1] for r in server.requests]
    images = [decoded(uri) for uri in sent if uri]
    assert [middle(image) for image in images if image] == [RGB[d.colour] for d in drawings]
    # English and Japanese are asked about different pictures, the stream about the second one.
    english, japanese, streamed = drawings
    assert english != japanese == streamed


def test_each_run_draws_anew() -> None:
    drawn = {examine(Model(), rng=random.Random(seed))[0].checks[3].drawing for seed in range(8)}
    assert len(drawn) > 3


def test_answers_name_what_was_drawn() -> None:
    report, _ = examine(Model())
    picture = report.checks[3].document()
    assert picture["names_colour"] is True
    assert picture["names_shape"] is False  # the scripted model knows colours only


def test_content_can_be_required() -> None:
    naming = {"other": Capabilities(colour=True, shape=True)}
    assert examine(Model(), require=naming)[0].ok
    report, _ = examine(Model(), require=naming | {"llava": Capabilities(colour=True)})
    assert report.ok  # the scripted model knows colours
    assert report.checks[-1].verdict.reason == "+576 picture tokens, names colour"
    report, _ = examine(Model(), require={"llava": Capabilities(shape=True)})
    assert {c.verdict.finding for c in report.checks if c.kind is Kind.PICTURE} == {Finding.WRONG}
    assert "llmctl models verify llava" in report.hints[0]


def test_owning_up_to_a_missing_picture_can_be_required() -> None:
    """The scripted model does so in Japanese only; in English it greets."""
    report, _ = examine(Model(), require={"llava": Capabilities(admits_no_picture=True)})
    found = {c.language: c.verdict.finding for c in report.checks if c.kind is Kind.CONTROL}
    assert found == {"en": Finding.WRONG, "ja": Finding.OK}
    assert all(c.ok for c in report.checks if c.kind is not Kind.CONTROL)


def test_a_blind_engine_is_named() -> None:
    blind = Model(picture_tokens=0)
    report, _ = examine(blind, blind)
    found = {c.verdict.finding for c in report.checks if c.kind is Kind.PICTURE}
    assert found == {Finding.BLIND}
    assert {c.verdict.finding for c in report.checks if c.kind is not Kind.PICTURE} == {Finding.OK}
    assert "the engine does not see" in report.hints[0]


def test_a_gateway_that_loses_pictures_is_named() -> None:
    report, _ = examine(Model(), Model(picture_tokens=0))
    assert report.verdict == "3 of 14 checks failed: gateway blind"
    (hint,) = report.hints
    assert "the gateway loses the picture" in hint


def test_a_stream_without_counts_rests_on_the_plain_answer() -> None:
    report, _ = examine(Model(counts_streams=False))
    assert report.ok
    assert report.checks[-1].picture_tokens is None


def test_the_text_of_a_marker_is_not_taken_for_a_picture() -> None:
    """As llama.cpp without a projector: the marker's text stays in the prompt, for 40 tokens."""
    blind = Model(picture_tokens=40, looks=False)
    report, _ = examine(blind, blind)
    found = {(c.hop, c.kind): c.verdict.finding for c in report.checks}
    assert found["engine", Kind.UNREADABLE] is Finding.BLIND
    assert found["engine", Kind.PICTURE] is found["gateway", Kind.PICTURE] is Finding.BLIND
    assert found["engine", Kind.CONTROL] is Finding.OK
    assert "the engine does not see" in report.hints[0]


def test_an_encoder_with_few_tokens_is_believed_once_it_refuses_garbage() -> None:
    report, (localai, gateway) = examine(Model(picture_tokens=36), Model(picture_tokens=36))
    assert report.ok
    assert findings(report)[3] == ("engine", "unreadable picture en", "ok")
    # Asked once a model: through the gateway the error would count against the engine.
    assert [len(p.requests) for p in (localai, gateway)] == [8, 7]


def test_a_hop_where_nobody_listens_is_left_at_once_and_the_next_one_asked() -> None:
    with peer(Model()) as server:
        hops = [
            Hop("engine", f"http://127.0.0.1:{closed_port()}/v1"),
            Hop("gateway", f"{server.url}/v1"),
        ]
        report = run(hops, ["one", "two"], timeout=5, listen=silent)
    assert findings(report)[0] == ("engine", "text en", "unreachable")
    assert [c.hop for c in report.checks].count("engine") == 1
    assert [c.ok for c in report.checks].count(True) == 14
    assert "llmctl up" in report.hints[0]


def test_one_failure_does_not_stop_the_rest() -> None:
    def answer(request: Request) -> Response:
        text, picture = content(request.document)
        if picture and text == smoke.QUESTION["ja"]:
            return as_json({"error": {"message": "out of memory"}}, 500)
        return Model()(request)

    report, _ = examine(answer)
    failed = [c for c in report.checks if not c.ok]
    assert [(c.kind, c.language, c.verdict.reason) for c in failed] == [
        (Kind.PICTURE, "ja", "HTTP 500: out of memory")
    ]
    assert len(report.checks) == 7


def test_a_hop_is_asked_for_its_own_models_only() -> None:
    with peer(Model()) as server:
        hops = [
            Hop("engine", f"{server.url}/v1", models=("two",)),
            Hop("gateway", f"{server.url}/v1"),
        ]
        report = run(hops, ["one", "two"], timeout=5, listen=silent)
    asked = {(check.hop, check.model) for check in report.checks}
    assert asked == {("engine", "two"), ("gateway", "one"), ("gateway", "two")}


def test_a_wrong_key_is_named() -> None:
    report, _ = examine(None, Model(key=Secret("sk-another")))
    assert {c.verdict.finding for c in report.checks} == {Finding.AUTH}
    assert report.hints == (
        "llmctl up   # the running gateway has another key than `llmctl key` prints",
    )


def test_an_error_inside_a_stream_fails() -> None:
    def answer(request: Request) -> Response:
        if request.document.get("stream"):
            return as_events({"error": {"message": "backend not found: llama-cpp"}})
        return Model()(request)

    report, _ = examine(answer)
    assert findings(report)[-1] == ("engine", "picture en stream", "error")
    assert report.checks[-1].verdict.reason == "HTTP 200: backend not found: llama-cpp"


def test_a_stream_refused_or_garbled_fails() -> None:
    for response in (
        as_json({"error": {"message": "no streams"}}, 400),
        Response(200, [b"data: oops\n\n"], {"Content-Type": "text/event-stream"}),
    ):

        def answer(request: Request, response: Response = response) -> Response:
            return response if request.document.get("stream") else Model()(request)

        report, _ = examine(answer)
        assert [c.ok for c in report.checks] == [True] * 6 + [False]


def test_a_slow_answer_is_a_timeout_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock is not waited for: the client is made to say "too late" once."""
    real = http.post_json
    calls = iter(range(100))

    def post(url: str, body: Any, *, key: Secret | None = None, timeout: float) -> http.Reply:
        if next(calls) == 0:
            raise http.UnreachableError(http.Failure.TIMEOUT, url, "too late")
        return real(url, body, key=key, timeout=timeout)

    monkeypatch.setattr(http, "post_json", post)
    report, _ = examine(Model())
    assert [str(c.verdict.finding) for c in report.checks] == ["timeout"] + ["ok"] * 6


def test_every_question_is_announced() -> None:
    heard: list[Event] = []
    examine(Model(), listen=heard.append)
    assert heard[0] == Step("engine: llava: text, en")
    assert heard[-1] == Step("engine: llava: picture, en, streamed")
    assert len(heard) == 7


def test_the_key_goes_to_the_gateway_only_and_into_no_report() -> None:
    report, (localai, gateway) = examine(Model(), Model(key=Secret("sk-another")))
    assert all("authorization" not in request.headers for request in localai.requests)
    assert all(KEY.reveal() in r.headers["authorization"] for r in gateway.requests)
    shown = human(report) + json.dumps(report.document()) + smoke.junit(report) + repr(report)
    assert KEY.reveal() not in shown


# --- what is shown ---------------------------------------------------------------------------


def test_junit() -> None:
    def rude(request: Request) -> Response:
        if content(request.document)[1]:
            return as_json({"error": {"message": "a\x00b <c>"}}, 500)
        return Model()(request)

    report, _ = examine(rude)
    suite = ET.fromstring(smoke.junit(report))  # noqa: S314 - written a line above
    assert (suite.get("tests"), suite.get("failures")) == ("7", "3")
    failures = suite.findall("testcase/failure")
    assert [f.get("message") for f in failures] == ["HTTP 500: a\ufffdb <c>"] * 3


def test_a_table_for_people() -> None:
    report, _ = examine(Model(), Model(picture_tokens=0))
    text = human(report)
    lines = text.splitlines()
    assert lines[0].split() == ["hop", "check", "result", "time", "tokens", "answer"]
    assert "drawn: " in text
    assert (
        "gateway: llava: picture en, picture ja, picture en stream:"
        " the picture adds 0 tokens to the prompt: it was lost on the way"
    ) in lines
    assert lines[-1] == "3 of 14 checks failed: gateway blind"
    # Columns line up although half of the rows are in Japanese.
    assert any(line.endswith("画像がありません。") for line in lines)


def test_a_model_cannot_steer_the_terminal() -> None:
    def rude(request: Request) -> Response:
        del request
        message = {"content": "\x1b[2J\x1b]0;owned\x07" + "赤" * 60}
        usage = {"prompt_tokens": 5, "completion_tokens": 5}
        return as_json({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    report, _ = examine(rude)
    assert isinstance(report.checks[0].outcome, Answered)
    text = human(report)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "..." in text
    assert report.document()["checks"][0]["answer"].endswith("赤" * 60)


def _answer(model: Model, request: Request) -> Response:
    return model(request)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A stack directory whose hops are two scripted servers; change them before the run."""
    servers: dict[str, Any] = {"engine": Model(), "gateway": Model()}
    (tmp_path / "llmctl.yaml").write_text("models: [llava, {source: llava, name: second}]\n")
    monkeypatch.chdir(tmp_path)
    with (
        peer(lambda request: _answer(servers["engine"], request)) as localai,
        peer(lambda request: _answer(servers["gateway"], request)) as gateway,
    ):
        servers["peers"] = (localai, gateway)
        hops = (Hop("engine", f"{localai.url}/v1"), Hop("gateway", f"{gateway.url}/v1", KEY))
        monkeypatch.setattr("llmctl.ops.endpoint.hops", lambda *_: hops)
        yield servers


def test_command_passes(stack: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    del stack
    assert llmctl(["smoke-test"]) == 0
    printed = capsys.readouterr()
    assert "sees: all 28 checks passed (engine and gateway)" in printed.out
    assert "second" in printed.out  # with two models, a column names them
    assert "-> engine: llava: text, en" in printed.err


def test_command_fails_with_5_and_says_what_next(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stack["gateway"] = Model(picture_tokens=0)
    assert llmctl(["smoke-test", "--model", "llava"]) == 5
    printed = capsys.readouterr()
    assert "next:  the gateway loses the picture" in printed.err
    assert "blind" in printed.out


def test_command_in_json_prints_one_document(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stack["engine"] = stack["gateway"] = Model(picture_tokens=0)
    assert llmctl(["smoke-test", "-o", "json", "-m", "second"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert {c["model"] for c in document["checks"]} == {"second"}


@pytest.mark.parametrize(("hop", "asked"), [("engine", [True, False]), ("gateway", [False, True])])
def test_command_asks_one_hop(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str], hop: str, asked: list[bool]
) -> None:
    assert llmctl(["smoke-test", "--hop", hop, "-o", "quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert [bool(p.requests) for p in stack["peers"]] == asked


def test_command_writes_junit(stack: dict[str, Any], tmp_path: Path) -> None:
    del stack
    assert llmctl(["smoke-test", "-m", "llava", "--junit", "report.xml"]) == 0
    suite = ET.parse(tmp_path / "report.xml").getroot()  # noqa: S314 - written a line above
    assert suite.get("tests") == "14"


def test_command_refuses_an_unknown_model(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del stack
    assert llmctl(["smoke-test", "--model", "lava"]) == 3
    assert 'no model "lava"' in capsys.readouterr().err
