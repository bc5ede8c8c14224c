"""Facts about a host, read from a made-up root; ports are really bound."""

from __future__ import annotations

import os
import platform
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest

from llmctl import host
from llmctl.host import probing

if TYPE_CHECKING:
    from pathlib import Path

CLOSED_MODULE = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
OPEN_MODULE = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build  (dvs-builder)
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def render_node(root: Path, number: int, vendor: str) -> None:
    write(root / f"sys/class/drm/renderD{number}/device/vendor", vendor + "\n")
    write(root / f"dev/dri/renderD{number}")


def test_an_empty_root_has_no_gpu(tmp_path: Path) -> None:
    found = host.facts(tmp_path)
    assert (found.nvidia_driver, found.kfd_group, found.render_nodes) == (None, None, ())
    assert found.physical_cores >= 1


def test_this_machine_can_be_read() -> None:
    found = host.facts()
    assert 1 <= found.physical_cores <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("kernel", "ours"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("riscv64", "riscv64")],
)
def test_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: str, ours: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: kernel)
    assert host.facts(tmp_path).machine == ours


@pytest.mark.parametrize(
    ("text", "version"),
    [(CLOSED_MODULE, "550.54.14"), (OPEN_MODULE, "575.57.08"), ("something else", "unknown")],
)
def test_nvidia_driver(tmp_path: Path, text: str, version: str) -> None:
    write(tmp_path / "proc/driver/nvidia/version", text)
    assert host.facts(tmp_path).nvidia_driver == version


def test_nvidia_device_without_its_proc_file(tmp_path: Path) -> None:
    write(tmp_path / "dev/nvidiactl")
    assert host.facts(tmp_path).nvidia_driver == "unknown"


def test_amd_and_intel(tmp_path: Path) -> None:
    render_node(tmp_path, 129, "0x8086")
    render_node(tmp_path, 128, "0x1002")
    write(tmp_path / "dev/kfd")
    found = host.facts(tmp_path)
    assert [(n.path, n.vendor) for n in found.render_nodes] == [
        ("/dev/dri/renderD128", "0x1002"),
        ("/dev/dri/renderD129", "0x8086"),
    ]
    assert found.kfd_group == found.render_nodes[0].group == (tmp_path / "dev/kfd").stat().st_gid


def test_a_render_node_without_its_device_cannot_be_passed(tmp_path: Path) -> None:
    write(tmp_path / "sys/class/drm/renderD128/device/vendor", "0x1002")
    assert host.facts(tmp_path).render_nodes == ()


def test_a_render_node_off_the_pci_bus_has_no_vendor(tmp_path: Path) -> None:
    (tmp_path / "sys/class/drm/renderD128").mkdir(parents=True)
    write(tmp_path / "dev/dri/renderD128")
    assert host.facts(tmp_path).render_nodes[0].vendor == ""


def test_a_driver_that_hangs_costs_the_deadline_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    os.mkfifo(version)  # a read from it waits until somebody writes
    monkeypatch.setattr(probing, "PROBE_DEADLINE_S", 0.1)
    try:
        assert host.facts(tmp_path).nvidia_driver is None
    finally:
        os.close(os.open(version, os.O_WRONLY))  # lets the thread go


# --- cores -----------------------------------------------------------------------------------


def topology(root: Path, cores: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """One logical CPU for each (package, core), all of them allowed."""
    for number, (package, core) in enumerate(cores):
        directory = root / f"sys/devices/system/cpu/cpu{number}/topology"
        write(directory / "physical_package_id", f"{package}\n")
        write(directory / "core_id", f"{core}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(cores))), raising=False)


FOUR_CORES_SMT = [(0, 0), (0, 1), (0, 2), (0, 3)] * 2


def test_siblings_share_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology(tmp_path, FOUR_CORES_SMT, monkeypatch)
    assert host.facts(tmp_path).physical_cores == 4


def test_two_packages_may_number_their_cores_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology(tmp_path, [(0, 0), (0, 1), (1, 0), (1, 1)], monkeypatch)
    assert host.facts(tmp_path).physical_cores == 4


def test_affinity_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology(tmp_path, FOUR_CORES_SMT, monkeypatch)
    # CPUs 0 and 4 are the two siblings of one core.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5}, raising=False)
    assert host.facts(tmp_path).physical_cores == 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 4),
        # The parent's limit holds for its children.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/cpu.max": "100000 100000",
            },
            1,
        ),
        # Half a CPU is still one thread; one and a half are not two.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/docker/1\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
    ],
    ids=["v2", "v2 max", "v2 parent", "v2 half", "v2 one and a half", "v1", "v1 none"],
)
def test_quota_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    topology(tmp_path, FOUR_CORES_SMT, monkeypatch)
    for name, text in files.items():
        write(tmp_path / name, text)
    assert host.facts(tmp_path).physical_cores == cores


@pytest.mark.parametrize("told", ["many few", "100", "1 0", "0 0", "-1 5", "1 2 3", "9" * 5000, ""])
def test_a_quota_nobody_can_read_does_not_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    topology(tmp_path, FOUR_CORES_SMT, monkeypatch)
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", told)
    assert host.facts(tmp_path).physical_cores == 4


def test_a_machine_that_hides_its_topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert host.facts(tmp_path).physical_cores == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert host.facts(tmp_path).physical_cores == 4


# --- ports -----------------------------------------------------------------------------------


def listener(address: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    return socket.create_server((address, 0), family=family)


def test_a_free_port_has_no_owner() -> None:
    with closing(listener("127.0.0.1")) as server:
        port = server.getsockname()[1]
    assert host.port_owner("127.0.0.1", port) is None


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
    ],
)
def test_a_held_port_names_its_process(held: str, wanted: str) -> None:
    with closing(listener(held)) as server:
        owner = host.port_owner(wanted, server.getsockname()[1])
    assert owner == f"{psutil.Process().name()} (pid {os.getpid()})"


def test_another_address_of_the_same_port_is_free() -> None:
    with closing(listener("127.0.0.2")) as server:
        assert host.port_owner("127.0.0.1", server.getsockname()[1]) is None


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
def test_ipv6() -> None:
    try:
        server = listener("::1", socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback on this machine")
    with closing(server):
        port = server.getsockname()[1]
        assert f"(pid {os.getpid()})" in (host.port_owner("::1", port) or "")
        assert host.port_owner("127.0.0.1", port) is None
    with closing(listener("0.0.0.0")) as other:
        # Engines listen on "::" for IPv6 alone.
        assert host.port_owner("::", other.getsockname()[1]) is None


def test_a_port_in_time_wait_is_free() -> None:
    with closing(listener("127.0.0.1")) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    assert host.port_owner("127.0.0.1", port) is None


def test_an_owner_that_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str) -> None:
        raise psutil.AccessDenied(msg=kind)

    monkeypatch.setattr(psutil, "net_connections", refuse)
    with closing(listener("127.0.0.1")) as server:
        assert host.port_owner("127.0.0.1", server.getsockname()[1]) == "another process"


def test_an_address_of_another_machine_is_nobodys_port() -> None:
    assert host.port_owner("192.0.2.1", 28000) is None
