"""The GGUF headers of real models, as bytes: `tests/golden/memory/headers` keeps them compressed."""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "memory" / "headers"
# Name -> bytes of the header, and of the file that it belongs to.
SIZES = {
    "gemma3-4b": (5421192, 2615021728),
    "llama3.1-8b": (2600410, 5175021024),
    "llama3.2-1b": (2591749, 839220256),
    "llama3.3-70b": (2626234, 44981932736),
    "mmproj-gemma3": (24967, 840459104),
    "mmproj-qwen2.5vl": (30100, 1338427808),
    "mmproj-qwen3vl-4b": (18205, 836179744),
    "mmproj-smolvlm": (11576, 196714816),
    "qwen2.5-7b": (3102396, 4931905216),
    "qwen3-32b": (3122182, 20883894304),
    "qwen3-4b": (3103873, 2622161568),
    "qwen3.5-4b": (5129912, 2738110144),
}


@cache
def header_bytes(name: str) -> bytes:
    """The header of one of them, without the padding behind it."""
    return lzma.decompress((GOLDEN / f"{name}.head.xz").read_bytes())
