"""After a load: the engine's own account of its memory beside the plan's, kept for the next plan.

`.llmctl/measured.json` has what was measured, by model files, build of the engine and GPUs. A plan
made later for the same three counts what was found to be missing; a load that ran out of memory
leaves a note there that takes the next choice one step down.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmctl import files, http
from llmctl.core.artifact import Artifact
from llmctl.core.codec import digest
from llmctl.core.deployment import container_name
from llmctl.core.events import Listener, Note
from llmctl.core.measured import Line, compare, excess, last_load, ratio
from llmctl.core.memory import MIB
from llmctl.core.services import Backend
from llmctl.core.stack import Stack
from llmctl.core.tuning import Settled
from llmctl.engine.base import Engine
from llmctl.errors import LlmctlError
from llmctl.paths import StackPaths

VERSION = 1
LOG_TIMEOUT_S = 5.0
LOG_LINES = 20_000  # a load is told in some hundred; requests since then take twenty each
SURPRISE = 0.05  # of the plan; by more than that the user is told
STEP_SHARE, LEAST_STEP = 0.05, 256 * MIB  # of a GPU that ran full is not planned with again


@dataclass(frozen=True)
class Measured:
    """What is known of one model on one engine and its GPUs.

    Attributes:
        choice: Key of the choice that was running.
        lines: Plan and measurement, by device and term.
        short: Bytes by GPU that turned out not to be there when a load ran out of memory.
    """

    choice: str = ""
    lines: tuple[Line, ...] = ()
    short: Mapping[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Measured over planned, None when the engine did not say."""
        return ratio(self.lines)

    def less(self) -> dict[str, int]:
        """Bytes by device that the next plan must not count on."""
        found = dict(self.short)
        for device, size in excess(self.lines).items():
            found[device] = found.get(device, 0) + size
        return found


def subject(artifact: Artifact, build: str, gpus: tuple[str, ...]) -> str:
    """What a measurement is of: the model's files, the engine's build, the GPUs by name."""
    return digest([[file.sha256 or file.path for file in artifact.files], build, list(gpus)])


def measured(paths: StackPaths) -> dict[str, Measured]:
    """Everything that was measured, by subject; nothing when the file cannot be read."""
    try:
        document = json.loads(files.read_text(paths.measured) or "{}")
        if document.get("version") != VERSION:
            return {}
        return {key: _decoded(fields) for key, fields in document["measured"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, LlmctlError):
        return {}


def record(
    paths: StackPaths,
    stack: Stack,
    engine: Engine,
    backend: Backend,
    settled: Mapping[str, Settled],
    listen: Listener,
) -> None:
    """Compare each of a backend's models, just loaded, with its plan; never raises."""
    known = measured(paths)
    found = dict(known)
    for model in backend.models:
        choice = settled.get(model)
        if choice is None or not choice.subject:
            continue
        lines = compare(choice.terms, last_load(engine_words(stack, engine, backend, model)))
        if not lines:
            continue
        before = known.get(choice.subject, Measured())
        now = dataclasses.replace(before, choice=choice.key, lines=lines)
        found[choice.subject] = now
        if now.ratio is not None and abs(now.ratio - 1) > SURPRISE:
            listen(
                Note(
                    f"{model}: takes {now.ratio:.2f} times the memory that was planned;"
                    " the next plan counts on it (`llmctl status` has the numbers)"
                )
            )
    if found != known:
        _keep(paths, found)


def ran_out(paths: StackPaths, choice: Settled) -> bool:
    """Note that a load with this choice ran out of memory; whether a next one may be smaller.

    What is not fixed in the stack file can step down where there is a GPU; on the CPU there is
    nothing to choose.
    """
    gpus = {name: size for name, size in list(choice.terms.items())[:-1] if any(size.values())}
    if not gpus or not choice.subject:
        return False
    known = measured(paths)
    before = known.get(choice.subject, Measured())
    short = {
        name: before.short.get(name, 0)
        + max(LEAST_STEP, int(STEP_SHARE * sum(choice.terms[name].values())))
        for name in gpus
    }
    _keep(paths, {**known, choice.subject: dataclasses.replace(before, short=short)})
    return True


def engine_words(stack: Stack, engine: Engine, backend: Backend, model: str) -> list[str]:
    """What llama.cpp said of one model, as lines; none when it cannot be had.

    LocalAI keeps its backend's output for itself and answers GET /api/backend-logs/MODEL with it,
    a list of {"text": ...}.
    """
    try:
        if backend.kind == "localai":
            url = f"{backend.url}/api/backend-logs/{model}"
            said = http.get(url, timeout=LOG_TIMEOUT_S).json()
            if isinstance(said, list) and said:
                return [str(one.get("text", "")) for one in said if isinstance(one, dict)]
        name = container_name(stack.name, backend.service)
        return list(engine.logs(name, tail=LOG_LINES, follow=False))
    except LlmctlError:
        return []


def _keep(paths: StackPaths, found: Mapping[str, Measured]) -> None:
    document = {
        "version": VERSION,
        "measured": {key: dataclasses.asdict(one) for key, one in found.items()},
    }
    files.write_atomic(paths.measured, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _decoded(fields: Mapping[str, Any]) -> Measured:
    return Measured(
        str(fields["choice"]),
        tuple(Line(**line) for line in fields["lines"]),
        {str(name): int(size) for name, size in fields["short"].items()},
    )
