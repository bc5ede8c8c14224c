"""What a projector's header says: its kind, its width, what a picture costs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmctl.core import projector as subject
from llmctl.core.gguf import parse_header
from llmctl.core.projector import (
    KNOWN,
    KNOWN_TO_LOCALAI_4_9,
    ProjectorFacts,
    is_projector,
    projector_facts,
)
from tests.world.gguf_bytes import Value, gguf, language, projector
from tests.world.real_headers import header_bytes

EYES = {"v.patch_embd.weight": (14, 14, 3, 32)}


def facts(tensors: Mapping[str, tuple[int, ...]], **values: Value) -> ProjectorFacts:
    """Of a projector with these tensors; a keyword `a__b` is the key `clip.a.b`."""
    keys: dict[str, Value] = {"general.architecture": "clip"}
    keys |= {f"clip.{key.replace('__', '.')}": value for key, value in values.items()}
    return projector_facts(parse_header(gguf(keys, tensors)))


@pytest.mark.parametrize(
    ("name", "kind", "width", "tokens"),
    [
        ("mmproj-gemma3", "gemma3", 2560, 256),
        ("mmproj-smolvlm", "idefics3", 960, 64),
        ("mmproj-qwen2.5vl", "qwen2.5vl_merger", 2048, (8, 4096)),
        ("mmproj-qwen3vl-4b", "qwen3vl_merger", 4 * 2560, (8, 4096)),
    ],
)
def test_real_projectors(name: str, kind: str, width: int, tokens: int | tuple[int, int]) -> None:
    header = parse_header(header_bytes(name))
    assert is_projector(header)
    found = projector_facts(header)
    assert (found.declared, found.kind, found.repair, found.vision) == (kind, kind, None, True)
    assert found.width == width
    assert (found.tokens or found.tokens_range) == tokens
    assert found.quantisation == "F16"


def test_the_guides_projector_is_recognised_by_its_tensors() -> None:
    """As in the public dumps of llava-1.5-7b: no type, two layers, 24 x 24 patches."""
    found = facts(
        {**EYES, "mm.0.weight": (32, 64), "mm.2.weight": (64, 64), "mm.2.bias": (64,)},
        vision__image_size=336,
        vision__patch_size=14,
        has_llava_projector=True,
    )
    assert (found.declared, found.kind, found.repair) == (None, "mlp", "mlp")
    assert (found.width, found.tokens, found.image_size, found.patch_size) == (64, 576, 336, 14)


@pytest.mark.parametrize(
    ("tensors", "kind", "width"),
    [
        ({"mm.0.weight": (32, 64)}, "mlp", 64),
        ({"mm.0.weight": (32, 64), "mm.3.bias": (128,)}, "mlp", 128),
        ({"mm.0.weight": (32, 64), "mm.2.weight": (64, 96), "mm.3.bias": (128,)}, "mlp", 128),
        (
            {"mm.model.mlp.0.weight": (32, 32), "mm.model.mb_block.1.block.2.1.bias": (64,)},
            "ldp",
            64,
        ),
        ({"mm.model.mlp.0.weight": (32, 32), "mm.model.peg.0.bias": (64,)}, "ldpv2", 64),
        (
            {"resampler.query": (64, 96), "resampler.proj.weight": (64, 64)},
            "resampler",
            64,
        ),
    ],
)
def test_files_without_a_type(tensors: dict[str, tuple[int, ...]], kind: str, width: int) -> None:
    found = facts({**EYES, **tensors})
    assert (found.declared, found.kind, found.repair, found.width) == (None, kind, kind, width)


def test_a_file_that_is_of_no_kind() -> None:
    found = facts({**EYES, "odd.weight": (32, 64)})
    assert (found.kind, found.repair, found.width, found.tokens) == (None, None, None, None)


def test_a_type_may_stand_under_either_key() -> None:
    weights = {**EYES, "mm.input_projection.weight": (64, 32)}
    assert facts(weights, projector_type="gemma3").width == 64
    assert facts(weights, vision__projector_type="gemma3").declared == "gemma3"
    assert facts(weights, projector_type="").declared is None


def test_ears_are_no_eyes() -> None:
    found = facts(
        {"a.conv1d.1.weight": (3, 32), "mm.a.mlp.1.weight": (32, 64)}, projector_type="ultravox"
    )
    assert (found.vision, found.kind) == (False, "ultravox")


def test_the_layers_that_go_along_widen_the_output() -> None:
    """Qwen3-VL: of the flags, else of the tensors; one width for the last layer, one for each."""
    weights = {**EYES, "mm.2.bias": (64,)}
    deep = {f"v.deepstack.{i}.norm.weight": (32,) for i in (5, 11)}
    kind = "qwen3vl_merger"
    assert facts(weights, projector_type=kind).width == 64
    assert facts({**weights, **deep}, projector_type=kind).width == 3 * 64
    flags = [0, 1, 1, 1]
    assert facts(weights, projector_type=kind, vision__is_deepstack_layers=flags).width == 4 * 64
    assert facts(weights, projector_type="qwen2vl_merger").width == 64


@pytest.mark.parametrize(
    ("kind", "values", "tokens"),
    [
        ("mlp", {"vision__image_size": 336, "vision__patch_size": 14}, 576),
        ("gemma3", {"vision__image_size": 896, "vision__patch_size": 14}, 256),
        (
            "idefics3",
            {
                "vision__image_size": 512,
                "vision__patch_size": 16,
                "vision__projector__scale_factor": 4,
            },
            64,
        ),
        ("internvl", {"vision__image_size": 448, "vision__patch_size": 14}, 256),
        ("resampler", {"minicpmv_version": 2}, 96),
        ("resampler", {"minicpmv_version": 6}, 64),
        ("resampler", {"minicpmv_query_num": 48}, 48),
        ("gemma3nv", {}, 256),
        ("mlp", {}, None),
        ("mlp", {"vision__image_size": 336, "vision__patch_size": 0}, None),
    ],
)
def test_what_a_picture_costs(kind: str, values: dict[str, Value], tokens: int | None) -> None:
    assert facts(EYES, projector_type=kind, **values).tokens == tokens


def test_hostile_numbers_do_no_harm() -> None:
    found = facts(
        {"mm.2.weight": (1,), "v.deepstack.x": (1,)},
        projector_type="pixtral",
        vision__spatial_merge_size=0,
        vision__image_size="large",
    )
    assert (found.width, found.merge, found.image_size) == (None, 1, None)
    odd = facts({"v.x": (1,)}, projector_type="\x1b[31mred\n" + "x" * 5000)
    assert odd.kind is not None
    assert odd.kind.isprintable()
    assert len(odd.kind) <= 200


def test_a_language_model_is_none() -> None:
    assert not is_projector(parse_header(language()))
    assert is_projector(parse_header(projector(kind=None)))


def test_every_kind_has_a_width_or_is_listed_as_without() -> None:
    groups = (subject._WIDTHS.keys(), set(subject._WITHOUT_WIDTH), set(subject._AUDIO))
    assert sum(map(len, groups)) == len(KNOWN)
    assert KNOWN_TO_LOCALAI_4_9 < KNOWN
    assert subject._MERGES.keys() | subject._LIMITS.keys() <= KNOWN
    assert {kind for _, kind in subject._BY_TENSOR} <= KNOWN_TO_LOCALAI_4_9


def test_the_kinds_are_those_of_the_engine() -> None:
    """llama.cpp's table of names, out of the wheel that the process engine runs."""
    found = importlib.util.find_spec("xllamacpp")
    if found is None or found.origin is None:
        pytest.skip("the process engine (llmctl[local]) is not installed")
    (library,) = Path(found.origin).parent.glob("xllamacpp*.so")
    _, anchor, rest = library.read_bytes().partition(b"\0ldp\0ldpv2\0")
    if not anchor:
        pytest.skip("this build of the wheel lays its strings out otherwise")
    names = rest.partition(b"\0mtmd_")[0].decode("ascii").split("\0")
    # "mlp" is stored as the end of a longer string.
    assert {"mlp", "ldp", "ldpv2", *names} == KNOWN
