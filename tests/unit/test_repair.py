"""The repaired projector: one key more in front, everything else as it was, byte by byte."""

from __future__ import annotations

import hashlib
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf as peer
import pytest

from llmctl.core.gguf import parse_header
from llmctl.core.projector import TYPE_KEYS, projector_facts
from llmctl.core.repair import repaired, repaired_name
from llmctl.errors import ConfigError
from llmctl.ops.models.headers import local_header
from llmctl.ops.models.repairing import write_repaired
from tests.world.gguf_bytes import Value, gguf, projector
from tests.world.tiny_model import write_projector


def contents(place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys and tensors as the `gguf` package reads them."""
    reader = peer.GGUFReader(place)
    keys = {
        name: (tuple(map(int, field.types)), field.contents())
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = {
        t.name: (t.tensor_type, tuple(t.shape.tolist()), t.data.tobytes()) for t in reader.tensors
    }
    return keys, tensors


def test_one_key_more_and_nothing_else(tmp_path: Path) -> None:
    original, copy = tmp_path / "p.gguf", tmp_path / "copy/p.gguf"
    write_projector(original, projector_type=None)
    before = original.read_bytes()
    heard: list[int] = []
    sha256 = write_repaired(original, "mlp", copy, heard.append)
    assert original.read_bytes() == before
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == sha256
    assert heard[-1] == copy.stat().st_size
    keys, tensors = contents(original)
    new_keys, new_tensors = contents(copy)
    assert new_keys.pop("clip.projector_type") == ((8,), "mlp")
    assert new_keys == keys
    assert new_tensors == tensors
    assert list(new_tensors) == list(tensors)
    facts = projector_facts(local_header(copy))
    assert (facts.declared, facts.repair) == ("mlp", None)


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
@pytest.mark.parametrize("filler", range(0, 40, 7))
def test_the_alignment_is_kept(alignment: int, filler: int) -> None:
    values: dict[str, Value] = {
        "general.alignment": alignment,
        "general.architecture": "clip",
        "x": "y" * filler,
    }
    tensors = {"mm.0.weight": (8, 12)}
    head = parse_header(gguf(values, tensors))
    # The writer pads to 32; the file under test to its own alignment.
    weights = bytes(range(256)) + b"w" * 128
    raw = gguf(values, tensors)[: head.size]
    raw += bytes(-len(raw) % alignment) + weights
    header = parse_header(raw)
    new = repaired(header, raw, "ldpv2")
    assert len(new.head) % alignment == 0
    assert raw[new.rest :] == weights
    again = parse_header(new.head + raw[new.rest :])
    assert again.data_offset == len(new.head)
    assert again.tensors == header.tensors
    assert dict(again.values) == {"clip.projector_type": "ldpv2", **header.values}


def test_the_copys_name() -> None:
    assert repaired_name("llava/mmproj-model-f16.gguf") == "llava/mmproj-model-f16.repaired.gguf"
    assert repaired_name("a.GGUF") == "a.repaired.gguf"


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """64 MiB of weights behind a small header; the file has a hole, so that none are written."""
    original, copy = tmp_path / "p.gguf", tmp_path / "c.gguf"
    head = projector(kind=None)
    # The tail belongs to no tensor, as with any trailing bytes; it has to come along all the same.
    original.write_bytes(head)
    os.truncate(original, 64 << 20)
    tracemalloc.start()
    try:
        write_repaired(original, "mlp", copy, lambda _: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    more = copy.stat().st_size - original.stat().st_size
    assert 0 < more < 128
    assert parse_header(copy.read_bytes()[: 1 << 16]).data_offset % 32 == 0


def test_an_empty_type_is_not_written_twice() -> None:
    """A file whose key is there and empty: a second one of that name would be refused."""
    raw = projector(kind="")
    header = parse_header(raw)
    assert projector_facts(header).repair == "mlp"
    new = repaired(header, raw, "mlp")
    again = parse_header(new.head + raw[new.rest :])
    assert again.text("clip.vision.projector_type") == "mlp"
    assert struct.unpack_from("<Q", new.head, 16)[0] == len(again.values)
    assert projector_facts(again).repair is None


def test_a_file_that_leaves_no_room_for_a_type_is_refused() -> None:
    empty: dict[str, Value] = dict.fromkeys(TYPE_KEYS, "")
    raw = gguf({"general.architecture": "clip", **empty}, {"mm.0.weight": (8, 8)})
    with pytest.raises(ConfigError, match="twice"):
        repaired(parse_header(raw), raw, "mlp")
