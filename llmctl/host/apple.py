"""Apple silicon: one memory for everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.gpus import Gpu
from llmctl.core.sizes import GIB

if TYPE_CHECKING:
    from llmctl.core.gpus import Memory

# What Metal recommends as the GPU's working set (recommendedMaxWorkingSetSize, as llama.cpp logs it):
# 10.7 of 16 GiB, 21.3 of 32, 27 of 36, 48 of 64.
LARGE = 36 * GIB


def apple_gpus(machine: str, ram: Memory, problems: list[str]) -> tuple[Gpu, ...]:
    """The GPU of an Apple chip with the share of the RAM that macOS lets it have; none on Intel Macs.

    Args:
        machine: "arm64" on Apple silicon.
        ram: The host's RAM.
        problems: Gets the sentence that says the share is a rule, not a reading.
    """
    if machine != "arm64" or not ram.total:
        return ()
    share = ram.total * 3 // 4 if ram.total >= LARGE else ram.total * 2 // 3
    problems.append(
        "Apple GPU: its share of the RAM is taken as what Metal recommends by default (three quarters,"
        " two thirds below 36 GiB); a changed iogpu.wired_limit_mb is not read: --gpu SIZE says it"
    )
    free = min(share, ram.available)
    return (Gpu("apple", "Apple GPU", 0, None, share, free, shared=True, compute_capability=None),)
