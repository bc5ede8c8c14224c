"""Cores this process may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmctl.host.cgroups import groups
from llmctl.host.probing import in_time, number, text, whole

if TYPE_CHECKING:
    from pathlib import Path


def usable_cores(root: Path, problems: list[str]) -> int:
    """Physical cores under this process's affinity, at most what its cgroups let it use."""
    cores = in_time("physical cores", lambda: _allowed_cores(root), os.cpu_count() or 1, problems)
    quota = in_time("CPU quota", lambda: cpu_quota(root), None, problems)
    # A thread more than the quota stalls all of them: llama.cpp's threads wait for each other.
    return cores if quota is None else max(1, min(cores, int(quota)))


def logical_cores() -> int:
    """CPUs this process may be scheduled on."""
    return len(_affinity()) or os.cpu_count() or 1


def cpu_quota(root: Path) -> float | None:
    """The smallest CPU quota of this process's cgroups and all above them, in CPUs."""
    quotas = (
        (_quota_v2 if version == 2 else _quota_v1)(group)  # noqa: PLR2004
        for version, group in groups(root, "cpu")
    )
    return min((quota for quota in quotas if quota is not None), default=None)


def _allowed_cores(root: Path) -> int:
    """Physical cores within this process's affinity, where the system tells either."""
    allowed = _affinity()
    topology = [
        (text(cpu / "physical_package_id"), text(cpu / "core_id"))
        for cpu in (root / f"sys/devices/system/cpu/cpu{n}/topology" for n in allowed)
    ]
    if topology and all(core is not None for _, core in topology):
        return len(set(topology))
    import psutil  # only now: Linux has told all there is to know

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return min(physical, len(allowed)) if allowed else physical


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()  # macOS


def _quota_v2(group: Path) -> float | None:
    match (text(group / "cpu.max") or "").split():
        case [quota, period]:
            return _share(whole(quota), whole(period))
    return None


def _quota_v1(group: Path) -> float | None:
    return _share(number(group / "cpu.cfs_quota_us"), number(group / "cpu.cfs_period_us"))


def _share(quota: int | None, period: int | None) -> float | None:
    return quota / period if quota and period else None
