"""The user's file, typed: `Stack`, and where each of its values came from.

Precedence: flag > environment (`LLMCTL_*`) > file > default. Unknown keys and wrong types are
refused with their path.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from llmctl.core.settings import (
    AUTO,
    DEFAULT_MODELS,
    ENGINE_SETTINGS,
    MODEL_SETTINGS,
    MODELS_VARIABLE,
    SOURCE,
    STACK_SETTINGS,
    OneOrMany,
    Setting,
    WrongValueError,
    describe,
)
from llmctl.core.tuning import Tuning
from llmctl.errors import ConfigError

LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Value:
    """A setting's value and its origin: "default", "llmctl.yaml", "environment LLMCTL_GPU", ..."""

    value: Any
    origin: str


@dataclass(frozen=True)
class ModelSpec:
    """One model the stack serves; exactly one of `source` and `model` is set.

    Attributes:
        name: The name in the API, and of the rendered files.
        source: Catalogue name or hf:// reference.
        model: Local language model file (path relative to the stack file, or absolute).
        mmproj: Local projector file.
        context: Context length in tokens.
        parallel: Slots.
        threads: CPU threads, None for the host's physical cores.
        gpu_layers: Layers on the GPU, None for as many as fit when there is one.
        template: "auto", "tokenizer" or "vicuna".
        tuning: What else was fixed of the engine's settings.
    """

    name: str
    source: str | None
    model: str | None
    mmproj: str | None
    context: int
    parallel: int
    threads: int | None
    gpu_layers: int | None
    template: str
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True)
class Stack:
    """What the user wants."""

    name: str
    engine: str
    gpu: str
    gpu_devices: tuple[str, ...]
    models: tuple[ModelSpec, ...]
    gateway_hosts: tuple[str, ...]
    gateway_port: int
    gateway_auth: str
    localai_image: str | None
    localai_backend: str
    localai_port: int
    litellm_image: str

    @property
    def needs_key(self) -> bool:
        """Whether the gateway asks for a key: `auto` does, unless only loopback can reach it."""
        if self.gateway_auth == AUTO:
            return any(host not in LOOPBACK for host in self.gateway_hosts)
        return self.gateway_auth == "key"

    def model(self, name: str | None) -> ModelSpec:
        """The model of that name, the first one for None; ConfigError when there is none."""
        if name is None:
            return self.models[0]
        for model in self.models:
            if model.name == name:
                return model
        raise ConfigError(
            f'the stack has no model "{name}"; it has {", ".join(m.name for m in self.models)}',
            hint="add it under `models:` in llmctl.yaml, or name one of those",
        )


@dataclass(frozen=True)
class Resolved:
    """A stack with the origin of every value, for `config show --origin`.

    Attributes:
        stack: The typed stack.
        values: Dotted path to value and origin, in the order of the table, models last.
    """

    stack: Stack
    values: dict[str, Value]


def resolve_stack(
    document: Any,
    *,
    file: str,
    environment: Mapping[str, str],
    flags: Mapping[str, tuple[str, str]],
) -> Resolved:
    """The stack that a parsed file, the environment and the command line describe together.

    Args:
        document: The YAML document, None for an empty or absent file.
        file: The file's name in messages.
        environment: The process's environment; only `LLMCTL_*` is read.
        flags: Dotted path -> (the flag as written, its text).

    Raises:
        ConfigError: names the path, the fault and, for an unknown key, the nearest known one.
    """
    tree = _mapping(document, file, "")
    flat = _flatten(tree, file)
    _refuse_unknown_variables(environment)
    _refuse_unknown_flags(flags)
    values = {s.path: _choose(s, flat, file, environment, flags) for s in STACK_SETTINGS}
    entries, origin = _model_entries(tree, file, environment, flags)
    models = [_model(entry, f"models.{i}", origin, values) for i, entry in enumerate(entries)]
    for i, (model, model_values) in enumerate(models):
        values |= {f"models.{i}.{key}": value for key, value in model_values.items()}
        if any(model.name == other.name for other, _ in models[:i]):
            raise ConfigError(
                f'{origin}: models.{i}.name: "{model.name}" is used twice',
                hint="give one of them another `name:`",
            )
    return Resolved(_stack(values, tuple(model for model, _ in models)), values)


def _stack(values: Mapping[str, Value], models: tuple[ModelSpec, ...]) -> Stack:
    def get(path: str) -> Any:
        return values[path].value

    hosts = cast("tuple[str, ...]", get("gateway.host"))
    if "0.0.0.0" in hosts and len(hosts) > 1:  # noqa: S104 - compared, not bound
        origin = values["gateway.host"].origin
        raise ConfigError(
            f"{origin}: gateway.host: 0.0.0.0 already covers every other address",
            hint="keep 0.0.0.0 alone, or list the single addresses",
        )
    return Stack(
        name=get("name"),
        engine=get("engine"),
        gpu=get("gpu"),
        gpu_devices=get("gpu_devices"),
        models=models,
        gateway_hosts=hosts,
        gateway_port=get("gateway.port"),
        gateway_auth=get("gateway.auth"),
        localai_image=get("localai.image"),
        localai_backend=get("localai.backend"),
        localai_port=get("localai.port"),
        litellm_image=get("litellm.image"),
    )


def _mapping(value: Any, file: str, path: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        where = f"{file}: {path}" if path else file
        raise ConfigError(
            f"{where}: expected keys and values, got {describe(value)}",
            hint="`llmctl config schema` lists the keys",
        )
    return value


def _flatten(tree: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The file's values by dotted path, models left out; unknown keys refused."""
    known = {s.path for s in STACK_SETTINGS}
    sections = {path.split(".")[0] for path in known if "." in path}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "models":
            continue
        if key in sections:
            for inner, inner_value in _mapping(value, file, str(key)).items():
                path = f"{key}.{inner}"
                if path not in known:
                    in_section = [p.split(".")[1] for p in known if p.startswith(f"{key}.")]
                    raise _unknown(file, path, str(inner), in_section)
                flat[path] = inner_value
        elif key in known:
            flat[key] = value
        else:
            raise _unknown(file, str(key), str(key), {*known, *sections, "models"} - _dotted(known))
    return flat


def _dotted(paths: Iterable[str]) -> set[str]:
    return {path for path in paths if "." in path}


def _unknown(file: str, path: str, key: str, known: Iterable[str]) -> ConfigError:
    return ConfigError(
        f"{file}: {path}: unknown key{did_you_mean(key, known)}",
        hint="`llmctl config schema` lists the keys",
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Words for a near miss, ", did you mean X?"; empty when nothing known is near."""
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def _choose(
    setting: Setting,
    flat: Mapping[str, Any],
    file: str,
    environment: Mapping[str, str],
    flags: Mapping[str, tuple[str, str]],
) -> Value:
    if setting.path in flags:
        flag, text = flags[setting.path]
        return _checked(setting, setting.kind.from_text(text), flag, setting.path)
    if environment.get(setting.environment):
        value = setting.kind.from_text(environment[setting.environment])
        return _checked(setting, value, f"environment {setting.environment}", setting.path)
    if setting.path in flat and flat[setting.path] is not None:
        return _checked(setting, flat[setting.path], file, setting.path)
    return Value(setting.default, "default")


def _checked(setting: Setting, value: Any, origin: str, path: str) -> Value:
    try:
        return Value(setting.kind.check(value), origin)
    except WrongValueError as error:
        raise ConfigError(f"{origin}: {path}: {error}", hint=setting.doc) from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {s.environment for s in STACK_SETTINGS} | {MODELS_VARIABLE, *COMMAND_VARIABLES}
    for variable in sorted(environment):
        if variable.startswith("LLMCTL_") and variable not in known:
            raise ConfigError(
                f"environment: {variable}: unknown variable{did_you_mean(variable, known)}",
                hint=f"unset {variable}, or see `llmctl config show --origin`",
            )


# Read by the command line itself, not a part of the stack.
HOST_VARIABLES = ("LLMCTL_HOST_GPU", "LLMCTL_HOST_RAM")
COMMAND_VARIABLES = ("LLMCTL_DIRECTORY", "LLMCTL_FILE", "LLMCTL_OUTPUT", *HOST_VARIABLES)


def _refuse_unknown_flags(flags: Mapping[str, tuple[str, str]]) -> None:
    known = {s.path for s in STACK_SETTINGS} | {"models"}
    for path, (flag, _) in flags.items():
        if path not in known:
            raise ConfigError(
                f"{flag}: {path}: unknown key{did_you_mean(path, known)}",
                hint="`llmctl config show` lists the keys",
            )


def _model_entries(
    tree: Mapping[str, Any],
    file: str,
    environment: Mapping[str, str],
    flags: Mapping[str, tuple[str, str]],
) -> tuple[list[dict[str, Any]], str]:
    """The entries under `models`, a bare text meaning its source, and who listed them."""
    raw: Any
    if "models" in flags:
        flag, text = flags["models"]
        raw, origin = OneOrMany(SOURCE).from_text(text), flag
    elif environment.get(MODELS_VARIABLE):
        raw = OneOrMany(SOURCE).from_text(environment[MODELS_VARIABLE])
        origin = f"environment {MODELS_VARIABLE}"
    elif tree.get("models") is not None:
        raw, origin = tree["models"], file
    else:
        raw, origin = list(DEFAULT_MODELS), "default"
    if not isinstance(raw, list) or not raw:
        raise ConfigError(
            f"{origin}: models: expected a list with at least one model, got {describe(raw)}",
            hint="models: [llava]",
        )
    known = [s.path for s in MODEL_SETTINGS]
    entries = []
    for i, item in enumerate(raw):
        entry = {"source": item} if isinstance(item, str) else _mapping(item, origin, f"models.{i}")
        for key in entry:
            if key not in known:
                raise _unknown(origin, f"models.{i}.{key}", str(key), known)
        entries.append(entry)
    return entries, origin


def _model(
    entry: Mapping[str, Any], path: str, origin: str, stack: Mapping[str, Value]
) -> tuple[ModelSpec, dict[str, Value]]:
    values: dict[str, Value] = {}
    for setting in MODEL_SETTINGS:
        if entry.get(setting.path) is not None:
            value = _checked(setting, entry[setting.path], origin, f"{path}.{setting.path}")
        else:
            value = stack.get(setting.path, Value(None, "default"))
            if setting.path == "name":
                value = Value(None, "default")
            elif setting.default is not None:
                value = Value(setting.default, "default")
        values[setting.path] = value
    if (values["source"].value is None) == (values["model"].value is None):
        raise ConfigError(
            f"{origin}: {path}: needs either `source` (catalogue name or hf://) or `model` (a file)",
            hint="source: llava",
        )
    if values["mmproj"].value is not None and values["model"].value is None:
        raise ConfigError(
            f"{origin}: {path}.mmproj: a local projector needs its local `model` beside it",
            hint="model: models/llava/model.gguf",
        )
    if values["name"].value is None:
        basis = values["source"].value or values["model"].value
        values["name"] = Value(default_model_name(basis), f"from {describe(basis)}")

    def number(key: str) -> int | None:
        value = values[key].value
        return None if value == AUTO else cast("int", value)

    spec = ModelSpec(
        name=values["name"].value,
        source=values["source"].value,
        model=values["model"].value,
        mmproj=values["mmproj"].value,
        context=values["context"].value,
        parallel=values["parallel"].value,
        threads=number("threads"),
        gpu_layers=number("gpu_layers"),
        template=values["template"].value,
        tuning=_tuning(values),
    )
    return spec, values


def _tuning(values: Mapping[str, Value]) -> Tuning:
    """The engine's settings that somebody fixed."""
    fixed: dict[str, Any] = {
        setting.path: values[setting.path].value
        for setting in ENGINE_SETTINGS
        if values[setting.path].value != AUTO
    }
    for key in ("kv_unified", "projector_on_gpu"):
        if key in fixed:
            fixed[key] = fixed[key] == "on"
    wanted = [key for key in ("context", "parallel") if values[key].origin != "default"]
    return Tuning(**fixed, insisted=tuple(wanted))


def default_model_name(source: str) -> str:
    """The API name of a source nobody named: its last part, without quantisation or suffix.

    "llava" stays; "hf://ggml-org/Qwen2.5-VL-3B-GGUF:Q4_K_M@main" becomes "qwen2.5-vl-3b";
    "models/my model.gguf" becomes "my-model".
    """
    if source.startswith("hf://"):
        # Cut first: a revision (refs/pr/1) and a file (:folder/x.gguf) may hold slashes.
        source = re.split(r"[:@]", source.removeprefix("hf://"))[0]
    last = source.rstrip("/").split("/")[-1]
    last = re.sub(r"[-_.]?gguf$", "", last, flags=re.IGNORECASE)
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", last)
    clean = re.sub(r"\.{2,}", ".", clean).strip("-._").lower()
    return clean[:80] or "model"
