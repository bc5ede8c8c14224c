"""What was fixed of the engine's settings, and what they are where nobody chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

ALL_LAYERS = 999
BATCH = 512  # LocalAI's own default, for n_batch and n_ubatch alike
CACHE_RAM_MIB = 2048  # LocalAI itself sets no limit


@dataclass(frozen=True)
class EngineSettings:
    """What a model's engine is given, in the terms and units of the stack file.

    Attributes:
        context: Tokens of context, over all slots.
        threads: CPU threads.
        gpu_layers: llama.cpp's count, the output head as one; ALL_LAYERS for all.
        parallel: Slots.
        batch: Logical batch, tokens.
        ubatch: Physical batch, tokens.
        flash_attention: "auto", "on" or "off".
        cache_type_k: Type of the K cache.
        cache_type_v: Type of the V cache.
        tensor_split: Shares of the GPUs, () to divide by free memory.
        kv_unified: One cache for all slots.
        image_max_tokens: Most tokens of one picture, None for the model's own limit.
        projector_on_gpu: The projector lies on the GPU.
        experts_on_cpu: Blocks whose experts stay in RAM.
        cache_ram: MiB of RAM for the prompt cache, -1 without limit.
        ctx_checkpoints: Saved states per slot.
        mmap: Weights are mapped from the file.
    """

    context: int
    threads: int
    gpu_layers: int
    parallel: int = 1
    batch: int = BATCH
    ubatch: int = BATCH
    flash_attention: str = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    tensor_split: tuple[float, ...] = ()
    kv_unified: bool = True
    image_max_tokens: int | None = None
    projector_on_gpu: bool = True
    experts_on_cpu: int = 0
    cache_ram: int = CACHE_RAM_MIB
    ctx_checkpoints: int = 32
    mmap: bool = True


INSISTED = ("context", "parallel")


@dataclass(frozen=True)
class Tuning:
    """The engine's settings that somebody fixed; None where llmctl chooses.

    Attributes:
        batch: Logical batch, tokens.
        ubatch: Physical batch, tokens.
        cache_type_k: Type of the K cache.
        cache_type_v: Type of the V cache.
        flash_attention: "on" or "off".
        tensor_split: Shares of the GPUs.
        kv_unified: One cache for all slots.
        image_max_tokens: Most tokens of one picture.
        projector_on_gpu: The projector lies on the GPU.
        experts_on_cpu: Blocks whose experts stay in RAM.
        cache_ram: MiB of RAM for the prompt cache, -1 without limit.
        ctx_checkpoints: Saved states per slot.
        legacy_logits: The engine is older than June 2026; only `fit` asks for it.
        insisted: "context" and "parallel", where somebody said them: they are not reduced then.
    """

    batch: int | None = None
    ubatch: int | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: Literal["on", "off"] | None = None
    tensor_split: tuple[float, ...] | None = None
    kv_unified: bool | None = None
    image_max_tokens: int | None = None
    projector_on_gpu: bool | None = None
    experts_on_cpu: int | None = None
    cache_ram: int | None = None
    ctx_checkpoints: int | None = None
    legacy_logits: bool | None = None
    insisted: tuple[str, ...] = ()

    @property
    def fixed(self) -> frozenset[str]:
        """Names of the settings that are not ours to choose."""
        said = (f.name for f in fields(self) if f.name != "insisted")
        return frozenset((*self.insisted, *(n for n in said if getattr(self, n) is not None)))

    def settings(
        self, *, context: int, parallel: int, threads: int, gpu_layers: int, mmap: bool = True
    ) -> EngineSettings:
        """These settings, with everything that is not fixed at its default."""
        known = {each.name for each in fields(EngineSettings)}
        fixed: dict[str, Any] = {n: getattr(self, n) for n in self.fixed & known - set(INSISTED)}
        fixed.setdefault("ubatch", min(BATCH, fixed.get("batch", BATCH)))
        return EngineSettings(context, threads, gpu_layers, parallel, mmap=mmap, **fixed)


@dataclass(frozen=True)
class Settled:
    """What a model's engine is given, as it is kept.

    Attributes:
        key: Digest of what the choice rests on.
        settings: As chosen.
        reasons: Setting and sentence, for what was chosen.
        taken: Bytes it takes of each device, by the device's name: the reserve included, and the RAM
            that grows while serving.
        terms: What the engine itself is to hold: bytes by device and term, the host last.
        subject: Whose measurements count for it: these files, this build of the engine, these GPUs.
        fits: Whether it may be started.
        forced: It may not, and somebody wanted it nevertheless.
        fresh: It was made just now.
    """

    key: str
    settings: EngineSettings
    reasons: tuple[tuple[str, str], ...]
    taken: Mapping[str, int]
    terms: Mapping[str, Mapping[str, int]]
    subject: str
    fits: bool
    forced: bool = False
    fresh: bool = field(default=False, compare=False)
