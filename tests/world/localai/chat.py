"""A chat request, from messages to answer (core/http/endpoints/openai/chat.go)."""

from __future__ import annotations

import base64
import logging
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.world.localai.errors import ApiError, log_error
from tests.world.localai.pictures import split_content
from tests.world.localai.template import MARKER, Templates, chat_prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world.localai.config import ModelConfig
    from tests.world.localai.engine import LoadedModel

log = logging.getLogger("localai")

# Request field, then llama.cpp's name, then LocalAI's default when neither request nor YAML says
# anything.
_SAMPLING: tuple[tuple[str, str, Any], ...] = (
    ("temperature", "temperature", 0.9),
    ("top_p", "top_p", 0.95),
    ("top_k", "top_k", 40),
    ("min_p", "min_p", 0.0),
    ("seed", "seed", -1),
    ("repeat_penalty", "repeat_penalty", 0.0),
    ("frequency_penalty", "frequency_penalty", 0.0),
    ("presence_penalty", "presence_penalty", 0.0),
    ("ignore_eos", "ignore_eos", False),
)
_UNREADABLE_PICTURE = "Failed to load image or audio file"


@dataclass(frozen=True)
class Message:
    """One message with its pictures already fetched; those that failed are not here."""

    role: str
    text: str
    pictures: tuple[bytes, ...]


@dataclass(frozen=True)
class Piece:
    """A bit of the answer; the last one has the token counts instead of text."""

    text: str
    usage: dict[str, int] | None = None


def read_messages(request: dict[str, Any], trusted: frozenset[str]) -> list[Message]:
    """The request's messages; pictures that cannot be had are left out without telling the client."""
    messages = []
    for message in request.get("messages", []):
        text, pictures = split_content(message.get("content"), trusted)
        messages.append(Message(message.get("role", ""), text, tuple(pictures)))
    return messages


def answer(
    config: ModelConfig,
    model: LoadedModel,
    templates: Templates,
    request: dict[str, Any],
    messages: list[Message],
) -> Iterator[Piece]:
    """The answer in pieces. Raises ``ApiError`` when llama.cpp refuses the request."""
    try:
        yield from _generate(config, model, templates, request, messages)
    except ApiError as error:
        if _UNREADABLE_PICTURE not in str(error):
            raise
        log_error("Failed encoding image error=%s", error)
        bare = [Message(message.role, message.text, ()) for message in messages]
        yield from _generate(config, model, templates, request, bare)


def _generate(
    config: ModelConfig,
    model: LoadedModel,
    templates: Templates,
    request: dict[str, Any],
    messages: list[Message],
) -> Iterator[Piece]:
    body = _sampling(config, request) | {"stream": True, "cache_prompt": True}
    if config.uses_tokenizer_template:
        body |= {
            "messages": [_openai_message(message, model) for message in messages],
            "stream_options": {"include_usage": True},
        }
        for event in model.stream("/v1/chat/completions", body):
            if usage := event.get("usage"):
                yield _last(usage["prompt_tokens"], usage["completion_tokens"])
            elif content := event["choices"][0]["delta"].get("content"):
                yield Piece(content)
        return
    body["prompt"] = _prompt(config, model, templates, messages)
    for event in model.stream("/completion", body):
        if "error" in event:
            raise ApiError(500, event["error"]["message"])
        if event.get("content"):
            yield Piece(event["content"])
        if event.get("stop"):
            yield _last(event["tokens_evaluated"], event["tokens_predicted"])


def _prompt(
    config: ModelConfig, model: LoadedModel, templates: Templates, messages: list[Message]
) -> str | dict[str, Any]:
    """The prompt text, with the pictures for its markers.

    Without a projector the backend is given no pictures, and the markers stay in the prompt as
    plain text.
    """
    texts = [(message.role, MARKER * len(message.pictures) + message.text) for message in messages]
    prompt = chat_prompt(config, texts, templates)
    log.debug("Prompt %s", prompt)
    pictures = [base64.b64encode(data).decode() for m in messages for data in m.pictures]
    if not pictures or not model.sees:
        return prompt
    return {
        "prompt_string": prompt.replace(MARKER, model.media_marker),
        "multimodal_data": pictures,
    }


def _openai_message(message: Message, model: LoadedModel) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(data).decode()},
        }
        for data in (message.pictures if model.sees else ())
    ]
    content = [*parts, {"type": "text", "text": message.text}] if parts else message.text
    return {"role": message.role, "content": content}


def _sampling(config: ModelConfig, request: dict[str, Any]) -> dict[str, Any]:
    body = {}
    for field, name, default in _SAMPLING:
        value = request.get(field)
        value = config.parameter(field, default) if value is None else value
        if value or not name.endswith("_penalty"):  # the backend takes a penalty of 0 as "not set"
            body[name] = value
    limit = request.get("max_tokens") or request.get("max_completion_tokens")
    limit = limit or config.parameter("max_tokens") or -1
    stop = request.get("stop") or []
    stops = [*config.get("stopwords", []), *([stop] if isinstance(stop, str) else stop)]
    return body | {"n_predict": limit, "max_tokens": limit, "stop": stops}


def _last(prompt: int, completion: int) -> Piece:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return Piece("", counts | {"total_tokens": prompt + completion})


class Envelope:
    """The OpenAI-shaped JSON around an answer: one id and time for all of its chunks."""

    def __init__(self, model: str) -> None:
        self._common = {"created": int(time.time()), "id": str(uuid.uuid4()), "model": model}

    def whole(self, text: str, usage: dict[str, int]) -> dict[str, Any]:
        """A complete answer. LocalAI gives "stop" as the reason, also when ``max_tokens`` ended it."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return self._common | {"object": "chat.completion", "choices": [choice], "usage": usage}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One chunk of a stream."""
        choice = {"index": 0, "finish_reason": finish_reason, "delta": delta}
        return self._common | {"object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The chunk after the last one when the client asked for usage: no choices."""
        return self._common | {"object": "chat.completion.chunk", "choices": [], "usage": usage}
