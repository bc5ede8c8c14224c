"""Why each setting is what it is, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from llmctl.core.memory.facts import CHECKPOINTS, MIB, Estimate, Settings


@dataclass(frozen=True)
class Decision:
    """One setting, and why it is what it is, in one sentence."""

    setting: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Asked:
    """What the sentences refer to: the wanted context and slots, and the names of what was fixed."""

    context: int
    parallel: int
    fixed: frozenset[str]
    any_size: bool
    projector: bool
    experts: bool


def decisions(
    answer: Estimate, asked: Asked, given_up: Mapping[str, str], threads: int | None
) -> Iterator[Decision]:
    """Every setting that matters here, in the order of `Settings`.

    Args:
        answer: The estimate that was chosen.
        asked: What it was chosen for.
        given_up: Sentences of the search, by setting; "cache_type" stands for both.
        threads: CPU threads, None when they are left open.
    """
    for each in fields(Settings):
        name, value = each.name, getattr(answer.settings, each.name)
        if name in asked.fixed:
            yield Decision(name, value, f"{name} is {_shown(value)}, as you set it")
            continue
        key = "cache_type" if name.startswith("cache_type") else name
        reason = given_up.get(key) or _own_reason(name, value, answer, asked)
        if reason:
            yield Decision(name, value, reason)
    if threads is not None:
        whole = answer.settings.gpu_layers == answer.layers
        why = "the GPU computes, more threads only wait" if whole else "one for each physical core"
        yield Decision("threads", threads, f"{threads} threads: {why}")


def _own_reason(name: str, value: Any, answer: Estimate, asked: Asked) -> str | None:
    gpus = len(answer.gpus)
    match name:
        case "context":
            return _lowered(value, asked.context, "token", "of context")
        case "parallel":
            return _lowered(value, asked.parallel, "slot")
        case "batch" | "ubatch":
            return f"{name} is {value}, the engine's default"
        case "gpu_layers":
            return _layers(value, answer)
        case "flash_attention" if value == "on":
            return "flash attention keeps the compute buffers small; the plan counts on it"
        case "flash_attention":
            return "this architecture has no attention to speed up"
        case "cache_type_k" | "cache_type_v":
            return f"an {value} cache fits" if answer.fits else None
        case "tensor_split" if gpus > 1:
            return "the layers are split by what each GPU has left for them, in MiB"
        case "image_max_tokens" if asked.any_size:
            return (
                f"pictures take at most {value} tokens; without a limit a large one takes far more"
            )
        case "projector_on_gpu" if asked.projector and gpus:
            return "the projector fits on the GPU"
        case "experts_on_cpu" if asked.experts and gpus:
            return "all experts fit on the GPU"
        case "cache_ram":
            return f"{value // MIB} MiB of the RAM that is left keep earlier prompts"
        case "context_checkpoints" if answer.host_hidden[CHECKPOINTS].bytes:
            return (
                f"{value} saved states per slot; this model cannot go back in its context without"
            )
    return None


def _layers(value: int, answer: Estimate) -> str:
    if not answer.gpus:
        return "there is no GPU"
    if value == answer.layers:
        return f"all {value} layers fit on the GPU"
    return f"{value} of {answer.layers} layers go to the GPU"


def _lowered(value: int, asked: int, unit: str, rest: str = "") -> str:
    what = " ".join(filter(None, (f"{value} {unit}{'s' if value != 1 else ''}", rest)))
    return f"{what}, as wanted" if value >= asked else f"{what}: {asked} do not fit"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{item:g}" for item in value)
    return str(value)
