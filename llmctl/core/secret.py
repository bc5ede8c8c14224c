"""A value that must not be seen: keys and tokens, on their way from a file to a request."""

from __future__ import annotations

import hmac
from typing import NoReturn, Self

REDACTED = "[redacted]"


class Secret:
    """Holds a key or token; everything that prints it prints `[redacted]`.

    It is no string: JSON refuses it, pickle refuses it, and a comparison with a plain text is
    always false, so that neither a document nor an assertion's diff can show it by accident.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; call it only where the value leaves llmctl on purpose."""
        return self._value

    def __str__(self) -> str:
        return REDACTED

    def __repr__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        # `dataclasses.asdict` copies deeply; the copy must stay a Secret.
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written anywhere")
