"""Who holds memory of AMD's and Intel's GPUs, from /proc/PID/fdinfo of the files open below /dev/dri.

The keys are the kernel's (Documentation/gpu/drm-usage-stats.rst): `drm-pdev`, `drm-client-id`, and
`drm-resident-REGION` in KiB; amdgpu before 6.13 said `drm-memory-REGION`. Without root, only this
user's processes can be read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from llmctl.core.gpus import GpuProcess
from llmctl.host.probing import printable, text, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A GPU's own memory: "vram" for amdgpu, "vram0" for xe, "local0" for i915.
KEYS = ("resident", "memory", "total")
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def holders(root: Path) -> dict[str, tuple[GpuProcess, ...]]:
    """Processes that hold a GPU's own memory, largest first, by the GPU's address on the PCI bus."""
    held: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    names: dict[int, str] = {}
    for place in (root / "proc").glob("[0-9]*"):
        pid = whole(place.name)
        if pid is None:
            continue
        for bus, client, size in _clients(place):
            # One client can be open under several descriptors.
            held[bus, pid][client] = size
            names[pid] = printable(text(place / "comm") or "") or "?"
    found: dict[str, list[GpuProcess]] = defaultdict(list)
    for (bus, pid), clients in held.items():
        if sum(clients.values()):
            found[bus].append(GpuProcess(pid, names[pid], sum(clients.values())))
    return {bus: tuple(sorted(all_, key=_by_size)) for bus, all_ in found.items()}


def _by_size(process: GpuProcess) -> tuple[int, int]:
    return -(process.bytes or 0), process.pid


def _clients(place: Path) -> Iterator[tuple[str, str, int]]:
    """PCI address, client and bytes for each file that a process has open below /dev/dri."""
    try:
        descriptors = [link.name for link in (place / "fd").iterdir()]
    except OSError:  # another user's, or gone
        return
    for descriptor in descriptors:
        try:
            if not str((place / "fd" / descriptor).readlink()).startswith("/dev/dri/"):
                continue
        except OSError:
            continue
        told = dict(
            re.findall(
                r"^(drm-[\w-]+):\s*(\S.*)$", text(place / "fdinfo" / descriptor) or "", re.MULTILINE
            )
        )
        if "drm-pdev" in told:
            yield told["drm-pdev"], told.get("drm-client-id", descriptor), _own_memory(told)


def _own_memory(told: dict[str, str]) -> int:
    for key in KEYS:
        sizes = [
            _size(value)
            for name, value in told.items()
            if re.fullmatch(rf"drm-{key}-(?:vram|local)\d*", name)
        ]
        if sizes:
            return sum(sizes)
    return 0


def _size(value: str) -> int:
    match value.split():
        case [count, *unit]:
            return (whole(count) or 0) * UNITS.get("".join(unit), 0)
    return 0
