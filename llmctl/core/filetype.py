"""What a file is, told by its first bytes."""

from __future__ import annotations

import re

HEAD = 512

_KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"\Z", "an empty file"),
    (
        rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|!--|\?xml)",
        "an HTML page (a sign-in or error page instead of the file)",
    ),
    (
        rb"version https://git-lfs",
        "a Git LFS pointer (the few lines that stand for the file, not the file)",
    ),
    # A header's length in eight bytes, then the header in JSON.
    (rb"....\0\0\0\0\{", "a safetensors file (weights for PyTorch, not for llama.cpp)"),
    (rb"\s*[{\[]", "a JSON document"),
    (
        rb"(?:tjgg|fmgg|lmgg|algg|ggjt|ggml)",
        "a GGML file from before GGUF, which llama.cpp no longer reads",
    ),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip archive"),
)


def identify(head: bytes) -> str | None:
    """What the file beginning with `head` is, in words; None for a GGUF.

    `head` should hold up to `HEAD` bytes. Hubs and proxies answer with these kinds of files when
    the model itself was meant: a sign-in or error page, a Git LFS pointer, a message in JSON.
    """
    if head.startswith(b"GGUF"):
        return None
    for pattern, words in _KINDS:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return words
    return "not a GGUF file"
