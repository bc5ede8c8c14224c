"""RAM and the cgroups that limit it, read from a made-up root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from llmctl import host
from llmctl.host.memory import memory

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
MEMINFO = """\
MemTotal:       16777216 kB
MemFree:         1048576 kB
MemAvailable:    8388608 kB
HugePages_Total:       0
"""
UNLIMITED_V1 = "9223372036854771712"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", MEMINFO)
    return tmp_path


def write(path: Path, text: str | bytes = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def group(
    root: Path, path: str, limit: str, used: str = "0", stat: str = "", version: int = 2
) -> None:
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, text in (*zip(names, (limit, used), strict=True), ("memory.stat", stat)):
        write(root / "sys/fs/cgroup" / path / name, text + "\n")


def test_without_cgroups(root: Path) -> None:
    found = memory(root)
    assert (found.total, found.available, found.limit) == (16 * GIB, 8 * GIB, None)


def test_an_old_kernel_has_no_available(root: Path) -> None:
    write(root / "proc/meminfo", "MemTotal: 4194304 kB\nMemFree: 1048576 kB\n")
    assert memory(root).available == GIB


def test_v2_takes_the_smallest_limit_on_the_way_up(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/user/app\n")
    group(root, "user/app", "max")
    group(root, "user", str(4 * GIB), str(3 * GIB))
    group(root, "", str(12 * GIB))
    found = memory(root)
    assert (found.limit, found.available) == (4 * GIB, GIB)


def test_a_parent_can_have_less_left_than_the_smallest_limit(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/user/app\n")
    group(root, "user/app", str(4 * GIB), str(GIB))
    group(root, "user", str(8 * GIB), str(7 * GIB + GIB // 2))
    found = memory(root)
    assert (found.limit, found.available) == (4 * GIB, GIB // 2)


def test_the_page_cache_is_not_held(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/\n")
    stat = f"anon 5\nactive_file 7\ninactive_file {2 * GIB}\n"
    group(root, "", str(4 * GIB), str(3 * GIB), stat)
    assert memory(root).available == 3 * GIB


def test_v1(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/\n")
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}\n"
    group(root, "memory/docker/1", str(6 * GIB), str(4 * GIB), stat, version=1)
    group(root, "memory", UNLIMITED_V1, version=1)
    found = memory(root)
    assert (found.limit, found.available) == (6 * GIB, 3 * GIB)


def test_in_a_container_the_group_is_at_the_top(root: Path) -> None:
    """Docker on cgroup v1 tells the host's path and mounts the container's own group."""
    write(root / "proc/self/cgroup", "5:memory:/docker/0123456789ab\n")
    group(root, "memory", str(2 * GIB), "0", version=1)
    assert memory(root).limit == 2 * GIB


@pytest.mark.parametrize(
    "limit",
    ["max", UNLIMITED_V1, "18446744073709551615", str(16 * GIB), "", "-1", "lots", "9" * 99],
)
def test_no_limit(root: Path, limit: str) -> None:
    write(root / "proc/self/cgroup", "0::/\n")
    group(root, "", limit, str(GIB))
    assert memory(root).limit is None
    assert memory(root).available == 8 * GIB


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\xff\xfe\x00garbage",
        b"MemTotal: kB\n",
        b"MemTotal: 0 kB\n",
        b"MemTotal: -5 kB\n",
        b"MemTotal: " + b"9" * 5000 + b" kB\n",
        b"MemTotal: 9223372036854775807 kB\n",
    ],
)
def test_nonsense_is_asked_of_the_system_instead(tmp_path: Path, told: bytes) -> None:
    write(tmp_path / "proc/meminfo", told)
    assert memory(tmp_path).total == psutil.virtual_memory().total


def test_a_group_outside_of_the_namespace_stays_below_the_mount(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/../../../proc\n")
    write(root / "proc/memory.max", str(GIB))
    assert memory(root).limit is None


@pytest.mark.parametrize("told", [b"0:\n", b"::\n", b"\x00\xff\n", b"0::/a\x00b\n", b"x" * 5000])
def test_nonsense_about_groups(root: Path, told: bytes) -> None:
    write(root / "proc/self/cgroup", told)
    found = host.hardware(root)
    assert found.memory.total == 16 * GIB
    assert found.physical_cores >= 1


def test_available_is_never_more_than_total_nor_less_than_nothing(root: Path) -> None:
    write(root / "proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 200 kB\n")
    assert memory(root).available == memory(root).total
    write(root / "proc/meminfo", MEMINFO)
    write(root / "proc/self/cgroup", "0::/\n")
    group(root, "", str(GIB), str(2 * GIB))
    assert memory(root).available == 0


def test_the_machine_says_its_limits(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/\n")
    group(root, "", str(4 * GIB))
    write(root / "sys/fs/cgroup/cpu.max", "150000 100000")
    found = host.hardware(root)
    assert (found.memory.limit, found.cpu_quota) == (4 * GIB, 1.5)
    assert (found.gpus, found.unified, found.driver, found.problems) == ((), False, None, ())
    assert found.physical_cores == 1  # one and a half are not two
    assert found.logical_cores >= 1
