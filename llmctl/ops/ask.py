"""One question to the running stack, with pictures: what `llmctl ask` does."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from llmctl import files, http
from llmctl.core import chat, sight
from llmctl.core.picture import Drawing, draw
from llmctl.core.pictureformat import Format, picture_format
from llmctl.core.services import Hop
from llmctl.core.sight import Finding
from llmctl.core.smoke_report import is_unknown_model
from llmctl.core.stack import Stack
from llmctl.errors import LlmctlError, UnhealthyError, UsageError
from llmctl.ops.endpoint import gateway_url
from llmctl.ops.keys import key_in_use
from llmctl.paths import StackPaths

STDIN = "-"
DEFAULT_QUESTION = "What is in this picture?"
# All pictures of one question: in base64 they are a third larger, and LocalAI is started to take
# request bodies of 64 MB (core.services).
MOST_BYTES = 48_000_000
_PICTURE_NAME = re.compile(
    r"\S+\.(?:png|jpe?g|gif|bmp|webp|heic|heif|avif|jxl|tiff?|svg|pdf)", re.IGNORECASE
)
_ADDRESS = re.compile(r"(?:https?://|data:)\S+", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """A picture to ask about.

    Attributes:
        source: Where it came from, for people; of a `data:` URI only its beginning.
        format: What it is.
        data: Its bytes as they were read.
    """

    source: str
    format: Format
    data: bytes = field(repr=False)

    def data_uri(self) -> str:
        """As a chat request carries it."""
        return f"data:{self.format.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        text: In words.
        pictures: What about; none for a question in words alone.
        max_tokens: Longest answer.
        temperature: 0 for the likeliest answer.
    """

    text: str
    pictures: tuple[Picture, ...] = ()
    max_tokens: int = 512
    temperature: float = 0


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        model: Who was asked.
        text: The answer.
        thought: What a reasoning model said to itself first.
        finish: "stop", or "length" when `max_tokens` cut it.
        prompt_tokens: Tokens read, None when they were not counted.
        completion_tokens: Tokens written, None likewise.
        first_token_s: Seconds from the request to the first text, None without any.
        total_s: Seconds from the request to the end.
    """

    model: str
    text: str
    thought: str
    finish: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    first_token_s: float | None
    total_s: float


def divide(words: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Pictures and question out of the words of a command line.

    The last word is the question, unless it is a picture too (a file that exists, an address, or
    -): then `DEFAULT_QUESTION` is asked. A question alone is fine.

    Raises:
        UsageError: a word before the last is no picture, or the question looks like a file that
            is missing.
    """
    *sources, text = words
    if _is_picture(text):
        sources, text = list(words), DEFAULT_QUESTION
    for word in sources:
        if not _is_picture(word):
            raise UsageError(
                f"{word}: no such file", hint='the question comes last: llmctl ask FILE "question"'
            )
    if _PICTURE_NAME.fullmatch(text):
        raise UsageError(f"{text}: no such file", hint=f"ls {Path(text).parent}")
    if not text.strip():
        raise UsageError("the question is empty", hint='llmctl ask FILE "What is this?"')
    if sources.count(STDIN) > 1:
        raise UsageError("- was given twice, and standard input can be read only once")
    return tuple(sources), text


def load_pictures(
    sources: Sequence[str], *, stdin: Callable[[int], bytes], timeout: float
) -> tuple[Picture, ...]:
    """Read every picture, and make sure that the engine can.

    Args:
        sources: Files, addresses (http, https, data) or -. Addresses are fetched here, since an
            engine refuses those of a private network.
        stdin: Reads at most so many bytes of standard input.
        timeout: Seconds for each address.

    Raises:
        UsageError: no picture, or of a format that llama.cpp does not read, or too large.
        LlmctlError: a file or an address that cannot be read.
    """
    pictures: list[Picture] = []
    left = MOST_BYTES
    for source in sources:
        data = _read(source, left, stdin, timeout)
        left -= len(data)
        if left < 0:
            raise UsageError(
                f"{_named(source)}: too large: the pictures of one question may have"
                f" {MOST_BYTES / 1e6:.0f} MB in all",
                hint="convert large.png -resize 1600x1600 small.jpg   # ImageMagick",
            )
        pictures.append(Picture(_named(source), picture_format(data, _named(source)), data))
    return tuple(pictures)


def drawn(drawing: Drawing) -> Picture:
    """A drawing as a picture to ask about."""
    data = draw(drawing.shape, drawing.colour)
    return Picture(drawing.english, picture_format(data, drawing.english), data)


def gateway(paths: StackPaths, stack: Stack) -> Hop:
    """Where a question goes; the engine is not asked, so this costs nothing.

    Raises:
        ConfigError: the gateway wants a key, and none was made yet.
    """
    return Hop("gateway", f"{gateway_url(paths, stack)}/v1", key_in_use(paths, stack))


def ask(
    hop: Hop, model: str, question: Question, *, timeout: float, heard: Callable[[str], None]
) -> Answer:
    """Ask, and hear the answer as it comes.

    Args:
        hop: Where.
        model: Whom.
        question: What.
        timeout: Seconds for the whole answer.
        heard: Gets each piece of the answer.

    Raises:
        UnhealthyError: nobody answers there, or with an error; the engine's own words are in it.
    """
    body = chat.question(
        model,
        question.text,
        pictures=[picture.data_uri() for picture in question.pictures],
        stream=True,
        max_tokens=question.max_tokens,
        temperature=question.temperature,
    )
    documents: list[Any] = []
    first_token_s, total_s = None, 0.0
    outcome: chat.Outcome
    try:
        url = f"{hop.base_url}/chat/completions"
        for event in http.stream_json(url, body, key=hop.key, timeout=timeout):
            documents.append(event.data)
            total_s = event.at_s
            if piece := chat.piece_of(event.data):
                first_token_s = total_s if first_token_s is None else first_token_s
                heard(piece)
        outcome = chat.read_stream(documents)
    except http.StatusError as error:
        outcome = chat.read_answer(error.reply.status, error.reply.text)
    except http.UnreachableError as error:
        raise _unreachable(error) from error
    if not isinstance(outcome, chat.Answered):
        raise _refused(model, outcome)
    return Answer(
        model=model,
        text=outcome.text,
        thought=outcome.thought,
        finish=outcome.finish,
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        first_token_s=first_token_s,
        total_s=total_s,
    )


def _is_picture(word: str) -> bool:
    if word == STDIN or _ADDRESS.fullmatch(word):
        return True
    # os.path: a question may be too long for a file name, which pathlib reports as an error.
    return os.path.exists(word) and not os.path.isdir(word)  # noqa: PTH110, PTH112


def _named(source: str) -> str:
    """A source for people: a `data:` URI is as long as its picture."""
    return source.partition(",")[0] if source.lower().startswith("data:") else source


def _read(source: str, most: int, stdin: Callable[[int], bytes], timeout: float) -> bytes:
    """The bytes of a picture; one more than `most` where there are more."""
    if source == STDIN:
        return stdin(most + 1)
    if source.lower().startswith("data:"):
        return _decoded(source)
    if _ADDRESS.fullmatch(source):
        return http.fetch(source, limit=MOST_BYTES, timeout=timeout)
    return files.head(Path(source), most + 1)


def _decoded(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise UsageError(f"{head[:40]}: expected data:image/...;base64,...")
    try:
        return base64.b64decode(unquote(body), validate=True)
    except binascii.Error as error:
        raise UsageError(f"{head}: what follows is not base64 ({error})") from error


def _unreachable(error: http.UnreachableError) -> LlmctlError:
    match error.failure:
        case http.Failure.REFUSED | http.Failure.UNRESOLVED:
            return UnhealthyError(f"the gateway is not running: {error.message}", hint="llmctl up")
        case http.Failure.TIMEOUT:
            return UnhealthyError(
                error.message, hint="llmctl ask --timeout 900 ...   # slow on a CPU?\nllmctl status"
            )
        case http.Failure.LOST:
            return UnhealthyError(error.message, hint="llmctl status; llmctl logs litellm")


def _refused(model: str, outcome: chat.Refused | chat.Unanswered) -> LlmctlError:
    """The engine's words, and what usually mends that."""
    verdict = sight.judge_text(outcome)
    words = verdict.reason.casefold()
    hint = "llmctl status; llmctl logs litellm; llmctl logs"
    if verdict.finding is Finding.AUTH:
        hint = "llmctl up   # the running gateway has another key than `llmctl key` prints"
    elif is_unknown_model(verdict.reason):
        hint = f"llmctl up   # the running services do not know {model}"
    elif "context size" in words or "context window" in words or "context length" in words:
        hint = "llmctl up --set context=8192   # or fewer and smaller pictures"
    elif words.startswith("http 413"):
        hint = "convert large.png -resize 1600x1600 small.jpg   # ImageMagick"
    elif "failed to load image" in words or "image input is not supported" in words:
        hint = "llmctl smoke-test   # does the model get to see any picture?"
    return UnhealthyError(f"{model}: {verdict.reason}", hint=hint)
