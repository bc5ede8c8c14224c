"""What a machine has to run a model on: its GPUs, memory and cores, in bytes and counts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from llmctl.core.cards import Vendor, find_card, nearest_cards
from llmctl.core.sizes import MIB, memory_text, parse_size
from llmctl.errors import UsageError

SMALLEST_GPU = 64 * MIB
MOST_GPUS = 64
HOW_TO_WRITE = (
    "auto, none, sizes such as 24GiB or 24GiB,12GiB, a card's name such as rtx4090 or rtx3060,rtx3060,"
    ' or both: "RTX 4090:24GiB"'
)


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU.

    Attributes:
        pid: As this host numbers it; inside a container it may be another namespace's.
        name: The program's file name, "?" when it cannot be read.
        bytes: What it holds, None when the driver does not say (WSL).
    """

    pid: int
    name: str
    bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of it.

    Attributes:
        kind: Its maker.
        name: As the driver calls it.
        index: Position among the GPUs of this maker, in the order of the PCI bus (CUDA itself sorts by
            speed unless CUDA_DEVICE_ORDER=PCI_BUS_ID). MIG instances carry their GPU's.
        uuid: NVIDIA's "GPU-…" or "MIG-…", None elsewhere.
        total: Bytes of memory, 0 when unknown.
        free: Bytes nobody holds now, None when unknown.
        shared: Its memory is the host's RAM (integrated GPUs): `total` and `free` are a view of the
            same bytes as `Memory`, not bytes besides them.
        compute_capability: CUDA's, such as "8.9".
        processes: Who holds memory, largest first, as far as this user may see.
        reserved: Bytes the driver keeps for itself, a part of `total` and never of `free`.
    """

    kind: Vendor
    name: str
    index: int
    uuid: str | None
    total: int
    free: int | None
    shared: bool
    compute_capability: str | None
    processes: tuple[GpuProcess, ...] = ()
    reserved: int = 0

    @property
    def unseen(self) -> int:
        """Bytes held by somebody who is not among `processes`; 0 where that cannot be told."""
        if self.shared or self.free is None:
            return 0
        seen = sum(process.bytes or 0 for process in self.processes)
        return max(0, self.total - self.free - self.reserved - seen)


@dataclass(frozen=True)
class Memory:
    """The host's RAM.

    Attributes:
        total: Bytes of RAM, whatever the limit.
        available: Bytes this process can still take: what the kernel calls available, and what its
            cgroups leave.
        limit: Bytes its cgroups allow this process, the smallest of them; None without one.
    """

    total: int
    available: int
    limit: int | None

    @property
    def usable(self) -> int:
        """Bytes this process may hold at most."""
        return self.total if self.limit is None else min(self.total, self.limit)


@dataclass(frozen=True)
class Hardware:
    """A machine, as far as it can be found out, or as it was asked to be imagined.

    Attributes:
        gpus: NVIDIA's first, then AMD's, Intel's, Apple's.
        memory: The host's RAM.
        physical_cores: Without SMT siblings, within the cpuset and the cgroup's CPU quota, at least 1.
        logical_cores: CPUs this process may be scheduled on.
        driver: Version of NVIDIA's driver.
        cuda: Newest CUDA version that driver can serve, such as "12.4".
        unified: There are GPUs, and all of them share the host's RAM: one budget for everything.
        problems: What could not be found out, why, and what to do; a sentence each.
        cpu_quota: CPUs' worth of time the cgroups allow, None without a quota.
    """

    gpus: tuple[Gpu, ...]
    memory: Memory
    physical_cores: int
    logical_cores: int
    driver: str | None
    cuda: str | None
    unified: bool
    problems: tuple[str, ...]
    cpu_quota: float | None = None


def imagine(
    found: Hardware, *, gpus: tuple[Gpu, ...] | None = None, ram: int | None = None
) -> Hardware:
    """`found` with other GPUs or another amount of RAM, all of it free; None leaves what is there."""
    if gpus is not None:
        unified = bool(gpus) and all(gpu.shared for gpu in gpus)
        found = replace(found, gpus=gpus, unified=unified)
    if ram is not None:
        found = replace(found, memory=Memory(total=ram, available=ram, limit=None))
    return found


def parse_gpus(text: str, where: str = "--gpu") -> tuple[Gpu, ...]:
    """GPUs as `--gpu` names them: "24GiB,12GiB", "rtx3060,rtx3060", "RTX 4090:24GiB", "none".

    All their memory is free. One without a known name is taken for NVIDIA's. "auto" is the caller's.

    Args:
        text: GPUs, separated by commas.
        where: Who wrote it, for the message.

    Raises:
        UsageError: a part is neither a size nor a known card, or a size no GPU has.
    """
    if text.strip().lower() == "none":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(parts) > MOST_GPUS:
        raise UsageError(
            f"{where}: expected GPUs separated by commas", hint=f"write {HOW_TO_WRITE}"
        )
    found: list[Gpu] = []
    for part in parts:
        gpu = _parse_gpu(part, where)
        found.append(replace(gpu, index=sum(other.kind == gpu.kind for other in found)))
    return tuple(found)


def _parse_gpu(text: str, where: str) -> Gpu:
    name, colon, size = text.rpartition(":")
    if colon:
        card = find_card(name)
        total = _gpu_size(size, where)
        return _free_gpu(
            name.strip() or memory_text(total),
            card.vendor if card else "nvidia",
            total,
            card.compute_capability if card else None,
        )
    card = find_card(text)
    if card is not None:
        return _free_gpu(card.name, card.vendor, card.total, card.compute_capability)
    if re.match(r"[\d.]+\s*[kmgt]?i?b?$", text, re.IGNORECASE):
        total = _gpu_size(text, where)
        return _free_gpu(f"GPU with {memory_text(total)}", "nvidia", total, None)
    raise UsageError(
        f'{where}: no GPU is known by the name "{text[:60]}"',
        hint=f'nearest: {", ".join(nearest_cards(text))}\nor give its memory: --gpu "NAME:24GiB"',
    )


def _gpu_size(text: str, where: str) -> int:
    total = parse_size(text, where)
    if total < SMALLEST_GPU:
        raise UsageError(
            f"{where}: {text.strip()} is {total} bytes, which is no GPU's memory",
            hint=f"write {HOW_TO_WRITE}",
        )
    return total


def _free_gpu(name: str, kind: Vendor, total: int, capability: str | None) -> Gpu:
    return Gpu(
        kind=kind,
        name=name,
        index=0,
        uuid=None,
        total=total,
        free=total,
        shared=False,
        compute_capability=capability,
    )
