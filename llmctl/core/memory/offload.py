"""The compute buffer of a GPU that also works on weights which lie in RAM.

llama.cpp copies such weights to the first GPU while it reads a prompt (ggml's operation offload), into
the same buffer as the intermediate results. How large that gets depends on which holes ggml's allocator
finds, so no sum of sizes gives it: the allocations of a few dense blocks are replayed with ggml's best
fit, in an order that was fitted to b11549 and meets its numbers for seven shapes within 0.1 MiB. Graphs
that are not replayed get a bound. Like llama.cpp's, the peak is not monotone: a larger cache may find a
better hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.memory.facts import padded
from llmctl.core.memory.model import GPU_ALIGNMENT

_REPLAYED = tuple(
    f"{name}.weight"
    for name in (
        *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"),
        *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
    )
)


class _Arena:
    """ggml's dynamic allocator: the smallest hole that fits, else the end."""

    def __init__(self) -> None:
        self._holes = [(0, 1 << 62)]
        self._live: dict[str, tuple[int, int]] = {}
        self.peak = 0

    def take(self, name: str, size: int) -> None:
        size = padded(size, GPU_ALIGNMENT)
        fitting = [hole for hole in self._holes[:-1] if hole[1] >= size]
        # of equally small ones ggml takes the last
        hole = min(reversed(fitting), key=lambda hole: hole[1], default=self._holes[-1])
        at = self._holes.index(hole)
        rest = (hole[0] + size, hole[1] - size)
        self._holes[at : at + 1] = [rest] if rest[1] else []
        self._live[name] = (hole[0], size)
        self.peak = max(self.peak, hole[0] + size)

    def want(self, name: str, size: int) -> None:
        """Take it unless it is there: a copy stays for whoever reads it later."""
        if name not in self._live:
            self.take(name, size)

    def free(self, name: str) -> None:
        start, size = self._live.pop(name)
        merged: list[tuple[int, int]] = []
        for hole in sorted([*self._holes, (start, size)]):
            if merged and sum(merged[-1]) == hole[0]:
                merged[-1] = (merged[-1][0], merged[-1][1] + hole[1])
            else:
                merged.append(hole)
        self._holes = merged

    def rename(self, old: str, new: str) -> None:
        """The result takes its operand's place."""
        self._live[new] = self._live.pop(old)


@dataclass(frozen=True)
class DenseBlock:
    """A block to replay; all sizes in bytes.

    Attributes:
        weights: By name, unpadded.
        key: Its whole K cache, which is copied as well.
        value: Its whole V cache.
        mask: Name and size of the mask it reads.
        widths: Of a ubatch of "embedding", "query", "key", "value" and "forward" activations.
    """

    weights: Mapping[str, int]
    key: int
    value: int
    mask: tuple[str, int]
    widths: Mapping[str, int]

    @property
    def replayed(self) -> bool:
        """Whether its graph is the one that is replayed."""
        return all(name in self.weights for name in _REPLAYED)


def replay(blocks: Sequence[DenseBlock], positions: int, *, scaled: bool) -> int:
    """Peak bytes of the buffer for these blocks.

    Args:
        blocks: The first ones that lie in RAM.
        positions: Bytes of a ubatch's positions.
        scaled: The model scales its embeddings (Gemma), so that one more input stays.
    """
    arena = _Arena()
    width = blocks[0].widths["embedding"]
    # The embeddings of tokens and pictures are mixed here; one of the inputs is read to the very end.
    for name in ("tokens", "embedding"):
        arena.take(name, width)
    arena.take("positions", positions)
    for name in ("mixed", "kept", "pictures"):
        arena.take(name, width)
    arena.free("tokens")
    if not scaled:
        arena.free("mixed")
    for index, block in enumerate(blocks):
        _attention(arena, block, first=index == 0)
        _forward(arena, block)
    return arena.peak


def _multiply(arena: _Arena, block: DenseBlock, weight: str, result: str, size: int) -> None:
    name = f"{weight}.weight"
    arena.want(name, block.weights[name])
    arena.take(result, size)
    arena.free(name)


def _in_place(arena: _Arena, block: DenseBlock, name: str) -> None:
    if name in block.weights:
        arena.take(name, block.weights[name])
        arena.free(name)


def _attention(arena: _Arena, block: DenseBlock, *, first: bool) -> None:
    sizes = block.widths
    arena.take("norm", sizes["embedding"])
    _in_place(arena, block, "attn_norm.weight")
    for letter, result in (("q", "query"), ("k", "key"), ("v", "value")):
        _multiply(arena, block, f"attn_{letter}", result, sizes[result])
        if result == "value":
            arena.free("norm")
        _in_place(arena, block, f"attn_{letter}.bias")
        _in_place(arena, block, f"attn_{letter}_norm.weight")
        if result == "key":
            arena.take("rotated", sizes[result])
            arena.free("key")
            arena.rename("rotated", "key")
    if first:
        arena.free("pictures")
    arena.free("key")  # they go to the cache in RAM
    arena.free("value")
    arena.want("K", block.key)
    arena.want("V", block.value)
    arena.want(*block.mask)
    arena.take("attended", sizes["query"])
    for name in ("query", "K", "V"):
        arena.free(name)
    arena.take("joined", sizes["query"])
    arena.free("attended")
    _multiply(arena, block, "attn_output", "sum", sizes["embedding"])
    arena.free("joined")
    _in_place(arena, block, "post_attention_norm.weight")
    arena.free("embedding")
    arena.rename("sum", "embedding")


def _forward(arena: _Arena, block: DenseBlock) -> None:
    sizes = block.widths
    arena.take("norm", sizes["embedding"])
    _in_place(arena, block, "ffn_norm.weight")
    for name in ("up", "gate"):
        _multiply(arena, block, f"ffn_{name}", name, sizes["forward"])
    arena.free("norm")
    arena.take("product", sizes["forward"])
    arena.free("gate")
    arena.free("up")
    _multiply(arena, block, "ffn_down", "sum", sizes["embedding"])
    arena.free("product")
    _in_place(arena, block, "post_ffw_norm.weight")
    arena.free("embedding")
    arena.rename("sum", "embedding")
