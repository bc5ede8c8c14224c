"""Rendered files on disk: nothing a person wrote is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.deployment import RenderedFile
from llmctl.core.events import Event
from llmctl.errors import ConfigError
from llmctl.ops import configure
from llmctl.paths import StackPaths
from tests.unit.test_render import rendered


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    return StackPaths.at(tmp_path)


@pytest.fixture
def files() -> list[RenderedFile]:
    return list(rendered().values())


def write(paths: StackPaths, files: list[RenderedFile], *, force: bool = False) -> tuple[str, ...]:
    events: list[Event] = []
    return configure.write(paths, files, force=force, listen=events.append)


def test_files_are_written_once(paths: StackPaths, files: list[RenderedFile]) -> None:
    assert write(paths, files) == tuple(file.path for file in files)
    assert write(paths, files) == ()
    assert configure.hashes_on_disk(paths, files) == {file.path: file.sha256 for file in files}


def test_what_we_wrote_is_replaced_without_a_question(
    paths: StackPaths, files: list[RenderedFile]
) -> None:
    write(paths, files)
    import dataclasses

    from tests.unit.test_render import LLAVA

    engine = dataclasses.replace(LLAVA.engine, context=2048)
    other = list(rendered(dataclasses.replace(LLAVA, engine=engine)).values())
    assert [state.state for state in configure.compare(paths, other)] == ["stale", "same", "stale"]
    assert write(paths, other) == ("models/llava.yaml", "litellm/litellm.yaml")
    assert not list((paths.root / "models").glob("*.bak*"))


def test_an_edit_by_hand_is_refused_and_nothing_at_all_is_written(
    paths: StackPaths, files: list[RenderedFile]
) -> None:
    write(paths, files)
    edited = paths.root / "litellm" / "litellm.yaml"
    edited.write_text(edited.read_text(encoding="utf-8") + "# 自分の設定\n", encoding="utf-8")
    (paths.root / "models" / "llava.yaml").unlink()
    with pytest.raises(ConfigError, match="litellm/litellm.yaml: edited by hand") as caught:
        write(paths, files)
    assert "-# 自分の設定" in (caught.value.details or "")
    assert "--force" in (caught.value.hint or "")
    assert not (paths.root / "models" / "llava.yaml").exists()


def test_force_keeps_what_was_there(paths: StackPaths, files: list[RenderedFile]) -> None:
    target = paths.root / "models" / "llava.yaml"
    for text in ("mine\n", "mine again\n"):
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
        write(paths, files, force=True)
        assert target.read_text(encoding="utf-8") == files[0].content
    kept = sorted(target.parent.glob("llava.yaml.bak*"))
    assert [copy.read_text(encoding="utf-8") for copy in kept] == ["mine\n", "mine again\n"]
    # LocalAI loads every *.yaml and *.yml in the directory.
    assert not [p for p in target.parent.iterdir() if p.suffix in {".yaml", ".yml"} and p != target]


def test_a_half_written_file_never_shows(
    paths: StackPaths, files: list[RenderedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(paths, files)
    before = (paths.root / files[0].path).read_text(encoding="utf-8")

    def broken(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmctl.files.os.fsync", broken)
    from llmctl.errors import DiskFullError
    from llmctl.files import write_atomic

    with pytest.raises(DiskFullError, match="no space left"):
        write_atomic(paths.root / files[0].path, "other")
    assert (paths.root / files[0].path).read_text(encoding="utf-8") == before
    assert not list((paths.root / "models").glob(".*"))
