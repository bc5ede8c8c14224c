"""The GPU a stack gets from the engine that runs it."""

from __future__ import annotations

from llmctl.core.hostfacts import GpuChoice, HostFacts, choose_gpu
from llmctl.core.stack import Stack
from llmctl.errors import ConfigError


def choose_gpu_for(
    engine: str, stack: Stack, facts: HostFacts, *, engine_has_nvidia: bool | None
) -> GpuChoice:
    """`core.hostfacts.choose_gpu` for containers; local processes have the CPU only.

    Raises:
        ConfigError: a GPU is asked for that this engine cannot give.
    """
    if engine != "process":
        return choose_gpu(stack.gpu, facts, engine_has_nvidia=engine_has_nvidia)
    if stack.gpu not in {"auto", "none"}:
        raise ConfigError(
            f"gpu: {stack.gpu}: the llama.cpp of the process engine runs on the CPU",
            hint="engine: docker   # passes GPUs to containers; or gpu: none",
        )
    return GpuChoice("none", "the process engine's llama.cpp runs on the CPU")
