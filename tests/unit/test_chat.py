"""Chat requests and replies, in the shapes that LocalAI and LiteLLM really send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmctl.core.chat import (
    Answered,
    Refused,
    error_in,
    piece_of,
    question,
    read_answer,
    read_stream,
)


def answer(message: dict[str, Any], **more: Any) -> str:
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "1", "choices": [choice], **more})


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def test_a_question_in_words() -> None:
    assert question("llava", "Hello", max_tokens=8) == {
        "model": "llava",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 8,
        "temperature": 0,
    }


def test_a_question_about_a_picture_streamed() -> None:
    body = question(
        "llava", "何色？", pictures=["data:image/png;base64,AA=="], stream=True, max_tokens=8
    )
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "何色？"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_a_question_about_two_pictures() -> None:
    body = question("llava", "Which?", pictures=["a", "b"], max_tokens=8, temperature=0.5)
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"]
    assert [part["image_url"]["url"] for part in content[1:]] == ["a", "b"]
    assert body["temperature"] == 0.5


def test_an_answer() -> None:
    usage = {"prompt_tokens": 600, "completion_tokens": 7, "total_tokens": 607}
    text = answer({"role": "assistant", "content": "A red circle."}, usage=usage)
    assert read_answer(200, text) == Answered("A red circle.", "", "stop", 600, 7)


def test_an_answer_that_is_still_being_thought_about() -> None:
    found = read_answer(200, answer({"content": None, "reasoning_content": "Let me look"}))
    assert found == Answered("", "Let me look", "stop")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (None, 0)),
        ({"prompt_tokens": "12"}, (None, None)),
    ],
)
def test_counts_may_be_missing(usage: Any, tokens: tuple[int | None, int | None]) -> None:
    found = read_answer(200, answer({"content": "x"}, usage=usage))
    assert isinstance(found, Answered)
    assert (found.prompt_tokens, found.completion_tokens) == tokens


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (500, '{"error":{"code":500,"message":"backend not found: llama-cpp","type":""}}',
         "backend not found: llama-cpp"),
        (400, '{"error":{"message":"No connected db.","type":"no_db_connection","code":"400"}}',
         "No connected db."),
        (404, '{"detail":"Not Found"}', "Not Found"),
        (400, '{"detail":{"error":"bad model"}}', "bad model"),
        (500, '{"error":"plain words"}', "plain words"),
        (500, '{"error":{"code":7}}', '{"code": 7}'),
        (200, '{"error":{"message":"late"}}', "late"),
        (502, "<html>Bad\nGateway</html>", "<html>Bad Gateway</html>"),
        (503, "", "an empty body"),
        (500, "{}", "{}"),
        (500, "[1]", "[1]"),
        (200, '{"choices":[]}', 'no message in the answer: {"choices":[]}'),
        (200, '{"choices":[{"message":null}]}',
         'no message in the answer: {"choices":[{"message":null}]}'),
        (200, "null", "no message in the answer: null"),
    ],
)  # fmt: skip
def test_refusals_carry_the_servers_words(status: int, text: str, message: str) -> None:
    assert read_answer(status, text) == Refused(status, message)


def test_a_page_of_error_is_shortened() -> None:
    found = read_answer(500, json.dumps({"error": {"message": "x" * 5000}}))
    assert isinstance(found, Refused)
    assert len(found.message) == 400


def test_a_stream_adds_up() -> None:
    found = read_stream(
        [
            chunk({"role": "assistant", "content": None}),
            chunk({"reasoning_content": "hm"}),
            chunk({"content": "赤"}),
            chunk({"content": "い円"}),
            chunk({}, finish="stop"),
            {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 3}},
        ]
    )
    assert found == Answered("赤い円", "hm", "stop", 20, 3)


def test_a_stream_without_counts() -> None:
    found = read_stream([chunk({"content": "x"}, usage=None), chunk({}, finish="length")])
    assert found == Answered("x", "", "length", None, None)


def test_an_error_in_a_stream_wins_over_its_text() -> None:
    events = [chunk({"content": "x"}), {"error": {"message": "died"}}, chunk({}, finish="stop")]
    assert read_stream(events) == Refused(200, "died")


@pytest.mark.parametrize("events", [[], [chunk({"content": "A re"})], [None], [[]]])
def test_a_stream_that_just_ends_is_not_an_answer(events: list[Any]) -> None:
    found = read_stream(events)
    assert isinstance(found, Refused)
    assert "ended before" in found.message


def test_a_whole_answer_in_place_of_a_stream_is_noticed() -> None:
    found = read_stream([json.loads(answer({"content": "A red circle."}))])
    assert isinstance(found, Refused)
    assert "in one piece" in found.message


def test_pieces() -> None:
    assert piece_of(chunk({"content": "a"})) == "a"
    assert piece_of(chunk({"role": "assistant"})) == ""
    assert piece_of({"choices": []}) == ""


def test_no_error_is_none() -> None:
    assert error_in({"choices": []}) is None
    assert error_in({"error": None}) is None
    assert error_in([]) is None
    assert error_in({"error": {"message": ""}}) == "an error without words"
