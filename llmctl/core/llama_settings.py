"""A rendered LocalAI model configuration as settings of llama.cpp's own server.

The YAML stays the one source: whatever it says is either mapped here or named as not mapped, never
dropped. LocalAI's meaning of each key is that of v4.9 (core/backend/options.go and the parameters of
its llama.cpp backend); llama.cpp's names are those of its server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmctl.core.tuning import BATCH
from llmctl.errors import ConfigError

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed")
_FLASH = {"on": "on", "enabled": "on", "off": "off", "disabled": "off", "auto": "auto"}

# Names in LocalAI's `options:`, and the field here.
_NUMBERS = {
    "parallel": "parallel",
    "n_parallel": "parallel",
    "ubatch": "ubatch",
    "n_ubatch": "ubatch",
    "cache_ram": "cache_ram_mib",
    "ctx_checkpoints": "ctx_checkpoints",
    "n_ctx_checkpoints": "ctx_checkpoints",
    "image_min_tokens": "image_min_tokens",
    "image_max_tokens": "image_max_tokens",
    "n_cpu_moe": "experts_on_cpu",
}
_SWITCHES = {
    "kv_unified": "kv_unified",
    "swa_full": "swa_full",
    "mmproj_use_gpu": "projector_on_gpu",
    "mmproj_offload": "projector_on_gpu",
}
_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on", "enabled"), True),
    **dict.fromkeys(("false", "0", "no", "off", "disabled"), False),
}

# Keys that mean nothing to a server that has one model, or that only LocalAI's catalogue reads.
_SILENT = {"name", "backend", "known_usecases", "description", "usage"}


@dataclass(frozen=True)
class LlamaSettings:
    """What llama.cpp's server is started with.

    Attributes:
        name: Model name in the API.
        model: Language model file, relative to the models directory.
        mmproj: Projector file, or None.
        context: Tokens of context, shared by the slots.
        batch: Logical batch in tokens.
        ubatch: Physical batch in tokens.
        threads: CPU threads.
        gpu_layers: Layers on the GPU.
        parallel: Slots.
        mmap: Map the weights instead of reading them.
        mlock: Keep the weights in memory.
        flash_attention: "on", "off" or "auto".
        cache_type_k: Type of the K cache, "" for f16.
        cache_type_v: Type of the V cache, "" for f16.
        cache_ram_mib: Host memory for the prompt cache, None for llama.cpp's own choice.
        tensor_split: Shares of several GPUs, () for none.
        kv_unified: One cache for all slots; LocalAI's default.
        ctx_checkpoints: Saved states per slot, None for llama.cpp's own choice.
        swa_full: Full-size caches for sliding-window layers.
        image_min_tokens: Fewest tokens of a picture, None for the model's own.
        image_max_tokens: Most tokens of a picture, likewise.
        projector_on_gpu: The projector lies on the GPU.
        experts_on_cpu: Blocks whose experts stay in RAM; None for all of them.
        chat_template: Jinja text that replaces the GGUF's own, None to keep that.
        stop: Texts that end an answer.
        sampling: temperature, top_p, top_k, min_p, seed: the defaults of a request.
        unmapped: Keys of the YAML that have no counterpart here.
    """

    name: str
    model: str
    mmproj: str | None
    context: int
    batch: int
    ubatch: int
    threads: int
    gpu_layers: int
    parallel: int = 1
    mmap: bool = True
    mlock: bool = False
    flash_attention: str = "auto"
    cache_type_k: str = ""
    cache_type_v: str = ""
    cache_ram_mib: int | None = None
    tensor_split: tuple[float, ...] = ()
    kv_unified: bool = True
    ctx_checkpoints: int | None = None
    swa_full: bool = False
    image_min_tokens: int | None = None
    image_max_tokens: int | None = None
    projector_on_gpu: bool = True
    experts_on_cpu: int | None = 0
    chat_template: str | None = None
    stop: tuple[str, ...] = ()
    sampling: tuple[tuple[str, float], ...] = ()
    unmapped: tuple[str, ...] = ()


def llama_settings(config: Mapping[str, Any], prompt_template: str | None) -> LlamaSettings:
    """Settings for a configuration that `localai_config.check_model_config` has accepted.

    Args:
        config: The parsed models/NAME.yaml.
        prompt_template: The text of its .tmpl file, None without one.

    Raises:
        ConfigError: a prompt template that cannot be expressed for llama.cpp.
    """
    rest = {key: value for key, value in config.items() if key not in _SILENT}
    parameters = dict(rest.pop("parameters", {}))
    batch = parameters.pop("batch", BATCH)
    settings = LlamaSettings(
        name=str(config["name"]),
        model=parameters.pop("model"),
        mmproj=rest.pop("mmproj", None),
        context=rest.pop("context_size", 4096),
        batch=batch,
        ubatch=batch,
        threads=rest.pop("threads", 1),
        gpu_layers=rest.pop("gpu_layers", 0),
        mmap=rest.pop("mmap", True),
        mlock=rest.pop("mmlock", False),
        flash_attention=_FLASH[rest.pop("flash_attention", "auto")],
        cache_type_k=rest.pop("cache_type_k", ""),
        cache_type_v=rest.pop("cache_type_v", ""),
        tensor_split=_shares(rest),
        stop=tuple(rest.pop("stopwords", ())),
    )
    settings, options = _with_options(settings, rest.pop("options", ()))
    sampling = [(key, parameters.pop(key)) for key in SAMPLING if key in parameters]
    template = dict(rest.pop("template", {}))
    roles = rest.pop("roles", {})
    own = template.pop("use_tokenizer_template", False)
    join = template.pop("join_chat_messages_by_character", "\n")
    named = template.pop("chat", None)
    chat_template = None
    if not own and named is not None:
        chat_template = jinja_chat_template(prompt_template or named, roles, join)
    unmapped = (
        *options,
        *(f"parameters.{key}" for key in parameters),
        *(f"template.{key}" for key in template),
        *rest,
    )
    return replace(
        settings,
        chat_template=chat_template,
        sampling=tuple(sampling),
        unmapped=tuple(sorted(unmapped)),
    )


def _with_options(
    settings: LlamaSettings, options: tuple[str, ...] | list[str]
) -> tuple[LlamaSettings, list[str]]:
    """The settings with LocalAI's `options:` texts applied, and those that are not known here."""
    unknown = []
    changes: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition(":")
        if name in _NUMBERS and re.fullmatch(r"-?\d+", value):
            changes[_NUMBERS[name]] = int(value)
        elif name in _SWITCHES and value in _WORDS:
            changes[_SWITCHES[name]] = _WORDS[value]
        elif name == "cpu_moe" and _WORDS.get(value):
            changes["experts_on_cpu"] = None
        else:
            unknown.append(f"options.{name}")
    return replace(settings, **changes), unknown


def _shares(rest: dict[str, Any]) -> tuple[float, ...]:
    """`tensor_split`, taken out of `rest` when it is numbers; anything else stays there."""
    parts = str(rest.get("tensor_split", "")).split(",")
    if not all(re.fullmatch(r"\s*\d+(\.\d+)?\s*", part) for part in parts):
        return ()
    del rest["tensor_split"]
    return tuple(float(part) for part in parts)


def jinja_chat_template(text: str, roles: Mapping[str, str], join: str) -> str:
    """LocalAI's prompt (a Go template around `.Input`) as a Jinja chat template of llama.cpp.

    LocalAI puts each role's prefix directly before its message, joins the messages, and executes
    the template with the result as `.Input`; pictures stand before the text of their message. This
    does the same, for templates that hold nothing but text, comments and one `{{.Input}}`.

    Raises:
        ConfigError: the template uses anything else.
    """
    plain = re.sub(r"\s*\{\{-\s*/\*.*?\*/\s*-\}\}\s*|\{\{/\*.*?\*/\}\}", "", text, flags=re.DOTALL)
    head, mark, tail = plain.partition("{{.Input}}")
    if not mark or "{{" in head + tail:
        raise ConfigError(
            "the prompt template uses more than text and {{.Input}}; llama.cpp's server cannot take it",
            hint="template: tokenizer, or run this model with engine: docker",
        )
    prefixes = "".join(
        f"{{%- if message.role == {_quoted(role)} -%}}{{{{ {_quoted(prefix)} }}}}{{%- endif -%}}"
        for role, prefix in roles.items()
    )
    return (
        f"{{{{ {_quoted(head)} }}}}"
        "{%- for message in messages -%}"
        f"{{%- if not loop.first -%}}{{{{ {_quoted(join)} }}}}{{%- endif -%}}"
        f"{prefixes}{{{{ message.content }}}}"
        "{%- endfor -%}"
        f"{{{{ {_quoted(tail)} }}}}"
    )


def _quoted(text: str) -> str:
    """A Jinja string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
