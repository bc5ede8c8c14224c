"""Model configurations from the models directory (core/config/model_config*.go)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.world.localai import errors
from tests.world.localai.go_yaml import GoYamlError, Kind, decode

if TYPE_CHECKING:
    from pathlib import Path


def _typed(table: str) -> dict[str, Kind]:
    """Fields by type, from lines of a type and the names that have it."""
    rows = (line.split() for line in table.splitlines())
    return {name: kind for kind, *names in filter(None, rows) for name in names}


# The keys that this stand-in acts on or has to type-check. LocalAI knows more, and ignores what it
# does not know.
_PARAMETERS = _typed("""
    str    model
    int    batch max_tokens seed top_k repeat_last_n
    float  temperature top_p min_p repeat_penalty frequency_penalty presence_penalty
    bool   ignore_eos
""")
_TEMPLATE = _typed("""
    str    chat chat_message completion edit function multimodal reply_prefix
    str    join_chat_messages_by_character
    bool   use_tokenizer_template
""")
_FIELDS: dict[str, Kind] = _typed("""
    str     name backend mmproj flash_attention cache_type_k cache_type_v main_gpu tensor_split
    str     rope_scaling system_prompt draft_model description usage alias
    int     context_size gpu_layers threads n_draft
    bool    f16 mmap mmlock low_vram no_kv_offloading embeddings numa debug cuda disabled
    strings options stopwords known_usecases overrides trimspace cutstrings
    map     roles
""") | {"parameters": _PARAMETERS, "template": _TEMPLATE}
# Files in the models directory with these endings are never taken for models.
_NOT_MODELS = (
    *(".tmpl", ".keep", ".yaml", ".yml", ".json", ".txt", ".pt", ".onnx", ".md", ".ds_store"),
    *(".safetensors", ".bin", ".gguf", ".ggml", ".ckpt", ".zip", ".tag", ".bak", ".partial"),
    ".tar.gz",
)


class InvalidConfigError(ValueError):
    """A configuration that parses but that LocalAI's ``Validate`` rejects."""


@dataclass(frozen=True)
class ModelConfig:
    """One model's settings; ``raw`` holds the fields that its YAML sets."""

    name: str
    raw: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        """A top-level field, or ``default`` when the YAML leaves it out."""
        return self.raw.get(key, default)

    def parameter(self, key: str, default: Any = None) -> Any:
        """A field of ``parameters:``."""
        return self.raw.get("parameters", {}).get(key, default)

    def template(self, key: str, default: Any = None) -> Any:
        """A field of ``template:``."""
        return self.raw.get("template", {}).get(key, default)

    def option(self, *names: str) -> str | None:
        """The value of the last ``name:value`` among ``options:`` under any of the names."""
        found = None
        for entry in self.get("options", []):
            name, _, value = entry.partition(":")
            if name in names:
                found = value
        return found

    @property
    def uses_tokenizer_template(self) -> bool:
        """True when llama.cpp formats the messages: asked for, or there is no template at all."""
        texts = ("chat", "chat_message", "completion", "edit", "function")
        has_template = any(self.template(key) for key in texts)
        return bool(self.template("use_tokenizer_template")) or not has_template

    def validate(self) -> None:
        """LocalAI's few checks: paths stay in the models directory, backend names are plain."""
        for key, value in (
            ("backend", self.get("backend", "")),
            ("parameters.model", self.parameter("model", "")),
            ("mmproj", self.get("mmproj", "")),
        ):
            if value.startswith("/") or ".." in value:
                raise InvalidConfigError(f"{key}: path {value!r} leaves the models directory")
        backend = self.get("backend", "")
        if backend and not re.fullmatch(r"[a-zA-Z0-9-_]+", backend):
            raise InvalidConfigError(f"invalid backend name {backend!r}")
        if self.get("alias") and (backend or self.parameter("model")):
            raise InvalidConfigError("an alias has neither backend nor model")
        if self.template("chat_message"):
            raise InvalidConfigError("this stand-in has no template.chat_message")


class ModelConfigs:
    """The configurations that were readable when the server started (or was told to reload)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._by_name: dict[str, ModelConfig] = {}
        self.reload()

    def reload(self) -> None:
        """Read every YAML file directly in the models directory; a bad one is logged and left out."""
        for path in sorted(self._directory.glob("*")):
            if path.suffix in {".yaml", ".yml"} and not path.name.startswith("."):
                self._read(path)

    def names(self) -> list[str]:
        """What ``/v1/models`` lists: configured names, then loose files that look like models."""
        loose = [
            path.name
            for path in sorted(self._directory.glob("*"))
            if path.is_file() and not path.name.lower().endswith(_NOT_MODELS)
        ]
        return [*self._by_name, *(name for name in loose if name not in self._by_name)]

    def find(self, name: str) -> ModelConfig:
        """The configuration for a request.

        LocalAI asks whether the name, as an unanchored regular expression, matches any that exists.
        A name that passes this way but is none of them gets an empty configuration, whose load then
        fails. Raises ``ApiError`` 404 when nothing matches and 403 for a disabled model.
        """
        if name not in self._by_name and (path := self._directory / f"{name}.yaml").is_file():
            self._read(
                path
            )  # a file that arrived after start-up is read when its model is asked for
        config = self._by_name.get(name)
        if config is None:
            try:
                known = any(re.search(name, candidate) for candidate in self.names())
            except re.error:
                known = False
            if not known:
                raise errors.model_not_found(name)
            config = ModelConfig(name, {"parameters": {"model": name}})
        if alias := config.get("alias"):
            return self.find(alias)
        if config.get("disabled"):
            raise errors.ApiError(403, f"model {name} is disabled")
        return config

    def listed(self, name: str) -> ModelConfig | None:
        """The configuration under exactly this name, if there is one."""
        return self._by_name.get(name)

    def _read(self, path: Path) -> None:
        try:
            for raw in decode(path.read_text(encoding="utf-8"), _FIELDS):
                config = ModelConfig(raw.get("name", ""), raw)
                config.validate()
                self._by_name[config.name] = config
        except (GoYamlError, InvalidConfigError, UnicodeDecodeError) as error:
            errors.log_error(
                'LoadModelConfigsFromPath cannot read config file file="%s" error=%s',
                path.name,
                error,
            )
