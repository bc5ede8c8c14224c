"""Frozen dataclasses to plain JSON values and back, driven by their annotations.

Only what the core's own types use: str, int, float, bool, None, tuples, unions with None, nested
dataclasses. A tagged union carries its class in the key "kind".
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A JSON value for a dataclass, tuple or scalar."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: Any) -> T:
    """The dataclass `kind` from what `encode` made of it; TypeError when it does not fit."""
    return typing.cast("T", _decode(kind, value))


def canonical(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces; the input of every digest."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical spelling, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _decode(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        if value is None:
            return None
        (inner,) = [arm for arm in typing.get_args(kind) if arm is not types.NoneType]
        return _decode(inner, value)
    if origin is tuple:
        arms = typing.get_args(kind)
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {type(value).__name__}")
        if len(arms) == 2 and arms[1] is Ellipsis:  # noqa: PLR2004 - tuple[X, ...]
            return tuple(_decode(arms[0], item) for item in value)
        return tuple(_decode(arm, item) for arm, item in zip(arms, value, strict=True))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        hints = typing.get_type_hints(kind)
        return kind(**{name: _decode(hints[name], item) for name, item in value.items()})
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
