"""RAM: what there is, what is available, and what cgroups leave of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmctl.core.gpus import Memory
from llmctl.host.cgroups import groups
from llmctl.host.probing import number, text, whole

if TYPE_CHECKING:
    from pathlib import Path

# Usage counts the page cache; the kernel drops its inactive part before it refuses memory.
RECLAIMABLE = {1: "total_inactive_file", 2: "inactive_file"}
LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
USAGE = {1: "memory.usage_in_bytes", 2: "memory.current"}


def memory(root: Path) -> Memory:
    """The host's RAM within this process's cgroups, in bytes."""
    total, available = _host(root)
    limit = None
    for version, group in groups(root, "memory"):
        allowed = number(group / LIMIT[version])
        # "max" is no number; v1 writes the largest multiple of a page for "unlimited".
        if allowed is None or allowed >= total:
            continue
        limit = allowed if limit is None else min(limit, allowed)
        available = min(available, _left(version, group, allowed))
    return Memory(total=total, available=available, limit=limit)


def _left(version: int, group: Path, limit: int) -> int:
    used = number(group / USAGE[version]) or 0
    stat = text(group / "memory.stat") or ""
    found = re.search(rf"^{RECLAIMABLE[version]} (\d+)$", stat, re.MULTILINE)
    reclaimable = (whole(found[1]) or 0) if found else 0
    return max(0, min(limit, limit - used + reclaimable))


def _host(root: Path) -> tuple[int, int]:
    """Total and available bytes: /proc/meminfo on Linux, else what the system tells psutil."""
    lines = text(root / "proc/meminfo") or ""
    found = {
        name: (whole(kib) or 0) * 1024
        for name, kib in re.findall(r"^(\w+): +(\d+) kB$", lines, re.MULTILINE)
    }
    total = found.get("MemTotal", 0)
    if 0 < total < 1 << 60:
        # Kernels before 3.14 have no MemAvailable.
        return total, min(total, found.get("MemAvailable", found.get("MemFree", 0)))
    import psutil

    told = psutil.virtual_memory()
    return told.total, told.available
