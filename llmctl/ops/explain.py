"""`config explain`: a value, why, what it takes, where it goes, and what the engine made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmctl import host
from llmctl.core.deployment import container_name
from llmctl.core.explain import KNOWN, Known, difference, step, told_by, value_in
from llmctl.core.fitting import planned_settings
from llmctl.core.localai_config import load_strict
from llmctl.core.measured import last_load
from llmctl.core.memory import MIB, Estimate, Settings, estimate
from llmctl.core.resolve import plain_settings
from llmctl.core.services import backends
from llmctl.core.settings import ENGINE_SETTINGS, MODEL_SETTINGS, STACK_SETTINGS
from llmctl.core.stack import ModelSpec, Resolved, Value, did_you_mean
from llmctl.core.tuning import EngineSettings, Settled
from llmctl.engine.base import Engine
from llmctl.errors import ConfigError, LlmctlError
from llmctl.ops import engines, models
from llmctl.ops.fit import stack_place
from llmctl.ops.host import machine
from llmctl.ops.measuring import engine_words
from llmctl.ops.planning import models_of
from llmctl.ops.render import Rendered, render_stack
from llmctl.paths import StackPaths

PER_MODEL = {"context", "parallel", "threads", "gpu_layers"} | {s.path for s in ENGINE_SETTINGS}


@dataclass(frozen=True)
class Effect:
    """What a setting means for one model.

    Attributes:
        model: The model's name; None for a key that is no model's.
        value: In force: fixed, chosen, or the default.
        reason: Why it was chosen, None when it was not.
        takes: What the model takes of each device now, by the device's name; None when unknown.
        step: The value a step away.
        difference: What that step would change, in words.
        place: "models/llava.yaml: gpu_layers", None when it is in no file.
        rendered: What stands there.
        effective: What the running engine says of it, None when it says nothing.
    """

    model: str | None
    value: Any
    reason: str | None
    takes: Mapping[str, int] | None
    step: Any
    difference: str | None
    place: str | None
    rendered: Any
    effective: str | None


@dataclass(frozen=True)
class Explanation:
    """A key of the stack file.

    Attributes:
        key: Dotted path, models by number.
        value: As the stack file, the environment and the flags have it.
        origin: Who said so.
        doc: What it is.
        decides: For a key that is in no file: what it decides.
        effects: By model.
    """

    key: str
    value: Any
    origin: str
    doc: str
    decides: str | None
    effects: tuple[Effect, ...]


def explain(paths: StackPaths, resolved: Resolved, key: str) -> Explanation:
    """Everything about one key: `gpu_layers`, `gateway.auth`, `models.llava.context`.

    Raises:
        ConfigError: there is no such key or model.
    """
    path, model = _path(resolved, key)
    last = path.rpartition(".")[2] if model is not None else path
    known = KNOWN[last]
    doc = next(
        s.doc
        for s in (*STACK_SETTINGS, *MODEL_SETTINGS)
        if s.path == last and not s.doc.startswith("As the stack's")
    )
    value = resolved.values[path]
    stack = resolved.stack
    specs = stack.models if model is None else (stack.models[model],)
    if model is None:
        specs = tuple(s for i, s in enumerate(specs) if _inherits(resolved, i, last, value))
    if not known.file:
        return Explanation(path, value.value, value.origin, doc, known.key, ())
    world = _World.look(paths, resolved)
    effects = tuple(world.effect(spec, last, known) for spec in specs)
    if model is None and last not in PER_MODEL:
        effects = (dataclasses.replace(effects[0], model=None),)
    return Explanation(path, value.value, value.origin, doc, None, effects)


def _path(resolved: Resolved, key: str) -> tuple[str, int | None]:
    """The path among the resolved values, and the model's number for a model's key."""
    names = [spec.name for spec in resolved.stack.models]
    start, _, rest = key.partition(".")
    if start == "models" and rest:
        # A model's name may hold dots; a key of a model does not.
        name, _, last = rest.rpartition(".")
        known = [s.path for s in MODEL_SETTINGS]
        if name in names or (name.isdigit() and int(name) < len(names)):
            number = names.index(name) if name in names else int(name)
            if last in known:
                return f"models.{number}.{last}", number
            raise ConfigError(
                f"{key}: unknown key{did_you_mean(last, known)}", hint="llmctl config show"
            )
        raise ConfigError(
            f"{key}: the stack has no such model{did_you_mean(name, names)}",
            hint=f"llmctl config explain models.{names[0]}.{last or 'context'}",
        )
    known = [s.path for s in STACK_SETTINGS]
    if key not in known:
        raise ConfigError(
            f"{key}: unknown key{did_you_mean(key, known)}",
            hint="llmctl config show   # lists the keys; of one model: models.NAME.KEY",
        )
    return key, None


def _inherits(resolved: Resolved, number: int, key: str, value: Value) -> bool:
    """Whether a model has this value from the stack; for a key that models do not have, always."""
    own = resolved.values.get(f"models.{number}.{key}")
    return key not in PER_MODEL or own == value


@dataclass(frozen=True)
class _World:
    """What a setting is explained by."""

    paths: StackPaths
    resolved: Resolved
    rendered: Rendered
    engine: Engine

    @classmethod
    def look(cls, paths: StackPaths, resolved: Resolved) -> _World:
        stack = resolved.stack
        rendered = render_stack(paths, stack, lambda _event: None)
        return cls(paths, resolved, rendered, engines.connect(paths, stack))

    def effect(self, spec: ModelSpec, key: str, known: Known) -> Effect:
        settled = self.rendered.settled.get(spec.name)
        given = settled.settings if settled else self._plain(spec)
        settings = planned_settings(given)
        planned = self._planned(spec, settings)
        now = moved = None
        change = None
        if planned is not None and known.field is not None:
            now, again = planned
            moved = step(settings, known.field, now)
            try:
                change = difference(now, again(moved)) if moved else None
            except ConfigError:
                moved = None
        file = known.file.format(name=spec.name)
        return Effect(
            model=spec.name,
            value=self._value(spec, key, given),
            reason=_reason(settled, known.field or key),
            takes={m.device.name: m.total for m in now.devices} if now else None,
            step=_unit(known.field, getattr(moved, known.field)) if moved and known.field else None,
            difference=change,
            place=f"{file}: {known.key}",
            rendered=self._rendered(file, known.key),
            effective=self._effective(spec, known),
        )

    def _plain(self, spec: ModelSpec) -> EngineSettings:
        return plain_settings(spec, host.facts(), self.rendered.gpu)

    def _value(self, spec: ModelSpec, key: str, given: EngineSettings) -> Any:
        """In force: what the engine is given, else what the stack says."""
        if key in PER_MODEL:
            return getattr(given, key)
        number = self.resolved.stack.models.index(spec)
        values = self.resolved.values
        return (values.get(f"models.{number}.{key}") or values[key]).value

    def _planned(self, spec: ModelSpec, settings: Settings) -> tuple[Estimate, Any] | None:
        """The estimate, and how to make another; None without headers."""
        stack = self.resolved.stack
        artifact = models.resolve(self.paths, spec, None)
        if models.missing(self.paths, artifact):
            return None
        try:
            model, projector = models_of(self.paths, artifact)
        except LlmctlError:
            return None
        devices = stack_place(self.paths, stack, machine()).devices
        return (
            estimate(model, settings, devices, projector),
            lambda other: estimate(model, other, devices, projector),
        )

    def _rendered(self, file: str, place: str) -> Any:
        for one in self.rendered.files:
            if one.path == file:
                return value_in(load_strict(one.content), place)
        return None

    def _effective(self, spec: ModelSpec, known: Known) -> str | None:
        """From what the running engine said when it loaded this model."""
        if known.told is None:
            return None
        stack = self.resolved.stack
        (backend,) = [
            b for b in backends(stack, engines.kind(self.engine)) if spec.name in b.models
        ]
        try:
            found = self.engine.inspect(container_name(stack.name, backend.service))
        except LlmctlError:
            return None
        if found is None or found.state != "running":
            return None
        lines = last_load(engine_words(stack, self.engine, backend, spec.name))
        return told_by("\n".join(lines), known.told)


def _reason(settled: Settled | None, name: str) -> str | None:
    return dict(settled.reasons).get(name) if settled else None


def _unit(field: str | None, value: Any) -> Any:
    """As the stack file writes it: the prompt cache in MiB."""
    if field == "cache_ram" and isinstance(value, int) and value > 0:
        return value // MIB
    return value


def as_document(found: Explanation) -> dict[str, Any]:
    """For JSON."""
    return dataclasses.asdict(found)
