"""The verdict on a pair of headers: what speaks against it, and what mends it."""

from __future__ import annotations

import pytest

from llmctl.core.gguf import parse_header
from llmctl.core.language import language_facts
from llmctl.core.projector import KNOWN, KNOWN_TO_LOCALAI_4_9, projector_facts
from llmctl.core.verdict import (
    Finding,
    Formats,
    formats_of,
    in_order,
    judge,
    language_header,
    projector_header,
    refused,
)
from tests.world.gguf_bytes import gguf, language, projector
from tests.world.real_headers import header_bytes

DOCKER, PROCESS = formats_of("docker", None), formats_of("process", None)


def codes(
    text: bytes | None, eyes: bytes | None, formats: Formats = DOCKER, *, vicuna: bool = False
) -> list[tuple[str, str]]:
    found = judge(
        language_facts(parse_header(text)) if text else None,
        projector_facts(parse_header(eyes)) if eyes else None,
        formats,
        vicuna=vicuna,
    )
    assert all(one.message for one in found)
    assert all(one.hint for one in found if one.level != "note")
    return [(one.level, one.code) for one in found]


def test_a_pair_that_fits() -> None:
    assert codes(language(), projector()) == []


@pytest.mark.parametrize(
    ("text", "eyes", "found"),
    [
        (language(), None, ("refuse", "no-projector")),
        (language(width=128), projector(), ("refuse", "projector-of-another-model")),
        (language(), projector(kind="nonsense"), ("refuse", "projector-type-unknown")),
        (language(), projector(kind=None), ("note", "projector-repaired")),
        (language(template=None), projector(), ("warn", "no-chat-template")),
        (language(template="{{ x }}"), projector(), ("note", "no-image-marker")),
        (language(), projector(kind="cogvlm"), ("warn", "pair-unverified")),
        (None, projector(kind="nonsense"), ("refuse", "projector-type-unknown")),
    ],
)
def test_one_reason(text: bytes | None, eyes: bytes | None, found: tuple[str, str]) -> None:
    assert found in codes(text, eyes)


def test_a_file_whose_kind_cannot_be_told() -> None:
    odd = gguf({"general.architecture": "clip"}, {"v.x": (3,)})
    assert codes(language(), odd)[0] == ("refuse", "projector-type-missing")


def test_ears_only() -> None:
    ears = gguf({"general.architecture": "clip", "clip.projector_type": "ultravox"}, {"a.x": (3,)})
    assert codes(language(), ears)[0] == ("refuse", "projector-without-eyes")


def test_what_one_engine_takes_and_the_other_does_not() -> None:
    """LocalAI v4.9 holds a llama.cpp of August; the process engine's is of October."""
    newer = projector(kind="deepseek4v")
    assert codes(language(), newer, DOCKER) == [("refuse", "projector-type-unknown")]
    assert codes(language(), newer, PROCESS) == []
    (finding,) = judge(None, projector_facts(parse_header(newer)), DOCKER)
    assert finding.message == 'LocalAI v4.9 does not know projectors of type "deepseek4v"'
    assert "localai.image" in (finding.hint or "")


@pytest.mark.parametrize(
    ("image", "kinds"),
    [
        (None, KNOWN_TO_LOCALAI_4_9),
        ("localai/localai:v4.9.0-gpu-nvidia-cuda-12", KNOWN_TO_LOCALAI_4_9),
        ("localai/localai:v5.0.0", KNOWN),
        ("mine/localai:edge", KNOWN),
    ],
)
def test_what_an_image_takes(image: str | None, kinds: frozenset[str]) -> None:
    assert formats_of("docker", image).kinds == kinds
    assert formats_of("process", image).kinds == KNOWN


def test_a_prompt_format_of_the_stacks_own_needs_no_template() -> None:
    """The guide's files have none, and the catalogue says vicuna."""
    assert codes(language(template=None), projector(kind=None), vicuna=True) == [
        ("note", "projector-repaired")
    ]


@pytest.mark.parametrize(
    ("model", "eyes", "fits"),
    [
        ("gemma3-4b", "mmproj-gemma3", True),
        ("qwen3-4b", "mmproj-gemma3", True),  # the same width: only an image would tell
        ("llama3.1-8b", "mmproj-gemma3", False),
        ("qwen3-4b", "mmproj-qwen3vl-4b", False),  # Qwen3 without VL takes no deepstack
        ("qwen2.5-7b", "mmproj-qwen2.5vl", False),  # the 3B's projector
    ],
)
def test_real_pairs(model: str, eyes: str, fits: bool) -> None:
    found = codes(header_bytes(model), header_bytes(eyes), PROCESS)
    assert (("refuse", "projector-of-another-model") not in found) == fits


def test_the_gravest_comes_first() -> None:
    levels = ("note", "refuse", "warn", "refuse")
    found = [Finding(level, str(i), "") for i, level in enumerate(levels)]  # type: ignore[arg-type]
    assert [one.code for one in in_order(found)] == ["1", "3", "2", "0"]
    assert [one.code for one in refused(found)] == ["1", "3"]


def test_what_the_lock_keeps() -> None:
    header = parse_header(language())
    assert language_header(language_facts(header)) == {
        "architecture": "llama",
        "quantisation": "F32",
        "parameters": sum(tensor.elements for tensor in header.tensors),
        "context": 4096,
        "layers": 1,
        "width": 64,
        "chat_template": True,
    }
    assert projector_header(projector_facts(parse_header(projector(kind=None)))) == {
        "projector_type": "mlp",
        "quantisation": "F32",
        "width": 64,
        "image_size": 48,
        "patch_size": 12,
        "tokens": 16,
    }
