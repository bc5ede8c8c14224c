"""Sizes of memory as people write and read them."""

from __future__ import annotations

import re

from llmctl.errors import UsageError

# A bare letter counts in powers of two, as it does for llama.cpp, Docker and Kubernetes ("Gi").
_STEPS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WRITTEN = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?\s*(?:([kmgt])?(i)?(b)?)", re.IGNORECASE)
LARGEST = 1 << 60
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
EXAMPLES = "24GiB or 24G (powers of two), 24GB (powers of ten), 8192MiB, or plain bytes"


def parse_size(text: str, where: str = "") -> int:
    """Bytes that a text means: "24GiB" and "24G" are 24·2³⁰, "24GB" is 24·10⁹, "1024" is 1024.

    Args:
        text: The size; whole or with a decimal point, in upper or lower case.
        where: Who wrote it, for the message: "--ram".

    Raises:
        UsageError: it is no size, zero, or more than an exbibyte.
    """
    start = f"{where}: " if where else ""
    match = _WRITTEN.fullmatch(text.strip())
    if match is None or (match[4] and not match[3]):
        raise UsageError(f"{start}{_quoted(text)} is no size", hint=f"write {EXAMPLES}")
    whole, fraction, letter, binary, byte = match.groups()
    base = 1000 if byte and letter and not binary else 1024
    unit: int = base ** _STEPS[(letter or "").lower()]
    digits = fraction or ""
    scale: int = 10 ** len(digits)
    # Whole numbers all the way: a float would lose the last bytes of a large size.
    size = int(whole + digits) * unit // scale
    if not 0 < size <= LARGEST:
        raise UsageError(
            f"{start}{_quoted(text)}: no memory has that size", hint=f"write {EXAMPLES}"
        )
    return size


def memory_text(size: int | None) -> str:
    """A size of memory in powers of two: "23.5 GiB", "512 MiB"; "-" for None."""
    if size is None:
        return "-"
    if size < MIB:
        return f"{size / KIB:.0f} KiB"
    return f"{size / MIB:.0f} MiB" if size < GIB else f"{size / GIB:.1f} GiB"


def _quoted(text: str) -> str:
    shown = text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004
    return f'"{shown}"' if shown.isprintable() else repr(shown)
