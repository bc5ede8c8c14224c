"""What a setting does: its place in the rendered files, a step of it, the engine's own word for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmctl.core.memory import Estimate, Settings
from llmctl.core.sizes import memory_text

_LITELLM = "litellm/litellm.yaml"
_MODEL = "models/{name}.yaml"


@dataclass(frozen=True)
class Known:
    """A key whose place and effect are known.

    Attributes:
        file: Where it is rendered, "{name}" for the model; "" when it is in no file.
        key: The place in that file, dotted; "options.NAME" for LocalAI's texts; in no file, what it
            decides instead.
        field: Its name among the memory plan's settings, None when it takes no memory.
        told: What the engine's log says of it; the group is the value.
    """

    file: str
    key: str
    field: str | None = None
    told: str | None = None


def _context(name: str) -> str:
    return rf"llama_context: {name}\s+= (\S+)"


KNOWN: Mapping[str, Known] = {
    "context": Known(_MODEL, "context_size", "context", _context("n_ctx")),
    "parallel": Known(_MODEL, "options.parallel", "parallel", _context("n_seq_max")),
    "threads": Known(_MODEL, "threads", None, r"system_info: n_threads = (\d+)"),
    "gpu_layers": Known(_MODEL, "gpu_layers", "gpu_layers", r"offloaded (\d+/\d+) layers to GPU"),
    "batch": Known(_MODEL, "parameters.batch", "batch", _context("n_batch")),
    "ubatch": Known(_MODEL, "options.ubatch", "ubatch", _context("n_ubatch")),
    "cache_type_k": Known(
        _MODEL, "cache_type_k", "cache_type_k", r"llama_kv_cache: .*\bK \((\w+)\)"
    ),
    "cache_type_v": Known(
        _MODEL, "cache_type_v", "cache_type_v", r"llama_kv_cache: .*\bV \((\w+)\)"
    ),
    "flash_attention": Known(
        _MODEL, "flash_attention", "flash_attention", r"Flash Attention (enabled|disabled)"
    ),
    "tensor_split": Known(_MODEL, "tensor_split", "tensor_split"),
    "kv_unified": Known(_MODEL, "options.kv_unified", "kv_unified", _context("kv_unified")),
    "image_max_tokens": Known(_MODEL, "options.image_max_tokens", "image_max_tokens"),
    "projector_on_gpu": Known(
        _MODEL, "options.mmproj_use_gpu", "projector_on_gpu", r"CLIP using (\S+) backend"
    ),
    "experts_on_cpu": Known(_MODEL, "options.n_cpu_moe", "experts_on_cpu"),
    "cache_ram": Known(
        _MODEL, "options.cache_ram", "cache_ram", r"prompt cache is enabled, size limit: (.+)"
    ),
    "ctx_checkpoints": Known(
        _MODEL,
        "options.ctx_checkpoints",
        "context_checkpoints",
        r"context checkpoints enabled, max = (\d+)",
    ),
    "template": Known(_MODEL, "template"),
    "source": Known(_MODEL, "parameters.model"),
    "model": Known(_MODEL, "parameters.model"),
    "mmproj": Known(_MODEL, "mmproj"),
    "gateway.auth": Known(_LITELLM, "general_settings"),
    "localai.port": Known(_LITELLM, "model_list.0.litellm_params.api_base"),
    "gpu": Known("", "the GPU that the engine's container is given, and the LocalAI image"),
    "gpu_devices": Known("", "the GPUs that the engine's container is given"),
    "engine": Known("", "what runs the services"),
    "name": Known("", "the names of containers, network and volumes"),
    "gateway.host": Known("", "the addresses the gateway is published on"),
    "gateway.port": Known("", "the port the gateway is published on"),
    "localai.image": Known("", "the image of the engine's container"),
    "localai.backend": Known("", "what is installed into the backends volume"),
    "litellm.image": Known("", "the image of the gateway's container"),
}

_OF_A_GPU = {"gpu_layers", "projector_on_gpu", "experts_on_cpu"}
_WHOLE = {"f16", "bf16", "f32"}


def step(settings: Settings, name: str, estimate: Estimate) -> Settings | None:
    """The settings with one of them changed by a step worth knowing; None where there is none."""
    value: Any = getattr(settings, name)
    other = _other(name, value, estimate)
    changes: dict[str, Any] = {name: other}
    return None if other is None else replace(settings, **changes)


def _other(name: str, value: Any, estimate: Estimate) -> Any:
    if name in _OF_A_GPU and not estimate.gpus:
        return None
    match name:
        case "context" | "parallel":
            return 2 * value
        case "batch" | "ubatch" | "image_max_tokens" | "cache_ram" | "context_checkpoints":
            return value // 2 if value and value > 1 else None
        case "kv_unified" | "projector_on_gpu":
            return not value
        case "gpu_layers":
            now = estimate.settings.gpu_layers or 0
            return now - 1 if now == estimate.layers else now + 1
        case "cache_type_k" | "cache_type_v":
            return "q8_0" if value in _WHOLE else "f16"
        case "flash_attention":
            on = estimate.settings.flash_attention == "on"
            # A quantised cache cannot do without.
            stays = on and estimate.settings.cache_type_v not in _WHOLE
            return None if stays else "off" if on else "on"
        case "experts_on_cpu":
            return int(value) + 1
    return None


def difference(before: Estimate, after: Estimate) -> str:
    """What a step changes, by device: "RTX 4090 +512 MiB, RAM -3 MiB"; "nothing"."""
    parts = []
    for one, other in zip(before.devices, after.devices, strict=True):
        parts.append((one.device.name, other.total - one.total))
    hidden = _hidden(after) - _hidden(before)
    parts.append(("RAM while serving", hidden))
    told = [
        f"{name} {'+' if size > 0 else '-'}{memory_text(abs(size))}" for name, size in parts if size
    ]
    return ", ".join(told) or "nothing"


def _hidden(estimate: Estimate) -> int:
    return sum(term.bytes for term in estimate.host_hidden.values())


def value_in(document: Any, place: str) -> Any:
    """What a rendered file says at a dotted place; None when it says nothing there."""
    if place.startswith("options."):
        name = place.removeprefix("options.")
        texts = document.get("options", []) if isinstance(document, dict) else []
        found = [text.partition(":")[2] for text in texts if text.partition(":")[0] == name]
        return found[-1] if found else None
    for part in place.split("."):
        if isinstance(document, list):
            document = document[int(part)] if int(part) < len(document) else None
        else:
            document = document.get(part) if isinstance(document, dict) else None
    return document


def told_by(log: str, pattern: str) -> str | None:
    """What the engine's log says last."""
    found = re.findall(pattern, log)
    return str(found[-1]).strip() if found else None
