"""GGUF files of a few hundred bytes: right headers over a little noise, for tests of files.

llama.cpp would not load them; `tiny_model` writes ones that it does.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence

Value = bool | int | float | str | Sequence[str] | Sequence[int]


def gguf(
    values: Mapping[str, Value], tensors: Mapping[str, tuple[int, ...]], *, seed: int = 0
) -> bytes:
    """A GGUF with these keys and f32 tensors of these shapes (ne0 first), filled with noise."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(_text(key) + _value(value) for key, value in values.items())
    offset = 0
    for name, shape in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, offset)
        size = 4
        for side in shape:
            size *= side
        offset += -(-size // 32) * 32
    return head + bytes(-len(head) % 32) + random.Random(seed).randbytes(offset)


def language(
    *,
    width: int = 64,
    seed: int = 0,
    template: str | None = "{% if image_url %}{% endif %}",
    vocabulary: int = 4,
    architecture: str = "llama",
    extra: Mapping[str, Value] | None = None,
) -> bytes:
    """A language model of one block."""
    values: dict[str, Value] = {
        "general.architecture": architecture,
        "general.name": "a tiny model",
        f"{architecture}.context_length": 4096,
        f"{architecture}.embedding_length": width,
        f"{architecture}.block_count": 1,
        f"{architecture}.feed_forward_length": 2 * width,
        f"{architecture}.attention.head_count": 2,
        f"{architecture}.attention.head_count_kv": 1,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [f"token {number}" for number in range(vocabulary)],
    }
    if template is not None:
        values["tokenizer.chat_template"] = template
    tensors = {
        "token_embd.weight": (width, vocabulary),
        "blk.0.attn_q.weight": (width, width),
        "blk.0.attn_k.weight": (width, width // 2),
        "blk.0.attn_v.weight": (width, width // 2),
        "blk.0.attn_output.weight": (width, width),
        "blk.0.ffn_gate.weight": (width, 2 * width),
        "blk.0.ffn_up.weight": (width, 2 * width),
        "blk.0.ffn_down.weight": (2 * width, width),
        "output_norm.weight": (width,),
        "output.weight": (width, vocabulary),
    }
    return gguf({**values, **(extra or {})}, tensors, seed=seed)


def projector(*, width: int = 64, kind: str | None = "mlp", seed: int = 0, eyes: int = 32) -> bytes:
    """A LLaVA projector of one block; `kind` None leaves its type out, as in 2023."""
    values: dict[str, Value] = {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.vision.image_size": 48,
        "clip.vision.patch_size": 12,
        "clip.vision.embedding_length": eyes,
        "clip.vision.feed_forward_length": 2 * eyes,
        "clip.vision.block_count": 1,
        "clip.vision.attention.head_count": 2,
        "clip.vision.projection_dim": width,
    }
    if kind is not None:
        values["clip.projector_type"] = kind
    tensors = {
        "v.patch_embd.weight": (12, 12, 3, eyes),
        "v.blk.0.attn_q.weight": (eyes, eyes),
        "mm.0.weight": (eyes, width),
        "mm.0.bias": (width,),
        "mm.2.weight": (width, width),
        "mm.2.bias": (width,),
    }
    return gguf(values, tensors, seed=seed)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
    head = struct.pack("<I", 9)
    if value and isinstance(value[0], str):
        return head + struct.pack("<IQ", 8, len(value)) + b"".join(_text(str(v)) for v in value)
    return head + struct.pack("<IQ", 5, len(value)) + b"".join(struct.pack("<i", v) for v in value)
