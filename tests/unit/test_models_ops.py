"""Resolving, pulling, checking and removing models, with a hub in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from llmctl import files
from llmctl.core.artifact import RepoFile, RepoInfo
from llmctl.core.events import Event, Note, Progress, silent
from llmctl.core.stack import ModelSpec
from llmctl.errors import ConfigError, DiskFullError, HubError
from llmctl.hub.base import OnBytes
from llmctl.ops import models
from llmctl.paths import StackPaths
from tests.world.gguf_bytes import language, projector

TEXT = language()
SMALLER = language(seed=1)
EYES = projector()
LLAVA_REPO = "mys/ggml_llava-v1.5-7b"


class MemoryHub:
    """A hub that is a dictionary; it counts what it is asked for."""

    def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
        self.repos = repos
        self.sends: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cache: dict[str, Path] = {}
        self.with_hashes = True

    def describe(self, repo: str, revision: str | None) -> RepoInfo:
        self.asked.append(f"describe {repo} {revision}")
        return RepoInfo(
            repo,
            "c" * 40,
            "mit",
            gated=False,
            files=tuple(
                RepoFile(path, len(content), sha256(content) if self.with_hashes else None)
                for path, content in self.repos[repo].items()
            ),
        )

    def read(self, repo: str, commit: str, remote: str, start: int, stop: int) -> bytes:
        self.asked.append(f"read {repo} {commit[:3]} {remote}")
        return self.repos[repo][remote][start:stop]

    def cached(self, repo: str, commit: str, file: RepoFile) -> Path | None:
        del repo, commit
        return self.cache.get(file.path)

    def download(
        self, repo: str, commit: str, file: RepoFile, aside: Path, on_bytes: OnBytes
    ) -> str:
        self.asked.append(f"download {repo} {commit[:3]} {file.path}")
        content = self.sends.get(file.path, self.repos[repo][file.path])
        on_bytes(0, len(content))
        aside.write_bytes(content)
        on_bytes(len(content), len(content))
        return sha256(content)


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    return StackPaths.at(tmp_path)


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub(
        {
            LLAVA_REPO: {"ggml-model-q4_k.gguf": TEXT, "mmproj-model-f16.gguf": EYES},
            "org/Vision-GGUF": {
                "v-Q8_0.gguf": TEXT,
                "v-Q4_0.gguf": SMALLER,
                "mmproj-F16.gguf": EYES,
            },
        }
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def spec(source: str | None = "llava", name: str = "llava", **changes: Any) -> ModelSpec:
    base = ModelSpec(name, source, None, None, 4096, 1, None, None, "auto")
    return dataclasses.replace(base, **changes)


def below(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


def rewrite(path: Path, content: bytes) -> None:
    """Write a second later, as far as the file system knows."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def test_the_guides_layout(paths: StackPaths, hub: MemoryHub) -> None:
    result = models.pull(paths, spec(), hub, silent)
    assert {path for path in below(paths.root) if not path.startswith(".llmctl/locks/")} == {
        "models/ggml-model-q4_k.gguf",
        "models/mmproj-model-f16.gguf",
        "llmctl.lock",
        ".llmctl/hashes.json",
    }
    assert (paths.models / "ggml-model-q4_k.gguf").read_bytes() == TEXT
    assert result.downloaded == ("ggml-model-q4_k.gguf", "mmproj-model-f16.gguf")
    assert result.bytes == len(TEXT) + len(EYES)
    assert [(file.size, file.sha256) for file in result.artifact.files] == [
        (len(TEXT), sha256(TEXT)),
        (len(EYES), sha256(EYES)),
    ]
    assert (result.artifact.commit, result.artifact.licence) == ("c" * 40, "mit")
    assert result.artifact.template == "vicuna"


def test_the_second_pull_asks_and_hashes_nothing(
    paths: StackPaths, hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = models.pull(paths, spec(), hub, silent)
    hub.asked.clear()
    monkeypatch.setattr(files, "sha256_of", None)
    events: list[Event] = []
    second = models.pull(paths, spec(), hub, events.append)
    assert (second.artifact, second.downloaded, second.bytes) == (first.artifact, (), 0)
    assert second.already == first.downloaded
    assert hub.asked == []
    assert events == []


def test_progress_is_one_task_a_file(paths: StackPaths, hub: MemoryHub) -> None:
    events: list[Event] = []
    models.pull(paths, spec(), hub, events.append)
    progress = [event for event in events if isinstance(event, Progress)]
    assert {event.task for event in progress} == {"ggml-model-q4_k.gguf", "mmproj-model-f16.gguf"}
    assert [event.task for event in progress if event.finished] == [
        "ggml-model-q4_k.gguf",
        "mmproj-model-f16.gguf",
    ]
    assert progress[0] == Progress("ggml-model-q4_k.gguf", 0, len(TEXT))


def test_resolve_prefers_the_lock(paths: StackPaths, hub: MemoryHub) -> None:
    source = "hf://org/Vision-GGUF:q8_0"
    wanted = spec(source, "eyes")
    with pytest.raises(ConfigError, match="was never pulled") as caught:
        models.resolve(paths, wanted, None)
    assert caught.value.hint == f"llmctl models pull {source}"
    pulled = models.pull(paths, wanted, hub, silent).artifact
    assert models.resolve(paths, wanted, None) == pulled
    assert [file.path for file in pulled.files] == ["eyes/v-Q8_0.gguf", "eyes/mmproj-F16.gguf"]
    # Another source under the same name is another model.
    with pytest.raises(ConfigError, match="was never pulled"):
        models.resolve(paths, spec("hf://org/Vision-GGUF:q4_0", "eyes"), None)


def test_files_of_the_old_source_are_named(paths: StackPaths, hub: MemoryHub) -> None:
    models.pull(paths, spec("hf://org/Vision-GGUF:q8_0", "eyes"), hub, silent)
    events: list[Event] = []
    models.pull(paths, spec("hf://org/Vision-GGUF:q4_0", "eyes"), hub, events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == [
        f"{paths.models / 'eyes/v-Q8_0.gguf'} (0.0 GB) is no longer used; `llmctl models gc` deletes it"
    ]
    assert (paths.models / "eyes/v-Q8_0.gguf").exists()


def test_the_specs_template_wins_and_is_not_locked(paths: StackPaths, hub: MemoryHub) -> None:
    wanted = spec(template="tokenizer")
    assert models.resolve(paths, wanted, None).template == "tokenizer"
    assert models.pull(paths, wanted, hub, silent).artifact.template == "tokenizer"
    assert models.resolve(paths, spec(), None).template == "vicuna"


def test_resolve_of_a_catalogue_name_needs_no_network(paths: StackPaths) -> None:
    artifact = models.resolve(paths, spec("smolvlm-256m"), None)
    assert artifact.commit is None
    assert models.missing(paths, artifact) == artifact.files
    with pytest.raises(ConfigError, match="did you mean llava"):
        models.resolve(paths, spec("lava"), None)


def test_missing_notices_size_and_known_hashes(paths: StackPaths, hub: MemoryHub) -> None:
    artifact = models.pull(paths, spec(), hub, silent).artifact
    text, eyes = artifact.files
    assert models.missing(paths, artifact) == ()
    (paths.models / text.path).write_bytes(TEXT + b"!")
    assert models.missing(paths, artifact) == (text,)
    (paths.models / text.path).unlink()
    assert models.missing(paths, artifact) == (text,)
    # Same size, other content: known only once it was hashed.
    rewrite(paths.models / eyes.path, EYES[::-1])
    checks = models.verify(paths, None, silent)
    assert [check.verdict for check in checks] == ["missing", "changed"]
    assert models.missing(paths, artifact) == (text, eyes)
    again = models.pull(paths, spec(), hub, silent)
    assert again.downloaded == (text.path, eyes.path)
    assert models.missing(paths, artifact) == ()
    assert {check.verdict for check in models.verify(paths, "llava", silent)} == {"ok"}


def test_files_that_are_here_already_are_taken_over(paths: StackPaths, hub: MemoryHub) -> None:
    """Who followed the guide by hand has the files, and no lock."""
    paths.models.mkdir()
    (paths.models / "ggml-model-q4_k.gguf").write_bytes(TEXT)
    result = models.pull(paths, spec(), hub, silent)
    assert result.already == ("ggml-model-q4_k.gguf",)
    assert result.downloaded == ("mmproj-model-f16.gguf",)
    assert sum("download" in request for request in hub.asked) == 1


def test_a_strangers_file_is_never_replaced(paths: StackPaths, hub: MemoryHub) -> None:
    paths.models.mkdir()
    mine = paths.models / "ggml-model-q4_k.gguf"
    mine.write_bytes(b"GGUF my own fine-tune")
    with pytest.raises(ConfigError, match="is in the way") as caught:
        models.pull(paths, spec(), hub, silent)
    assert str(mine) in (caught.value.hint or "")
    assert mine.read_bytes() == b"GGUF my own fine-tune"
    assert not any("download" in request for request in hub.asked)


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "ggml-model-q4_k.gguf: an HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "ggml-model-q4_k.gguf: a Git LFS pointer",
        ),
        (b"", "ggml-model-q4_k.gguf: an empty file"),
        (TEXT[:-1], f"{len(TEXT) - 1} bytes instead of {len(TEXT)}"),
        (TEXT[:-1] + b"?", f"SHA-256 {sha256(TEXT[:-1] + b'?')} instead of {sha256(TEXT)}"),
    ],
)
def test_a_wrong_file_never_gets_the_final_name(
    paths: StackPaths, hub: MemoryHub, sent: bytes, complaint: str
) -> None:
    hub.sends["ggml-model-q4_k.gguf"] = sent
    with pytest.raises(HubError) as caught:
        models.pull(paths, spec(), hub, silent)
    assert complaint in caught.value.message
    assert below(paths.models) == set()


def test_a_finished_file_stays_when_the_next_one_fails(paths: StackPaths, hub: MemoryHub) -> None:
    hub.sends["mmproj-model-f16.gguf"] = b"<html>"
    with pytest.raises(HubError):
        models.pull(paths, spec(), hub, silent)
    hub.sends.clear()
    hub.asked.clear()
    assert models.pull(paths, spec(), hub, silent).downloaded == ("mmproj-model-f16.gguf",)
    assert "download mys/ggml_llava-v1.5-7b ccc ggml-model-q4_k.gguf" not in hub.asked


def test_without_hashes_the_computed_one_is_recorded(paths: StackPaths, hub: MemoryHub) -> None:
    hub.with_hashes = False
    artifact = models.pull(paths, spec(), hub, silent).artifact
    assert artifact.model[0].sha256 == sha256(TEXT)


def test_a_file_that_changed_upstream_is_refused_before_the_download(
    paths: StackPaths, hub: MemoryHub
) -> None:
    hub.repos["ggml-org/SmolVLM-256M-Instruct-GGUF"] = {
        "SmolVLM-256M-Instruct-Q8_0.gguf": TEXT,
        "mmproj-SmolVLM-256M-Instruct-Q8_0.gguf": EYES,
    }
    with pytest.raises(HubError, match="was changed on the hub since the catalogue") as caught:
        models.pull(paths, spec("smolvlm-256m", "s"), hub, silent)
    assert "hf://ggml-org/SmolVLM-256M-Instruct-GGUF" in (caught.value.hint or "")
    assert len(hub.asked) == 1


def test_a_file_that_is_gone_upstream(paths: StackPaths, hub: MemoryHub) -> None:
    del hub.repos[LLAVA_REPO]["mmproj-model-f16.gguf"]
    with pytest.raises(HubError, match=r"has no file mmproj-model-f16.gguf any more") as caught:
        models.pull(paths, spec(), hub, silent)
    assert caught.value.details == "ggml-model-q4_k.gguf"


def test_the_locked_commit_is_pulled_again(paths: StackPaths, hub: MemoryHub) -> None:
    models.pull(paths, spec(), hub, silent)
    (paths.models / "mmproj-model-f16.gguf").unlink()
    hub.asked.clear()
    models.pull(paths, spec(), hub, silent)
    assert hub.asked == [f"download {LLAVA_REPO} ccc mmproj-model-f16.gguf"]


def test_disk_space_is_checked_first(
    paths: StackPaths, hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: len(TEXT) + len(EYES) - 1)
    with pytest.raises(DiskFullError, match=r"GB are needed, .* GB are free"):
        models.pull(paths, spec(), hub, silent)
    assert not any("download" in request for request in hub.asked)
    monkeypatch.setattr(files, "free_bytes", lambda _: len(TEXT) + len(EYES))
    models.pull(paths, spec(), hub, silent)


def local(paths: StackPaths, model: str, mmproj: str | None = None) -> ModelSpec:
    for name, content in ((model, TEXT), (mmproj, EYES)):
        if name:
            place = paths.root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return spec(None, "mine", model=model, mmproj=mmproj)


def test_local_files_outside_are_linked(paths: StackPaths, hub: MemoryHub) -> None:
    wanted = local(paths, "weights/m.gguf", "weights/p.gguf")
    artifact = models.resolve(paths, wanted, None)
    assert [file.path for file in artifact.files] == ["mine/m.gguf", "mine/p.gguf"]
    assert models.missing(paths, artifact) == artifact.files
    result = models.pull(paths, wanted, hub, silent)
    assert (paths.models / "mine/m.gguf").samefile(paths.root / "weights/m.gguf")
    assert (result.bytes, result.downloaded, hub.asked) == (0, (), [])
    assert models.missing(paths, models.resolve(paths, wanted, None)) == ()
    # The original may go: the link keeps the content.
    (paths.root / "weights/m.gguf").unlink()
    assert models.resolve(paths, wanted, None) == result.artifact


def test_local_files_inside_are_used_where_they_are(paths: StackPaths, hub: MemoryHub) -> None:
    wanted = local(paths, "models/sub/m.gguf", "./models/../models/p.gguf")
    result = models.pull(paths, wanted, hub, silent)
    assert [file.path for file in result.artifact.files] == ["sub/m.gguf", "p.gguf"]
    assert result.artifact.model[0].sha256 == sha256(TEXT)
    assert below(paths.models) == {"sub/m.gguf", "p.gguf"}


def test_a_local_file_may_change(paths: StackPaths, hub: MemoryHub) -> None:
    wanted = local(paths, "models/m.gguf", "models/p.gguf")
    models.pull(paths, wanted, hub, silent)
    rewrite(paths.models / "m.gguf", SMALLER)
    result = models.pull(paths, wanted, hub, silent)
    assert result.artifact.model[0].sha256 == sha256(SMALLER)


def test_a_copy_where_links_do_not_reach(
    paths: StackPaths, hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_device(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", other_device)
    wanted = local(paths, "weights/m.gguf", "weights/p.gguf")
    models.pull(paths, wanted, hub, silent)
    assert (paths.models / "mine/m.gguf").read_bytes() == TEXT
    inode = (paths.models / "mine/m.gguf").stat().st_ino
    events: list[Event] = []
    models.pull(paths, wanted, hub, events.append)
    assert events == []
    assert (paths.models / "mine/m.gguf").stat().st_ino == inode


def test_local_shards_come_together(paths: StackPaths, hub: MemoryHub) -> None:
    local(paths, "w/m-00002-of-00002.gguf")
    wanted = local(paths, "w/m-00001-of-00002.gguf", "w/p.gguf")
    (paths.root / "w/m-00001-of-00002.gguf").write_bytes(
        language(extra={"split.count": 2, "split.no": 0})
    )
    result = models.pull(paths, wanted, hub, silent)
    assert [file.path for file in result.artifact.model] == [
        "mine/m-00001-of-00002.gguf",
        "mine/m-00002-of-00002.gguf",
    ]


def test_local_files_that_cannot_be(paths: StackPaths, hub: MemoryHub) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        models.resolve(paths, spec(None, "mine", model="nowhere.gguf"), None)
    page = local(paths, "page.gguf")
    (paths.root / "page.gguf").write_bytes(b"<html>")
    with pytest.raises(ConfigError, match="is an HTML page"):
        models.pull(paths, page, hub, silent)
    hidden = local(paths, "models/.hidden/m.gguf")
    with pytest.raises(ConfigError, match="rename|takes no path"):
        models.resolve(paths, hidden, None)


def test_a_local_model_without_a_projector_is_warned_about(
    paths: StackPaths, hub: MemoryHub
) -> None:
    events: list[Event] = []
    models.pull(paths, local(paths, "m.gguf"), hub, events.append)
    notes = [event.text for event in events if isinstance(event, Note) and event.warning]
    assert [note.partition("(")[0] for note in notes] == ["there is no vision projector "]


def test_listing(paths: StackPaths, hub: MemoryHub) -> None:
    rows = {row.name: row for row in models.listing(paths)}
    assert next(iter(rows)) == "llava"
    assert (rows["llava"].here, rows["llava"].of, rows["llava"].bytes) == (0, 2, 0)
    models.pull(paths, spec(), hub, silent)
    models.pull(paths, spec("hf://org/Vision-GGUF", "eyes"), hub, silent)
    models.pull(paths, spec("llava", "alias"), hub, silent)
    (paths.models / "eyes/mmproj-F16.gguf").unlink()
    rows = {row.name: row for row in models.listing(paths)}
    assert list(rows)[-2:] == ["alias", "eyes"]
    assert (rows["llava"].here, rows["llava"].pulled) == (2, True)
    assert rows["llava"].bytes == len(TEXT) + len(EYES)
    assert (rows["eyes"].here, rows["eyes"].of) == (1, 2)
    assert rows["alias"].title == "llava"


def test_show(paths: StackPaths, hub: MemoryHub) -> None:
    shown = models.show(paths, "llava")
    assert (shown.pulled, [one.state for one in shown.files]) == (False, ["absent", "absent"])
    models.pull(paths, spec(), hub, silent)
    shown = models.show(paths, "llava")
    assert (shown.pulled, [one.state for one in shown.files]) == (True, ["good", "good"])
    with pytest.raises(ConfigError, match="did you mean"):
        models.show(paths, "lava")


def test_remove_spares_what_others_use(paths: StackPaths, hub: MemoryHub) -> None:
    models.pull(paths, spec(), hub, silent)
    models.pull(paths, spec("llava", "alias"), hub, silent)
    models.pull(paths, spec("hf://org/Vision-GGUF", "eyes"), hub, silent)
    (paths.models / "eyes.yaml").write_text("name: eyes\n")
    removal = models.plan_removal(paths, "alias")
    assert (removal.delete, removal.bytes) == ((), 0)
    assert removal.shared == (
        ("ggml-model-q4_k.gguf", "llava"),
        ("mmproj-model-f16.gguf", "llava"),
    )
    models.remove(paths, removal)
    removal = models.plan_removal(paths, "eyes")
    assert removal.left == ("models/eyes.yaml",)
    models.remove(paths, removal)
    assert not (paths.models / "eyes").exists()
    models.remove(paths, models.plan_removal(paths, "llava"))
    assert below(paths.models) == {"eyes.yaml"}
    assert models.read_lock(paths).models == {}
    with pytest.raises(ConfigError, match="was not pulled"):
        models.plan_removal(paths, "llava")


def test_a_damaged_hash_cache_costs_only_time(paths: StackPaths, hub: MemoryHub) -> None:
    models.pull(paths, spec(), hub, silent)
    for damage in ("{", "[]", '{"a": 1}', '{"ggml-model-q4_k.gguf": {"stat": 1, "sha256": "x"}}'):
        paths.hash_cache.write_text(damage)
        hub.asked.clear()
        assert models.pull(paths, spec(), hub, silent).downloaded == ()
        assert hub.asked == []
