"""Numbers from a model's metadata, checked: what is wrong ends in a ConfigError that names the key."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.gguf import Elided, GgufHeader
from llmctl.errors import ConfigError

MOST_BLOCKS = 4096
MOST = 1 << 24  # no width, head count or window of a real model comes near


@dataclass(frozen=True)
class Keys:
    """The keys of one architecture in one header."""

    header: GgufHeader
    architecture: str

    def has(self, key: str) -> bool:
        """Whether the key is there, whatever its value."""
        return self._name(key) in self.header.values

    def integer(
        self, key: str, default: int | None = None, *, least: int = 1, most: int = MOST
    ) -> int:
        """A whole number within bounds.

        Raises:
            ConfigError: it is something else, outside, or absent without a default.
        """
        name = self._name(key)
        value = self.header.values.get(name)
        if value is None:
            if default is None:
                raise _refused(f"the key {name} is missing")
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise _refused(f"the key {name} is {_shown(value)}, not a whole number")
        return _bounded(name, value, least, most)

    def each(
        self, key: str, blocks: int, default: int | None = None, *, least: int = 0, most: int = MOST
    ) -> tuple[int, ...]:
        """A number per block: an array with one item each, or one number for all.

        Raises:
            ConfigError: neither, too short, or out of bounds.
        """
        name = self._name(key)
        value = self.header.values.get(name)
        if isinstance(value, Elided) or (isinstance(value, tuple) and len(value) < blocks):
            count = value.count if isinstance(value, Elided) else len(value)
            raise _refused(f"the key {name} has {count} items for {blocks} blocks")
        if not isinstance(value, tuple):
            return (self.integer(key, default, least=least, most=most),) * blocks
        numbers = []
        for item in value[:blocks]:
            if not isinstance(item, int):
                raise _refused(f"the key {name} holds {_shown(item)}, not a whole number")
            numbers.append(_bounded(name, int(item), least, most))
        return tuple(numbers)

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value.

        Raises:
            ConfigError: it is something else.
        """
        value = self.header.values.get(self._name(key), default)
        if not isinstance(value, bool):
            raise _refused(f"the key {self._name(key)} is {_shown(value)}, not true or false")
        return value

    def _name(self, key: str) -> str:
        return f"{self.architecture}.{key}"


def architecture_of(header: GgufHeader) -> str:
    """`general.architecture`.

    Raises:
        ConfigError: it is missing or no text.
    """
    name = header.text("general.architecture")
    if not name or len(name) > 64:  # noqa: PLR2004 - the longest known has 18
        raise _refused("the key general.architecture is missing or no name")
    return name


def _bounded(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise _refused(f"the key {name} is {_shown(value)}; expected {least} to {most}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004


def _refused(message: str) -> ConfigError:
    return ConfigError(
        f"this GGUF cannot be planned: {message}",
        hint="the file is damaged or was written by a broken converter; take another one",
    )
