"""The plan's numbers beside the engine's own: what a model was to take, and what it took."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llmctl.core.memory.observed import by_place, parse_buffer_lines

HOST = "host"
# Where the log of one load begins; a server that is started again appends to the same log.
_BEGIN = re.compile(r"load_model: loading model '")


@dataclass(frozen=True)
class Line:
    """One term on one device, in bytes.

    Attributes:
        device: As the plan names it.
        term: `weights`, `kv_cache`, ...
        planned: What the plan said.
        measured: What the engine reported, to a hundredth of a MiB.
    """

    device: str
    term: str
    planned: int
    measured: int


def last_load(lines: Iterable[str]) -> list[str]:
    """The lines since the last model began to load; all of them where that is not to be seen."""
    found: list[str] = []
    for line in lines:
        if _BEGIN.search(line):
            found = []
        found.append(line)
    return found


def compare(planned: Mapping[str, Mapping[str, int]], log: Iterable[str]) -> tuple[Line, ...]:
    """The plan beside the buffers that a load's log reports; nothing when it reports none.

    Args:
        planned: Bytes by device and term: the GPUs in their order, the host last.
        log: The engine's lines of one load.

    llama.cpp numbers its devices in the order in which it got them (CUDA0, CUDA1, ...), which is
    that of the plan; what it keeps in RAM has several names there, and is one device here.
    """
    found = by_place(parse_buffer_lines(log))
    if not found:
        return ()
    *gpus, host = planned
    engine_gpus = sorted((name for name in found if name != HOST), key=_numbered)
    pairs = [*zip(gpus, engine_gpus, strict=False), (host, HOST)]
    return tuple(
        Line(ours, term, planned[ours].get(term, 0), size)
        for ours, theirs in pairs
        for term, size in found.get(theirs, {}).items()
        if size or planned[ours].get(term)
    )


def ratio(lines: Iterable[Line]) -> float | None:
    """Measured over planned, in all; None when there is nothing to compare."""
    lines = tuple(lines)
    planned = sum(line.planned for line in lines)
    return sum(line.measured for line in lines) / planned if planned else None


def excess(lines: Iterable[Line]) -> dict[str, int]:
    """Bytes by which each device holds more than was planned, where it does."""
    sums: dict[str, int] = {}
    for line in lines:
        sums[line.device] = sums.get(line.device, 0) + line.measured - line.planned
    return {device: size for device, size in sums.items() if size > 0}


def _numbered(name: str) -> tuple[str, int]:
    digits = re.search(r"\d+$", name)
    return (name.rstrip("0123456789"), int(digits[0]) if digits else 0)
