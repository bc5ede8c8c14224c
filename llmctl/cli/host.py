"""`llmctl host`: what this machine has to run a model on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.options import OutputOption
from llmctl.cli.output import Mode, Output, table

if TYPE_CHECKING:
    from llmctl.core.gpus import Gpu, Hardware

HostGpuOption = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="GPUS",
        help='Imagine other GPUs: "24GiB,12GiB", rtx4090, "NAME:24GiB", or none.'
        " Also LLMCTL_HOST_GPU.",
    ),
]
HostRamOption = Annotated[
    str | None,
    typer.Option(
        "--ram", metavar="SIZE", help="Imagine this much RAM: 64GiB. Also LLMCTL_HOST_RAM."
    ),
]


def host(
    gpu: HostGpuOption = None,
    ram: HostRamOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Show GPUs, free memory and who holds it, RAM, cores and limits, as the planner sees them.

    Nothing is installed, started or changed; what cannot be found out is said, with what to do.
    """
    from llmctl.core.codec import encode
    from llmctl.ops.host import machine

    found = machine(gpu, ram)
    names = "\n".join(one.name for one in found.gpus)
    Output(output).data(encode(found), lambda: human(found), names)


def human(found: Hardware) -> str:
    """Tables of GPUs and of the rest, then the problems."""
    parts = [_gpus(found), _rest(found)]
    parts += [f"problem: {problem}" for problem in found.problems]
    return "\n\n".join(part for part in parts if part)


def _gpus(found: Hardware) -> str:
    from llmctl.core.sizes import memory_text

    rows = [
        [
            one.name,
            (memory_text(one.total) if one.total else "?") + (" of RAM" if one.shared else ""),
            "?" if one.free is None else memory_text(one.free),
            one.compute_capability or "-",
            _holders(one),
        ]
        for one in found.gpus
    ]
    return table(["gpu", "memory", "free", "compute", "held by"], rows) if rows else ""


def _holders(gpu: Gpu) -> str:
    """Such as: ollama (pid 412) 1.2 GiB, driver 400 MiB, somebody unseen 90 MiB."""
    from llmctl.core.sizes import memory_text

    held = [
        f"{one.name} (pid {one.pid})" + (f" {memory_text(one.bytes)}" if one.bytes else "")
        for one in gpu.processes
    ]
    if gpu.reserved:
        held.append(f"driver {memory_text(gpu.reserved)}")
    if gpu.unseen:
        held.append(f"not visible from here {memory_text(gpu.unseen)}")
    return ", ".join(held) or "-"


def _rest(found: Hardware) -> str:
    from llmctl.core.sizes import memory_text

    memory = found.memory
    limit = "" if memory.limit is None else f"; the cgroup allows {memory_text(memory.limit)}"
    cores = f"{found.physical_cores} physical, {found.logical_cores} logical"
    quota = "" if found.cpu_quota is None else f"; the cgroup allows {found.cpu_quota:g} CPUs"
    lines = [
        *([] if found.gpus else ["gpu     none found"]),
        f"ram     {memory_text(memory.total)}, {memory_text(memory.available)} available{limit}",
        f"cores   {cores}{quota}",
    ]
    if found.driver:
        cuda = f", CUDA up to {found.cuda}" if found.cuda else ""
        lines.append(f"driver  NVIDIA {found.driver}{cuda}")
    if found.unified:
        lines.append("unified: the GPU's memory is the RAM; both are one budget")
    return "\n".join(lines)
