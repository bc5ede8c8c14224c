"""Between a stack and the memory plan: which devices it has, what is wished for, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmctl.core.gpus import Gpu, Hardware
from llmctl.core.memory import (
    GIB,
    MIB,
    Decision,
    Device,
    Estimate,
    Model,
    Projector,
    Settings,
    Wanted,
    choose,
    estimate,
)
from llmctl.core.memory.facts import Backend, FlashAttention
from llmctl.core.sizes import memory_text
from llmctl.core.tuning import ALL_LAYERS, CACHE_RAM_MIB, EngineSettings, Tuning
from llmctl.errors import ConfigError

RAM = "RAM"
# A context that nobody insisted on is reduced to no less: a picture takes 576 tokens of LLaVA's.
LEAST_CONTEXT = 2048
STEP = 256
BACKENDS: Mapping[str, Backend] = {
    "nvidia": "cuda",
    "amd": "rocm",
    "intel": "sycl",
    "apple": "metal",
}


@dataclass(frozen=True)
class Wish:
    """What is asked for of a model's engine.

    Attributes:
        context: Tokens.
        parallel: Slots.
        gpu_layers: llama.cpp's count, None for as many as fit.
        tuning: What is fixed besides.
        cores: Physical cores the engine may use.
        mmap: Weights are mapped from the file.
    """

    context: int
    parallel: int
    gpu_layers: int | None = None
    tuning: Tuning = field(default_factory=Tuning)
    cores: int = 1
    mmap: bool = True

    @property
    def settings(self) -> Settings:
        """With the defaults for everything that is open."""
        layers = self.gpu_layers
        given = self.tuning.settings(
            context=self.context,
            parallel=self.parallel,
            threads=self.cores,
            gpu_layers=ALL_LAYERS if layers is None else layers,
            mmap=self.mmap,
        )
        return planned_settings(given, legacy_logits=bool(self.tuning.legacy_logits))


@dataclass(frozen=True)
class Fit:
    """A model planned on some devices.

    Attributes:
        settings: What its engine is to be given, explicit throughout.
        estimate: What that takes.
        threads: CPU threads.
        decisions: Settings with the reason of each; empty where nothing was chosen.
    """

    settings: Settings
    estimate: Estimate
    threads: int
    decisions: tuple[Decision, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The decisions' sentences, each once."""
        return tuple(dict.fromkeys(decision.reason for decision in self.decisions))

    @property
    def terms(self) -> dict[str, dict[str, int]]:
        """What the engine itself will hold: bytes by device and term, the host last."""
        return {
            memory.device.name: {
                name: term.bytes for name, term in memory.terms.items() if name != "reserve"
            }
            for memory in self.estimate.devices
        }

    @property
    def taken(self) -> dict[str, int]:
        """Bytes by device, reserves and the RAM that grows while serving included."""
        found = {memory.device.name: memory.total for memory in self.estimate.devices}
        found[self.estimate.host.device.name] += sum(
            term.bytes for term in self.estimate.host_hidden.values()
        )
        return found


def fit(
    model: Model,
    projector: Projector | None,
    wish: Wish,
    devices: tuple[Device, ...],
    *,
    exact: bool = False,
) -> Fit:
    """Settings for a model, and what they take.

    Args:
        model: The language model.
        projector: Its projector.
        wish: What is asked for.
        devices: GPUs, then the host.
        exact: Choose nothing: what is not fixed has its default. Without a GPU it is always so: RAM
            that is short for a moment is no reason to give the user less.

    Raises:
        ConfigError: the model cannot be planned, or llama.cpp would refuse what is fixed.
    """
    gpus = any(device.kind == "gpu" for device in devices)
    if exact or not gpus:
        settings = replace(wish.settings, gpu_layers=wish.settings.gpu_layers if gpus else 0)
        settings, found = _cached(model, projector, settings, devices, wish)
        return Fit(replace(settings, gpu_layers=found.settings.gpu_layers), found, wish.cores)
    chosen = choose(model, devices, wanted(wish), projector)
    return Fit(
        replace(chosen.settings, mmap=wish.mmap),
        chosen.estimate,
        chosen.threads or wish.cores,
        chosen.decisions,
    )


def _cached(
    model: Model,
    projector: Projector | None,
    settings: Settings,
    devices: tuple[Device, ...],
    wish: Wish,
) -> tuple[Settings, Estimate]:
    """The settings with a prompt cache that leaves the RAM its due, unless its size is fixed."""
    found = estimate(model, settings, devices, projector)
    if found.host.fits or "cache_ram" in wish.tuning.fixed:
        return settings, found
    without = estimate(model, replace(settings, cache_ram=0), devices, projector)
    hidden = sum(term.bytes for term in without.host_hidden.values())
    left = without.host.device.free - without.host.total - hidden
    room = max(0, min(left, CACHE_RAM_MIB * MIB)) // MIB * MIB
    settings = replace(settings, cache_ram=room)
    return settings, estimate(model, settings, devices, projector)


def next_gib(
    model: Model,
    projector: Projector | None,
    wish: Wish,
    devices: tuple[Device, ...],
    now: Fit,
    *,
    exact: bool = False,
) -> str | None:
    """What one GiB more on the largest GPU (or of RAM) would buy, in words; None for nothing."""
    most = max(devices, key=lambda device: (device.kind == "gpu", device.free))
    richer = tuple(
        replace(d, total=d.total + GIB, free=d.free + GIB) if d is most else d for d in devices
    )
    then = fit(model, projector, wish, richer, exact=exact)
    changes = []
    if then.estimate.fits and not now.estimate.fits:
        changes.append("it would fit")
    for name, words in _BOUGHT.items():
        before, after = getattr(now.settings, name), getattr(then.settings, name)
        if before != after:
            changes.append(words.format(before=before, after=after))
    if not changes and now.estimate.fits:
        before, after = (
            _longest(model, projector, one.settings, places)
            for one, places in ((now, devices), (then, richer))
        )
        if after > before:
            changes.append(f"room for up to {after} tokens of context instead of {before}")
    return ", ".join(changes) or None


_BOUGHT = {
    "gpu_layers": "{after} layers on the GPU instead of {before}",
    "experts_on_cpu": "experts of {after} blocks in RAM instead of {before}",
    "projector_on_gpu": "the projector on the GPU",
    "image_max_tokens": "pictures of up to {after} tokens instead of {before}",
    "ubatch": "{after} tokens computed at once instead of {before}",
    "cache_type_k": "a cache of type {after} instead of {before}",
    "context": "{after} tokens of context instead of {before}",
    "parallel": "{after} slots instead of {before}",
}


def _longest(
    model: Model, projector: Projector | None, settings: Settings, devices: tuple[Device, ...]
) -> int:
    """The longest context that would fit, in steps of 256 tokens, as far as the model was trained."""
    low = settings.context // STEP
    high = max(low, model.layout.trained_context // STEP)
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(settings, context=middle * STEP)
        if estimate(model, tried, devices, projector).fits:
            low = middle
        else:
            high = middle - 1
    return low * STEP


def wanted(wish: Wish) -> Wanted:
    """The wish in the chooser's terms: a context that nobody insisted on may be reduced."""
    insisted = wish.tuning.insisted
    return Wanted(
        context=wish.context,
        parallel=wish.parallel,
        minimum_context=None if "context" in insisted else min(LEAST_CONTEXT, wish.context),
        minimum_parallel=None if "parallel" in insisted else 1,
        fixed=_fixed(wish),
        physical_cores=wish.cores,
    )


def _fixed(wish: Wish) -> dict[str, Any]:
    renamed = {"ctx_checkpoints": "context_checkpoints"}
    names = {renamed.get(name, name) for name in wish.tuning.fixed}
    if wish.gpu_layers is not None:
        names.add("gpu_layers")
    return {name: getattr(wish.settings, name) for name in sorted(names)}


def devices_of(
    hardware: Hardware, kind: str | None = None, only: tuple[str, ...] = ()
) -> tuple[Device, ...]:
    """What an engine can put a model on: the GPUs it is given, then the host.

    One engine drives the GPUs of one maker; where there are cards, integrated GPUs are left alone.

    Args:
        hardware: The machine.
        kind: The kind of GPU the stack uses, "none" and "vulkan" among them; None for that of the first
            GPU.
        only: UUIDs or indexes of the GPUs it is given; all for ().
    """
    gpus = [gpu for gpu in hardware.gpus if gpu.total > 0]
    if kind is None:
        kind = gpus[0].kind if gpus else "none"
    if kind != "vulkan":
        gpus = [gpu for gpu in gpus if gpu.kind == kind]
    gpus = [gpu for gpu in gpus if not gpu.shared] or gpus
    if only:
        gpus = [gpu for gpu in gpus if gpu.uuid in only or str(gpu.index) in only]
    ram = hardware.memory
    host = Device(RAM, "host", ram.usable, min(ram.available, ram.usable), "cpu")
    return (
        *(
            Device(
                _name(gpu, gpus),
                "gpu",
                gpu.total,
                gpu.total if gpu.free is None else gpu.free,
                "vulkan" if kind == "vulkan" else _backend(gpu),
                gpu.shared,
            )
            for gpu in gpus
        ),
        host,
    )


def _backend(gpu: Gpu) -> Backend:
    """What drives it; of `--gpu 24GiB` nobody says whose it is."""
    known = gpu.kind != "nvidia" or gpu.uuid or gpu.compute_capability
    return BACKENDS[gpu.kind] if known else "any"


def _name(gpu: Gpu, among: list[Gpu]) -> str:
    """Its name, with its number where another one is called the same."""
    alike = sum(other.name == gpu.name for other in among)
    return gpu.name if alike == 1 else f"{gpu.name} #{gpu.index}"


def with_room(devices: tuple[Device, ...], bytes_by_name: Mapping[str, int]) -> tuple[Device, ...]:
    """The devices with this much more of them free (or less), within what they have."""
    return tuple(
        replace(d, free=max(0, min(d.total, d.free + bytes_by_name.get(d.name, 0))))
        for d in devices
    )


def planned_settings(given: EngineSettings, *, legacy_logits: bool = False) -> Settings:
    """What an engine is given, in the memory plan's terms."""
    ram = given.cache_ram
    return Settings(
        context=given.context,
        parallel=given.parallel,
        batch=given.batch,
        ubatch=given.ubatch,
        gpu_layers=given.gpu_layers,
        flash_attention=_flash(given.flash_attention),
        cache_type_k=given.cache_type_k,
        cache_type_v=given.cache_type_v,
        kv_unified=given.kv_unified,
        tensor_split=given.tensor_split,
        image_max_tokens=given.image_max_tokens,
        projector_on_gpu=given.projector_on_gpu,
        experts_on_cpu=given.experts_on_cpu,
        legacy_logits=legacy_logits,
        mmap=given.mmap,
        cache_ram=ram if ram < 0 else ram * MIB,
        context_checkpoints=given.ctx_checkpoints,
    )


def _flash(word: str) -> FlashAttention:
    return "on" if word == "on" else "off" if word == "off" else "auto"


def given_settings(planned: Settings, threads: int) -> EngineSettings:
    """What an engine is given of a memory plan; the other way round."""
    ram = planned.cache_ram
    return EngineSettings(
        context=planned.context,
        threads=threads,
        gpu_layers=ALL_LAYERS if planned.gpu_layers is None else planned.gpu_layers,
        parallel=planned.parallel,
        batch=planned.batch,
        ubatch=planned.ubatch,
        flash_attention=planned.flash_attention,
        cache_type_k=planned.cache_type_k,
        cache_type_v=planned.cache_type_v,
        tensor_split=planned.tensor_split,
        kv_unified=planned.kv_unified,
        image_max_tokens=planned.image_max_tokens,
        projector_on_gpu=planned.projector_on_gpu,
        experts_on_cpu=ALL_LAYERS if planned.experts_on_cpu is True else planned.experts_on_cpu,
        cache_ram=CACHE_RAM_MIB if ram is None else ram // MIB if ram > 0 else ram,
        ctx_checkpoints=planned.context_checkpoints,
        mmap=planned.mmap,
    )


def refusal(name: str, found: Estimate, ram: int) -> ConfigError | None:
    """Why a model must not be started with these settings; None when it may.

    GPUs are taken at their word. RAM is not: mapped weights can be dropped and read again, so only what
    would not even fit an empty machine is refused.

    Args:
        name: The model's.
        found: What it would take.
        ram: Bytes of RAM this machine has for us at most.
    """
    full = [memory for memory in found.gpus if not memory.fits]
    host = found.host
    resident = host.weights.bytes + host.kv_cache.bytes + host.state.bytes
    if not full and resident <= ram:
        return None
    lines = [
        f"{memory.device.name}: {memory_text(memory.total)} needed, "
        f"{memory_text(memory.device.free)} free of {memory_text(memory.device.total)}"
        + "".join(
            f"\n  {label.replace('_', ' ')} {memory_text(term.bytes)}"
            for label, term in memory.terms.items()
            if term.bytes
        )
        for memory in full
    ]
    if resident > ram:
        lines.append(
            f"RAM: weights and context take {memory_text(resident)}, this machine has"
            f" {memory_text(ram)}"
        )
    short = "; ".join(line.splitlines()[0] for line in lines)
    return ConfigError(
        f"{name} does not fit: {short}",
        hint=f"llmctl fit {name}           # what takes the memory, and what would fit\n"
        "set the values in llmctl.yaml that you fixed to auto, or choose a smaller quantisation\n"
        "llmctl up --gpu none  # on the CPU\n"
        "llmctl up --force     # try it nevertheless",
        details="\n".join(lines),
    )
