"""What a language model's header says."""

from __future__ import annotations

import pytest

from llmctl.core.gguf import parse_header
from llmctl.core.language import LanguageFacts, language_facts
from llmctl.core.projector import stored_as
from tests.world.gguf_bytes import Value, gguf, language
from tests.world.real_headers import header_bytes


def facts(
    values: dict[str, Value], tensors: dict[str, tuple[int, ...]] | None = None
) -> LanguageFacts:
    keys: dict[str, Value] = {"general.architecture": "llama"}
    return language_facts(parse_header(gguf({**keys, **values}, tensors or {})))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemma3-4b", ("gemma3", 34, 8, 4, 2560, 262144)),
        ("llama3.3-70b", ("llama", 80, 64, 8, 8192, 128256)),
        ("qwen2.5-7b", ("qwen2", 28, 28, 4, 3584, 152064)),
        ("qwen3.5-4b", ("qwen35", 32, 16, 4, 2560, 248320)),
    ],
)
def test_real_models(name: str, expected: tuple[object, ...]) -> None:
    found = language_facts(parse_header(header_bytes(name)))
    assert (
        found.architecture,
        found.layers,
        found.heads,
        found.heads_kv,
        found.width,
        found.vocabulary,
    ) == expected
    assert found.quantisation == "Q4_K"
    assert (found.parts, found.part) == (1, 0)


def test_everything_that_a_file_says() -> None:
    header = parse_header(
        language(extra={"general.license": "mit", "split.count": 3, "split.no": 1})
    )
    assert language_facts(header) == LanguageFacts(
        architecture="llama",
        name="a tiny model",
        quantisation="F32",
        parameters=sum(tensor.elements for tensor in header.tensors),
        context=4096,
        layers=1,
        heads=2,
        heads_kv=1,
        width=64,
        vocabulary=4,
        chat_template=True,
        image_marker=True,
        licence="mit",
        parts=3,
        part=1,
    )


def test_a_file_that_says_nothing() -> None:
    found = language_facts(parse_header(gguf({}, {})))
    assert (found.architecture, found.quantisation, found.parameters) == ("?", "?", 0)
    assert (found.context, found.width, found.heads, found.vocabulary) == (None,) * 4
    assert (found.chat_template, found.image_marker) == (False, None)


def test_numbers_that_differ_by_layer() -> None:
    found = facts(
        {
            "llama.attention.head_count": [0, 32, 48],
            "llama.attention.head_count_kv": [8, 0],
            "llama.embedding_length": 64,
            "llama.n_deepstack_layers": 3,
        }
    )
    assert (found.heads, found.heads_kv, found.width) == (48, 8, 256)


def test_hostile_values_are_unknown() -> None:
    found = facts(
        {
            "llama.embedding_length": ["a", "b"],
            "llama.block_count": "many",
            "llama.context_length": True,
            "general.name": "\x1b]0;title\x07" + "x" * 5000,
        }
    )
    assert (found.width, found.layers, found.context) == (None, None, None)
    assert found.name is not None
    assert found.name.isprintable()
    assert len(found.name) <= 200


@pytest.mark.parametrize(
    ("template", "marker"),
    [
        (None, None),
        ("{{ messages }}", False),
        ("{% if part.type == 'image' %}<start_of_image>{% endif %}", True),
        ("{% if part['type'] == \"image\" %}", True),
        ("<|vision_start|><|image_pad|><|vision_end|>", True),
        ("[IMG]", True),
        ("<image>", True),
        ("{% if content.image_url %}", True),
        ("imagine a message", False),
    ],
)
def test_the_place_for_pictures(template: str | None, marker: bool | None) -> None:
    found = language_facts(parse_header(language(template=template)))
    assert (found.chat_template, found.image_marker) == (template is not None, marker)


@pytest.mark.parametrize(
    ("file_type", "label"), [(None, "F32"), (15, "Q4_K_M"), (1, "F32"), (999, "F32"), (0, "F32")]
)
def test_the_recipe_counts_unless_the_bytes_deny_it(file_type: int | None, label: str) -> None:
    """Old converters left 0 or 1 in files that were quantised afterwards."""
    extra: dict[str, Value] = {} if file_type is None else {"general.file_type": file_type}
    assert stored_as(parse_header(language(extra=extra))) == label
