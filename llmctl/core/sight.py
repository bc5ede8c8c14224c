"""Does the model see? Judging the answers of a smoke test.

An answer with status 200 proves nothing: LocalAI goes on without a picture that it could not use,
and the model then talks about a picture it never saw. The witness is the count of prompt tokens: a
picture that arrives adds tokens to the prompt, and one that is lost adds none.

One trap remains. Without a projector, llama.cpp leaves the *name* of the picture's place in the
prompt, its marker, and that text has tokens of its own. Where a rise is so small that it could be
the marker's, bytes that are no picture tell: an engine that looks at pictures refuses or drops
them, one that does not counts them like the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from llmctl.core.capabilities import NOTHING_PROMISED, Capabilities
from llmctl.core.chat import Answered, Outcome, Refused, Unanswered
from llmctl.core.picture import Drawing, colour_named, shape_named

if TYPE_CHECKING:
    from collections.abc import Mapping

# Another line break or template branch for pictures can cost a token or two.
LEAST_RISE = 4
# llama.cpp's marker is "<__media_" + 32 random characters + "__>": at most one token a character.
MARKER_TOKENS = 48
# How a model says, in the language of the question, that it was shown nothing.
NO_PICTURE: Mapping[str, tuple[str, ...]] = {
    "en": ("no image", "no picture"),
    "ja": ("画像がありません", "画像はありません"),
}


class Finding(StrEnum):
    """What one check found."""

    OK = "ok"
    BLIND = "blind"  # the picture did not reach the model
    WRONG = "wrong"  # the answer is not what the catalogue promises of the model
    UNPROVEN = "unproven"  # nothing was counted, so nothing is known
    EMPTY = "empty"  # an answer without a word
    AUTH = "auth"  # the key was refused
    ERROR = "error"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"


class Kind(StrEnum):
    """What a check asks."""

    TEXT = "text"
    CONTROL = "no picture"  # the picture's question without the picture
    PICTURE = "picture"
    UNREADABLE = "unreadable picture"


@dataclass(frozen=True)
class Verdict:
    """A finding, and why in a few words."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class Check:
    """One question to one hop, and what came of it.

    Attributes:
        hop: "engine" or "gateway".
        model: Name of the model asked.
        kind: What was asked.
        language: "en" or "ja".
        streaming: Whether the answer was streamed.
        verdict: What it says about the hop.
        outcome: What came back.
        latency_s: Seconds to the end of the answer.
        first_token_s: Seconds to the first text of a stream.
        picture_tokens: Prompt tokens that the picture added.
        drawing: What the picture showed.
    """

    hop: str
    model: str
    kind: Kind
    language: str
    streaming: bool
    verdict: Verdict
    outcome: Outcome
    latency_s: float
    first_token_s: float | None = None
    picture_tokens: int | None = None
    drawing: Drawing | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong here."""
        return self.verdict.finding is Finding.OK

    @property
    def answer(self) -> str:
        """What the model said, "" when it said nothing."""
        return self.outcome.text if isinstance(self.outcome, Answered) else ""

    def document(self) -> dict[str, Any]:
        """The check for JSON; times in milliseconds."""
        outcome = self.outcome
        answered = outcome if isinstance(outcome, Answered) else None
        return {
            "hop": self.hop,
            "model": self.model,
            "check": str(self.kind),
            "language": self.language,
            "streaming": self.streaming,
            "ok": self.ok,
            "finding": str(self.verdict.finding),
            "reason": self.verdict.reason,
            "answer": self.answer,
            "thought": answered.thought if answered else "",
            "finish_reason": answered.finish if answered else None,
            "latency_ms": _milliseconds(self.latency_s),
            "first_token_ms": _milliseconds(self.first_token_s),
            "prompt_tokens": answered.prompt_tokens if answered else None,
            "completion_tokens": answered.completion_tokens if answered else None,
            "picture_tokens": self.picture_tokens,
            "drawn": self.drawing.english if self.drawing else None,
            "names_colour": self._names_colour(),
            "names_shape": self._names_shape(),
        }

    def _names_colour(self) -> bool | None:
        return colour_named(self.answer) is self.drawing.colour if self.drawing else None

    def _names_shape(self) -> bool | None:
        return shape_named(self.answer) is self.drawing.shape if self.drawing else None


def judge_text(outcome: Outcome) -> Verdict:
    """A question in words must get an answer in words."""
    fault = _fault(outcome)
    return fault or Verdict(Finding.OK, "answers")


def judge_control(
    outcome: Outcome, language: str = "en", promised: Capabilities = NOTHING_PROMISED
) -> Verdict:
    """The question without its picture is asked for its token count.

    Silence is a fair answer, unless the model is promised to say that there is no picture.
    """
    fault = _fault(outcome)
    if fault and fault.finding is not Finding.EMPTY:
        return fault
    if not promised.admits_no_picture:
        return Verdict(Finding.OK, "counted without the picture")
    if _says_no_picture(outcome, language):
        return Verdict(Finding.OK, "says that there is no picture")
    return Verdict(Finding.WRONG, "no picture was sent, and the answer does not say so")


def judge_picture(
    outcome: Outcome,
    control: Outcome,
    drawing: Drawing,
    *,
    marker_tokens: int = 0,
    streaming: bool = False,
    promised: Capabilities = NOTHING_PROMISED,
) -> Verdict:
    """A question about a picture: did the picture reach the model?

    Args:
        outcome: What came back.
        control: What came back for the same text without the picture.
        drawing: What the picture shows.
        marker_tokens: Tokens that are known to come from the marker's text, not from the picture.
        streaming: Streams may leave the counts out; the plain answer then bears the proof.
        promised: What the answer must name besides.
    """
    fault = _fault(outcome)
    rise = picture_tokens(outcome, control)
    if fault and fault.finding is not Finding.EMPTY:
        return fault
    if rise is None and not streaming:
        return Verdict(Finding.UNPROVEN, "prompt tokens were not counted with and without it")
    if rise is not None and rise - marker_tokens < LEAST_RISE:
        why = "all of them its marker's text" if marker_tokens else "it was lost on the way"
        return Verdict(Finding.BLIND, f"the picture adds {rise} tokens to the prompt: {why}")
    if fault:
        return fault
    seen = "answers; the stream counts no tokens" if rise is None else f"+{rise} picture tokens"
    if wrong := _wrong_content(outcome, drawing, promised):
        return Verdict(Finding.WRONG, wrong)
    names = " and ".join(thing for thing in ("colour", "shape") if getattr(promised, thing))
    return Verdict(Finding.OK, f"{seen}, names {names}" if names else seen)


def in_doubt(outcome: Outcome, control: Outcome) -> bool:
    """Whether a picture's tokens are so few that they may be the marker's text instead."""
    rise = picture_tokens(outcome, control)
    return rise is not None and LEAST_RISE <= rise < MARKER_TOKENS


def marker_tokens(unreadable: Outcome, picture: Outcome, control: Outcome) -> int:
    """How many of a picture's tokens are its marker's text: all of them or none.

    Args:
        unreadable: What came back for bytes that are no picture, with the same text.
        picture: What came back for the real picture.
        control: What came back for the text alone.
    """
    rise = picture_tokens(unreadable, control)
    return rise if rise is not None and rise == picture_tokens(picture, control) else 0


def judge_unreadable(outcome: Outcome, marker: int) -> Verdict:
    """Bytes that are no picture; `marker` is what `marker_tokens` found."""
    if isinstance(outcome, Refused):
        return Verdict(Finding.OK, "refused, so pictures are looked at")
    if fault := _fault(outcome):
        return fault
    if marker:
        return Verdict(
            Finding.BLIND, f"bytes that are no picture add {marker} tokens, like the picture"
        )
    return Verdict(Finding.OK, "left out, so pictures are looked at")


def picture_tokens(outcome: Outcome, control: Outcome) -> int | None:
    """Prompt tokens that a picture added, None where either was not counted."""
    if not isinstance(outcome, Answered) or not isinstance(control, Answered):
        return None
    if outcome.prompt_tokens is None or control.prompt_tokens is None:
        return None
    return outcome.prompt_tokens - control.prompt_tokens


def _fault(outcome: Outcome) -> Verdict | None:
    """What is wrong with an answer before its content is looked at."""
    match outcome:
        case Answered(text=text, thought=thought):
            if text.strip() or thought.strip():
                return None
            return Verdict(Finding.EMPTY, "the answer is empty")
        case Refused(status=status, message=message):
            finding = Finding.AUTH if _is_auth(status, message) else Finding.ERROR
            return Verdict(finding, f"HTTP {status}: {message}")
        case Unanswered(why="gone", message=message):
            return Verdict(Finding.UNREACHABLE, message)
        case Unanswered(why="late", message=message):
            return Verdict(Finding.TIMEOUT, message)
        case Unanswered(message=message):
            return Verdict(Finding.ERROR, message)
    assert_never(outcome)


def _is_auth(status: int, message: str) -> bool:
    """Whether a refusal is about the key.

    A LiteLLM proxy without a database looks a wrong key up in that database and answers 400 "No
    connected db." (BerriAI/litellm#12273), or 500 about the missing `prisma` module for no key.
    """
    if status in (401, 403):
        return True
    words = message.casefold()
    return "no connected db" in words or "no api key passed" in words or "'prisma'" in words


def _wrong_content(outcome: Outcome, drawing: Drawing, promised: Capabilities) -> str:
    if not isinstance(outcome, Answered):
        return ""
    colour, shape = colour_named(outcome.text), shape_named(outcome.text)
    right_colour = colour is drawing.colour or not promised.colour
    if right_colour and (shape is drawing.shape or not promised.shape):
        return ""
    shown = f"the picture shows a {drawing.english}, the answer"
    if any(_says_no_picture(outcome, language) for language in NO_PICTURE):
        return f"{shown} says that there is none"
    named = " ".join(str(thing) for thing in (colour, shape) if thing) or "neither colour nor shape"
    return f"{shown} names {named}"


def _says_no_picture(outcome: Outcome, language: str) -> bool:
    said = outcome.text.casefold() if isinstance(outcome, Answered) else ""
    return any(words in said for words in NO_PICTURE[language])


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)
