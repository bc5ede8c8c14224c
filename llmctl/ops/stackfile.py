"""Read the stack: file, environment and flags together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl import files
from llmctl.core.localai_config import load_strict, yaml_fault
from llmctl.core.stack import Resolved, resolve_stack
from llmctl.errors import ConfigError, UsageError
from llmctl.paths import StackPaths


def load_stack(
    directory: Path, file: Path | None, flags: Mapping[str, tuple[str, str]]
) -> tuple[StackPaths, Resolved]:
    """The stack of a directory.

    Args:
        directory: Where to look for llmctl.yaml; without one the default stack is meant.
        file: A stack file named on the command line; it must exist.
        flags: Dotted path -> (the flag as written, its text).

    Raises:
        ConfigError: no such directory or file, broken YAML, unknown keys, wrong types.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory", hint="llmctl -C DIRECTORY up")
    paths = StackPaths.at(directory, file)
    text = files.read_text(paths.stack_file)
    if text is None and file is not None:
        raise ConfigError(f"{file}: no such file", hint="leave --file out for the default stack")
    name = paths.stack_file.name
    document = _parse(text, name) if text is not None else None
    return paths, resolve_stack(document, file=name, environment=os.environ, flags=flags)


def parse_sets(sets: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`--set KEY=VALUE` options as flags; UsageError without an equals sign."""
    flags = {}
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {item}: expected KEY=VALUE", hint="--set gateway.port=29000")
        flags[key.strip()] = (f"--set {key.strip()}", value)
    return flags


def _parse(text: str, name: str) -> Any:
    import yaml

    try:
        return load_strict(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {yaml_fault(error)}") from error
