"""What this machine offers: which kinds of GPU (`facts`), and how much of everything (`hardware`)."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.hostfacts import HostFacts, RenderNode
from llmctl.host import devices, processor
from llmctl.host.probing import in_time

if TYPE_CHECKING:
    from llmctl.core.gpus import Gpu, GpuProcess, Hardware, Memory

# NVIDIA driver, group of /dev/kfd, render nodes; as in HostFacts.
Kinds = tuple[str | None, int | None, tuple[RenderNode, ...]]

MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
NVML_DEADLINE_S = 10.0  # eight GPUs that slept take some seconds to wake


def facts(root: Path = Path("/")) -> HostFacts:
    """Which GPUs this machine can give to an engine, and its cores; nothing is started for it.

    Args:
        root: Where /proc, /sys and /dev are looked for.
    """
    machine = platform.machine()
    none: Kinds = (None, None, ())
    unsaid: list[str] = []  # `hardware` says them
    nvidia, kfd, nodes = in_time("GPUs", lambda: _kinds(root), none, unsaid)
    return HostFacts(
        machine=MACHINES.get(machine, machine),
        physical_cores=processor.usable_cores(root, unsaid),
        nvidia_driver=nvidia,
        kfd_group=kfd,
        render_nodes=nodes,
    )


def _kinds(root: Path) -> Kinds:
    nodes = tuple(devices.render_nodes(root))
    return devices.nvidia_driver(root), devices.group_of(root / "dev/kfd"), nodes


def hardware(
    root: Path = Path("/"), *, gpus: bool = True, nvml_deadline_s: float = NVML_DEADLINE_S
) -> Hardware:
    """GPUs with their memory and who holds it, RAM, cores, limits; it never raises.

    NVIDIA's library is asked in a process of its own, and only where a trace of NVIDIA is seen: it
    may hang on a wedged GPU, or crash. What cannot be found out is in `problems`.

    Args:
        root: Where /proc, /sys, /dev and /usr are looked for.
        gpus: False leaves the GPUs out, for somebody who imagines others.
        nvml_deadline_s: Seconds for NVIDIA's library.
    """
    # Only here: `up` asks for `facts` and should not wait for what it does not use.
    from llmctl.core.gpus import Hardware, Memory
    from llmctl.host.memory import memory

    problems: list[str] = []
    ram = in_time("memory", lambda: memory(root), Memory(0, 0, None), problems)
    found: tuple[Gpu, ...] = ()
    driver = cuda = None
    if gpus:
        from llmctl.host import nvidia

        theirs = nvidia.look(root, ram, problems, nvml_deadline_s)
        found, driver, cuda = theirs.gpus, theirs.driver, theirs.cuda
        found += _others(root, ram, problems)
    return Hardware(
        gpus=found,
        memory=ram,
        physical_cores=processor.usable_cores(root, problems),
        logical_cores=processor.logical_cores(),
        driver=driver,
        cuda=cuda,
        unified=bool(found) and all(gpu.shared for gpu in found),
        problems=tuple(dict.fromkeys(problems)),
        cpu_quota=in_time("CPU quota", lambda: processor.cpu_quota(root), None, problems),
    )


def _others(root: Path, ram: Memory, problems: list[str]) -> tuple[Gpu, ...]:
    if platform.system() == "Darwin":
        from llmctl.host.apple import apple_gpus

        return apple_gpus(platform.machine(), ram, problems)
    from llmctl.host.drm import Found, drm_gpus

    found = in_time("AMD's and Intel's GPUs", lambda: drm_gpus(root, ram), Found(), problems)
    problems += found.problems
    if not found.gpus:
        return ()
    from llmctl.host.drm_processes import holders

    nobody: dict[str, tuple[GpuProcess, ...]] = {}
    held = in_time("who holds the GPUs' memory", lambda: holders(root), nobody, problems)
    return tuple(replace(gpu, processes=held.get(bus, ())) for bus, gpu in found.gpus)
