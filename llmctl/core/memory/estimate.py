"""The estimate: what each device holds of a model with given settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmctl.core.memory.cache import (
    CELLS_STEP,
    Cells,
    cache_type,
    cells_of,
    checkpoint_bytes,
    kv_bytes,
    state_bytes,
)
from llmctl.core.memory.compute import compute_terms, cuda_copies, output_bytes
from llmctl.core.memory.facts import (
    CHECKPOINTS,
    MIB,
    PROMPT_CACHE,
    REPACKED,
    Device,
    DeviceMemory,
    Estimate,
    Provenance,
    Settings,
    Term,
    padded,
)
from llmctl.core.memory.model import GPU_ALIGNMENT, Model
from llmctl.core.memory.placement import HOST, Placement, place
from llmctl.core.memory.projector import Projector
from llmctl.errors import ConfigError

LEAST_RESERVE = 512 * MIB  # a GPU's context, libraries and graphs: 107 to 555 MiB were measured
RESERVE_SHARE = 0.03
UNKNOWN_RESERVE = 2  # times as much for an architecture whose graph is not known
HOST_RESERVE = 200 * MIB  # the server process itself
MOST_CONTEXT = 1 << 26
MOST_SLOTS = 1 << 12
MOST_BATCH = 1 << 20

_NOTHING = Term(0, "exact")


def estimate(
    model: Model,
    settings: Settings,
    devices: Sequence[Device],
    projector: Projector | None = None,
) -> Estimate:
    """What `model` takes on `devices`.

    Args:
        model: The language model.
        settings: What the engine would be given.
        devices: Any number of GPUs, and exactly one host.
        projector: The vision encoder beside the model.

    Raises:
        ConfigError: settings that llama.cpp would refuse, or shares that do not go with the GPUs.
    """
    gpus = tuple(device for device in devices if device.kind == "gpu")
    hosts = [device for device in devices if device.kind == "host"]
    if len(hosts) != 1:
        raise ConfigError(f"an estimate needs one host, not {len(hosts)}")
    effective = effective_settings(model, settings)
    cells = cells_of(model.layout, effective)
    placed = place(model, effective, gpus)
    parts = _Parts(model, effective, cells, placed, projector)
    gpu_compute, host_compute = compute_terms(model, effective, cells, placed, gpus)
    on_devices = [
        parts.on_gpu(index, gpu, compute)
        for index, (gpu, compute) in enumerate(zip(gpus, gpu_compute, strict=True))
    ]
    on_devices.append(parts.on_host(hosts[0], host_compute))
    answer = Estimate(
        devices=tuple(on_devices),
        settings=replace(
            effective, gpu_layers=sum(at != HOST for at in (*placed.blocks, placed.head))
        ),
        cells=cells.full,
        layers=model.layers,
        known_architecture=model.layout.known,
        notes=_notes(model, settings, effective, projector),
        host_hidden=_hidden(model, effective, cells, placed),
        picture_tokens=projector.picture_tokens(effective.image_max_tokens) if projector else None,
        fits=False,
    )
    return _with_fits(answer)


def effective_settings(model: Model, settings: Settings) -> Settings:
    """The settings as llama.cpp applies them.

    Raises:
        ConfigError: it would refuse them.
    """
    for name, value, most in (
        ("context", settings.context, MOST_CONTEXT),
        ("parallel", settings.parallel, MOST_SLOTS),
        ("batch", settings.batch, MOST_BATCH),
        ("ubatch", settings.ubatch, MOST_BATCH),
    ):
        if not 1 <= value <= most:
            raise ConfigError(f"{name} is {value}; expected 1 to {most}")
    cache_type(settings.cache_type_k)
    quantised = cache_type(settings.cache_type_v).quantised
    flash = "on" if settings.flash_attention == "auto" else settings.flash_attention
    if model.layout.heads == 0:
        flash = "off"
    elif quantised and flash == "off":
        raise ConfigError(
            f"a {settings.cache_type_v} V cache needs flash attention, which is off",
            hint="flash_attention: auto, or cache_type_v: f16",
        )
    context = padded(settings.context, CELLS_STEP)
    if not settings.kv_unified:
        context = padded(context // settings.parallel, CELLS_STEP) * settings.parallel
    batch = min(settings.batch, context)
    return replace(
        settings,
        context=context,
        batch=batch,
        ubatch=min(settings.ubatch, batch),
        flash_attention="off" if flash == "off" else "on",
    )


@dataclass(frozen=True)
class _Parts:
    """What goes into every device's sum."""

    model: Model
    settings: Settings
    cells: Cells
    placed: Placement
    projector: Projector | None

    def on_gpu(self, index: int, device: Device, compute: Term) -> DeviceMemory:
        blocks = self.placed.on(index)
        weights = 0
        for number in blocks:
            block = self.model.blocks[number]
            kept = number < self.placed.experts_kept
            weights += block.gpu - (block.experts_gpu if kept else 0)
        if self.placed.head == index:
            weights += self.model.head.gpu + self.model.tied
        idle = not blocks and self.placed.head != index and index > 0
        return self._memory(
            device,
            weights,
            blocks,
            _NOTHING if idle else compute,
            _NOTHING,
            self._reserve(device, index),
            projects=index == 0 and self.settings.projector_on_gpu,
        )

    def on_host(self, device: Device, compute: Term) -> DeviceMemory:
        blocks = self.placed.on(HOST)
        weights = self.model.inputs.host + sum(self.model.blocks[number].host for number in blocks)
        weights += sum(
            block.experts_host
            for number, block in enumerate(self.model.blocks[: self.placed.experts_kept])
            if number not in blocks
        )
        if self.placed.head == HOST:
            weights += self.model.head.host
        return self._memory(
            device,
            weights,
            blocks,
            compute,
            Term(output_bytes(self.model, self.settings), "exact"),
            Term(HOST_RESERVE, "margin"),
            projects=not (self.settings.projector_on_gpu and self.placed.gpus),
        )

    def _memory(
        self,
        device: Device,
        weights: int,
        blocks: Sequence[int],
        compute: Term,
        output: Term,
        reserve: Term,
        *,
        projects: bool,
    ) -> DeviceMemory:
        gpu = device.kind == "gpu"
        key = cache_type(self.settings.cache_type_k)
        value = cache_type(self.settings.cache_type_v)
        held = [self.model.layout.blocks[number] for number in blocks]
        how: Provenance = "exact" if self.model.layout.known else "margin"
        own = self.projector if projects else None
        return DeviceMemory(
            device=device,
            weights=Term(weights, "exact"),
            kv_cache=Term(
                sum(kv_bytes(block, self.cells, key, value, gpu=gpu) for block in held), how
            ),
            state=Term(sum(state_bytes(block, self.settings) for block in held), how),
            compute=compute,
            output=output,
            projector_weights=Term(own.weights, "exact") if own else _NOTHING,
            projector_compute=self._projecting(own) if own else _NOTHING,
            reserve=reserve,
            fits=False,
        )

    def _projecting(self, projector: Projector) -> Term:
        flash = self.settings.flash_attention
        size = projector.compute_bytes(flash, self.settings.image_max_tokens)
        return Term(padded(size, GPU_ALIGNMENT), "closed form")

    def _reserve(self, device: Device, index: int) -> Term:
        size = max(LEAST_RESERVE, int(device.total * RESERVE_SHARE))
        if not self.model.layout.known:
            size *= UNKNOWN_RESERVE
        if device.backend == "any":
            size += cuda_copies(self.model, self.settings, self.cells, self.placed, index)
        return Term(size, "margin")


def _hidden(model: Model, settings: Settings, cells: Cells, placed: Placement) -> dict[str, Term]:
    """RAM that no buffer line shows."""
    key, value = cache_type(settings.cache_type_k), cache_type(settings.cache_type_v)
    saved = settings.parallel * settings.context_checkpoints
    keeps = model.layout.stateful and not settings.swa_full
    checkpoints = saved * checkpoint_bytes(model.layout, cells, key, value) if keeps else 0
    repacked = 0
    if not placed.gpus and settings.mmap:
        # Without a GPU the matrices are laid out anew; the mapped file stays beside them.
        repacked = model.head.repacked + sum(block.repacked for block in model.blocks)
    return {
        CHECKPOINTS: Term(checkpoints, "closed form"),
        PROMPT_CACHE: Term(max(settings.cache_ram or 0, 0), "margin"),
        REPACKED: Term(repacked, "closed form"),
    }


def _with_fits(answer: Estimate) -> Estimate:
    """The estimate with what has room; GPUs that share the host's RAM share its budget."""
    host = answer.host
    shared = sum(memory.total for memory in answer.gpus if memory.device.shared)
    host_fits = host.total + shared + answer.growth <= host.device.free
    gpus = [
        replace(
            memory,
            fits=memory.total <= memory.device.free and (host_fits or not memory.device.shared),
        )
        for memory in answer.gpus
    ]
    devices = (*gpus, replace(host, fits=host_fits))
    return replace(answer, devices=devices, fits=all(memory.fits for memory in devices))


def _notes(
    model: Model, asked: Settings, effective: Settings, projector: Projector | None
) -> tuple[str, ...]:
    layout = model.layout
    notes = []
    if not layout.known:
        notes.append(
            f"the architecture {layout.architecture} is not known here: the generic formula, with a"
            " wider margin"
        )
    if effective.context > layout.trained_context:
        notes.append(
            f"the model was trained for {layout.trained_context} tokens of context, less than"
            f" {effective.context}"
        )
    if effective.ubatch < asked.ubatch:
        notes.append(f"the physical batch is limited to {effective.ubatch} by batch and context")
    if asked.cache_ram == -1:
        notes.append("cache_ram is -1: the prompt cache in RAM grows without limit")
    if projector is not None:
        notes += _projector_notes(projector, effective)
    return tuple(notes)


def _projector_notes(projector: Projector, settings: Settings) -> list[str]:
    notes = []
    if projector.any_size and settings.image_max_tokens is None:
        largest = projector.compute_bytes(settings.flash_attention, projector.most_tokens)
        notes.append(
            f"without image_max_tokens a large picture takes up to {projector.most_tokens} tokens and"
            f" {largest // MIB} MiB for the projector, more than is reserved at load"
        )
    if settings.flash_attention == "off":
        notes.append(
            "without flash attention the projector holds every patch's score for every other"
        )
    if projector.hears:
        notes.append("the buffers of the projector's audio encoder are not estimated")
    return notes
