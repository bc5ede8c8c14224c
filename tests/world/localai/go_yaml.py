"""YAML into typed fields, by the rules of Go's yaml.v3 rather than PyYAML's.

What differs, and what a deployer trips over: unknown keys are ignored, duplicate keys are an error,
a quoted number is not a number, an unquoted one may be a string, a fraction is cut to an integer, a
scalar is not a list.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
# Understood only where the field is a bool: yaml.v3 keeps YAML 1.1's spellings there and nowhere
# else.
_OLD_TRUE = {"y", "Y", "yes", "Yes", "YES", "on", "On", "ON"}
_OLD_FALSE = {"n", "N", "no", "No", "NO", "off", "Off", "OFF"}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0[0-7]+|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

# A field's type: "str", "int", "float", "bool", "strings" (a list), "map" (string to string), or a
# struct's fields.
Kind: TypeAlias = "str | Mapping[str, Kind]"


class GoYamlError(ValueError):
    """A document that LocalAI would refuse to read."""


def decode(text: str, fields: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """The mappings of a document (one, or a list of them), each with the known fields that it sets.

    An empty document is one mapping that sets nothing, as in Go. Raises ``GoYamlError`` with
    yaml.v3's words.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise GoYamlError(f"yaml: {error}") from error
    if root is None:
        return [{}]
    items = root.value if isinstance(root, yaml.SequenceNode) else [root]
    problems: list[str] = []
    decoded = [_value(item, fields, problems) for item in items]
    if problems:
        raise GoYamlError("yaml: unmarshal errors:\n  " + "\n  ".join(problems))
    return [item if isinstance(item, dict) else {} for item in decoded]


def _value(node: yaml.Node, kind: Kind, problems: list[str]) -> Any:
    """One decoded value; ``None`` for YAML's null, which leaves a Go field as it was."""
    if isinstance(node, yaml.ScalarNode) and _tag(node) == "!!null":
        return None
    if kind == "strings" and isinstance(node, yaml.SequenceNode):
        return [_value(item, "str", problems) for item in node.value]
    if (kind == "map" or not isinstance(kind, str)) and isinstance(node, yaml.MappingNode):
        return _mapping(node, kind, problems)
    if isinstance(node, yaml.ScalarNode):
        value = _scalar(node, kind)
        if value is not None:
            return value
    shown = f" `{node.value}`" if isinstance(node, yaml.ScalarNode) else ""
    problems.append(
        f"line {node.start_mark.line + 1}: cannot unmarshal {_tag(node)}{shown} into {_go_name(kind)}"
    )
    return None


def _mapping(node: yaml.MappingNode, kind: Kind, problems: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = key.value
        line = key.start_mark.line + 1
        if name in lines:
            problems.append(
                f'line {line}: mapping key "{name}" already defined at line {lines[name]}'
            )
            continue
        lines[name] = line
        inner = "str" if isinstance(kind, str) else kind.get(name)
        if inner is not None:
            decoded = _value(value, inner, problems)
            if decoded is not None:
                result[name] = decoded
    return result


def _scalar(node: yaml.ScalarNode, kind: Kind) -> str | int | float | bool | None:
    tag, text = _tag(node), str(node.value)
    if kind == "str":
        return text  # any scalar: `flash_attention: true` is the string "true"
    if kind == "bool":
        plain = node.style is None
        if tag == "!!bool" or (plain and text in _OLD_TRUE | _OLD_FALSE):
            return text in _TRUE | _OLD_TRUE
    if kind == "int" and tag in {"!!int", "!!float"}:
        return int(text.replace("_", ""), 0) if tag == "!!int" else int(float(text))
    if kind == "float" and tag in {"!!int", "!!float"}:
        return float(text)
    return None


def _tag(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "!!seq"
    if isinstance(node, yaml.MappingNode):
        return "!!map"
    if getattr(node, "style", None) is not None:
        return "!!str"
    text = str(node.value)
    if text in _NULL:
        return "!!null"
    if text in _TRUE | _FALSE:
        return "!!bool"
    if _INTEGER.fullmatch(text):
        return "!!int"
    return "!!float" if _FRACTION.fullmatch(text) else "!!str"


def _go_name(kind: Kind) -> str:
    names = {"str": "string", "float": "float64", "strings": "[]string", "map": "map[string]string"}
    return names.get(kind, kind) if isinstance(kind, str) else "config.ModelConfig"
