"""Settings from the memory plan for `up` and `config render`: chosen once, and kept.

What is free on a GPU changes with the very model that was put there, so a choice is not made anew while
what it rests on stays: the model's files, the wishes in the stack file, this machine's hardware. It is
kept in `.llmctl/fit.json`; `llmctl fit` always looks afresh.

Here is what every `up` needs; the plan itself is imported when there is something to choose.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmctl import __version__, files
from llmctl.core.artifact import Artifact
from llmctl.core.codec import decode, digest, encode
from llmctl.core.events import Listener, Note
from llmctl.core.hostfacts import GpuChoice
from llmctl.core.stack import HOST_VARIABLES, ModelSpec, Stack
from llmctl.core.tuning import Settled
from llmctl.errors import LlmctlError
from llmctl.host.identity import identity
from llmctl.paths import StackPaths

VERSION = 1
Here = tuple[tuple[ModelSpec, Artifact], ...]


@dataclass(frozen=True)
class Circumstances:
    """What a choice depends on besides the stack.

    Attributes:
        gpu: The GPU the engine gets.
        cores: Physical cores.
        running: Whether this stack's own engine runs now, and holds what it was given.
        force: What does not fit is wanted nevertheless.
        strict: What does not fit is refused, rather than told.
        build: The build of the engine, which decides what memory it takes.
    """

    gpu: GpuChoice
    cores: int
    running: Callable[[], bool]
    force: bool = False
    strict: bool = True
    build: str = ""


def settle(
    paths: StackPaths,
    stack: Stack,
    artifacts: tuple[Artifact, ...],
    around: Circumstances,
    listen: Listener,
) -> dict[str, Settled]:
    """The settings of each model whose files are here, by name; the others get none.

    Args:
        paths: The stack directory.
        stack: What the user wants.
        artifacts: The files of each model.
        around: What else decides.
        listen: Hears what does not fit, where that is not refused.

    Raises:
        ConfigError: what the user fixed cannot fit; with the numbers.
    """
    here: Here = tuple(
        (spec, artifact)
        for spec, artifact in zip(stack.models, artifacts, strict=True)
        if all((paths.models / file.path).is_file() for file in artifact.files)
    )
    keys = _keys(paths, stack, here, around)
    kept = kept_settings(paths)
    still = {name: kept[name] for name, key in keys.items() if _holds(kept.get(name), key)}
    if len(still) == len(keys):
        return still
    from llmctl.ops.planning import Planner

    return Planner(paths, stack, around, kept, listen).settle(here, keys, still)


def keep(paths: StackPaths, found: Mapping[str, Settled], listen: Listener) -> None:
    """Remember what was settled, and tell what is new."""
    for name, settled in found.items():
        if settled.fresh and settled.reasons:
            reasons = dict.fromkeys(sentence for _, sentence in settled.reasons)
            listen(Note(f"{name}: {'; '.join(reasons)}"))
    if found != kept_settings(paths):
        _write(paths, found)


def step_down(paths: StackPaths, model: str) -> bool:
    """Forget a choice with which the model ran out of memory; whether a smaller one may be made."""
    from llmctl.ops.measuring import ran_out

    kept = kept_settings(paths)
    settled = kept.pop(model, None)
    if settled is None or settled.forced or not ran_out(paths, settled):
        return False
    _write(paths, kept)
    return True


def _write(paths: StackPaths, found: Mapping[str, Settled]) -> None:
    models = {name: encode(settled) for name, settled in found.items()}
    text = json.dumps({"version": VERSION, "models": models}, indent=1, ensure_ascii=False)
    files.write_atomic(paths.fit, text + "\n")


def kept_settings(paths: StackPaths) -> dict[str, Settled]:
    """What was kept, by model; nothing when it cannot be read, for it can be found out again."""
    try:
        document = json.loads(files.read_text(paths.fit) or "{}")
        if document.get("version") != VERSION:
            return {}
        return {
            name: decode(Settled, {**fields, "fresh": False})
            for name, fields in document["models"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, LlmctlError):
        return {}


def _holds(settled: Settled | None, key: str) -> bool:
    """Whether a choice still stands. Forced once with just these values, it stays so."""
    return settled is not None and settled.key == key and (settled.fits or settled.forced)


def _keys(paths: StackPaths, stack: Stack, here: Here, around: Circumstances) -> dict[str, str]:
    """What each model's choice rests on, as a digest; it includes those before it."""
    said = [os.environ.get(name, "") for name in HOST_VARIABLES]
    key = digest(
        [
            *(__version__, around.build, around.gpu.kind, around.cores, stack.gpu_devices),
            *(*said, *identity()),
        ]
    )
    keys = {}
    for spec, artifact in here:
        places = [_file(paths, file.path) for file in artifact.files]
        wishes = [spec.context, spec.parallel, spec.threads, spec.gpu_layers, spec.tuning]
        key = keys[spec.name] = digest([key, places, wishes])
    return keys


def _file(paths: StackPaths, path: str) -> list[str | int]:
    stat = (paths.models / path).stat()
    return [path, stat.st_size, stat.st_mtime_ns]
