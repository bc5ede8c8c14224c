"""Settings chosen from the memory plan, each with its reason.

What is given up, in this order, until everything fits: slots, then context, down to the user's
minimum; the cache's precision, where that really saves; the physical batch; the size of pictures; the
projector's place on the GPU; experts' places; layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from llmctl.core.memory.cache import CELLS_STEP
from llmctl.core.memory.estimate import estimate
from llmctl.core.memory.facts import CHECKPOINTS, GIB, MIB, Device, DeviceMemory, Estimate, Settings
from llmctl.core.memory.model import Model
from llmctl.core.memory.projector import Projector
from llmctl.core.memory.reasons import Asked, Decision, decisions
from llmctl.errors import ConfigError

SMALL_UBATCH = 256
PICTURE_TOKENS = (
    1024  # enough to read a page; a projector of any size would take four times as many
)
SMALLER_PICTURES = (512, 256)
MOST_CACHE_RAM = 8 * GIB  # llama.cpp's own default
MOST_CHECKPOINTS = 32
THREADS_WHEN_OFFLOADED = 8  # more only wait for the GPU
SPLIT_ROUNDS = 6


@dataclass(frozen=True)
class Wanted:
    """What the user asks for.

    Attributes:
        context: Tokens over all slots.
        parallel: Slots.
        minimum_context: What may be left of it; None for all of it.
        minimum_parallel: Fewest slots; None for all of them.
        fixed: Fields of `Settings` that must stay as they are given here.
        physical_cores: Within the cpuset and quota; None leaves `threads` unset.
    """

    context: int
    parallel: int = 1
    minimum_context: int | None = None
    minimum_parallel: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    physical_cores: int | None = None


@dataclass(frozen=True)
class Chosen:
    """The outcome.

    Attributes:
        settings: What to give the engine, explicit throughout.
        estimate: What that takes.
        threads: CPU threads, None when the cores are not known.
        decisions: Every setting with its reason.
        fits: False when even the least does not fit; `estimate` then says what that takes.
    """

    settings: Settings
    estimate: Estimate
    threads: int | None
    decisions: tuple[Decision, ...]
    fits: bool

    @property
    def reasons(self) -> tuple[str, ...]:
        """The decisions' sentences."""
        return tuple(decision.reason for decision in self.decisions)


def choose(
    model: Model,
    devices: Sequence[Device],
    wanted: Wanted,
    projector: Projector | None = None,
) -> Chosen:
    """The settings for a model on a machine.

    Raises:
        ConfigError: something fixed does not exist or would be refused by llama.cpp.
    """
    search = _Search(model, tuple(devices), wanted, projector)
    found = next((answer for answer in search.attempts() if answer.fits), None)
    answer = search.with_ram(found or search.last)
    threads = _threads(answer, wanted)
    return Chosen(
        settings=answer.settings,
        estimate=answer,
        threads=threads,
        decisions=tuple(decisions(answer, search.asked, search.why, threads)),
        fits=answer.fits,
    )


class _Search:
    """Gives up one thing after the other."""

    def __init__(
        self,
        model: Model,
        devices: tuple[Device, ...],
        wanted: Wanted,
        projector: Projector | None,
    ) -> None:
        names = {each.name for each in fields(Settings)}
        unknown = sorted(wanted.fixed.keys() - names)
        if unknown:
            raise ConfigError(f"no such setting: {', '.join(unknown)}")
        self.model, self.devices, self.wanted, self.projector = model, devices, wanted, projector
        self.gpus = tuple(device for device in devices if device.kind == "gpu")
        self.why: dict[str, str] = {}
        pictures = None
        if projector is not None and projector.any_size:
            pictures = min(PICTURE_TOKENS, projector.most_tokens)
        base = Settings(
            context=wanted.context,
            parallel=wanted.parallel,
            gpu_layers=None if self.gpus else 0,
            image_max_tokens=pictures,
            projector_on_gpu=bool(self.gpus),
            context_checkpoints=0,
        )
        self.now = replace(base, **wanted.fixed)
        self.least_context = self._least("context", wanted.minimum_context)
        self.least_parallel = self._least("parallel", wanted.minimum_parallel)
        self.last = self.estimate(self.now)

    @property
    def asked(self) -> Asked:
        """What the reasons refer to."""
        return Asked(
            self.wanted.context,
            self.wanted.parallel,
            frozenset(self.wanted.fixed),
            any_size=self.projector is not None and self.projector.any_size,
            projector=self.projector is not None,
            experts=self.model.has_experts,
        )

    def free(self, setting: str) -> bool:
        """Whether the user leaves it to us."""
        return setting not in self.wanted.fixed

    def attempts(self) -> Iterator[Estimate]:
        """One estimate after each thing that is given up; the caller stops at the first that fits."""
        yield self._largest()
        for step in (
            self._quantise_cache,
            self._shrink_ubatch,
            self._shrink_pictures,
            self._move_projector,
            self._keep_experts,
            self._keep_layers,
        ):
            yield from step()

    def estimate(self, settings: Settings) -> Estimate:
        """The estimate, with the split over several GPUs that fits best."""
        answer = estimate(self.model, settings, self.devices, self.projector)
        if len(self.gpus) < 2 or not self.free("tensor_split"):  # noqa: PLR2004
            return answer
        shares = [_share(memory.device, memory.total - _movable(memory)) for memory in answer.gpus]
        best = answer
        for _ in range(SPLIT_ROUNDS):
            if not any(shares):
                break
            split = replace(settings, tensor_split=tuple(float(share) for share in shares))
            answer = estimate(self.model, split, self.devices, self.projector)
            first = not best.settings.tensor_split
            if first or answer.fits or _lacking(answer) < _lacking(best):
                best = answer
            if _on_gpus(answer):
                break
            shares = [
                max(0, share - max(0, memory.total - memory.device.free) // MIB)
                for share, memory in zip(shares, answer.gpus, strict=True)
            ]
        return best

    def with_ram(self, answer: Estimate) -> Estimate:
        """The same with what RAM is left given to checkpoints and the prompt cache."""
        settings = answer.settings
        left = _ram_left(answer)
        if self.free("context_checkpoints"):
            one = estimate(
                self.model,
                replace(settings, context_checkpoints=1),
                self.devices,
                self.projector,
            ).host_hidden[CHECKPOINTS]
            count = min(MOST_CHECKPOINTS, left // 2 // one.bytes) if one.bytes else MOST_CHECKPOINTS
            settings = replace(settings, context_checkpoints=max(0, count))
            left -= settings.context_checkpoints * one.bytes
        if self.free("cache_ram"):
            room = max(0, min(MOST_CACHE_RAM, left // 2)) // MIB * MIB
            settings = replace(settings, cache_ram=room)
        return estimate(self.model, settings, self.devices, self.projector)

    def _least(self, setting: str, minimum: int | None) -> int:
        value = int(getattr(self.now, setting))
        return value if minimum is None or not self.free(setting) else min(minimum, value)

    def _try(self, settings: Settings) -> Estimate:
        self.last = self.estimate(settings)
        return self.last

    def _at_least(self, **changes: Any) -> Settings:
        return replace(
            self.now, context=self.least_context, parallel=self.least_parallel, **changes
        )

    def _largest(self) -> Estimate:
        """The most slots, then the most context, that fit as things stand."""
        for parallel in range(self.now.parallel, self.least_parallel - 1, -1):
            answer = self._try(replace(self.now, parallel=parallel))
            if answer.fits:
                return answer
        least = self._try(self._at_least())
        if not least.fits:
            return least
        low, high = self.least_context // CELLS_STEP, self.now.context // CELLS_STEP
        best = _last_that_fits(
            low,
            high,
            lambda step: self.estimate(self._at_least() if step == low else self._with(step)),
        )
        return best or least

    def _with(self, step: int) -> Settings:
        return replace(self.now, context=step * CELLS_STEP, parallel=self.least_parallel)

    def _quantise_cache(self) -> Iterator[Estimate]:
        free = self.free("cache_type_k") and self.free("cache_type_v")
        if not free or self.now.flash_attention == "off":
            return
        smaller = replace(self.now, cache_type_k="q8_0", cache_type_v="q8_0")
        before = self.estimate(self._at_least())
        after = self.estimate(self._at_least(cache_type_k="q8_0", cache_type_v="q8_0"))
        saved = _sum(before) - _sum(after)
        if saved <= 0:
            self.why["cache_type"] = (
                f"the cache stays f16: q8_0 would take {-saved // MIB} MiB more, for the f16 copies"
                " that CUDA makes of it"
            )
            return
        self.now = smaller
        self.why["cache_type"] = f"a q8_0 cache saves {saved // MIB} MiB, and f16 does not fit"
        yield self._largest()

    def _shrink_ubatch(self) -> Iterator[Estimate]:
        if self.free("ubatch") and self.now.ubatch > SMALL_UBATCH:
            self.now = replace(self.now, ubatch=SMALL_UBATCH)
            self.why["ubatch"] = (
                f"{SMALL_UBATCH} tokens at a time: smaller compute buffers, prompts are read slower"
            )
            yield self._largest()

    def _shrink_pictures(self) -> Iterator[Estimate]:
        if self.projector is None or not self.projector.any_size:
            return
        for tokens in SMALLER_PICTURES:
            if self.free("image_max_tokens") and (self.now.image_max_tokens or 0) > tokens:
                self.now = replace(self.now, image_max_tokens=tokens)
                self.why["image_max_tokens"] = (
                    f"pictures are limited to {tokens} tokens, so that the projector's buffers fit"
                )
                yield self._largest()

    def _move_projector(self) -> Iterator[Estimate]:
        if self.projector and self.now.projector_on_gpu and self.free("projector_on_gpu"):
            self.now = replace(self.now, projector_on_gpu=False)
            self.why["projector_on_gpu"] = (
                "the projector works in RAM: the model's layers gain more from the GPU than it does"
            )
            yield self._largest()

    def _keep_experts(self) -> Iterator[Estimate]:
        if not (self.gpus and self.model.has_experts and self.free("experts_on_cpu")):
            return
        count = len(self.model.blocks)
        fewer = _last_that_fits(
            0,
            count,
            lambda step: self.estimate(self._at_least(experts_on_cpu=count - step)),
            _on_gpus,
        )
        kept = count if fewer is None else int(fewer.settings.experts_on_cpu)
        self.now = replace(self.now, experts_on_cpu=kept)
        self.why["experts_on_cpu"] = (
            f"the experts of {kept} of {count} blocks stay in RAM; attention stays on the GPU"
        )
        yield self._largest()

    def _keep_layers(self) -> Iterator[Estimate]:
        if not (self.gpus and self.free("gpu_layers")):
            return
        # What does not go to the GPUs has to go into RAM: as much as they take is best for both.
        # A shorter context did not bring them all there, so it is not given up for a layer or two.
        answer = _last_that_fits(
            0,
            self.model.layers,
            lambda step: self.estimate(replace(self.now, gpu_layers=step)),
            _on_gpus,
        ) or _last_that_fits(
            0,
            self.model.layers,
            lambda step: self.estimate(self._at_least(gpu_layers=step)),
            _on_gpus,
        )
        self.last = answer or self.estimate(self._at_least(gpu_layers=0))
        if answer:
            self.why["gpu_layers"] = (
                f"{answer.settings.gpu_layers} of {answer.layers} layers fit the GPU; the rest is"
                " computed on the CPU"
            )
        yield self.last


def _everywhere(answer: Estimate) -> bool:
    return answer.fits


def _on_gpus(answer: Estimate) -> bool:
    return all(memory.fits for memory in answer.gpus)


def _lacking(answer: Estimate) -> int:
    """Bytes by which the fullest GPU is too full."""
    return max((0, *(memory.total - memory.device.free for memory in answer.gpus)))


def _last_that_fits(
    low: int,
    high: int,
    tried: Callable[[int], Estimate],
    fits: Callable[[Estimate], bool] = _everywhere,
) -> Estimate | None:
    """The estimate of the largest step within bounds that fits, by bisection: memory only grows."""
    best = tried(low)
    if not fits(best):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        answer = tried(middle)
        if fits(answer):
            low, best = middle, answer
        else:
            high = middle - 1
    return best


def _movable(memory: DeviceMemory) -> int:
    return memory.weights.bytes + memory.kv_cache.bytes + memory.state.bytes


def _share(device: Device, fixed: int) -> int:
    """MiB a GPU has for layers."""
    return max(0, device.free - fixed) // MIB


def _sum(answer: Estimate) -> int:
    return sum(memory.total for memory in (answer.gpus or answer.devices))


def _ram_left(answer: Estimate) -> int:
    shared = sum(memory.total for memory in answer.gpus if memory.device.shared)
    return answer.host.device.free - answer.host.total - shared - answer.growth


def _threads(answer: Estimate, wanted: Wanted) -> int | None:
    if wanted.physical_cores is None:
        return None
    offloaded = answer.settings.gpu_layers == answer.layers and not answer.settings.experts_on_cpu
    return (
        min(wanted.physical_cores, THREADS_WHEN_OFFLOADED) if offloaded else wanted.physical_cores
    )
