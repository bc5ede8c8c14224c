"""The GGUF header reader: right on real headers, however they come; bounded on hostile ones."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator

import gguf as peer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.ggml import FILE_TYPES, REMOVED, TYPES
from llmctl.core.gguf import (
    FIRST_READ,
    MAX_HEADER,
    MAX_KEPT,
    NEXT_READ,
    Elided,
    GgufError,
    GgufHeader,
    HeaderReader,
    parse_header,
)
from llmctl.ops.models.headers import read_header
from tests.world.gguf_bytes import gguf, language, projector
from tests.world.real_headers import SIZES, header_bytes

SMALL = language(vocabulary=2000)  # more tokens than are kept
SMALL_HEADER = parse_header(SMALL)
U8, U32, TEXT, ARRAY = 0, 4, 8, 9


def text(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(
    name: str, *shape: int, kind: int = 0, offset: int = 0, dimensions: int | None = None
) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


def file(
    *keys: bytes,
    tensors: tuple[bytes, ...] = (),
    version: int = 3,
    announced: tuple[int, int] | None = None,
) -> bytes:
    """A header by its parts; `announced` lies about the counts of tensors and keys."""
    counts = announced or (len(tensors), len(keys))
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join((*keys, *tensors))


def read_in_pieces(data: bytes, cuts: list[int]) -> GgufHeader | None:
    reader = HeaderReader()
    header = None
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        header = reader.feed(data[start:stop])
        if header is not None:
            break
    return header


def outcome(parse: Callable[[], GgufHeader | None]) -> GgufHeader | str | None:
    try:
        return parse()
    except GgufError as error:
        return error.message


@pytest.mark.parametrize("name", SIZES)
def test_a_real_header(name: str) -> None:
    size, file_size = SIZES[name]
    header = parse_header(header_bytes(name))
    assert (header.size, header.file_size) == (size, file_size)
    assert header.tensors[0].offset == 0
    assert header.text("general.architecture")


def test_the_storage_types_are_those_of_ggml() -> None:
    theirs = {t.value: (t.name, *peer.GGML_QUANT_SIZES[t]) for t in peer.GGMLQuantizationType}
    assert {number: (t.name, t.block, t.size) for number, t in TYPES.items()} == theirs
    assert not REMOVED.keys() & TYPES.keys()
    names = {
        t.value: t.name.removeprefix("ALL_").removeprefix("MOSTLY_") for t in peer.LlamaFileType
    }
    del names[peer.LlamaFileType.GUESSED.value]
    assert names == FILE_TYPES


def test_what_is_kept_and_what_is_only_counted() -> None:
    header = SMALL_HEADER
    assert header.values["tokenizer.ggml.tokens"] == Elided("text", 2000)
    assert header.count("tokenizer.ggml.tokens") == 2000
    assert (header.count("general.name"), header.count("nothing")) == (None, None)
    assert header.text("general.name") == "a tiny model"
    assert header.integer("llama.context_length") == 4096
    assert (header.text("llama.context_length"), header.integer("general.name")) == (None, None)
    assert header.file_size == len(SMALL)
    assert header.tensors[0].name == "token_embd.weight"
    assert (header.tensors[0].shape, header.tensors[0].nbytes) == ((64, 2000), 4 * 64 * 2000)


def test_scalars_of_every_type() -> None:
    values = {
        0: (struct.pack("<B", 200), 200),
        1: (struct.pack("<b", -3), -3),
        2: (struct.pack("<H", 60000), 60000),
        3: (struct.pack("<h", -300), -300),
        4: (struct.pack("<I", 1 << 31), 1 << 31),
        5: (struct.pack("<i", -5), -5),
        6: (struct.pack("<f", 0.5), 0.5),
        7: (b"\1", True),
        10: (struct.pack("<Q", 1 << 63), 1 << 63),
        11: (struct.pack("<q", -(1 << 40)), -(1 << 40)),
        12: (struct.pack("<d", 0.1), 0.1),
    }
    header = parse_header(file(*(pair(f"k{kind}", kind, raw) for kind, (raw, _) in values.items())))
    assert header.values == {f"k{kind}": value for kind, (_, value) in values.items()}
    assert header.integer("k7") is None  # a boolean is no number


def test_text_that_is_not_utf8_is_read_all_the_same() -> None:
    header = parse_header(file(pair("general.name", TEXT, text(b"caf\xe9\x1b[31m\n"))))
    assert header.text("general.name") == "caf\ufffd\x1b[31m\n"
    assert header.word("general.name") == "caf\ufffd?[31m?"


def test_a_version_2_file_and_a_tensor_without_dimensions() -> None:
    header = parse_header(file(tensors=(tensor("t"),), version=2))
    assert (header.version, header.tensors[0].shape, header.tensors[0].nbytes) == (2, (1,), 4)


@pytest.mark.parametrize("name", ["mmproj-smolvlm", "qwen3-4b"])
def test_every_cut_gives_the_same_header(name: str) -> None:
    data = header_bytes(name)
    whole = parse_header(data)
    rng = random.Random(name)
    for _ in range(5):
        cuts = [rng.randrange(len(data)) for _ in range(rng.randrange(1, 12))]
        assert read_in_pieces(data, cuts) == whole


@given(st.lists(st.integers(0, len(SMALL)), max_size=20))
def test_random_cuts_give_the_same_header(cuts: list[int]) -> None:
    assert read_in_pieces(SMALL, cuts) == SMALL_HEADER


def test_byte_by_byte() -> None:
    data = language(vocabulary=30)
    whole = parse_header(data)
    assert read_in_pieces(data, list(range(whole.size + 1))) == whole


def test_a_header_that_ends_early_is_never_taken() -> None:
    """At every byte of a projector's; at every item's edge and beside it of a language model's."""
    for data in (projector(), language(vocabulary=1500)):
        header = parse_header(data)
        stops = range(header.size) if header.size < 2000 else range(0, header.size, 37)
        for stop in (*stops, header.size - 1):
            assert HeaderReader().feed(data[:stop]) is None
        assert HeaderReader().feed(data[: header.size]) == header
        with pytest.raises(GgufError, match="ends inside its GGUF header"):
            parse_header(data[: header.size - 1])


HUGE = (1 << 64) - 1
NESTED = struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ", U32, 1) + struct.pack("<I", 7)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "version 1": (file(version=1), "GGUF version 1;"),
    "version 4": (file(version=4), "GGUF version 4;"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "keys": (file(announced=(0, HUGE)), "announces 0 tensors and 18446744073709551615 keys"),
    "tensors": (file(announced=(1 << 40, 0)), "announces 1099511627776 tensors"),
    "a key twice": (file(pair("k", U8, b"\1"), pair("k", U8, b"\2")), "the key 'k' is there twice"),
    "a tensor twice": (
        file(tensors=(tensor("t", 8), tensor("t", 8, offset=32))),
        "the tensor 't' is there twice",
    ),
    "an unknown value": (file(pair("k", 13, b"")), "value of unknown type 13"),
    "nested arrays": (file(pair("k", ARRAY, NESTED)), "'k' is an array of unknown type 9"),
    "a long key": (file(struct.pack("<Q", HUGE)), "a key of 18446744073709551615 bytes"),
    "a long text": (file(pair("k", TEXT, struct.pack("<Q", HUGE))), "goes on beyond 64 MiB"),
    "many texts": (
        file(pair("k", ARRAY, struct.pack("<IQ", TEXT, HUGE))),
        "'k' announces 18446744073709551615 texts",
    ),
    "many numbers": (
        file(pair("k", ARRAY, struct.pack("<IQ", U32, HUGE))),
        "goes on beyond 64 MiB",
    ),
    "alignment 0": (
        file(pair("general.alignment", U32, bytes(4))),
        "general.alignment is 0, not a small power of two",
    ),
    "alignment 48": (file(pair("general.alignment", U32, struct.pack("<I", 48))), "is 48, not"),
    "alignment 2 GiB": (
        file(pair("general.alignment", U32, struct.pack("<I", 1 << 31))),
        "is 2147483648, not",
    ),
    "alignment in words": (file(pair("general.alignment", TEXT, text("32"))), "is '32', not"),
    "dimensions": (file(tensors=(tensor("t", dimensions=5),)), "'t' has 5 dimensions"),
    "elements": (file(tensors=(tensor("t", HUGE, HUGE),)), "'t' is larger than any file"),
    "an offset": (file(tensors=(tensor("t", 1, offset=1 << 62),)), "'t' is larger than any file"),
    "an odd offset": (
        file(tensors=(tensor("t", 8, offset=4),)),
        "'t' does not begin at a multiple of 32",
    ),
    "a row": (
        file(tensors=(tensor("t", 100, kind=12),)),
        "'t': rows of 100 are no multiple of Q4_K's 256",
    ),
    "a removed type": (
        file(tensors=(tensor("t", 32, kind=31),)),
        "type Q4_0_4_4, which llama.cpp no longer reads",
    ),
    "an unknown type": (file(tensors=(tensor("t", 32, kind=99),)), "has the type number 99"),
    "a name with colours": (file(tensors=(tensor("\x1b[31m", 32, kind=99),)), r"tensor '\x1b[31m'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_llama_cpp_would_not_read_is_named(case: str) -> None:
    data, words = DAMAGED[case]
    with pytest.raises(GgufError) as caught:
        parse_header(data + bytes(64))
    assert words in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n <html lang=en>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{}}', "a safetensors file"),
        (b'{"error":"Entry not found"}', "a JSON document"),
        (b"PK\x03\x04" + bytes(30), "a ZIP archive"),
        (b"\x1f\x8b" + bytes(30), "a gzip archive"),
        (b"tjgg" + bytes(30), "a GGML file from before GGUF"),
        (b"\x80\x02}q\x00.", "not a GGUF file"),
        (b"ggu", "not a GGUF file"),
        (b"", "an empty file"),
    ],
)
def test_other_files_are_named(head: bytes, words: str) -> None:
    with pytest.raises(GgufError, match=words):
        read_header(lambda start, stop: head[start:stop])


def fed(data: bytes) -> Iterator[tuple[int, int]]:
    """Bytes read and bytes expected to be left, after each read of a file that goes on behind."""
    reader, step = HeaderReader(), FIRST_READ
    while True:
        start = reader.position
        piece = data[start : start + step]
        done = reader.feed(piece + bytes(step - len(piece))) is not None
        yield reader.position, reader.left()
        if done:
            return
        step = reader.left() + NEXT_READ


def vocabulary(model: str, seed: int = 0) -> bytes:
    """The header of a model with 262 144 tokens as long as real ones: short first, then longer."""
    rng = random.Random(seed)
    count = 262_144
    words = [
        b"\xe2\x96\x81" * rng.randrange(2) + rng.randbytes(rng.choice(LENGTHS))
        for _ in range(count)
    ]
    keys = [
        pair("general.architecture", TEXT, text("gemma3")),
        pair("tokenizer.ggml.model", TEXT, text(model)),
        pair(
            "tokenizer.ggml.tokens",
            ARRAY,
            struct.pack("<IQ", TEXT, count) + b"".join(map(text, words)),
        ),
    ]
    if model == "llama":
        keys += [
            pair("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ", 6, count) + bytes(4 * count))
        ]
    keys += [
        pair("tokenizer.ggml.token_type", ARRAY, struct.pack("<IQ", 5, count) + bytes(4 * count))
    ]
    if model == "gpt2":
        merges = b"".join(text(word[:3] + b" " + word[3:]) for word in words)
        keys += [pair("tokenizer.ggml.merges", ARRAY, struct.pack("<IQ", TEXT, count) + merges)]
    keys += [pair("tokenizer.chat_template", TEXT, text("x" * 14_000))]
    return file(*keys, tensors=tuple(tensor(f"t{i}", 32, offset=128 * i) for i in range(400)))


LENGTHS = (1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 12, 16)
VOCABULARIES = {"llama, 262k": "llama", "gpt2, 262k": "gpt2"}


@pytest.mark.parametrize("name", [*SIZES, *VOCABULARIES])
def test_few_reads_and_little_too_much(name: str) -> None:
    data = vocabulary(VOCABULARIES[name]) if name in VOCABULARIES else header_bytes(name)
    reads = list(fed(data))
    assert len(reads) <= 4
    assert reads[-1][0] <= len(data) + (4 << 20)


def test_a_long_text_in_a_vocabulary_is_not_waited_for() -> None:
    words = [b"a"] * 2000 + [bytes(3 << 20)] + [b"b"] * 10
    array = struct.pack("<IQ", TEXT, len(words)) + b"".join(map(text, words))
    data = file(pair("tokens", ARRAY, array), pair("after", U8, b"\7"))
    cuts = list(range(0, len(data), 1 << 16))
    whole = parse_header(data)
    assert whole.values == {"tokens": Elided("text", len(words)), "after": 7}
    assert read_in_pieces(data, cuts) == whole


def times(count: int, part: Callable[[int], bytes]) -> bytes:
    return file(*(part(number) for number in range(count)))


MANY = struct.pack("<IQ", TEXT, 1024) + text("ab") * 1024
MILLION = struct.pack("<IQ", TEXT, 1_100_000) + bytes(8 * 1_100_000)
FLAGS = struct.pack("<IQ", U8, 1024) + bytes(1024)
WIDE = text(b"\xf0\x9f\x98\x80" + b"x" * 60_000)
# What would take far more memory than its own size, or than the cap, if nothing were bounded.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "millions of empty texts": lambda: times(2, lambda i: pair(f"k{i}", ARRAY, MILLION)),
    "arrays of two letters": lambda: times(500, lambda i: pair(f"k{i}", ARRAY, MANY)),
    "arrays of bytes": lambda: times(16_000, lambda i: pair(f"k{i}", ARRAY, FLAGS)),
    "texts of one wide letter": lambda: times(900, lambda i: pair(f"k{i}", TEXT, WIDE)),
    "a short array of megabytes": lambda: file(
        pair("k", ARRAY, struct.pack("<IQ", TEXT, 1000) + text(bytes(1 << 20)) * 60)
    ),
    "long keys": lambda: times(900, lambda i: pair(f"{i:060000}", U8, b"\0")),
    "tensors": lambda: file(
        tensors=tuple(tensor(f"t{i}", 8, 1, 1, 1, offset=32 * i) for i in range(1 << 15))
    ),
    "tensors with long names": lambda: file(
        tensors=tuple(tensor(f"{i:060000}", 8, offset=32 * i) for i in range(900))
    ),
    "keys": lambda: times(1 << 14, lambda i: pair(f"k{i}", 10, bytes(8))),
    "a text of 60 MiB": lambda: file(pair("k", TEXT, text(bytes(60 << 20)))),
    "more than the cap": lambda: times(3, lambda i: pair(f"k{i}", TEXT, text(bytes(30 << 20)))),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_memory_is_bounded(case: str) -> None:
    """Under 64 MiB in all, the pieces that are read included; and no more reads than the cap has."""
    data = HOSTILE[case]()
    reads = 0

    def read(start: int, stop: int) -> bytes:
        nonlocal reads
        reads += 1
        return data[start:stop]

    tracemalloc.start()
    try:
        outcome(lambda: read_header(read))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert reads <= MAX_HEADER // NEXT_READ + 2


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, dropped, doubled, or replaced by numbers that programs trip over."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out))
        match rng.randrange(5):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                number = rng.choice((0, 1, 9, 255, 1 << 16, 1 << 31, 1 << 40, HUGE, 1 << 63))
                out[at : at + 8] = struct.pack("<Q", number)
            case 2:
                del out[at : at + rng.randrange(1, 40)]
            case 3:
                out[at:at] = out[at : at + rng.randrange(1, 40)]
            case _:
                out[at : at + 4] = rng.randbytes(4)
    return bytes(out)


SEEDS = {
    "a language model": language(vocabulary=40),
    "a longer vocabulary": language(vocabulary=1100),
    "a projector": projector(),
    **{name: header_bytes(name) for name in SIZES if name.startswith("mmproj")},
}


@pytest.mark.parametrize("name", SEEDS)
def test_mutations_are_read_or_refused(name: str) -> None:
    """Nothing but a GgufError comes out, and the same whether it comes at once or in pieces."""
    rng = random.Random(name)
    ends = set()
    for _ in range(500):
        data = mutated(SEEDS[name], rng)
        at_once = outcome(lambda data=data: HeaderReader().feed(data))  # type: ignore[misc]
        cuts = [rng.randrange(len(data) + 1) for _ in range(3)]
        assert outcome(lambda data=data, cuts=cuts: read_in_pieces(data, cuts)) == at_once  # type: ignore[misc]
        ends.add(type(at_once))
    assert ends >= {GgufHeader, str}


@settings(max_examples=500)
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_are_read_or_refused(data: bytes, magic: bool) -> None:
    if magic:
        data = b"GGUF" + struct.pack("<I", 3) + data
    ours = outcome(lambda: HeaderReader().feed(data))
    assert ours is None or isinstance(ours, str | GgufHeader)


def test_a_tiny_file_of_the_peers_library(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The `gguf` package reads the same out of what we read."""
    place = tmp_path_factory.mktemp("peer") / "m.gguf"
    place.write_bytes(gguf({"general.architecture": "x", "k": [1, 2, 3]}, {"t": (3, 5), "u": (7,)}))
    theirs = peer.GGUFReader(place)
    header = parse_header(place.read_bytes())
    assert [(t.name, tuple(t.shape.tolist()), t.data_offset) for t in theirs.tensors] == [
        (t.name, t.shape, header.data_offset + t.offset) for t in header.tensors
    ]
    assert tuple(theirs.fields["k"].contents()) == header.values["k"]


def test_a_file_that_says_too_much_is_read_all_the_same() -> None:
    """What there is no room for is only counted; it is no reason to refuse the file."""
    header = parse_header(HOSTILE["arrays of bytes"]())
    kept = [isinstance(value, tuple) for value in header.values.values()]
    assert (kept[0], kept[-1]) == (True, False)
    assert header.values["k15999"] == Elided("u8", 1024)
    assert 8 * 1024 * sum(kept) <= MAX_KEPT
