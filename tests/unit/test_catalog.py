"""The catalogue that llmctl brings."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from llmctl import files
from llmctl.core.artifact import ModelFile
from llmctl.core.capabilities import NOTHING_PROMISED, Capabilities
from llmctl.core.catalog import Catalog, parse_catalog
from llmctl.errors import ConfigError
from llmctl.paths import builtin_catalog, bundled_directory


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(builtin_catalog().read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return parse_catalog(document())


def test_llava_is_the_guides(catalog: Catalog) -> None:
    llava = catalog.find("llava")
    assert llava.repo == "mys/ggml_llava-v1.5-7b"
    assert llava.model == (ModelFile("ggml-model-q4_k.gguf", remote="ggml-model-q4_k.gguf"),)
    assert llava.projector == ModelFile("mmproj-model-f16.gguf", remote="mmproj-model-f16.gguf")
    assert llava.template == "vicuna"
    assert catalog.entries[0] == llava


def test_many_more_with_hashes(catalog: Catalog) -> None:
    hashed = [entry for entry in catalog.entries if all(file.sha256 for file in entry.files)]
    assert len(hashed) >= 25
    assert sum(entry.licence is not None for entry in hashed) >= 25


def test_entries_hold_together(catalog: Catalog) -> None:
    names = [entry.name for entry in catalog.entries]
    assert len(set(names)) == len(names)
    for entry in catalog.entries:
        assert entry.title.isprintable()
        assert "mmproj" in (entry.projector.remote or "").lower()
        if entry.name != "llava":
            assert all(file.path.startswith(f"{entry.name}/") for file in entry.files)
        # A model is never paired with itself, nor with another entry's projector.
        assert entry.projector not in entry.model
    projectors = [e.projector.sha256 for e in catalog.entries if e.projector.sha256]
    assert len(set(projectors)) == len(projectors)


def test_an_artifact_is_not_pinned_yet(catalog: Catalog) -> None:
    artifact = catalog.find("smolvlm-256m").artifact("eyes")
    assert (artifact.name, artifact.source, artifact.commit) == ("eyes", "smolvlm-256m", None)
    assert [file.path for file in artifact.files] == [
        "smolvlm-256m/SmolVLM-256M-Instruct-Q8_0.gguf",
        "smolvlm-256m/mmproj-SmolVLM-256M-Instruct-Q8_0.gguf",
    ]


def test_the_canary_comes_with_llmctl(catalog: Catalog) -> None:
    canary = catalog.find("canary")
    assert (canary.repo, canary.bundled, canary.template) == (None, "canary", "vicuna")
    assert (canary.licence, canary.artifact("c").repo) == ("mit", None)
    assert canary.capabilities == Capabilities(colour=True, shape=True, admits_no_picture=True)
    promised = [e.name for e in catalog.entries if e.capabilities != NOTHING_PROMISED]
    assert promised == ["canary"]


def test_bundled_files_are_those_of_the_catalogue(catalog: Catalog) -> None:
    for entry in catalog.entries:
        if entry.bundled is None:
            continue
        directory = bundled_directory(entry.bundled)
        shipped = {path.name for path in directory.glob("*.gguf")}
        assert shipped == {file.remote for file in entry.files}
        for file in entry.files:
            place = directory / (file.remote or "")
            assert (place.stat().st_size, files.sha256_of(place)) == (file.size, file.sha256)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("lava", "llava"), ("QWEN3-VL-4b", "qwen3-vl-4b"), ("moondream", "moondream2")],
)
def test_nearest_names(catalog: Catalog, typo: str, meant: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"not in the catalogue; did you mean .*{meant}"
    ) as caught:
        catalog.find(typo)
    assert "llmctl models list" in (caught.value.hint or "")


def test_nothing_near(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match=r"not in the catalogue$"):
        catalog.find("zzzzzz")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("llava", "repo"), "no-slash", "llava"),
        (("llava", "repo"), None, "llava"),
        (("llava", "bundled"), "llava", "llava"),
        (("canary", "bundled"), "../canary", "canary"),
        (("canary", "capabilities", "sees"), ["taste"], "taste"),
        (("canary", "capabilities", "hears"), True, "hears"),
        (("llava", "template"), "alpaca", "llava"),
        (("llava", "model"), [], "llava"),
        (("llava", "projector", "file"), "../../etc/x.gguf", "safe path"),
        (("llava", "projector", "sha256"), "ABC", "SHA-256"),
    ],
)
def test_a_damaged_catalogue_is_a_bug(path: tuple[str, ...], value: Any, complaint: str) -> None:
    changed = copy.deepcopy(document())
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse_catalog(changed)


def test_two_entries_may_not_share_a_path() -> None:
    twice = document()
    twice["other"] = {**twice["llava"], "repo": "someone/else"}
    with pytest.raises(ValueError, match="belongs to llava already"):
        parse_catalog(twice)
