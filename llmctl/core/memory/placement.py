"""Which device each block goes to, as llama.cpp's `load_tensors` decides it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.core.memory.facts import Device, Settings
from llmctl.core.memory.model import Model
from llmctl.errors import ConfigError

HOST = -1


@dataclass(frozen=True)
class Placement:
    """Where everything lies; GPUs by their position, `HOST` for RAM.

    Attributes:
        blocks: One entry per block.
        head: The output norm and matrix.
        experts_kept: Blocks from the first one whose experts stay in RAM.
        gpus: How many there are.
    """

    blocks: tuple[int, ...]
    head: int
    experts_kept: int
    gpus: int

    @property
    def full(self) -> bool:
        """Everything that can be is on a GPU; only then do several GPUs work as a pipeline."""
        return self.gpus > 0 and self.head != HOST and HOST not in self.blocks

    @property
    def pipeline(self) -> bool:
        """Batches overlap on several GPUs, which takes copies of the graph's inputs."""
        return self.full and self.gpus > 1 and not self.experts_kept

    def on(self, gpu: int) -> tuple[int, ...]:
        """The blocks a device holds."""
        return tuple(index for index, device in enumerate(self.blocks) if device == gpu)


def place(model: Model, settings: Settings, gpus: Sequence[Device]) -> Placement:
    """The blocks' devices.

    The output head counts as the last layer and is the first to be offloaded; the rest follows from
    the last block to the first, split by share over the GPUs in their order.

    Raises:
        ConfigError: the shares cannot be used.
    """
    wanted = model.layers if settings.gpu_layers is None else settings.gpu_layers
    offloaded = min(max(wanted, 0), model.layers) if gpus else 0
    first = model.layers - offloaded
    bounds = _bounds(settings, gpus)
    devices = [
        HOST if index < first else _device(bounds, index - first, offloaded)
        for index in range(model.layers)
    ]
    kept = settings.experts_on_cpu
    experts = len(model.blocks) if kept is True else int(kept)
    return Placement(
        blocks=tuple(devices[:-1]),
        head=devices[-1],
        experts_kept=experts if model.has_experts else 0,
        gpus=len(gpus),
    )


def _bounds(settings: Settings, gpus: Sequence[Device]) -> tuple[float, ...]:
    shares = settings.tensor_split or tuple(float(max(gpu.free, 1)) for gpu in gpus)
    if not gpus:
        return ()
    if len(shares) != len(gpus) or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise ConfigError(
            f"tensor_split {','.join(f'{share:g}' for share in shares)} does not go with"
            f" {len(gpus)} GPUs",
            hint=f"give {len(gpus)} shares, for instance {','.join('1' * len(gpus))}",
        )
    sums = list(itertools.accumulate(_f32(share) for share in shares))
    return tuple(_f32(_f32(bound) / _f32(sums[-1])) for bound in sums)


def _device(bounds: Sequence[float], index: int, offloaded: int) -> int:
    at = _f32(index / offloaded)
    return next((gpu for gpu, bound in enumerate(bounds) if bound > at), len(bounds) - 1)


def _f32(value: float) -> float:
    """llama.cpp compares in single precision; at a boundary that decides."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
