"""Projector files from before projectors had a type: the one missing key, written into a copy.

llama.cpp's converters of 2023 left `clip.projector_type` out, and the llama.cpp of that time
assumed LLaVA's; today's refuses such a file ("unknown projector type"). A GGUF's metadata may stand
in any order, so the key goes in front; everything else stays as it is, byte by byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from llmctl.core.gguf import GgufHeader
from llmctl.core.projector import TYPE_KEYS
from llmctl.errors import ConfigError

_PREAMBLE = struct.Struct("<4sIQQ")  # magic, version, tensors, keys
_TEXT = 8


@dataclass(frozen=True)
class Repaired:
    """The beginning of a repaired file.

    Attributes:
        head: Its bytes up to where the weights begin, padding included.
        rest: Where the weights begin in the original; all bytes from there follow `head`.
    """

    head: bytes
    rest: int


def repaired(header: GgufHeader, raw: bytes, kind: str) -> Repaired:
    """The head of a copy that states its projector type.

    Args:
        header: The original's header.
        raw: The original's bytes, at least the whole header.
        kind: The type to state, such as `mlp`.

    Raises:
        ConfigError: every key that could state it is there, and empty.
    """
    # llama.cpp asks for the second key where the first is empty, and no key may be there twice.
    key = next((key for key in TYPE_KEYS if key not in header.values), None)
    if key is None:
        raise ConfigError(
            "the projector states an empty projector type twice",
            hint="take a newer conversion of the model",
        )
    magic, version, tensors, keys = _PREAMBLE.unpack_from(raw)
    head = b"".join(
        (
            _PREAMBLE.pack(magic, version, tensors, keys + 1),
            _text(key),
            struct.pack("<I", _TEXT),
            _text(kind),
            raw[_PREAMBLE.size : header.size],
        )
    )
    return Repaired(head + bytes(-len(head) % header.alignment), header.data_offset)


def repaired_name(path: str) -> str:
    """Where the copy lies: beside the original, `NAME.repaired.gguf`."""
    return f"{path[: -len('.gguf')]}.repaired.gguf"


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
