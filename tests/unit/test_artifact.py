"""Which files of a repository make a model, and what a path may look like."""

from __future__ import annotations

import dataclasses
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.core.artifact import (
    Choice,
    ModelFile,
    Repair,
    RepoFile,
    RepoInfo,
    canonical,
    choose,
    is_safe_path,
    local_paths,
    no_projector,
    quantisation,
    shards,
)
from llmctl.errors import ConfigError


def repo(*paths: str) -> RepoInfo:
    return RepoInfo("org/repo", "0" * 40, None, gated=False, files=tuple(map(RepoFile, paths)))


def chosen(info: RepoInfo, asked: str | None = None) -> tuple[list[str], str]:
    choice = choose(info, asked)
    return [file.path for file in choice.model], choice.projectors[0].path


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("ggml-model-q4_k.gguf", "Q4_K"),
        ("llava-v1.6-mistral-7b.Q6_K.gguf", "Q6_K"),
        ("gemma-4-E2B_q4_0-it.gguf", "Q4_0"),
        ("llava-llama-3-8b-v1_1-int4.gguf", "INT4"),
        ("moondream2-text-model-f16_ct-vicuna.gguf", "F16"),
        ("Q8_0/model-00001-of-00002.gguf", "Q8_0"),
        ("model-UD-IQ2_XXS.gguf", "IQ2_XXS"),
        ("model-MXFP4.gguf", "MXFP4"),
        ("a-q4_k_small.gguf", "Q4_K"),
        ("bf16/x.gguf", "BF16"),
        ("Qwen3-VL-4B.gguf", None),
    ],
)
def test_quantisation(path: str, label: str | None) -> None:
    assert quantisation(path) == label


@pytest.mark.parametrize("text", ["q4_k_m", "Q4-K-M", "Q4_K", "q4_k", "UD-Q4_K_M"])
def test_one_spelling(text: str) -> None:
    assert canonical(text) == "Q4_K_M"


def test_the_guides_repository() -> None:
    info = repo(
        "ggml-model-f16.gguf",
        "ggml-model-q4_k.gguf",
        "ggml-model-q5_k.gguf",
        "mmproj-model-f16.gguf",
    )
    assert chosen(info) == (["ggml-model-q4_k.gguf"], "mmproj-model-f16.gguf")
    assert chosen(info, "q5_k") == (["ggml-model-q5_k.gguf"], "mmproj-model-f16.gguf")
    assert chosen(info, "Q5_K_M")[0] == ["ggml-model-q5_k.gguf"]


def test_the_usual_order_of_preference() -> None:
    best_first = ["Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0", "Q4_0", "Q3_K_M", "BF16", "F16", "F32"]
    paths = [f"model-{label}.gguf" for label in best_first]
    for i, path in enumerate(paths):
        assert chosen(repo("mmproj-F16.gguf", *reversed(paths[i:])))[0] == [path]


def test_a_single_file_needs_no_label() -> None:
    assert chosen(repo("model.gguf", "mmproj.gguf")) == (["model.gguf"], "mmproj.gguf")


def test_quantisations_in_folders_with_shards() -> None:
    info = repo(
        "Q8_0/m-00001-of-00002.gguf",
        "Q8_0/m-00002-of-00002.gguf",
        "BF16/m-00001-of-00003.gguf",
        "BF16/m-00002-of-00003.gguf",
        "BF16/m-00003-of-00003.gguf",
        "mmproj-F16.gguf",
        "imatrix_unsloth.gguf",
    )
    assert chosen(info) == (
        ["Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"],
        "mmproj-F16.gguf",
    )
    assert len(chosen(info, "bf16")[0]) == 3


def test_a_lacking_shard_is_named() -> None:
    info = repo("m-Q4_0-00001-of-00003.gguf", "m-Q4_0-00003-of-00003.gguf", "mmproj.gguf")
    with pytest.raises(ConfigError, match="one of 3 parts, and part 2 is missing"):
        choose(info, None)


def test_all_shards_but_the_first() -> None:
    with pytest.raises(ConfigError, match="part 1 is missing"):
        choose(repo("m-Q4_0-00002-of-00002.gguf", "mmproj.gguf"), None)


@pytest.mark.parametrize(
    ("projectors", "best"),
    [
        (["mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        (["other/mmproj-F16.gguf", "mmproj-F32.gguf"], "mmproj-F32.gguf"),
        (["mmproj/model-F16.gguf"], "mmproj/model-F16.gguf"),
        (["7b-mmproj-f16.gguf", "13b-mmproj-f16.gguf"], "7b-mmproj-f16.gguf"),
    ],
)
def test_the_projector(projectors: list[str], best: str) -> None:
    assert chosen(repo("vicuna-7b-Q4_K_M.gguf", *projectors))[1] == best


def test_an_ordinary_file_wins_over_a_dynamic_one() -> None:
    info = repo("m-UD-Q4_K_XL.gguf", "m-Q4_K_XL.gguf", "mmproj.gguf")
    assert chosen(info, "Q4_K_XL")[0] == ["m-Q4_K_XL.gguf"]
    assert chosen(repo("m-UD-Q4_K_XL.gguf", "mmproj.gguf"), "q4_k_xl")[0] == ["m-UD-Q4_K_XL.gguf"]


def test_several_models_have_to_be_named() -> None:
    info = repo("a-7b-Q4_K_M.gguf", "b-13b-Q4_K_M.gguf", "mmproj.gguf")
    with pytest.raises(ConfigError, match="fit equally well") as caught:
        choose(info, None)
    assert caught.value.hint == "name one: hf://org/repo:a-7b-Q4_K_M.gguf"
    assert chosen(info, "b-13b-Q4_K_M.gguf")[0] == ["b-13b-Q4_K_M.gguf"]


def test_nothing_fits() -> None:
    with pytest.raises(ConfigError, match="holds no Q2_K; it has Q4_K_M, Q8_0") as caught:
        choose(repo("m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj.gguf"), "Q2_K")
    assert "m-Q8_0.gguf" in (caught.value.details or "")


def test_no_projector() -> None:
    info = repo("m-Q4_K_M.gguf", "config.json")
    assert choose(info, None).projectors == ()
    error = no_projector(info)
    assert "no vision projector" in error.message
    assert error.details == "m-Q4_K_M.gguf\nconfig.json"


def test_all_projectors_come_into_question() -> None:
    """Their headers decide; the name only says which one to ask first."""
    info = repo("v-Q4_K_M.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf", "sub/mmproj-F16.gguf")
    assert [file.path for file in choose(info, None).projectors] == [
        "mmproj-F16.gguf",
        "mmproj-F32.gguf",
        "sub/mmproj-F16.gguf",
    ]


def test_a_repaired_file_knows_its_original() -> None:
    plain = ModelFile("m/p.gguf", 5, "1" * 64, "p.gguf")
    assert plain.original is plain
    repair = Repair("mlp", "m/p.gguf", 5, "1" * 64)
    mended = ModelFile("m/p.repaired.gguf", 6, "2" * 64, "p.gguf", repair, {"tokens": 4})
    assert mended.original == plain
    # What a header says for people is no part of what a file is.
    assert mended == dataclasses.replace(mended, header={})
    assert len({mended, dataclasses.replace(mended, header={})}) == 1


def test_no_gguf_at_all() -> None:
    with pytest.raises(ConfigError, match="for PyTorch, not for llama.cpp") as caught:
        choose(repo("model.safetensors", "config.json"), None)
    assert "config.json" in (caught.value.details or "")
    with pytest.raises(ConfigError, match="holds no GGUF model file"):
        choose(repo("mmproj.gguf"), None)


@pytest.mark.parametrize(
    "path",
    [
        "../x.gguf",
        "/x.gguf",
        "a/../x.gguf",
        "a..b.gguf",
        "a\\b.gguf",
        "a//b.gguf",
        "./x.gguf",
        ".partial/x.gguf",
        "a/.x.gguf",
        " x.gguf",
        "x\n.gguf",
        "x\x1b[31m.gguf",
        "x\u202efugg.gguf",
        "x.yaml",
        "x.gguf/",
        "",
    ],
)
def test_unsafe_paths(path: str) -> None:
    assert not is_safe_path(path)


@pytest.mark.parametrize("path", ["x.gguf", "a b/c-1.2.GGUF", "モデル/視覚.gguf"])
def test_safe_paths(path: str) -> None:
    assert is_safe_path(path)


def attempt(info: RepoInfo) -> Choice | ConfigError:
    try:
        return choose(info, None)
    except ConfigError as error:
        return error


HOSTILE = st.text(st.sampled_from("ab./\\\n \x00~:%モ"), max_size=20)


@given(HOSTILE.map(lambda text: f"{text}.gguf"))
@example("a/b/../../../etc.gguf")
def test_a_safe_path_stays_inside(path: str) -> None:
    if is_safe_path(path):
        parts = PurePosixPath("/models", path).parts
        assert parts[:2] == ("/", "models")
        assert ".." not in parts
        assert str(PurePosixPath(path)) == path


@given(st.lists(HOSTILE.map(lambda text: f"{text}.gguf"), unique=True, max_size=6))
def test_hostile_listings_never_choose_an_unsafe_path(paths: list[str]) -> None:
    info = repo(*paths, "mmproj-a.gguf")
    choice = attempt(info)
    if isinstance(choice, ConfigError):
        assert "\n" not in choice.message
        assert (choice.details or "x").replace("\n", "").isprintable()
    else:
        remotes = tuple(file.path for file in (*choice.model, *choice.projectors))
        places = local_paths("name", remotes)
        assert all(is_safe_path(path) for path in (*remotes, *places))
        assert len(set(places)) == len(places)
        assert all(place.startswith("name/") for place in places)


def test_names_that_meet_get_their_folder() -> None:
    assert local_paths("n", ("a/x.gguf", "b/x.gguf", "c/y.gguf")) == (
        "n/a-x.gguf",
        "n/b-x.gguf",
        "n/y.gguf",
    )


def test_shards() -> None:
    assert shards("d/m-00002-of-00003.gguf") == tuple(
        f"d/m-0000{i}-of-00003.gguf" for i in (1, 2, 3)
    )
    assert shards("m.gguf") == ("m.gguf",)
