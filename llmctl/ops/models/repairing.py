"""Write the repaired copy of a projector; see `core.repair` for what is wrong with the original."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from llmctl import files
from llmctl.core.repair import repaired
from llmctl.ops.models.headers import local_header


def write_repaired(original: Path, kind: str, aside: Path, on_bytes: Callable[[int], None]) -> str:
    """Write a copy of `original` that states its projector type; return its SHA-256.

    Constant memory: the header is rewritten, the weights are passed through.

    Args:
        original: The projector file; it is only read.
        kind: The type to state, such as `mlp`.
        aside: Where the copy goes; its directory exists.
        on_bytes: Hears the bytes written so far.
    """
    header = local_header(original)
    new = repaired(header, files.read_range(original, 0, header.size), kind)
    digest = hashlib.sha256()
    done = 0
    for block in files.rewrite(original, new.rest, new.head, aside):
        digest.update(block)
        done += len(block)
        on_bytes(done)
    return digest.hexdigest()
