"""A GGUF header from its bytes: what a file says of itself before the weights begin.

The format is ggml's `docs/gguf.md`, versions 2 and 3, little-endian. The reader takes bytes as they
come, walks over vocabularies without keeping them, and trusts nothing: every count and length is
bounded, so that a hostile file costs neither memory nor time.
"""

from __future__ import annotations

import struct

from llmctl.core.filetype import identify
from llmctl.core.ggml import REMOVED, TYPES, TensorType
from llmctl.core.gguf_header import (
    LONGEST_WORD,
    Elided,
    GgufError,
    GgufHeader,
    Scalar,
    Tensor,
    Value,
)

__all__ = [
    "Elided",
    "GgufError",
    "GgufHeader",
    "HeaderReader",
    "Scalar",
    "Tensor",
    "Value",
    "not_gguf",
    "parse_header",
]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
FIRST_READ = 64 << 10  # the architecture's keys stand in the first kilobyte
NEXT_READ = 1 << 20  # beyond what `HeaderReader.left` expects
MAX_HEADER = 64 << 20  # the largest vocabularies of 2026 make 16 MB
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 15  # the largest models of 2026 have some two thousand
MAX_ITEMS = 2_000_000  # texts walked over in all arrays together
MAX_TEXT = 1 << 20  # of a value that is kept; a chat template has some ten thousand
MAX_NAME = 1 << 16
MAX_KEPT = 4 << 20  # bytes of all values, and of all names; Python's objects take more
KEPT_ITEMS = 1024
KEPT_TEXTS = 1 << 16  # bytes of an array of texts that is kept
ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_TEXT, _ARRAY = 8, 9
_TEXT_COST = 60  # bytes of a Python text beside its letters
_SCALARS: dict[int, tuple[str, struct.Struct]] = {
    0: ("u8", struct.Struct("<B")),
    1: ("i8", struct.Struct("<b")),
    2: ("u16", struct.Struct("<H")),
    3: ("i16", struct.Struct("<h")),
    4: ("u32", _U32),
    5: ("i32", struct.Struct("<i")),
    6: ("f32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<?")),
    10: ("u64", _U64),
    11: ("i64", struct.Struct("<q")),
    12: ("f64", struct.Struct("<d")),
}


def parse_header(data: bytes) -> GgufHeader:
    """The header at the beginning of `data`.

    Raises:
        GgufError: it is damaged, something else, or `data` ends before it does.
    """
    reader = HeaderReader()
    header = reader.feed(data)
    if header is None:
        raise GgufError(
            f"the file ends inside its GGUF header ({len(data)} bytes are there)",
            hint="download it again",
        )
    return header


class _ShortError(Exception):
    """The item goes on beyond the bytes that are here."""


class HeaderReader:
    """Reads a header from pieces; holds the last piece and one unfinished item.

    Attributes:
        position: Bytes of the file that were fed.
    """

    def __init__(self) -> None:
        self.position = 0
        self._data = b""
        self._at = 0
        self._base = 0  # the file offset of _data[0]
        self._version = 0
        self._keys_left = self._tensors_left = -1
        self._skip = 0  # bytes still to walk over
        self._texts = 0  # texts still to walk over
        self._walked = (1, 0)  # texts walked over, and their bytes
        self._items = 0
        self._room = MAX_KEPT  # for values
        self._named = 0  # bytes of the names of keys and tensors
        self._values: dict[str, Value] = {}
        self._tensors: list[Tensor] = []
        self._names: set[str] = set()

    def feed(self, data: bytes) -> GgufHeader | None:
        """Take the next bytes; the header when it is complete, else None.

        Raises:
            GgufError: this can be no header that llama.cpp reads.
        """
        self._data = self._data[self._at :] + data
        self._base += self._at
        self._at = 0
        self.position += len(data)
        try:
            while self._step():
                pass
        except _ShortError:
            self._bounded(self._base + self._at + self._skip)
            return None
        except struct.error as error:  # pragma: no cover - every read checks its length first
            raise AssertionError from error
        return self._whole()

    def left(self) -> int:
        """About how many bytes of the header are still to come; rather too few.

        A vocabulary makes nearly all of it: what remains of the one under way, and the arrays that
        always follow it (scores and types, or types and merges).
        """
        tokens = self._values.get("tokenizer.ggml.tokens")
        if self._version == 0 or not isinstance(tokens, Elided):
            return 0
        count, size = self._walked
        each = size // count
        left = self._texts * each + self._skip
        kind = self._values.get("tokenizer.ggml.model")
        follow = {"tokenizer.ggml.token_type": 4}
        follow |= {"tokenizer.ggml.merges": each} if kind == "gpt2" else {}
        follow |= {"tokenizer.ggml.scores": 4} if kind == "llama" else {}
        return left + sum(
            size * tokens.count for key, size in follow.items() if key not in self._values
        )

    def _whole(self) -> GgufHeader:
        self._bounded(self._base + self._at)
        alignment = self._values.get("general.alignment", ALIGNMENT)
        if (
            not isinstance(alignment, int)
            or not 0 < alignment <= MAX_ALIGNMENT
            or alignment & (alignment - 1)
        ):
            raise _damaged(f"general.alignment is {_shown(alignment)}, not a small power of two")
        for tensor in self._tensors:
            if tensor.offset % alignment:
                raise _damaged(
                    f"tensor {_shown(tensor.name)} does not begin at a multiple of {alignment}"
                )
        return GgufHeader(
            self._version,
            self._values,
            tuple(self._tensors),
            self._base + self._at,
            alignment,
        )

    def _step(self) -> bool:
        """Read one item; False at the end of the header. `_at` moves only past whole items."""
        if self._version == 0:
            self._preamble()
        elif self._skip:
            taken = min(self._skip, len(self._data) - self._at)
            self._at += taken
            self._skip -= taken
            if self._skip:
                raise _ShortError
        elif self._texts:
            self._walk_texts()
        elif self._keys_left:
            self._key()
        elif self._tensors_left:
            self._tensor()
        else:
            return False
        return True

    def _preamble(self) -> None:
        if len(self._data) < 24:  # noqa: PLR2004 - magic, version, two counts
            if self._data and not MAGIC.startswith(self._data[:4]):
                raise not_gguf(self._data)
            raise _ShortError
        if not self._data.startswith(MAGIC):
            raise not_gguf(self._data)
        version = self._u32(4)
        if version not in VERSIONS:
            if version & 0xFFFF == 0:
                raise _damaged("it is a big-endian file, which little-endian machines do not read")
            raise _damaged(f"it has GGUF version {version}; llama.cpp reads versions 2 and 3")
        tensors, keys = self._u64(8), self._u64(16)
        if keys > MAX_KEYS or tensors > MAX_TENSORS:
            raise _damaged(f"it announces {tensors} tensors and {keys} keys")
        self._version, self._keys_left, self._tensors_left = version, keys, tensors
        self._at = 24

    def _key(self) -> None:
        key, at = self._name(self._at, "key")
        kind = self._u32(at)
        value, at = self._value(key, kind, at + 4)
        if key in self._values:
            raise _damaged(f"the key {_shown(key)} is there twice")
        self._values[key] = value
        self._named += len(key)
        self._keys_left -= 1
        self._at = at

    def _value(self, key: str, kind: int, at: int) -> tuple[Value, int]:
        """The value at `at` and where the next item begins; sets what is to be walked over."""
        if kind in _SCALARS:
            scalar = _SCALARS[kind][1]
            self._have(at, scalar.size)
            return scalar.unpack_from(self._data, at)[0], at + scalar.size
        if kind == _TEXT:
            length = self._u64(at)
            if length > min(MAX_TEXT, self._room):
                self._skip = self._bounded(length)
                return Elided("text", length), at + 8
            text = self._decoded(at + 8, length)
            self._room -= length
            return text, at + 8 + length
        if kind != _ARRAY:
            raise _damaged(f"the key {_shown(key)} has a value of unknown type {kind}")
        return self._array(key, at)

    def _array(self, key: str, at: int) -> tuple[Value, int]:
        kind, count = self._u32(at), self._u64(at + 4)
        at += 12
        if kind == _TEXT:
            return self._text_array(key, count, at)
        if kind not in _SCALARS:
            raise _damaged(f"the key {_shown(key)} is an array of unknown type {kind}")
        name, scalar = _SCALARS[kind]
        length = self._bounded(count * scalar.size)
        if count > KEPT_ITEMS or 8 * count > self._room:
            self._skip = length
            return Elided(name, count), at
        self._have(at, length)
        items = tuple(item for (item,) in scalar.iter_unpack(self._data[at : at + length]))
        self._room -= 8 * count
        return items, at + length

    def _text_array(self, key: str, count: int, at: int) -> tuple[Value, int]:
        if self._items + count > MAX_ITEMS:
            raise _damaged(f"the key {_shown(key)} announces {count} texts")
        kept = count <= KEPT_ITEMS and self._kept_texts(count, at)
        self._items += count
        if kept:
            return kept
        self._texts = count
        return Elided("text", count), at

    def _kept_texts(self, count: int, at: int) -> tuple[tuple[str, ...], int] | None:
        """A short array of texts and where it ends; None when it is too large to be kept."""
        texts, end = [], at + min(KEPT_TEXTS, self._room)
        for _ in range(count):
            length = self._u64(at)
            if at + 8 + length > end:
                return None
            texts.append(self._decoded(at + 8, length))
            at += 8 + length
        self._room = max(self._room - sum(_TEXT_COST + len(text) for text in texts), 0)
        return tuple(texts), at

    def _walk_texts(self) -> None:
        """Pass over as many whole texts as are here: the one loop that has to be fast."""
        data, at, left = self._data, self._at, self._texts
        end = len(data) - 8
        length_at = _U64.unpack_from
        while left and at <= end:
            after = at + 8 + length_at(data, at)[0]
            if after > end + 8:
                break
            at = after
            left -= 1
        count, size = self._walked
        self._walked = (count + self._texts - left, size + at - self._at)
        self._at, self._texts = at, left
        if not left:
            return
        if at <= end and (length := length_at(data, at)[0]) > MAX_TEXT:
            # Not to be waited for in one piece.
            self._skip = self._bounded(length)
            self._at, self._texts = at + 8, left - 1
            return
        raise _ShortError

    def _tensor(self) -> None:
        name, at = self._name(self._at, "tensor name")
        dimensions = self._u32(at)
        if dimensions > 4:  # noqa: PLR2004 - ggml's GGML_MAX_DIMS
            raise _damaged(f"tensor {_shown(name)} has {dimensions} dimensions")
        at += 4
        self._have(at, 8 * dimensions + 12)
        shape = struct.unpack_from(f"<{dimensions}Q", self._data, at) or (1,)
        at += 8 * dimensions
        type_id, offset = self._u32(at), self._u64(at + 4)
        tensor = Tensor(name, shape, _type(name, type_id), type_id, offset)
        if tensor.elements >= 1 << 62 or offset >= 1 << 62:
            raise _damaged(f"tensor {_shown(name)} is larger than any file")
        if shape[0] % tensor.type.block:
            raise _damaged(
                f"tensor {_shown(name)}: rows of {shape[0]} are no multiple of {tensor.type.name}'s"
                f" {tensor.type.block}"
            )
        if name in self._names:
            raise _damaged(f"the tensor {_shown(name)} is there twice")
        self._names.add(name)
        self._named += len(name)
        self._tensors.append(tensor)
        self._tensors_left -= 1
        self._at = at + 12

    def _name(self, at: int, what: str) -> tuple[str, int]:
        length = self._u64(at)
        if length > MAX_NAME:
            raise _damaged(f"a {what} of {length} bytes")
        if self._named + length > MAX_KEPT:
            raise _damaged("the names in it take megabytes")
        return self._decoded(at + 8, length), at + 8 + length

    def _decoded(self, at: int, length: int) -> str:
        self._have(at, length)
        return self._data[at : at + length].decode("utf-8", errors="replace")

    def _u32(self, at: int) -> int:
        self._have(at, 4)
        return int(_U32.unpack_from(self._data, at)[0])

    def _u64(self, at: int) -> int:
        self._have(at, 8)
        return int(_U64.unpack_from(self._data, at)[0])

    def _have(self, at: int, length: int) -> None:
        if at + length > len(self._data):
            raise _ShortError

    def _bounded(self, length: int) -> int:
        """`length`, where a header may be that long."""
        if length > MAX_HEADER:
            raise _damaged(f"it goes on beyond {MAX_HEADER >> 20} MiB")
        return length


def not_gguf(head: bytes) -> GgufError:
    """The error for a file that begins otherwise: it says what the file is."""
    return GgufError(f"is {identify(head) or 'not a GGUF file'}", hint="a model is a GGUF file")


def _type(name: str, type_id: int) -> TensorType:
    if type_id in TYPES:
        return TYPES[type_id]
    if type_id in REMOVED:
        raise GgufError(
            f"tensor {_shown(name)} is of type {REMOVED[type_id]}, which llama.cpp no longer reads",
            hint="take a newer quantisation of the model",
        )
    raise GgufError(
        f"tensor {_shown(name)} has the type number {type_id}, which no released llama.cpp knows",
        hint="download it again; a type newer than this llmctl: update llmctl",
    )


def _damaged(why: str) -> GgufError:
    return GgufError(f"the GGUF header is damaged: {why}", hint="download it again")


def _shown(value: object) -> str:
    """Something from a file, in a message: short, on one line."""
    text = repr(value)
    return text if len(text) <= LONGEST_WORD else f"{text[:LONGEST_WORD]}..."
