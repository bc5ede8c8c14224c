"""What LocalAI v4.9 and LiteLLM would silently do wrong with a configuration, found before.

LocalAI ignores unknown keys, skips a file with a wrong type, and takes a missing template file as
an inline template; each of these ends in a server that is "ready" and useless. The rules follow its
loader (core/config/model_config.go, yaml.v3 without KnownFields, Validate()) as of v4.9.0.
"""

from __future__ import annotations

from typing import Any

from llmctl.core.settings import describe
from llmctl.errors import ConfigError

_FLASH = ("auto", "on", "off", "enabled", "disabled")
_CACHE_TYPES = ("", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

# Accepted by LocalAI and without any effect on its llama.cpp backend.
_DEAD = {"f16", "low_vram", "numa", "ngqa", "rms_norm_eps", "no_mulmatq", "cuda"}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "backend": str,
    "description": str,
    "usage": str,
    "parameters": dict,
    "mmproj": str,
    "context_size": int,
    "threads": int,
    "gpu_layers": int,
    "mmap": bool,
    "mmlock": bool,
    "flash_attention": str,
    "cache_type_k": str,
    "cache_type_v": str,
    "no_kv_offloading": bool,
    "tensor_split": str,
    "main_gpu": (str, int),
    "options": list,
    "overrides": list,
    "roles": dict,
    "stopwords": list,
    "template": dict,
    "system_prompt": str,
    "known_usecases": list,
    "known_input_modalities": list,
    "known_output_modalities": list,
    "prompt_cache_all": bool,
    "reasoning_effort": str,
    "reasoning": dict,
    "chat_template_kwargs": dict,
    "function": dict,
    "grammar": str,
    "grpc": dict,
    "limits": dict,
    "concurrency_groups": list,
    "pinned": bool,
    "disabled": bool,
    "cutstrings": list,
    "extract_regex": list,
    "trimspace": list,
    "trimsuffix": list,
    "feature_flags": dict,
    "rope_scaling": str,
    "debug": bool,
}
_TEMPLATE_KEYS = {
    "chat",
    "chat_message",
    "completion",
    "edit",
    "function",
    "multimodal",
    "reply_prefix",
    "use_tokenizer_template",
    "join_chat_messages_by_character",
}


def check_model_config(text: str, origin: str, *, has_template: bool) -> None:
    """Refuse a rendered models/NAME.yaml that LocalAI would misread.

    Args:
        text: The rendered YAML.
        origin: The template it came from, for messages.
        has_template: Whether a .tmpl file is rendered beside it.

    Raises:
        ConfigError: names the template and the key.
    """
    config = _load(text, origin)
    for key, value in config.items():
        if key in _DEAD:
            raise _fault(origin, key, "has no effect on LocalAI's llama.cpp backend", "remove it")
        if key not in _TYPES:
            raise _fault(origin, key, "unknown to LocalAI, which would ignore it", "remove it")
        _typed(origin, key, value, _TYPES[key])
    for key in ("name", "backend"):
        if not config.get(key):
            raise _fault(origin, key, "is missing", f"{key}: ...")
    parameters = config.get("parameters", {})
    if not parameters.get("model"):
        raise _fault(
            origin, "parameters.model", "is missing", "model: file.gguf, under parameters:"
        )
    _relative(origin, "parameters.model", parameters["model"])
    _relative(origin, "mmproj", config.get("mmproj", ""))
    if config.get("flash_attention", "auto") not in _FLASH:
        raise _fault(
            origin,
            "flash_attention",
            f"must be one of {', '.join(_FLASH)}",
            'flash_attention: "auto"',
        )
    for key in ("cache_type_k", "cache_type_v"):
        if config.get(key, "") not in _CACHE_TYPES:
            raise _fault(
                origin, key, f"must be one of {', '.join(_CACHE_TYPES[1:])}", f"{key}: q8_0"
            )
    for key in ("options", "stopwords", "overrides"):
        for i, item in enumerate(config.get(key, [])):
            _typed(origin, f"{key}.{i}", item, str)
    template = config.get("template", {})
    for key in template:
        if key not in _TEMPLATE_KEYS:
            raise _fault(
                origin, f"template.{key}", "unknown to LocalAI, which would ignore it", "remove it"
            )
    inline = "{{" in str(template.get("chat", ""))
    if template.get("chat") and not has_template and not inline:
        raise _fault(
            origin,
            "template.chat",
            "names a .tmpl file that nothing renders; LocalAI would use the name itself as the prompt",
            "template: vicuna, for this model in llmctl.yaml",
        )


def check_litellm_config(text: str, origin: str, names: list[str]) -> None:
    """Refuse a rendered litellm.yaml that lacks a model of the stack.

    Raises:
        ConfigError: names the template and the key.
    """
    config = _load(text, origin)
    listed = config.get("model_list")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise _fault(origin, "model_list", "must be a list of models", "model_list: [...]")
    have = [entry.get("model_name") for entry in listed]
    for name in names:
        if name not in have:
            raise _fault(origin, "model_list", f'lacks the model "{name}"', "loop over `models`")


def load_strict(text: str) -> Any:
    """Parse one YAML document; like Go's yaml.v3, and unlike PyYAML, refuse a repeated key.

    Raises:
        yaml.YAMLError: with the place of the fault.
    """
    import yaml

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key}" is there twice', key_node.start_mark
                )
            seen.add(key) if isinstance(key, str | int | float) else None
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load(text, Loader=Strict)  # noqa: S506 - a SafeLoader


def yaml_fault(error: Any) -> str:
    """Where and what, "line 3, column 5: ...", for a YAMLError."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


def _load(text: str, origin: str) -> dict[str, Any]:
    import yaml

    try:
        config = load_strict(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: renders to broken YAML: {yaml_fault(error)}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{origin}: renders to {describe(config)}, keys and values were expected")
    return config


def _typed(origin: str, key: str, value: Any, expected: type | tuple[type, ...]) -> None:
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        words = " or ".join(kind.__name__ for kind in kinds)
        raise _fault(
            origin, key, f"must be {words} for LocalAI, is {describe(value)}", "quote or unquote it"
        )


def _relative(origin: str, key: str, path: Any) -> None:
    if not isinstance(path, str) or path.startswith("/") or ".." in path:
        raise _fault(
            origin,
            key,
            f'LocalAI refuses a path that starts with "/" or contains "..": {describe(path)}',
            "a path below models/",
        )


def _fault(origin: str, key: str, what: str, mend: str) -> ConfigError:
    return ConfigError(f"{origin}: {key}: {what}", hint=mend)
