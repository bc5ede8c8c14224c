"""The KV cache and the recurrent state: exact, as llama.cpp allocates them."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.ggml import TYPES, TensorType
from llmctl.core.memory.facts import Settings, padded
from llmctl.core.memory.layout import Block, Layout
from llmctl.core.memory.model import GPU_ALIGNMENT, row_padding
from llmctl.errors import ConfigError

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
CELLS_STEP = 256

_BY_NAME = {kind.name.lower(): kind for kind in TYPES.values()}


@dataclass(frozen=True)
class Cells:
    """How many tokens the caches hold.

    Attributes:
        full: Cells per stream of blocks that see everything.
        window: Cells per stream of blocks that see a window.
        streams: Caches side by side: one for all slots when they are unified.
    """

    full: int
    window: int
    streams: int


def cells_of(layout: Layout, settings: Settings) -> Cells:
    """The cells for settings whose context is already padded."""
    streams = 1 if settings.kv_unified else settings.parallel
    full = padded(settings.context // streams, CELLS_STEP)
    if settings.swa_full:
        return Cells(full, full, streams)
    slots = settings.parallel if settings.kv_unified else 1
    window = padded(min(full, layout.window * slots + settings.ubatch), CELLS_STEP)
    return Cells(full, min(full, window), streams)


def cache_type(name: str) -> TensorType:
    """The storage type a cache type names.

    Raises:
        ConfigError: llama.cpp has no such cache.
    """
    kind = name.lower()
    if kind not in CACHE_TYPES:
        raise ConfigError(f'"{name}" is no cache type', hint=f"one of {', '.join(CACHE_TYPES)}")
    return _BY_NAME[kind]


def kv_bytes(block: Block, cells: Cells, key: TensorType, value: TensorType, *, gpu: bool) -> int:
    """Bytes of one block's cache."""
    if block.attention == "none":
        return 0
    count = (cells.window if block.attention == "window" else cells.full) * cells.streams
    return sum(
        padded(
            kind.bytes_of(padded(width, kind.block)) * count
            + (row_padding(width, kind) if gpu else 0),
            GPU_ALIGNMENT,
        )
        for width, kind in ((block.key, key), (block.value, value))
        if width
    )


def state_bytes(block: Block, settings: Settings) -> int:
    """Bytes of one block's recurrent state, for all slots (f32)."""
    return sum(
        padded(4 * elements * settings.parallel, GPU_ALIGNMENT) for elements in block.recurrent
    )


def checkpoint_bytes(layout: Layout, cells: Cells, key: TensorType, value: TensorType) -> int:
    """Bytes of one saved state of one slot: the recurrent state and the window's part of the cache."""
    tokens = min(cells.full, layout.window)
    slots = Settings(context=0)
    total = 0
    for block in layout.blocks:
        total += state_bytes(block, slots)
        if block.attention == "window":
            total += sum(
                kind.bytes_of(padded(width, kind.block)) * tokens
                for width, kind in ((block.key, key), (block.value, value))
            )
    return total
