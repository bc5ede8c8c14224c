"""How a repository is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.filetype import identify
from llmctl.core.reference import HubReference, is_reference, parse_reference
from llmctl.core.stack import default_model_name
from llmctl.errors import ConfigError

WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._]{0,20}[A-Za-z0-9]", fullmatch=True).filter(
    lambda word: ".." not in word and not word.endswith(".git")
)


@given(WORD, WORD, st.none() | WORD, st.none() | WORD)
def test_round_trip(
    organisation: str, repository: str, quant: str | None, revision: str | None
) -> None:
    reference = HubReference(f"{organisation}/{repository}", quant, revision)
    assert parse_reference(str(reference)) == reference


def attempt(source: str) -> HubReference | ConfigError:
    try:
        return parse_reference(source)
    except ConfigError as error:
        return error


@given(st.text(max_size=60).map(lambda text: f"hf://{text}"))
def test_anything_parses_or_is_explained(source: str) -> None:
    outcome = attempt(source)
    if isinstance(outcome, ConfigError):
        assert outcome.hint
    else:
        assert str(outcome) == source
        assert ".." not in source


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("https://hub.example/o/r", "web page", "hf://o/r"),
        ("HTTPS://hub.example/o/r/", "web page", "hf://o/r"),
        ("https://hub.example/o/r/blob/main/m-Q4_0.gguf", "web page", "hf://o/r:m-Q4_0.gguf"),
        ("https://hub.example/o/r/resolve/v1/a/m.gguf?download=true", "", "hf://o/r:a/m.gguf@v1"),
        ("https://hub.example/o/r/tree/main", "web page", "hf://o/r"),
        ("https://hub.example/o/r/tree/v2/sub", "web page", "hf://o/r@v2"),
        ("https://hub.example/o/r/blob/main/README.md", "web page", "hf://o/r"),
        ("https://hub.example/", "web page", "llmctl models list"),
        ("o/r", "is written hf://", "hf://o/r"),
        ("o/r:Q8_0@main", "is written hf://", "hf://o/r:Q8_0@main"),
        ("hf://o/r/m.gguf", "a file is chosen with :FILE.gguf", "hf://o/r:m.gguf"),
        ("hf://o", '"o" is not organisation/repository', "hf://organisation"),
        ("hf://o/r:", "neither a quantisation nor a file", "hf://o/r:Q4_K_M"),
        ("hf://o/r:../x", "neither a quantisation nor a file", "hf://o/r:Q4_K_M"),
        ("hf://o/r@", "not a branch, tag or commit", "hf://o/r@main"),
        ("hf://o/r@a..b", "not a branch, tag or commit", "hf://o/r@main"),
        ("hf://../etc", "not organisation/repository", "hf://organisation"),
    ],
)
def test_what_was_meant_is_said(source: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_reference(source)
    assert message in caught.value.message
    assert (caught.value.hint or "").startswith(hint)


def test_a_catalogue_name_is_no_reference() -> None:
    assert not is_reference("qwen3-vl-4b")
    assert is_reference("hf://o/r")
    assert is_reference("o/r")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf://o/Qwen3-VL-4B-GGUF", "qwen3-vl-4b"),
        ("hf://o/Qwen3-VL-4B-GGUF@refs/pr/1", "qwen3-vl-4b"),
        ("hf://o/Qwen3-VL-4B-GGUF:sub/m-Q8_0.gguf@v1", "qwen3-vl-4b"),
    ],
)
def test_the_default_name_is_the_repositorys(source: str, name: str) -> None:
    assert default_model_name(source) == name


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "HTML page"),
        (b"<?xml version='1.0'?><Error>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b'\x40\x02\0\0\0\0\0\0{"__metadata__"', "safetensors"),
        (b'{"error": "not found"}', "JSON"),
        (b"tjgg\x03\0\0\0", "before GGUF"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\0\0\0\0", "not a GGUF"),
    ],
)
def test_what_a_file_is(head: bytes, words: str) -> None:
    assert words in (identify(head) or "")


@given(st.binary(max_size=64))
def test_only_the_magic_makes_a_gguf(head: bytes) -> None:
    assert (identify(head) is None) == head.startswith(b"GGUF")
    assert identify(b"GGUF" + head) is None
