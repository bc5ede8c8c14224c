"""The chat half of the OpenAI API, as far as llmctl speaks it: questions out, answers in.

LocalAI and LiteLLM both keep to OpenAI's shapes, with their own habits in errors; those are named
where they are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OK = 200


@dataclass(frozen=True)
class Answered:
    """The model spoke.

    Attributes:
        text: What it said.
        thought: What a reasoning model said to itself first (`reasoning_content`).
        finish: Why it stopped, "stop" or "length"; None when the server does not say.
        prompt_tokens: Tokens read, picture tokens included; None when the server does not count.
        completion_tokens: Tokens written; None likewise.
    """

    text: str
    thought: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Refused:
    """The server answered, but with an error.

    Attributes:
        status: HTTP status; 200 for an error inside a stream.
        message: The server's own words.
    """

    status: int
    message: str


@dataclass(frozen=True)
class Unanswered:
    """Nothing came back, or not all of it.

    Attributes:
        why: "gone" when nobody listens there, "late" when the time was over, "lost" when the
            connection broke.
        message: What happened, with the address.
    """

    why: Literal["gone", "late", "lost"]
    message: str


Outcome = Answered | Refused | Unanswered


def question(
    model: str,
    text: str,
    *,
    pictures: Sequence[str] = (),
    stream: bool = False,
    max_tokens: int,
    temperature: float = 0,
) -> dict[str, Any]:
    """The body of a chat request.

    Args:
        model: Name of the model.
        text: What to ask.
        pictures: URLs of pictures, `data:` included.
        stream: Ask for events, with the token counts in the last one.
        max_tokens: Longest answer.
        temperature: 0 for the likeliest answer, the same each time.
    """
    content: str | list[dict[str, Any]] = text
    if pictures:
        content = [{"type": "text", "text": text}]
        content += [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def read_answer(status: int, text: str) -> Answered | Refused:
    """The answer in a response that was not streamed, or the error it carries."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return Refused(status, _line(text) or "an empty body")
    error = error_in(document)
    if error is not None or status != OK:
        return Refused(status, error or _line(text))
    message = _first_choice(document).get("message")
    if not isinstance(message, dict):
        return Refused(status, f"no message in the answer: {_line(text)}")
    prompt_tokens, completion_tokens = _usage(document)
    return Answered(
        text=_text(message.get("content")),
        thought=_text(message.get("reasoning_content")),
        finish=_first_choice(document).get("finish_reason"),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def read_stream(documents: Iterable[Any]) -> Answered | Refused:
    """The answer that the events of a stream add up to, or the first error among them."""
    text = thought = ""
    finish: str | None = None
    usage: tuple[int | None, int | None] = (None, None)
    for document in documents:
        error = error_in(document)
        if error is not None:
            return Refused(OK, error)
        if "message" in _first_choice(document):
            return Refused(OK, "the answer came in one piece, although a stream was asked for")
        text += piece_of(document)
        thought += _text(_delta(document).get("reasoning_content"))
        finish = _first_choice(document).get("finish_reason") or finish
        if _usage(document) != (None, None):
            usage = _usage(document)
    if finish is None:
        return Refused(OK, "the stream ended before the answer did (no finish_reason)")
    return Answered(text, thought, finish, *usage)


def piece_of(document: Any) -> str:
    """The text that one event adds to the answer, "" for an event without any."""
    return _text(_delta(document).get("content"))


def error_in(document: Any) -> str | None:
    """The server's words when a document is an error, else None.

    Both servers use `{"error": {"message": ...}}`; LiteLLM's own routes use `{"detail": ...}`.
    """
    if not isinstance(document, dict):
        return None
    match document.get("error", document.get("detail")):
        case None:
            return None
        case {"message": str(message)} | {"error": str(message)} | str(message):
            return _line(message) or "an error without words"
        case other:
            return _line(json.dumps(other, ensure_ascii=False))


def _first_choice(document: Any) -> dict[str, Any]:
    match document:
        case {"choices": [dict(choice), *_]}:
            return choice
    return {}


def _delta(document: Any) -> dict[str, Any]:
    delta = _first_choice(document).get("delta")
    return delta if isinstance(delta, dict) else {}


def _usage(document: Any) -> tuple[int | None, int | None]:
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None, None
    # A server that does not count writes zeros; no prompt has no tokens.
    read = usage.get("prompt_tokens")
    written = usage.get("completion_tokens")
    return (
        read if isinstance(read, int) and read > 0 else None,
        written if isinstance(written, int) else None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _line(text: str, limit: int = 400) -> str:
    """A server's words on one line, not a page of its stack."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
