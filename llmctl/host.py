"""Edge to the host: its processor and GPUs, and who holds a port.

Everything is read from files, nothing is started, and nothing here raises or waits for long: a
broken driver must not break a command that does not need it.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llmctl.core.hostfacts import HostFacts, RenderNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
# NVIDIA driver, group of /dev/kfd, render nodes; as in HostFacts.
Gpus = tuple[str | None, int | None, tuple[RenderNode, ...]]

MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
PROBE_DEADLINE_S = 2.0
UNKNOWN_OWNER = "another process"


def facts(root: Path = Path("/")) -> HostFacts:
    """What this machine offers.

    Args:
        root: Where /proc, /sys and /dev are looked for.
    """
    machine = platform.machine()
    no_gpus: Gpus = (None, None, ())
    nvidia, kfd, nodes = _in_time(lambda: _gpus(root), no_gpus)
    return HostFacts(
        machine=MACHINES.get(machine, machine),
        physical_cores=_usable_cores(root),
        nvidia_driver=nvidia,
        kfd_group=kfd,
        render_nodes=nodes,
    )


def _in_time(probe: Callable[[], T], otherwise: T) -> T:
    """What `probe` finds, or `otherwise` when it fails or hangs, as a wedged driver can make it."""
    found: list[T] = []

    def look() -> None:
        try:
            found.append(probe())
        except (OSError, ValueError):
            return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(PROBE_DEADLINE_S)
    return found[0] if found else otherwise


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


# --- GPUs ------------------------------------------------------------------------------------


def _gpus(root: Path) -> Gpus:
    return _nvidia_driver(root), _group(root / "dev/kfd"), tuple(_render_nodes(root))


def _nvidia_driver(root: Path) -> str | None:
    """The driver's version, from the first line of /proc/driver/nvidia/version.

    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 ..." and, for the open
    module, "... Open Kernel Module for x86_64  560.35.03  Release Build ...".
    """
    text = _text(root / "proc/driver/nvidia/version")
    if text is None:
        # Inside a container /proc may be masked while the device is there.
        return "unknown" if (root / "dev/nvidiactl").exists() else None
    version = re.search(r"\b\d{3,4}\.\d{2,3}(?:\.\d{2})?\b", text)
    return version[0] if version else "unknown"


def _render_nodes(root: Path) -> Iterator[RenderNode]:
    drm = root / "sys/class/drm"
    names = [path.name for path in drm.glob("renderD*")] if drm.is_dir() else []
    for name in sorted(names, key=lambda n: (len(n), n)):
        device = root / "dev/dri" / name
        if device.exists():
            vendor = _text(drm / name / "device/vendor") or ""
            yield RenderNode(f"/dev/dri/{name}", vendor, _group(device))


def _group(path: Path) -> int | None:
    try:
        return path.stat().st_gid
    except OSError:
        return None


# --- processor -------------------------------------------------------------------------------


def _usable_cores(root: Path) -> int:
    """Physical cores under this process's affinity, at most what its cgroups let it use."""
    cores = _in_time(lambda: _allowed_cores(root), os.cpu_count() or 1)
    quota = _in_time(lambda: _cpu_quota(root), None)
    # A thread more than the quota stalls all of them: llama.cpp's threads wait for each other.
    return cores if quota is None else max(1, min(cores, int(quota)))


def _allowed_cores(root: Path) -> int:
    """Physical cores within this process's affinity, where the system tells either."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()  # macOS
    topology = [
        (_text(cpu / "physical_package_id"), _text(cpu / "core_id"))
        for cpu in (root / f"sys/devices/system/cpu/cpu{n}/topology" for n in allowed)
    ]
    if topology and all(core is not None for _, core in topology):
        return len(set(topology))
    import psutil  # only now: Linux has told all there is to know

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return min(physical, len(allowed)) if allowed else physical


def _cpu_quota(root: Path) -> float | None:
    """The smallest CPU quota of this process's cgroups and all above them, in CPUs."""
    quotas: list[float] = []
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += _up(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _up(root / "sys/fs/cgroup" / controllers, path, _quota_v1)
            quotas += _up(root / "sys/fs/cgroup/cpu", path, _quota_v1)
    return min(quotas, default=None)


def _up(mount: Path, path: str, quota_at: Callable[[Path], float | None]) -> Iterator[float]:
    """Quotas of a cgroup and of its parents, which limit it as well."""
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):
        quota = quota_at(mount.joinpath(*parts[:depth]))
        if quota is not None:
            yield quota


def _quota_v2(group: Path) -> float | None:
    words = (_text(group / "cpu.max") or "max").split()
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def _quota_v1(group: Path) -> float | None:
    quota = int(_text(group / "cpu.cfs_quota_us") or -1)
    period = int(_text(group / "cpu.cfs_period_us") or 0)
    return quota / period if quota > 0 and period > 0 else None


# --- ports -----------------------------------------------------------------------------------


def port_owner(host: str, port: int) -> str | None:
    """Who holds a TCP port: "python3 (pid 123)", or "another process" when that is not visible.

    Args:
        host: The IP address to listen on.
        port: 1 to 65535.

    Returns:
        None when a service could listen there, or when it could not for a reason that is nobody's
        doing (no permission for a low port, no such address); the engine will name that one.
    """
    try:
        with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
            # As container engines do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return _listener_on(host, port) if error.errno == errno.EADDRINUSE else None
    return None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _listener_on(host: str, port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and _overlap(host, connection.laddr.ip):
                if connection.pid is None:
                    return UNKNOWN_OWNER
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return UNKNOWN_OWNER
    return UNKNOWN_OWNER


def _overlap(one: str, other: str) -> bool:
    anywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return one == other or one in anywhere or other in anywhere
