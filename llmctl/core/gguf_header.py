"""What a GGUF header holds; `core.gguf` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.ggml import TensorType
from llmctl.errors import ConfigError

LONGEST_WORD = 200


class GgufError(ConfigError):
    """The bytes are no GGUF header that llama.cpp would read; the message says what is wrong."""


@dataclass(frozen=True)
class Elided:
    """A value that was walked over and not kept.

    Attributes:
        kind: Type of its items: "text", "f32", "i32", ...
        count: Items of an array, bytes of a text.
    """

    kind: str
    count: int


Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...] | Elided


@dataclass(frozen=True)
class Tensor:
    """One tensor's entry.

    Attributes:
        name: For instance `blk.0.attn_q.weight`.
        shape: Elements by dimension, the contiguous one (ggml's ne0) first.
        type: Its storage type.
        type_id: The type's number in the file.
        offset: Bytes from the beginning of the data section.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    type_id: int
    offset: int

    @property
    def elements(self) -> int:
        """Numbers in it."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        return self.type.bytes_of(self.elements)


@dataclass(frozen=True)
class GgufHeader:
    """A whole header.

    Attributes:
        version: Of the format.
        values: Metadata by key, in the file's order.
        tensors: In the file's order.
        size: Bytes from the file's beginning to the end of the tensor list.
        alignment: `general.alignment`, in bytes.
    """

    version: int
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    size: int
    alignment: int

    @property
    def data_offset(self) -> int:
        """Where the data section begins, in bytes."""
        return _aligned(self.size, self.alignment)

    @property
    def file_size(self) -> int:
        """Bytes that the file must have at least."""
        return self.data_offset + max((t.offset + t.nbytes for t in self.tensors), default=0)

    def text(self, key: str) -> str | None:
        """The text at `key`, None when it is absent or something else."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def word(self, key: str) -> str | None:
        """As `text`, made fit for a terminal: one line of printable characters, cut where long."""
        value = self.text(key)
        if value is None:
            return None
        return "".join(c if c.isprintable() else "?" for c in value[:LONGEST_WORD])

    def integer(self, key: str) -> int | None:
        """The whole number at `key`, None when it is absent or something else."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def count(self, key: str) -> int | None:
        """How many items the array at `key` has, None when there is no array."""
        match self.values.get(key):
            case tuple() as items:
                return len(items)
            case Elided(count=count):
                return count
        return None


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
