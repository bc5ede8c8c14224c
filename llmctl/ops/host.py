"""The machine as the planner sees it: found out, or imagined."""

from __future__ import annotations

import os
from collections.abc import Mapping

from llmctl import host
from llmctl.core.gpus import Hardware, imagine, parse_gpus
from llmctl.core.sizes import parse_size

GPU_VARIABLE = "LLMCTL_HOST_GPU"
RAM_VARIABLE = "LLMCTL_HOST_RAM"
AUTO = "auto"


def machine(
    gpu: str | None = None, ram: str | None = None, *, environment: Mapping[str, str] = os.environ
) -> Hardware:
    """This machine, or the one that flags or the environment describe.

    Args:
        gpu: As `core.gpus.parse_gpus` reads it, or "auto" for the GPUs that are here; None asks
            LLMCTL_HOST_GPU.
        ram: A size, or "auto"; None asks LLMCTL_HOST_RAM.
        environment: The process's environment.

    Raises:
        UsageError: an unknown card, or no size.
    """
    gpu, gpu_from = _said("--gpu", gpu, GPU_VARIABLE, environment)
    ram, ram_from = _said("--ram", ram, RAM_VARIABLE, environment)
    gpus = None if gpu.lower() == AUTO else parse_gpus(gpu, gpu_from)
    size = None if ram.lower() == AUTO else parse_size(ram, ram_from)
    # GPUs that are not wanted are not looked for: no driver can then keep us waiting.
    return imagine(host.hardware(gpus=gpus is None), gpus=gpus, ram=size)


def _said(
    flag: str, value: str | None, variable: str, environment: Mapping[str, str]
) -> tuple[str, str]:
    """The value and who said it: the flag, else the environment, else nobody."""
    if value is not None:
        return value.strip(), flag
    return environment.get(variable, AUTO).strip() or AUTO, variable
