"""What llama.cpp says of its buffers while it loads, in its own log lines (b9093 to b11549).

    load_tensors:   CPU_Mapped model buffer size =   235.16 MiB
    llama_kv_cache:        CPU KV buffer size =    12.00 MiB
    sched_reserve:      CUDA0 compute buffer size =    23.28 MiB

The server prints them from verbosity 4 on; its other lines may stand before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llmctl.core.memory.facts import MIB

Kind = Literal[
    "weights", "kv_cache", "state", "compute", "output", "projector_weights", "projector_compute"
]

_KINDS: dict[str, Kind] = {
    "model": "weights",
    "KV": "kv_cache",
    "RS": "state",
    "compute": "compute",
    "output": "output",
}
_BUFFER = re.compile(
    r"(?P<function>\w+): +(?P<device>\S+) +(?P<kind>model|KV|RS|compute|output) buffer size ="
    r" +(?P<size>\d{1,12}\.\d\d) MiB\s*$"
)
_PROJECTOR = re.compile(r"load_hparams: model size: +(?P<size>\d{1,12}\.\d\d) MiB\s*$")
_PROJECTS_ON = re.compile(r"clip_ctx: CLIP using (?P<device>\S+) backend\s*$")
# In RAM, whatever they are called: CPU, CPU_Mapped, CPU_REPACK, CUDA_Host, ROCm_Host, ...
_IN_RAM = re.compile(r"CPU|.*_Host$|BLAS")


@dataclass(frozen=True)
class Buffer:
    """One buffer of the engine.

    Attributes:
        device: As llama.cpp names it, such as "CUDA0" or "CPU_Mapped".
        kind: What it holds, as the terms of a plan are called.
        bytes: Rounded to a hundredth of a MiB, as it is printed.
    """

    device: str
    kind: Kind
    bytes: int

    @property
    def in_ram(self) -> bool:
        """Whether it lies in the host's RAM."""
        return _IN_RAM.match(self.device) is not None


def parse_buffer_lines(log: str | Iterable[str]) -> tuple[Buffer, ...]:
    """The buffers that a log reports, in its order; lines of anything else are passed over.

    A context that is built again (a retry with other settings) reports again: the caller gives the
    lines of one load.
    """
    buffers = []
    projects_on = "CPU"
    for line in log.splitlines() if isinstance(log, str) else log:
        if on := _PROJECTS_ON.search(line):
            projects_on = on["device"]
        elif found := _PROJECTOR.search(line):
            buffers.append(Buffer(projects_on, "projector_weights", _bytes(found["size"])))
        elif found := _BUFFER.search(line):
            kind = _KINDS[found["kind"]]
            if kind == "compute" and not found["function"].startswith(("sched_reserve", "llama_")):
                kind = "projector_compute"
            buffers.append(Buffer(found["device"], kind, _bytes(found["size"])))
    return tuple(buffers)


def by_place(buffers: Iterable[Buffer]) -> dict[str, dict[Kind, int]]:
    """Bytes by device and kind; everything in RAM under "host"."""
    sums: dict[str, dict[Kind, int]] = {}
    for buffer in buffers:
        place = sums.setdefault("host" if buffer.in_ram else buffer.device, {})
        place[buffer.kind] = place.get(buffer.kind, 0) + buffer.bytes
    return sums


def _bytes(size: str) -> int:
    whole, hundredths = size.split(".")
    return int(whole) * MIB + int(hundredths) * MIB // 100
