"""What a memory plan is made from and what it says. Bytes and tokens are ints."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Provenance = Literal["exact", "closed form", "margin"]
Backend = Literal["cuda", "rocm", "vulkan", "metal", "sycl", "cpu", "any"]
FlashAttention = Literal["auto", "on", "off"]

CHECKPOINTS, PROMPT_CACHE, REPACKED = "context checkpoints", "prompt cache", "repacked weights"
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """Where a part of the model can lie.

    Attributes:
        name: How the user calls it.
        kind: A GPU, or the host's RAM.
        total: Bytes it has.
        free: Bytes that nobody else holds.
        backend: What llama.cpp drives it with; decides which scratch memory is added. "any" is a GPU
            of which only the size is known: what one of the backends would add is its reserve's.
        shared: A GPU whose memory is the host's RAM: both together get one budget.
    """

    name: str
    kind: Literal["gpu", "host"]
    total: int
    free: int
    backend: Backend
    shared: bool = False


@dataclass(frozen=True)
class Settings:
    """What the engine is given, as far as it changes memory.

    Attributes:
        context: Tokens of context, over all slots.
        parallel: Slots.
        batch: Logical batch, tokens.
        ubatch: Physical batch, tokens: what the compute buffers are sized for.
        gpu_layers: llama.cpp's count: the output head first, then blocks from the last; None for all.
        flash_attention: As llama.cpp takes it; in an `Estimate` it is on or off.
        cache_type_k: Type of the K cache.
        cache_type_v: Type of the V cache; a quantised one needs flash attention.
        kv_unified: One cache for all slots, rather than one each.
        tensor_split: Shares of the GPUs; () for their free memory.
        image_max_tokens: Most tokens a picture may take, for projectors that take any size.
        projector_on_gpu: On the first GPU rather than in RAM.
        experts_on_cpu: Blocks from the first one whose experts stay in RAM; True for all of them.
        legacy_logits: The engine is older than June 2026 (llama.cpp b9538): it reserves logits for the
            whole physical batch.
        mmap: Weights are mapped from the file.
        cache_ram: Bytes of RAM for the prompt cache; None for the engine's default, -1 without limit.
        swa_full: Full-size caches for sliding-window layers.
        context_checkpoints: Saved states per slot, kept by models with a window or a recurrent state.
    """

    context: int
    parallel: int = 1
    batch: int = 512
    ubatch: int = 512
    gpu_layers: int | None = None
    flash_attention: FlashAttention = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    kv_unified: bool = True
    tensor_split: tuple[float, ...] = ()
    image_max_tokens: int | None = None
    projector_on_gpu: bool = True
    experts_on_cpu: int | bool = False
    legacy_logits: bool = False
    mmap: bool = True
    cache_ram: int | None = None
    swa_full: bool = False
    context_checkpoints: int = 32


@dataclass(frozen=True)
class Term:
    """Some bytes, and how well they are known.

    Attributes:
        bytes: How many.
        provenance: "exact" equals llama.cpp byte for byte; "closed form" follows its graph within a few
            percent; "margin" is room for what cannot be computed.
    """

    bytes: int
    provenance: Provenance


@dataclass(frozen=True)
class DeviceMemory:
    """What one device holds; `fits` also counts what shares its memory."""

    device: Device
    weights: Term
    kv_cache: Term
    state: Term
    compute: Term
    output: Term
    projector_weights: Term
    projector_compute: Term
    reserve: Term
    fits: bool

    @property
    def terms(self) -> dict[str, Term]:
        """The terms by name, in the order of the fields."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: term for name, term in every.items() if isinstance(term, Term)}

    @property
    def total(self) -> int:
        """Sum of the terms, bytes."""
        return sum(term.bytes for term in self.terms.values())

    @property
    def engine_total(self) -> int:
        """What llama.cpp itself allocates: the total without our reserve."""
        return self.total - self.reserve.bytes


@dataclass(frozen=True)
class Estimate:
    """What a model takes with these settings on these devices.

    Attributes:
        devices: GPUs in the order they were given, the host last.
        settings: As they become effective: context padded, batch capped, flash attention resolved,
            layers counted.
        cells: Cells of the KV cache per stream.
        layers: Layers that could be offloaded: the blocks and the output head.
        known_architecture: False when the generic formula was used, with a wider margin.
        notes: What the reader should know, a sentence each.
        host_hidden: RAM beside the buffers: "context checkpoints" and "prompt cache" grow while
            serving; "repacked weights" lie beside the mapped file, whose pages the kernel can take
            back, so they do not count against what is free.
        picture_tokens: What one picture takes of the context at most; None without a projector.
        fits: On every device, hidden RAM included.
    """

    devices: tuple[DeviceMemory, ...]
    settings: Settings
    cells: int
    layers: int
    known_architecture: bool
    notes: tuple[str, ...]
    host_hidden: dict[str, Term]
    picture_tokens: int | None
    fits: bool

    @property
    def gpus(self) -> tuple[DeviceMemory, ...]:
        """Without the host."""
        return self.devices[:-1]

    @property
    def host(self) -> DeviceMemory:
        """The host's RAM."""
        return self.devices[-1]

    @property
    def gpu_total(self) -> int:
        """Bytes on all GPUs, reserves included."""
        return sum(memory.total for memory in self.gpus)

    @property
    def missing(self) -> int:
        """Bytes by which the fullest device exceeds what is free, 0 when everything fits."""
        over = [memory.total - memory.device.free for memory in self.gpus]
        shared = sum(memory.total for memory in self.gpus if memory.device.shared)
        host = self.host.total + shared + self.growth - self.host.device.free
        return max(0, host, *over)

    @property
    def growth(self) -> int:
        """Bytes of hidden RAM that are taken for good while serving."""
        return sum(term.bytes for name, term in self.host_hidden.items() if name != REPACKED)


def padded(value: int, step: int) -> int:
    """`value` rounded up to a multiple of `step`."""
    return -(-value // step) * step
