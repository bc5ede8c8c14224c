"""What `models gc` deletes, and what it must never delete."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmctl import files
from llmctl.core.events import silent
from llmctl.core.lock import Lock, format_lock
from llmctl.hub.journal import Journal
from llmctl.ops import models
from llmctl.ops.models.garbage import Garbage, Partial, collect, garbage, partials
from llmctl.paths import StackPaths
from tests.unit.test_models_ops import MemoryHub, below, rewrite, spec
from tests.world.gguf_bytes import language, projector

TEXT, EYES, OLD = language(), projector(), projector(kind=None)


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    return StackPaths.at(tmp_path)


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub(
        {
            "org/one-GGUF": {"m.gguf": TEXT, "mmproj.gguf": OLD},
            "org/two-GGUF": {"n.gguf": TEXT, "mmproj.gguf": EYES},
        }
    )


def leave_partial(paths: StackPaths, name: str, size: int = 3 << 18, blocks: int = 1) -> Path:
    """What a transfer that was cut off leaves behind."""
    place = paths.partial / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        file.write(os.urandom(blocks << 18))
        file.truncate(size)
    journal = Journal(place, "sha256:0", size)
    for index in range(blocks):
        journal.record(index, 0)
    journal.close()
    return place


def why(paths: StackPaths) -> dict[str, str]:
    return {one.path: one.why for one in garbage(paths)}


def test_nothing_to_do(paths: StackPaths, hub: MemoryHub) -> None:
    assert (garbage(paths), partials(paths), collect(paths)) == ((), (), ())
    models.pull(paths, spec("hf://org/two-GGUF", "two"), hub, silent)
    assert (garbage(paths), collect(paths)) == ((), ())


def test_an_unfinished_transfer(paths: StackPaths) -> None:
    place = leave_partial(paths, "m.gguf.0123456789ab")
    path = "models/.partial/m.gguf.0123456789ab"
    assert partials(paths) == (Partial(path, "m.gguf", 1 << 18, 3 << 18),)
    (found,) = garbage(paths)
    assert (found.path, found.why) == (path, "unfinished")
    assert 1 << 18 <= found.bytes < 3 << 18  # the hole takes no room
    assert place.exists()  # looking deletes nothing
    assert collect(paths) == (found,)
    assert list(paths.partial.iterdir()) == []


def test_a_partial_without_a_journal(paths: StackPaths) -> None:
    """As the repaired copy that a kill cut off, or what an older llmctl left."""
    place = paths.partial / "p.gguf.0123456789ab.repaired"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"GGUF")
    assert partials(paths) == (Partial(str(place.relative_to(paths.root)), "p.gguf", 4, None),)
    assert len(collect(paths)) == 1
    assert not place.exists()


@pytest.mark.parametrize("suffix", ["", ".repaired"])
def test_a_transfer_under_way_is_left_alone(paths: StackPaths, suffix: str) -> None:
    name = "m.gguf.0123456789ab"
    busy, idle = leave_partial(paths, name + suffix), leave_partial(paths, "n.gguf.ba9876543210")
    with files.exclusive(paths.locks / name, "llmctl models pull m"):
        assert [one.path for one in collect(paths)] == [str(idle.relative_to(paths.root))]
        assert busy.exists()
    assert [one.path for one in collect(paths)] == [str(busy.relative_to(paths.root))]


def test_an_original_that_was_repaired(paths: StackPaths, hub: MemoryHub) -> None:
    wanted = spec("hf://org/one-GGUF", "one")
    models.pull(paths, wanted, hub, silent)
    assert garbage(paths) == (Garbage("models/one/mmproj.gguf", len(OLD), "original"),)
    collect(paths)
    assert below(paths.models) == {"one/m.gguf", "one/mmproj.repaired.gguf"}
    assert garbage(paths) == ()
    hub.asked.clear()
    assert models.pull(paths, wanted, hub, silent).downloaded == ()
    assert hub.asked == []


def test_what_no_model_uses_any_more(paths: StackPaths, hub: MemoryHub) -> None:
    models.pull(paths, spec("hf://org/two-GGUF", "eyes"), hub, silent)
    hub.repos["org/three-GGUF"] = {"o.gguf": TEXT, "mmproj.gguf": EYES}
    models.pull(paths, spec("hf://org/three-GGUF", "eyes"), hub, silent)
    assert why(paths) == {"models/eyes/n.gguf": "unused"}
    collect(paths)
    assert below(paths.models) == {"eyes/o.gguf", "eyes/mmproj.gguf"}
    assert {check.verdict for check in models.verify(paths, None, silent)} == {"ok"}


def test_a_users_own_files_stay(paths: StackPaths, hub: MemoryHub) -> None:
    own = paths.models / "own.gguf"
    own.parent.mkdir()
    own.write_bytes(TEXT)
    models.pull(paths, spec(None, "mine", model="models/own.gguf"), hub, silent)
    (paths.models / "never-seen.gguf").write_bytes(EYES)
    # Another file where an unused one of ours was: it is somebody's now.
    models.pull(paths, spec("hf://org/two-GGUF", "two"), hub, silent)
    paths.lock_file.write_text(format_lock(Lock()))
    rewrite(paths.models / "two/n.gguf", TEXT[:-1] + b"?")
    assert why(paths) == {"models/two/mmproj.gguf": "unused"}
    collect(paths)
    assert below(paths.models) == {"own.gguf", "never-seen.gguf", "two/n.gguf"}


def test_a_file_that_was_taken_over_stays(paths: StackPaths, hub: MemoryHub) -> None:
    """Who followed the guide by hand put it there; llmctl only found it to be right."""
    (paths.models / "two").mkdir(parents=True)
    (paths.models / "two/n.gguf").write_bytes(TEXT)
    models.pull(paths, spec("hf://org/two-GGUF", "two"), hub, silent)
    paths.lock_file.write_text(format_lock(Lock()))
    assert why(paths) == {"models/two/mmproj.gguf": "unused"}


def test_without_a_lock_nothing_counts_as_unused(paths: StackPaths, hub: MemoryHub) -> None:
    """It may be in another branch."""
    models.pull(paths, spec("hf://org/two-GGUF", "two"), hub, silent)
    paths.lock_file.unlink()
    assert why(paths) == {}
