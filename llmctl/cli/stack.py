"""How a command finds its stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmctl.core.stack import Resolved
from llmctl.ops.stackfile import load_stack, parse_sets
from llmctl.paths import StackPaths


def load(
    directory: Path,
    file: Path | None,
    sets: Sequence[str] | None = None,
    gpu: str | None = None,
    engine: str | None = None,
) -> tuple[StackPaths, Resolved]:
    """The stack that the options of a command mean; flags win over the environment and the file."""
    flags = parse_sets(sets or ())
    if gpu is not None:
        flags["gpu"] = ("--gpu", gpu)
    if engine is not None:
        flags["engine"] = ("--engine", engine)
    return load_stack(directory, file, flags)
