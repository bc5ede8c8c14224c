"""The judgement of sight: which answers prove it, which disprove it, and whose fault it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmctl.core.capabilities import NOTHING_PROMISED, Capabilities
from llmctl.core.chat import Answered, Outcome, Refused, Unanswered
from llmctl.core.picture import Colour, Drawing, Shape
from llmctl.core.sight import (
    Check,
    Finding,
    Kind,
    Verdict,
    in_doubt,
    judge_control,
    judge_picture,
    judge_text,
    judge_unreadable,
    marker_tokens,
    picture_tokens,
)
from llmctl.core.smoke_report import SmokeReport, advise

NAMES_BOTH = Capabilities(colour=True, shape=True)
DRAWING = Drawing(Shape.CIRCLE, Colour.RED)
CONTROL = Answered("I see no picture.", prompt_tokens=20)
GONE = Unanswered("gone", "http://127.0.0.1:28000: connection refused")
LATE = Unanswered("late", "no whole answer within 5 s")
LOST = Unanswered("lost", "the connection broke")


def seen(rise: int | None, text: str = "A red circle.") -> Answered:
    return Answered(text, prompt_tokens=None if rise is None else 20 + rise)


@pytest.mark.parametrize(
    ("outcome", "finding"),
    [
        (Answered("Hello"), Finding.OK),
        (Answered("", thought="The user wants"), Finding.OK),
        (Answered(" \n"), Finding.EMPTY),
        (Refused(401, "An authentication key is required"), Finding.AUTH),
        (Refused(403, "no"), Finding.AUTH),
        (Refused(400, "No connected db."), Finding.AUTH),
        (Refused(500, "No module named 'prisma'"), Finding.AUTH),
        (Refused(500, "Authentication Error, No api key passed in."), Finding.AUTH),
        (Refused(400, "bad request"), Finding.ERROR),
        (Refused(500, "backend not found: llama-cpp"), Finding.ERROR),
        (Refused(200, "an error inside the stream"), Finding.ERROR),
        (GONE, Finding.UNREACHABLE),
        (LATE, Finding.TIMEOUT),
        (LOST, Finding.ERROR),
    ],
)
def test_words(outcome: Outcome, finding: Finding) -> None:
    verdict = judge_text(outcome)
    assert verdict.finding is finding
    assert verdict.reason


@pytest.mark.parametrize(
    ("outcome", "finding"),
    [
        (Answered("anything"), Finding.OK),
        (Answered(""), Finding.OK),
        (Refused(500, "no"), Finding.ERROR),
        (GONE, Finding.UNREACHABLE),
    ],
)
def test_control(outcome: Outcome, finding: Finding) -> None:
    assert judge_control(outcome).finding is finding


@pytest.mark.parametrize(
    ("outcome", "control", "finding"),
    [
        (seen(576), CONTROL, Finding.OK),
        (seen(4), CONTROL, Finding.OK),
        (seen(3), CONTROL, Finding.BLIND),
        (seen(0), CONTROL, Finding.BLIND),
        (seen(-2), CONTROL, Finding.BLIND),
        # A fluent answer is no excuse, and an empty one no better a reason.
        (seen(0, ""), CONTROL, Finding.BLIND),
        (seen(576, ""), CONTROL, Finding.EMPTY),
        (seen(None), CONTROL, Finding.UNPROVEN),
        (seen(576), Answered("x"), Finding.UNPROVEN),
        (seen(576), Refused(500, "no"), Finding.UNPROVEN),
        (Refused(500, "image input is not supported"), CONTROL, Finding.ERROR),
        (Refused(400, "No connected db."), CONTROL, Finding.AUTH),
        (LATE, CONTROL, Finding.TIMEOUT),
        (GONE, CONTROL, Finding.UNREACHABLE),
    ],
)
def test_picture(outcome: Outcome, control: Outcome, finding: Finding) -> None:
    assert judge_picture(outcome, control, DRAWING).finding is finding


@pytest.mark.parametrize(
    ("rise", "finding"), [(None, Finding.OK), (0, Finding.BLIND), (576, Finding.OK)]
)
def test_a_stream_may_leave_its_counts_out_but_not_its_picture(
    rise: int | None, finding: Finding
) -> None:
    assert judge_picture(seen(rise), CONTROL, DRAWING, streaming=True).finding is finding


@pytest.mark.parametrize(
    ("answer", "promised", "finding"),
    [
        ("Picture received.", NOTHING_PROMISED, Finding.OK),
        ("Picture received.", NAMES_BOTH, Finding.WRONG),
        ("A red square.", NAMES_BOTH, Finding.WRONG),
        ("A red square.", Capabilities(colour=True), Finding.OK),
        ("A red square.", Capabilities(shape=True), Finding.WRONG),
        ("A blue circle.", NAMES_BOTH, Finding.WRONG),
        ("A blue circle.", Capabilities(shape=True), Finding.OK),
        ("A red circle.", NAMES_BOTH, Finding.OK),
        ("赤い丸です。", NAMES_BOTH, Finding.OK),
    ],
)
def test_content_counts_when_it_is_promised(
    answer: str, promised: Capabilities, finding: Finding
) -> None:
    verdict = judge_picture(seen(576, answer), CONTROL, DRAWING, promised=promised)
    assert verdict.finding is finding


@pytest.mark.parametrize(
    ("answer", "language", "finding"),
    [
        ("There is no image.", "en", Finding.OK),
        ("画像がありません。", "ja", Finding.OK),
        ("There is no image.", "ja", Finding.WRONG),
        ("画像がありません。", "en", Finding.WRONG),
        ("A red circle.", "en", Finding.WRONG),
        ("", "en", Finding.WRONG),
    ],
)
def test_a_promise_to_admit_that_there_is_no_picture(
    answer: str, language: str, finding: Finding
) -> None:
    promised = Capabilities(admits_no_picture=True)
    assert judge_control(Answered(answer), language, promised).finding is finding
    assert judge_control(Answered(answer), language).finding is Finding.OK


def test_a_picture_that_is_denied() -> None:
    answer = seen(576, "There is no image.")
    verdict = judge_picture(answer, CONTROL, DRAWING, promised=NAMES_BOTH)
    assert verdict == Verdict(
        Finding.WRONG, "the picture shows a red circle, the answer says that there is none"
    )


def test_a_wrong_answer_says_what_was_drawn_and_what_was_named() -> None:
    verdict = judge_picture(seen(576, "It is a blue circle"), CONTROL, DRAWING, promised=NAMES_BOTH)
    assert verdict.reason == "the picture shows a red circle, the answer names blue circle"


@pytest.mark.parametrize(
    ("rise", "doubt"), [(None, False), (0, False), (4, True), (36, True), (47, True), (48, False)]
)
def test_few_tokens_leave_a_doubt(rise: int | None, doubt: bool) -> None:
    assert in_doubt(seen(rise), CONTROL) is doubt


@pytest.mark.parametrize(
    ("unreadable", "marker", "finding"),
    [
        (seen(36), 36, Finding.BLIND),  # counted like the picture: nothing looks at it
        (seen(0), 0, Finding.OK),  # LocalAI drops what it cannot read
        (Refused(500, "failed to load image"), 0, Finding.OK),
        (LATE, 0, Finding.TIMEOUT),
        (GONE, 0, Finding.UNREACHABLE),
    ],
)
def test_unreadable_picture(unreadable: Outcome, marker: int, finding: Finding) -> None:
    assert marker_tokens(unreadable, seen(36), CONTROL) == marker
    assert judge_unreadable(unreadable, marker).finding is finding


def test_the_tokens_of_a_marker_are_not_a_picture() -> None:
    verdict = judge_picture(seen(36), CONTROL, DRAWING, marker_tokens=36)
    assert verdict.finding is Finding.BLIND
    assert "marker's text" in verdict.reason


def test_picture_tokens() -> None:
    assert picture_tokens(seen(576), CONTROL) == 576
    assert picture_tokens(seen(None), CONTROL) is None
    assert picture_tokens(GONE, CONTROL) is None


# --- reports ---------------------------------------------------------------------------------


def check(
    hop: str, finding: Finding, kind: Kind = Kind.PICTURE, model: str = "llava", **more: Any
) -> Check:
    settings: dict[str, Any] = {
        "language": "en",
        "streaming": False,
        "outcome": seen(576),
        "latency_s": 1.25,
        **more,
    }
    verdict = Verdict(finding, more.pop("reason", f"because {finding}"))
    settings.pop("reason", None)
    return Check(hop=hop, model=model, kind=kind, verdict=verdict, **settings)


@pytest.mark.parametrize(
    ("engine", "gateway", "words"),
    [
        (Finding.OK, Finding.BLIND, "the gateway loses the picture"),
        (Finding.BLIND, Finding.BLIND, "the engine does not see"),
        (Finding.BLIND, Finding.OK, "the engine does not see"),
        (None, Finding.BLIND, "--hop both"),
        (Finding.BLIND, None, "models/llava.yaml"),
    ],
)
def test_a_lost_picture_is_pinned_to_its_hop(
    engine: Finding | None, gateway: Finding | None, words: str
) -> None:
    found = {"engine": engine, "gateway": gateway}
    hints = advise([check(hop, finding) for hop, finding in found.items() if finding])
    assert len(hints) == 1
    assert words in hints[0]


@pytest.mark.parametrize(
    ("hop", "finding", "reason", "words"),
    [
        ("engine", Finding.ERROR, "HTTP 500: backend not found: llama-cpp", "llmctl up"),
        ("engine", Finding.ERROR, "HTTP 500: oops", "llmctl logs"),
        ("engine", Finding.ERROR, 'HTTP 404: model "llava" not found.', "llmctl up"),
        (
            "gateway",
            Finding.ERROR,
            "HTTP 400: /chat/completions: Invalid model name passed in model=llava.",
            "llmctl up",
        ),
        ("gateway", Finding.ERROR, "HTTP 503: load is in cooldown", "llmctl logs"),
        ("gateway", Finding.ERROR, "HTTP 500: oops", "llmctl logs litellm"),
        ("gateway", Finding.AUTH, "HTTP 400: No connected db.", "llmctl key"),
        ("engine", Finding.AUTH, "HTTP 401", "LOCALAI_API_KEY"),
        ("gateway", Finding.UNREACHABLE, "refused", "llmctl up"),
        ("engine", Finding.TIMEOUT, "late", "--timeout"),
        ("engine", Finding.EMPTY, "empty", "template"),
        ("engine", Finding.UNPROVEN, "not counted", "llmctl logs"),
        ("engine", Finding.WRONG, "blue", "llmctl models verify"),
    ],
)
def test_every_failure_has_a_next_step(hop: str, finding: Finding, reason: str, words: str) -> None:
    (hint,) = advise([check(hop, finding, reason=reason)] * 3)
    assert words in hint


def test_no_failure_needs_no_step() -> None:
    assert advise([check("engine", Finding.OK)]) == ()


def test_models_are_advised_one_by_one() -> None:
    hints = advise(
        [
            check("engine", Finding.OK, model="sees"),
            check("engine", Finding.BLIND, model="blind"),
            check("gateway", Finding.BLIND, model="sees"),
        ]
    )
    assert len(hints) == 2
    assert "`sees` is asked directly" in hints[0]
    assert "models/blind.yaml" in hints[1]


def test_a_report_is_ok_only_when_all_of_it_is() -> None:
    good, bad = check("engine", Finding.OK), check("gateway", Finding.BLIND)
    assert SmokeReport((good,)).ok
    assert not SmokeReport((good, bad)).ok
    assert not SmokeReport(()).ok


def test_verdict() -> None:
    good, bad = check("engine", Finding.OK), check("gateway", Finding.BLIND)
    assert SmokeReport((good, good)).verdict == "sees: all 2 checks passed (engine)"
    assert SmokeReport((good, bad, bad)).verdict == "2 of 3 checks failed: gateway blind"
    assert SmokeReport(()).verdict == "nothing was checked"


def test_the_document_is_json_and_whole() -> None:
    long = "A red circle. " * 50
    one = check(
        "engine",
        Finding.OK,
        outcome=Answered(long, finish="length", prompt_tokens=596, completion_tokens=48),
        drawing=DRAWING,
        picture_tokens=576,
        first_token_s=0.5,
        streaming=True,
    )
    document = json.loads(
        json.dumps(SmokeReport((one, check("gateway", Finding.BLIND))).document())
    )
    assert document["ok"] is False
    assert document["drawn"] == [{"en": "red circle", "ja": "赤の円"}]
    assert document["hints"]
    first, second = document["checks"]
    assert first == {
        "hop": "engine",
        "model": "llava",
        "check": "picture",
        "language": "en",
        "streaming": True,
        "ok": True,
        "finding": "ok",
        "reason": "because ok",
        "answer": long,
        "thought": "",
        "finish_reason": "length",
        "latency_ms": 1250,
        "first_token_ms": 500,
        "prompt_tokens": 596,
        "completion_tokens": 48,
        "picture_tokens": 576,
        "drawn": "red circle",
        "names_colour": True,
        "names_shape": True,
    }
    assert (second["names_colour"], second["drawn"]) == (None, None)
