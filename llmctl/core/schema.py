"""The JSON Schema of the stack file, for editors."""

from __future__ import annotations

from typing import Any

from llmctl.core.settings import MODEL_SETTINGS, SOURCE, STACK_SETTINGS, Setting


def stack_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `llmctl.yaml`, generated from the settings table."""
    properties: dict[str, Any] = {}
    for setting in STACK_SETTINGS:
        target = properties
        *section, key = setting.path.split(".")
        if section:
            target = properties.setdefault(section[0], _object({}))["properties"]
        target[key] = _described(setting)
    model = _object({s.path: _described(s) for s in MODEL_SETTINGS})
    properties["models"] = {
        "type": "array",
        "minItems": 1,
        "description": "The models served; a bare text is a model's source.",
        "items": {"anyOf": [SOURCE.schema(), model]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmctl stack",
        **_object(properties),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _described(setting: Setting) -> dict[str, Any]:
    described = {**setting.kind.schema(), "description": setting.doc}
    if setting.default is not None:
        default = setting.default
        described["default"] = list(default) if isinstance(default, tuple) else default
    return described
