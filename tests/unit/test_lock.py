"""`llmctl.lock`: what is written is what is read, and damage is named."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.artifact import Artifact, ModelFile, Repair, is_safe_path
from llmctl.core.lock import Lock, format_lock, parse_lock
from llmctl.errors import ConfigError

NAME = st.text(st.sampled_from("aZ09_-"), max_size=9).map(lambda text: f"m{text}")
PART = st.text(st.sampled_from("aZ09モ '\":-_."), min_size=1, max_size=6).map(
    lambda part: f"x{part}x"
)
PATH = (
    st.lists(PART, min_size=1, max_size=3)
    .map(lambda parts: "/".join(parts) + ".gguf")
    .filter(is_safe_path)
)
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=30)
SIZE = st.integers(0, 1 << 60)
SHA256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
FACT = st.none() | st.booleans() | st.integers() | TEXT
FILE = st.builds(
    ModelFile,
    path=PATH,
    size=SIZE,
    sha256=SHA256,
    remote=st.none() | PATH,
    repair=st.none()
    | st.builds(
        Repair,
        kind=st.sampled_from(("mlp", "ldpv2")),
        original=PATH,
        size=SIZE,
        sha256=SHA256,
    ),
    header=st.dictionaries(st.sampled_from(("width", "tokens", "projector_type")), FACT),
)
ARTIFACT = st.builds(
    Artifact,
    name=NAME,
    source=TEXT,
    repo=st.none() | st.just("org/repo"),
    commit=st.none() | st.binary(min_size=20, max_size=20).map(bytes.hex),
    licence=st.none() | TEXT,
    template=st.sampled_from(("tokenizer", "vicuna")),
    model=st.lists(FILE, min_size=1, max_size=3).map(tuple),
    projector=st.none() | FILE,
)
LOCK = st.lists(ARTIFACT, max_size=4, unique_by=lambda a: a.name).map(
    lambda artifacts: Lock({artifact.name: artifact for artifact in artifacts})
)


def headers(lock: Lock) -> list[dict[str, Any]]:
    return [dict(f.header) for name in sorted(lock.models) for f in lock.models[name].files]


@given(LOCK)
def test_round_trip(lock: Lock) -> None:
    text = format_lock(lock)
    parsed = parse_lock(text, "llmctl.lock")
    assert parsed == lock
    assert headers(parsed) == headers(lock)  # no part of equality
    assert format_lock(parse_lock(text, "llmctl.lock")) == text


@given(LOCK)
def test_the_order_of_pulls_does_not_show(lock: Lock) -> None:
    assert format_lock(Lock(dict(reversed(lock.models.items())))) == format_lock(lock)


def test_no_file_is_an_empty_lock() -> None:
    assert parse_lock(None, "llmctl.lock") == Lock()


@given(ARTIFACT, LOCK)
def test_adding_and_removing(artifact: Artifact, lock: Lock) -> None:
    more = lock.with_model(artifact)
    assert more.models[artifact.name] == artifact
    assert all(artifact.name in more.owners(file.path) for file in artifact.files)
    assert more.without(artifact.name) == lock.without(artifact.name)


LLAVA = Artifact(
    "llava",
    "llava",
    "org/repo",
    "a" * 40,
    None,
    "vicuna",
    (ModelFile("m.gguf", 4, "0" * 64, "m.gguf"),),
    ModelFile(
        "p.repaired.gguf",
        6,
        "2" * 64,
        "p.gguf",
        Repair("mlp", "p.gguf", 5, "1" * 64),
        {"projector_type": "mlp", "width": 4096},
    ),
)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ((), [], "llmctl.lock: expected a mapping, got a list"),
        (("version",), "2", "version: expected 2"),
        (("version",), True, "version: expected 2"),
        (("version",), 0, "version: expected 2"),
        (("version",), 3, "version 3 was written by a newer llmctl; this one reads 2"),
        (("models",), None, "models: expected a mapping, got nothing"),
        (("models", "llava"), "x", "models.llava: expected a mapping"),
        (("models", "../evil"), {}, "models: expected a model name"),
        (
            ("models", "llava", "repo"),
            "a/b/c",
            "models.llava.repo: expected organisation/repository",
        ),
        (("models", "llava", "commit"), "main", "models.llava.commit: expected"),
        (
            ("models", "llava", "template"),
            "x",
            "models.llava.template: expected tokenizer or vicuna",
        ),
        (("models", "llava", "model"), [], "models.llava.model: expected a list of files"),
        (("models", "llava", "extra"), 1, "models.llava.extra: expected no such key"),
        (("models", "llava", "model", 0, "path"), "../m.gguf", "models.llava.model.0.path"),
        (("models", "llava", "model", 0, "path"), "/m.gguf", "models.llava.model.0.path"),
        (("models", "llava", "model", 0, "path"), "llava.yaml", "models.llava.model.0.path"),
        (("models", "llava", "model", 0, "path"), None, "models.llava.model.0.path"),
        (("models", "llava", "projector", "size"), -1, "models.llava.projector.size"),
        (("models", "llava", "projector", "size"), True, "models.llava.projector.size"),
        (("models", "llava", "projector", "sha256"), "0", "models.llava.projector.sha256"),
        (("models", "llava", "projector", "repair"), [], "projector.repair: expected a mapping"),
        (("models", "llava", "projector", "repair", "kind"), 1, "repair.kind: expected a text"),
        (
            ("models", "llava", "projector", "repair", "original"),
            "../p.gguf",
            "models.llava.projector.repair.original: expected the path",
        ),
        (("models", "llava", "projector", "repair", "size"), None, "projector.repair.size"),
        (("models", "llava", "projector", "repair", "sha256"), None, "projector.repair.sha256"),
        (("models", "llava", "projector", "repair", "extra"), 1, "repair.extra: expected no such"),
        (("models", "llava", "projector", "header"), 1, "projector.header: expected a mapping"),
        (("models", "llava", "projector", "header", "x"), [1], "projector.header.x: expected a"),
    ],
)
def test_damage_is_named(path: tuple[Any, ...], value: Any, complaint: str) -> None:
    document: Any = json.loads(format_lock(Lock({"llava": LLAVA})))
    if path:
        node = document
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    else:
        document = value
    with pytest.raises(ConfigError) as caught:
        parse_lock(json.dumps(document), "llmctl.lock")
    assert complaint in caught.value.message
    assert caught.value.hint


def test_a_lacking_key_is_named() -> None:
    document = json.loads(format_lock(Lock({"llava": LLAVA})))
    del document["models"]["llava"]["commit"]
    with pytest.raises(ConfigError, match=r"models.llava.commit: expected a value, got nothing"):
        parse_lock(json.dumps(document), "llmctl.lock")


def test_not_json() -> None:
    with pytest.raises(ConfigError, match=r"llmctl.lock: not JSON"):
        parse_lock("<<<<<<< HEAD\n", "llmctl.lock")


def test_a_file_of_two_models_has_two_owners() -> None:
    lock = Lock().with_model(LLAVA).with_model(dataclasses.replace(LLAVA, name="eyes"))
    assert lock.owners("m.gguf") == ("eyes", "llava")


def test_a_lock_of_version_1_is_read() -> None:
    """As llmctl 0.1 wrote it: neither headers nor repairs; it is written anew as version 2."""
    document = json.loads(format_lock(Lock({"llava": LLAVA})))
    document["version"] = 1
    del document["models"]["llava"]["projector"]["repair"]
    del document["models"]["llava"]["projector"]["header"]
    lock = parse_lock(json.dumps(document), "llmctl.lock")
    projector = lock.models["llava"].projector
    assert projector is not None
    assert (projector.repair, projector.header) == (None, {})
    assert json.loads(format_lock(lock))["version"] == 2


def test_an_original_has_the_owner_of_its_copy() -> None:
    lock = Lock().with_model(LLAVA)
    assert lock.owners("p.gguf") == lock.owners("p.repaired.gguf") == ("llava",)
