"""What a language model's GGUF says of itself, as far as a user chooses by it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmctl.core.gguf import GgufHeader
from llmctl.core.projector import stored_as

# How the chat templates of vision models name the place of a picture: the marker itself, or the
# test for a message part of that type.
_IMAGE = re.compile(
    r"image_url|<image|<\|image|<img|\[IMG\]|<start_of_image>|vision_start|image_pad"
    r"|['\"]image['\"]|<\|media",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LanguageFacts:
    """A language model's header in the terms of this project.

    Attributes:
        architecture: llama.cpp's name for it, such as `llama` or `gemma3`.
        name: What its makers call it.
        quantisation: How most of it is stored.
        parameters: Numbers in the tensors of this file.
        context: Tokens it was trained for.
        layers: Blocks.
        heads: Attention heads; of the first block where they differ.
        heads_kv: Heads of the KV cache, likewise.
        width: Numbers in an input vector; a projector's output must have as many.
        vocabulary: Tokens it knows.
        chat_template: Whether the file brings one.
        image_marker: Whether that template has a place for pictures; None without a template.
        licence: As the file states it.
        parts: How many files the model is split into; 1 when it is whole.
        part: Which of them this is, from 0.
    """

    architecture: str
    name: str | None
    quantisation: str
    parameters: int
    context: int | None
    layers: int | None
    heads: int | None
    heads_kv: int | None
    width: int | None
    vocabulary: int | None
    chat_template: bool
    image_marker: bool | None
    licence: str | None
    parts: int
    part: int


def language_facts(header: GgufHeader) -> LanguageFacts:
    """Read a language model's header; what it does not say is None."""
    architecture = header.word("general.architecture") or "?"

    def own(key: str) -> int | None:
        value = header.values.get(f"{architecture}.{key}")
        if isinstance(value, tuple):
            value = max((one for one in value if isinstance(one, int)), default=None)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    template = header.text("tokenizer.chat_template")
    heads, width = own("attention.head_count"), own("embedding_length")
    deepstack = own("n_deepstack_layers") or 0
    return LanguageFacts(
        architecture=architecture,
        name=header.word("general.name"),
        quantisation=stored_as(header),
        parameters=sum(tensor.elements for tensor in header.tensors),
        context=own("context_length"),
        layers=own("block_count"),
        heads=heads,
        heads_kv=own("attention.head_count_kv") or heads,
        width=None if width is None else width * (1 + deepstack),
        vocabulary=header.count("tokenizer.ggml.tokens") or own("vocab_size"),
        chat_template=bool(template),
        image_marker=bool(_IMAGE.search(template)) if template else None,
        licence=header.word("general.license"),
        parts=max(header.integer("split.count") or 1, 1),
        part=header.integer("split.no") or 0,
    )
