"""The compute buffers: closed forms of what ggml's allocator makes of llama.cpp's graphs (b11549).

Between builds since June 2026 they move by no more than two embeddings of a ubatch; before that the
server reserved logits for the whole ubatch (`Settings.legacy_logits`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmctl.core.memory.cache import Cells, cache_type, kv_bytes
from llmctl.core.memory.facts import Device, Provenance, Settings, Term
from llmctl.core.memory.model import Model
from llmctl.core.memory.offload import DenseBlock, replay
from llmctl.core.memory.placement import HOST, Placement

F32, F16 = 4, 2
COPIES = 3  # of the inputs, beside the first, when several GPUs work as a pipeline
INPUTS = 4  # embeddings' worth of inputs: tokens, pictures, and both mixed
UNKNOWN = 1.25  # what an unknown architecture's graph may take beyond the generic one
COPIED = 1.25  # bound for weights that are copied to the GPU, in the largest tensor's bytes


@dataclass(frozen=True)
class Sizes:
    """Bytes that recur in the formulas.

    Attributes:
        column: One f32 number for each token of a ubatch.
        mask: The masks of all kinds of blocks together.
        cache_copy: Of one K cache in f32, which is made without flash attention; summed over the kinds.
        masks: The mask of each kind of attention in use.
        outputs: Tokens whose logits are kept.
        flash: Whether flash attention is on.
    """

    column: int
    mask: int
    cache_copy: int
    masks: Mapping[str, int]
    outputs: int
    flash: bool


def sizes_of(model: Model, settings: Settings, cells: Cells) -> Sizes:
    """The recurring sizes for effective settings."""
    flash = settings.flash_attention == "on"
    each = F16 if flash else F32
    blocks = model.layout.blocks
    count = {"full": cells.full, "window": cells.window}
    masks = {
        kind: settings.ubatch * each * cells
        for kind, cells in count.items()
        if any(block.attention == kind for block in blocks)
    }
    widest = max((block.key for block in blocks), default=0)
    return Sizes(
        column=F32 * settings.ubatch,
        mask=sum(masks.values()),
        cache_copy=0 if flash else len(masks) * 8 * widest * settings.ubatch,
        masks=masks,
        outputs=settings.ubatch if settings.legacy_logits else settings.parallel,
        flash=flash,
    )


def compute_terms(
    model: Model, settings: Settings, cells: Cells, placed: Placement, gpus: Sequence[Device]
) -> tuple[tuple[Term, ...], Term]:
    """The compute buffer of each GPU, and the host's."""
    sizes = sizes_of(model, settings, cells)
    known = model.layout.known
    how: Provenance = "closed form" if known else "margin"
    factor = 1.0 if known else UNKNOWN
    on_gpu = []
    for index, gpu in enumerate(gpus):
        size, bound = _on_gpu(model, settings, cells, sizes, placed, index)
        if gpu.backend == "cuda":
            size += cuda_copies(model, settings, cells, placed, index)
        on_gpu.append(Term(int(size * factor), "margin" if bound else how))
    host = _on_host(model, sizes, placed)
    return tuple(on_gpu), Term(int(host * factor), how)


def output_bytes(model: Model, settings: Settings) -> int:
    """The logits that are handed out, in RAM (pinned when there is a GPU)."""
    return F32 * model.vocabulary * settings.parallel


def _whole(model: Model, sizes: Sizes, mask: int) -> int:
    """The buffer of one device that computes everything."""
    return max(
        mask + _block(model, sizes),
        mask + F32 * sizes.outputs * model.vocabulary + sizes.column * model.layout.width * INPUTS,
    )


def _block(model: Model, sizes: Sizes) -> int:
    """The largest intermediate results within a block, without the masks."""
    layout = model.layout
    query = layout.heads * layout.key_length
    forward = sizes.column * (_forward_width(model) + INPUTS * layout.width)
    if sizes.flash or not sizes.masks:
        attention = sizes.column * (5 * layout.width + 2 * query)
        return max(forward, attention if query else 0)
    longest = max(sizes.masks.values()) // (F32 * (sizes.column // F32))
    normed = any("attn_q_norm.weight" in block.sizes for block in model.blocks)
    scores = (3 + normed) * layout.width + 2 * query + longest * layout.heads
    return max(forward, sizes.column * scores + sizes.cache_copy)


def _forward_width(model: Model) -> int:
    layout = model.layout
    if layout.experts_used and layout.expert_width:
        used = layout.experts_used
        expert = max(2 * used * layout.width + 2 * layout.width, 3 * used * layout.expert_width)
        return max(expert * 26 // 25, 3 * layout.feed_forward if _has_dense(model) else 0)
    if not layout.heads:
        return max(3 * layout.feed_forward, 8 * layout.width)  # not measured
    return 3 * layout.feed_forward


def _has_dense(model: Model) -> bool:
    return any("ffn_up.weight" in block.sizes for block in model.blocks)


def _on_gpu(
    model: Model, settings: Settings, cells: Cells, sizes: Sizes, placed: Placement, gpu: int
) -> tuple[int, bool]:
    """One GPU's buffer, and whether it is a bound rather than a replay or a closed form."""
    whole = _whole(model, sizes, sizes.mask)
    if placed.pipeline:
        return whole + _pipelined(model, sizes, first=gpu == 0), False
    if placed.full and not placed.experts_kept:
        return whole, False
    if gpu > 0:
        return _later_gpu(model, sizes, placed, gpu), False
    return _first_gpu(model, settings, cells, sizes, placed, whole)


def _pipelined(model: Model, sizes: Sizes, *, first: bool) -> int:
    layout = model.layout
    query = max(0, layout.heads * layout.key_length - layout.width)
    widths = COPIES * INPUTS * layout.width if first else 7 * layout.width
    return COPIES * sizes.mask + sizes.column * (widths + query)


def _later_gpu(model: Model, sizes: Sizes, placed: Placement, gpu: int) -> int:
    """A further GPU when a part stays in RAM: weights are copied to the first one only."""
    own = placed.on(gpu)
    if not own and placed.head != gpu:
        return 0
    kinds = {model.layout.blocks[index].attention for index in own}
    mask = sum(size for kind, size in sizes.masks.items() if kind in kinds)
    last = len(model.blocks) - 1
    if all(index == last for index in own):
        # Only the tokens whose logits are kept go through the last feed-forward.
        logits = F32 * sizes.outputs * model.vocabulary
        return mask + sizes.column * INPUTS * model.layout.width + logits
    return _whole(model, sizes, mask) - sizes.column * 2 * model.layout.width


def _first_gpu(
    model: Model, settings: Settings, cells: Cells, sizes: Sizes, placed: Placement, whole: int
) -> tuple[int, bool]:
    """The GPU that RAM's weights are copied to, and the caches that lie beside them."""
    if HOST not in placed.blocks and not placed.experts_kept:
        return whole, False
    copied = int(COPIED * max(block.largest for block in model.blocks))
    if sizes.outputs >= 32 and placed.head == HOST:  # noqa: PLR2004 - from there on the copy pays
        copied = max(copied, model.head.largest or model.tied)
    key, value = cache_type(settings.cache_type_k), cache_type(settings.cache_type_v)
    cache = max(
        (
            kv_bytes(model.layout.blocks[index], cells, key, value, gpu=False)
            for index in placed.on(HOST)
        ),
        default=0,
    )
    bound = whole + copied + cache
    if not sizes.flash or placed.experts_kept or settings.legacy_logits:
        return bound, True
    shown = _dense_blocks(model, settings, cells, sizes, placed)
    if not shown or not all(block.replayed for block in shown):
        return bound, True
    scaled = model.layout.architecture.startswith("gemma")
    return max(whole, replay(shown, sizes.column, scaled=scaled)), False


def _dense_blocks(
    model: Model, settings: Settings, cells: Cells, sizes: Sizes, placed: Placement
) -> list[DenseBlock]:
    """The blocks in RAM whose replay reaches the peak: one period of windows, and two more."""
    layout = model.layout
    kinds = [block.attention for block in layout.blocks]
    inside = [index for index, device in enumerate(placed.blocks) if device == HOST]
    period = (kinds.index("full") + 1 if "window" in kinds and "full" in kinds else 0) + 2
    key, value = cache_type(settings.cache_type_k), cache_type(settings.cache_type_v)
    column = sizes.column
    blocks = []
    for index in inside[:period]:
        block = layout.blocks[index]
        if block.attention == "none":
            return []
        blocks.append(
            DenseBlock(
                weights=model.blocks[index].sizes,
                key=kv_bytes(replace(block, value=0), cells, key, value, gpu=False),
                value=kv_bytes(replace(block, key=0), cells, key, value, gpu=False),
                mask=(f"mask {block.attention}", sizes.masks[block.attention]),
                widths={
                    "embedding": layout.width * column,
                    "query": layout.heads * layout.key_length * column,
                    "key": block.key * column,
                    "value": block.value * column,
                    "forward": layout.feed_forward * column,
                },
            )
        )
    return blocks


def _on_host(model: Model, sizes: Sizes, placed: Placement) -> int:
    width = model.layout.width * sizes.column
    if placed.gpus == 0:
        return _whole(model, sizes, sizes.mask) + width
    inputs = INPUTS * width + sizes.mask + sizes.cache_copy
    return inputs + COPIES * (sizes.mask + 2 * width) if placed.pipeline else inputs


def cuda_copies(
    model: Model, settings: Settings, cells: Cells, placed: Placement, index: int
) -> int:
    """CUDA's flash attention reads f16: it unpacks one block's quantised cache at a time."""
    if settings.flash_attention != "on":
        return 0
    largest = 0
    for number in placed.on(index):
        block = model.layout.blocks[number]
        count = (cells.window if block.attention == "window" else cells.full) * cells.streams
        quantised = [
            width
            for width, name in (
                (block.key, settings.cache_type_k),
                (block.value, settings.cache_type_v),
            )
            if cache_type(name).quantised
        ]
        largest = max(largest, F16 * count * sum(quantised))
    return largest
