"""Models whose files come with llmctl: no hub, no network, otherwise like any other."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from llmctl import files
from llmctl.core.capabilities import Capabilities
from llmctl.core.events import silent
from llmctl.core.stack import ModelSpec
from llmctl.errors import ConfigError, DiskFullError, LlmctlError
from llmctl.ops import models
from llmctl.ops.models import origins, sources
from llmctl.paths import StackPaths
from tests.world.gguf_bytes import language, projector

TEXT = language()
EYES = projector()


class NoHub:
    """A hub that nothing may be asked of."""

    def describe(self, *_: Any) -> NoReturn:
        raise AssertionError

    def read(self, *_: Any) -> NoReturn:
        raise AssertionError

    def cached(self, *_: Any) -> NoReturn:
        raise AssertionError

    def download(self, *_: Any) -> NoReturn:
        raise AssertionError


HUB = NoHub()


class Package:
    """llmctl's package with a catalogue and a bundled model that a test may change."""

    def __init__(self, directory: Path) -> None:
        self.catalog = directory / "catalog.json"
        self.bundle = directory / "bird"
        self.bundle.mkdir()
        self.ship(TEXT, EYES)

    def ship(self, text: bytes, eyes: bytes) -> None:
        """A release: files, and the catalogue that knows them."""
        for name, content in (("bird.gguf", text), ("mmproj-bird.gguf", eyes)):
            (self.bundle / name).write_bytes(content)
        entry: dict[str, Any] = {
            "title": "A bird",
            "licence": "mit",
            "bundled": "bird",
            "template": "vicuna",
            "model": [known("bird.gguf", text)],
            "projector": known("mmproj-bird.gguf", eyes),
            "capabilities": {"sees": ["colour"]},
        }
        other: dict[str, Any] = entry | {"bundled": None, "repo": "org/other", "capabilities": {}}
        self.catalog.write_text(json.dumps({"bird": entry, "other": other}))


def known(name: str, content: bytes) -> dict[str, Any]:
    return {
        "file": name,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    directory = tmp_path / "package"
    directory.mkdir()
    found = Package(directory)
    monkeypatch.setattr(sources, "builtin_catalog", lambda: found.catalog)
    monkeypatch.setattr(origins, "bundled_directory", directory.joinpath)
    return found


@pytest.fixture
def paths(tmp_path: Path, package: Package) -> StackPaths:
    del package
    (tmp_path / "stack").mkdir()
    return StackPaths.at(tmp_path / "stack")


def spec(name: str = "bird", source: str = "bird") -> ModelSpec:
    return ModelSpec(name, source, None, None, 2048, 1, None, None, "auto")


def test_it_is_resolved_without_hub_and_copied(paths: StackPaths) -> None:
    wanted = models.resolve(paths, spec(), None)
    assert (wanted.repo, wanted.commit, wanted.template) == (None, None, "vicuna")
    assert models.missing(paths, wanted) == wanted.files
    result = models.pull(paths, spec(), HUB, silent)
    assert result.downloaded == ("bird/bird.gguf", "bird/mmproj-bird.gguf")
    assert result.bytes == len(TEXT) + len(EYES)
    assert (paths.models / "bird/bird.gguf").read_bytes() == TEXT
    assert (paths.models / "bird/mmproj-bird.gguf").read_bytes() == EYES
    assert models.read_lock(paths).models == {"bird": wanted}
    assert models.missing(paths, wanted) == ()
    assert list(paths.partial.iterdir()) == []


def test_the_copy_is_not_the_original(paths: StackPaths, package: Package) -> None:
    models.pull(paths, spec(), HUB, silent)
    copied = paths.models / "bird/bird.gguf"
    assert not copied.samefile(package.bundle / "bird.gguf")
    assert copied.stat().st_mode & 0o444 == 0o444  # LocalAI's container reads it as another user


def test_the_second_pull_does_nothing(
    paths: StackPaths, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.pull(paths, spec(), HUB, silent)
    (package.bundle / "bird.gguf").unlink()
    monkeypatch.setattr(files, "sha256_of", None)
    again = models.pull(paths, spec(), HUB, silent)
    assert (again.downloaded, again.bytes, len(again.already)) == ((), 0, 2)


def test_it_is_listed_shown_verified_and_removed(paths: StackPaths) -> None:
    models.pull(paths, spec(), HUB, silent)
    listed = {row.name: row for row in models.listing(paths)}["bird"]
    assert (listed.pulled, listed.here, listed.of, listed.repo) == (True, 2, 2, None)
    assert [one.state for one in models.show(paths, "bird").files] == ["good", "good"]
    assert {check.verdict for check in models.verify(paths, "bird", silent)} == {"ok"}
    models.remove(paths, models.plan_removal(paths, "bird"))
    assert not (paths.models / "bird").exists()
    assert models.pull(paths, spec(), HUB, silent).downloaded


def test_a_file_that_was_altered_here_is_copied_again(paths: StackPaths) -> None:
    models.pull(paths, spec(), HUB, silent)
    place = paths.models / "bird/bird.gguf"
    place.write_bytes(TEXT[::-1])
    os.utime(place, ns=(1, 1))
    (bad,) = [c for c in models.verify(paths, "bird", silent) if c.verdict != "ok"]
    assert (bad.path, bad.verdict) == ("bird/bird.gguf", "changed")
    assert models.pull(paths, spec(), HUB, silent).downloaded == ("bird/bird.gguf",)
    assert place.read_bytes() == TEXT


@pytest.mark.parametrize("newer", [TEXT + b"better", TEXT[:-4] + b"new!"])
def test_a_newer_llmctl_brings_its_newer_model(
    paths: StackPaths, package: Package, newer: bytes
) -> None:
    models.pull(paths, spec(), HUB, silent)
    package.ship(newer, EYES)
    wanted = models.resolve(paths, spec(), None)
    assert [file.path for file in models.missing(paths, wanted)] == ["bird/bird.gguf"]
    assert models.pull(paths, spec(), HUB, silent).downloaded == ("bird/bird.gguf",)
    assert (paths.models / "bird/bird.gguf").read_bytes() == newer


def test_it_may_have_another_name(paths: StackPaths) -> None:
    models.pull(paths, spec("tweety"), HUB, silent)
    lock = models.read_lock(paths)
    assert lock.models["tweety"].source == "bird"
    assert lock.owners("bird/bird.gguf") == ("tweety",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (TEXT[:-1] + b"?", "package holds bird.gguf: SHA-256 .* instead of"),
        (TEXT[:-1], "bytes instead of"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "package holds bird.gguf: a Git LFS pointer",
        ),
    ],
)
def test_a_damaged_package_is_not_copied(
    paths: StackPaths, package: Package, content: bytes, complaint: str
) -> None:
    (package.bundle / "bird.gguf").write_bytes(content)
    with pytest.raises(LlmctlError, match=complaint) as caught:
        models.pull(paths, spec(), HUB, silent)
    assert "reinstall" in (caught.value.hint or "")
    assert "HF_ENDPOINT" not in (caught.value.hint or "")
    assert not list(paths.models.rglob("*.gguf"))


def test_a_package_without_the_file(paths: StackPaths, package: Package) -> None:
    (package.bundle / "mmproj-bird.gguf").unlink()
    with pytest.raises(LlmctlError, match="is missing, although it comes with llmctl"):
        models.pull(paths, spec(), HUB, silent)


def test_a_strangers_file_and_a_full_disk_stop_it_too(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = paths.models / "bird/bird.gguf"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"GGUF of mine")
    with pytest.raises(ConfigError, match="is in the way"):
        models.pull(paths, spec(), HUB, silent)
    mine.unlink()
    monkeypatch.setattr(files, "free_bytes", lambda _: 10)
    with pytest.raises(DiskFullError):
        models.pull(paths, spec(), HUB, silent)


def test_capabilities_by_model_name(paths: StackPaths) -> None:
    del paths
    local = ModelSpec("mine", None, "m.gguf", None, 2048, 1, None, None, "auto")
    specs = [spec("tweety"), spec("o", "other"), spec("far", "hf://org/far"), local]
    assert models.capabilities(specs) == {
        "tweety": Capabilities(colour=True),
        "o": Capabilities(),
    }
