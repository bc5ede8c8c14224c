"""Before the download: which files of a repository belong together, told by their headers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from llmctl import files
from llmctl.core.artifact import RepoInfo
from llmctl.core.events import Event, Note, silent
from llmctl.core.lock import Lock, format_lock
from llmctl.core.stack import ModelSpec
from llmctl.core.verdict import formats_of
from llmctl.errors import ConfigError, DiskFullError, GateError
from llmctl.ops import models
from llmctl.ops.models import PullOptions, garbage, inspecting
from llmctl.ops.models.examining import needed_bytes
from llmctl.ops.models.inspecting import Inspection
from llmctl.paths import StackPaths
from tests.unit.test_models_ops import MemoryHub, below, rewrite, sha256, spec
from tests.world.gguf_bytes import gguf, language, projector

SOURCE = "hf://org/any-GGUF"
TEXT, EYES, OLD = language(), projector(), projector(kind=None)
OTHER_EYES = projector(width=128)
FORMATS = formats_of("docker", None)


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    return StackPaths.at(tmp_path)


def repo_of(contents: dict[str, bytes]) -> MemoryHub:
    return MemoryHub({"org/any-GGUF": contents})


def eyes(source: str = SOURCE) -> ModelSpec:
    return spec(source, "eyes")


def inspect(paths: StackPaths, hub: MemoryHub, source: str = SOURCE) -> Inspection:
    found = inspecting.inspect(paths, eyes(source), hub, FORMATS)
    assert not any("download" in asked for asked in hub.asked)
    assert below(paths.root) == set()
    return found


def remotes(found: Inspection) -> list[str | None]:
    return [file.remote for file in found.artifact.files]


def codes(found: Inspection) -> list[str]:
    return [finding.code for finding in found.findings]


def part(number: int, of: int) -> bytes:
    return language(seed=number, extra={"split.count": of, "split.no": number})


REPOSITORIES: dict[str, tuple[dict[str, bytes], str, list[str]]] = {
    "one file and one projector": (
        {"model.gguf": TEXT, "mmproj.gguf": EYES, "README.md": b"# hi"},
        SOURCE,
        ["model.gguf", "mmproj.gguf"],
    ),
    "quantisations in folders": (
        {
            "Q4_K_M/m-Q4_K_M.gguf": TEXT,
            "Q8_0/m-Q8_0.gguf": TEXT,
            "BF16/m-BF16.gguf": TEXT,
            "mmproj-BF16.gguf": EYES,
            "mmproj-F16.gguf": EYES,
        },
        SOURCE,
        ["Q4_K_M/m-Q4_K_M.gguf", "mmproj-F16.gguf"],
    ),
    "another quantisation": (
        {"Q4_K_M/m.gguf": TEXT, "Q8_0/m.gguf": TEXT, "mmproj-F16.gguf": EYES},
        f"{SOURCE}:q8_0",
        ["Q8_0/m.gguf", "mmproj-F16.gguf"],
    ),
    "a file by its name": (
        {"a-7b.gguf": TEXT, "b-13b.gguf": language(width=128), "a-mmproj.gguf": EYES},
        f"{SOURCE}:a-7b.gguf",
        ["a-7b.gguf", "a-mmproj.gguf"],
    ),
    "shards": (
        {
            "Q8_0/m-00001-of-00003.gguf": part(0, 3),
            "Q8_0/m-00002-of-00003.gguf": part(1, 3),
            "Q8_0/m-00003-of-00003.gguf": part(2, 3),
            "mmproj-F16.gguf": EYES,
        },
        SOURCE,
        [f"Q8_0/m-0000{i}-of-00003.gguf" for i in (1, 2, 3)] + ["mmproj-F16.gguf"],
    ),
    "several projectors, and the name misleads": (
        {
            "vicuna-7b-Q4_K_M.gguf": TEXT,
            "mmproj-vicuna-7b-f16.gguf": OTHER_EYES,
            "mmproj-f16.gguf": language(),
            "mmproj-damaged-f16.gguf": EYES[:100],
            "mmproj-13b-f32.gguf": EYES,
        },
        SOURCE,
        ["vicuna-7b-Q4_K_M.gguf", "mmproj-13b-f32.gguf"],
    ),
    "a projector of another folder": (
        {
            "7b/m-Q4_K_M.gguf": TEXT,
            "7b/mmproj-F16.gguf": OTHER_EYES,
            "13b/mmproj-F16.gguf": EYES,
        },
        SOURCE,
        ["7b/m-Q4_K_M.gguf", "13b/mmproj-F16.gguf"],
    ),
}


@pytest.mark.parametrize("case", REPOSITORIES)
def test_the_files_that_belong_together(paths: StackPaths, case: str) -> None:
    contents, source, chosen = REPOSITORIES[case]
    hub = repo_of(contents)
    found = inspect(paths, hub, source)
    assert (found.works, found.findings) == (True, ())
    assert remotes(found) == chosen
    assert found.needed == sum(len(contents[path]) for path in chosen)
    result = models.pull(paths, eyes(source), hub, silent)
    assert [file.remote for file in result.artifact.files] == chosen
    assert {file.sha256 for file in result.artifact.files} == {
        sha256(contents[path]) for path in chosen
    }
    projector_file = result.artifact.projector
    assert projector_file is not None
    assert projector_file.header["width"] == 64
    assert result.artifact.model[0].header["architecture"] == "llama"
    # What was found out is in the lock, so the next pull asks nobody.
    hub.asked.clear()
    assert models.pull(paths, eyes(source), hub, silent).downloaded == ()
    assert hub.asked == []


def test_no_projector_of_several_fits(paths: StackPaths) -> None:
    found = inspect(
        paths,
        repo_of({"m.gguf": TEXT, "mmproj-F16.gguf": OTHER_EYES, "mmproj-F32.gguf": OTHER_EYES}),
    )
    assert (found.works, codes(found)) == (False, ["projector-of-another-model"])
    assert remotes(found)[-1] == "mmproj-F16.gguf"
    assert "128" in found.findings[0].message
    assert "64" in found.findings[0].message


def test_no_projector_at_all(paths: StackPaths) -> None:
    hub = repo_of({"m-Q4_K_M.gguf": TEXT, "config.json": b"{}"})
    found = inspect(paths, hub)
    assert (found.works, codes(found), remotes(found)) == (
        False,
        ["no-projector"],
        ["m-Q4_K_M.gguf"],
    )
    with pytest.raises(ConfigError, match="no vision projector") as caught:
        models.pull(paths, eyes(), hub, silent)
    assert caught.value.details == "m-Q4_K_M.gguf\nconfig.json"


def test_nothing_matches(paths: StackPaths) -> None:
    hub = repo_of({"m-Q4_K_M.gguf": TEXT, "m-Q8_0.gguf": TEXT, "mmproj.gguf": EYES})
    for attempt in (inspect, lambda p, h, s: models.pull(p, eyes(s), h, silent)):
        with pytest.raises(ConfigError, match="no Q2_K; it has Q4_K_M, Q8_0") as caught:
            attempt(paths, hub, f"{SOURCE}:Q2_K")
        assert caught.value.hint == "hf://org/any-GGUF:Q4_K_M"
        assert "m-Q8_0.gguf" in (caught.value.details or "")


GOOD = {"m.gguf": TEXT, "mmproj.gguf": EYES}
EARS = gguf({"general.architecture": "clip", "clip.projector_type": "ultravox"}, {"a.x": (3,)})
REFUSED: dict[str, tuple[dict[str, bytes], str, str]] = {
    "an HTML page": (
        {"m.gguf": b"<!DOCTYPE html><html>sign in</html>"},
        "not-gguf",
        "m.gguf: is an HTML page",
    ),
    "a Git LFS pointer": (
        {"m.gguf": b"version https://git-lfs.github.com/spec/v1\noid sha256:0"},
        "not-gguf",
        "m.gguf: is a Git LFS pointer",
    ),
    "a safetensors file": (
        {"mmproj.gguf": b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{}}'},
        "not-gguf",
        "mmproj.gguf: is a safetensors file",
    ),
    "another model's projector": (
        {"mmproj.gguf": OTHER_EYES},
        "projector-of-another-model",
        "vectors of 128 numbers, the language model takes 64",
    ),
    "a type that the engine does not know": (
        {"mmproj.gguf": projector(kind="deepseek4v")},
        "projector-type-unknown",
        'LocalAI v4.9 does not know projectors of type "deepseek4v"',
    ),
    "ears only": ({"mmproj.gguf": EARS}, "projector-without-eyes", "for sound, not for pictures"),
    "a projector for a model": ({"m.gguf": EYES}, "wrong-kind", "m.gguf: is a projector, not"),
    "a model for a projector": (
        {"mmproj.gguf": TEXT},
        "wrong-kind",
        "mmproj.gguf: is a language model, not",
    ),
    "one part of three": (
        {"m.gguf": part(0, 3)},
        "shards-incomplete",
        "m.gguf: is part 1 of 3, and 1 of them are named here",
    ),
    "less than its header speaks of": (
        {"m.gguf": TEXT[:-40]},
        "truncated",
        f"m.gguf: has {len(TEXT) - 40} bytes, and its header speaks of {len(TEXT)}",
    ),
    "an end inside the header": ({"m.gguf": TEXT[:300]}, "not-gguf", "ends inside its GGUF header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_told_before_the_download(paths: StackPaths, case: str) -> None:
    changes, code, words = REFUSED[case]
    hub = repo_of({**GOOD, **changes})
    found = inspect(paths, hub)
    assert not found.works
    (first, *_) = found.findings
    assert (first.level, first.code) == ("refuse", code)
    assert words in first.message
    assert first.hint
    with pytest.raises(ConfigError) as caught:
        models.pull(paths, eyes(), hub, silent)
    assert words in caught.value.message
    assert caught.value.exit_code == 3
    assert not any("download" in asked for asked in hub.asked)
    assert not [path for path in below(paths.root) if path.endswith((".gguf", ".lock"))]


def test_another_engine_takes_it(paths: StackPaths) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": projector(kind="deepseek4v")})
    options = PullOptions(formats=lambda: formats_of("process", None))
    assert len(models.pull(paths, eyes(), hub, silent, options).downloaded) == 2


def test_force_goes_on_and_says_so(paths: StackPaths) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": OTHER_EYES})
    events: list[Event] = []
    result = models.pull(paths, eyes(), hub, events.append, PullOptions(force=True))
    assert len(result.downloaded) == 2
    warnings = [event.text for event in events if isinstance(event, Note) and event.warning]
    assert len(warnings) == 1
    assert "belongs to another model" in warnings[0]
    # Once forced it is locked, and not judged again.
    assert models.pull(paths, eyes(), hub, silent).downloaded == ()


def test_a_gate(paths: StackPaths) -> None:
    class Gated(MemoryHub):
        def read(self, repo: str, commit: str, remote: str, start: int, stop: int) -> bytes:
            super().read(repo, commit, remote, start, stop)
            raise GateError("org/any-GGUF: is gated", hint="accept the terms at PAGE")

        def describe(self, repo: str, revision: str | None) -> RepoInfo:
            return dataclasses.replace(super().describe(repo, revision), gated=True)

    hub = Gated({"org/any-GGUF": dict(GOOD)})
    found = inspect(paths, hub)
    assert (found.works, codes(found)) == (False, ["gated"])
    assert found.findings[0].hint == "accept the terms at PAGE"
    assert sum("read" in asked for asked in hub.asked) == 1  # one refusal is enough
    with pytest.raises(ConfigError, match="is gated") as caught:
        models.pull(paths, eyes(), hub, silent)
    assert caught.value.exit_code == 3


def test_the_disk_is_too_small(paths: StackPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": OLD})
    needed = len(TEXT) + 2 * len(OLD)  # the repaired copy takes room, too
    monkeypatch.setattr(files, "free_bytes", lambda _: needed - 1)
    found = inspect(paths, hub)
    assert (found.works, found.needed, found.free) == (False, needed, needed - 1)
    (first, *_) = found.findings
    assert first.code == "disk-full"
    assert str(paths.models) in first.message
    assert first.message.endswith("GB are needed, 0.00 GB are free")
    with pytest.raises(DiskFullError):
        models.pull(paths, eyes(), hub, silent)
    assert not any("download" in asked for asked in hub.asked)
    monkeypatch.setattr(files, "free_bytes", lambda _: needed)
    assert inspect_works(paths, hub)


def inspect_works(paths: StackPaths, hub: MemoryHub) -> bool:
    return inspecting.inspect(paths, eyes(), hub, FORMATS).works


def test_what_is_here_is_not_needed_again(paths: StackPaths) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": OLD})
    artifact = inspecting.inspect(paths, eyes(), hub, FORMATS).artifact
    assert needed_bytes(paths, artifact) == len(TEXT) + 2 * len(OLD)
    models.pull(paths, eyes(), hub, silent)
    assert needed_bytes(paths, artifact) == 0
    (paths.models / "eyes/mmproj.repaired.gguf").unlink()
    assert needed_bytes(paths, artifact) == len(OLD)
    (paths.models / "eyes/m.gguf").unlink()
    assert needed_bytes(paths, artifact) == len(OLD) + len(TEXT)


# The repair, as a part of a pull.


def test_an_old_projector_is_repaired_on_the_way(paths: StackPaths) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": OLD})
    found = inspect(paths, hub)
    assert (found.works, codes(found)) == (True, ["projector-repaired"])
    events: list[Event] = []
    result = models.pull(paths, eyes(), hub, events.append)
    original, copy = paths.models / "eyes/mmproj.gguf", paths.models / "eyes/mmproj.repaired.gguf"
    assert original.read_bytes() == OLD
    locked = models.read_lock(paths).models["eyes"].projector
    assert locked == result.artifact.projector
    assert locked is not None
    assert (locked.path, locked.remote) == ("eyes/mmproj.repaired.gguf", "mmproj.gguf")
    assert (locked.size, locked.sha256) == (copy.stat().st_size, sha256(copy.read_bytes()))
    assert locked.repair is not None
    assert (locked.repair.kind, locked.repair.original) == ("mlp", "eyes/mmproj.gguf")
    assert (locked.repair.size, locked.repair.sha256) == (len(OLD), sha256(OLD))
    assert locked.header["projector_type"] == "mlp"
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any('states its projector type now ("mlp")' in note for note in notes)
    hub.asked.clear()
    assert models.pull(paths, eyes(), hub, silent).downloaded == ()
    assert hub.asked == []


def test_a_lost_copy_is_made_again_from_the_original(paths: StackPaths) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": OLD})
    first = models.pull(paths, eyes(), hub, silent).artifact
    (paths.models / "eyes/mmproj.repaired.gguf").unlink()
    hub.asked.clear()
    again = models.pull(paths, eyes(), hub, silent)
    assert (again.artifact, again.downloaded) == (first, ())
    assert hub.asked == []


def test_a_discarded_original_is_not_missed(paths: StackPaths) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": OLD})
    options = PullOptions(keep_original=False)
    first = models.pull(paths, eyes(), hub, silent, options).artifact
    assert below(paths.models) == {"eyes/m.gguf", "eyes/mmproj.repaired.gguf"}
    hub.asked.clear()
    for choice in (options, PullOptions()):
        again = models.pull(paths, eyes(), hub, silent, choice)
        assert (again.artifact, again.downloaded, hub.asked) == (first, (), [])
    assert {check.verdict for check in models.verify(paths, "eyes", silent)} == {"ok"}
    # Should the copy get lost, the original is had again.
    (paths.models / "eyes/mmproj.repaired.gguf").unlink()
    assert models.pull(paths, eyes(), hub, silent, options).artifact == first
    assert below(paths.models) == {"eyes/m.gguf", "eyes/mmproj.repaired.gguf"}


def test_an_original_may_be_discarded_later(paths: StackPaths) -> None:
    hub = repo_of({"m.gguf": TEXT, "mmproj.gguf": OLD})
    models.pull(paths, eyes(), hub, silent)
    models.pull(paths, eyes(), hub, silent, PullOptions(keep_original=False))
    assert below(paths.models) == {"eyes/m.gguf", "eyes/mmproj.repaired.gguf"}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("where", ["models/p.gguf", "weights/p.gguf"])
def test_a_users_own_original_always_stays(paths: StackPaths, where: str, keep: bool) -> None:
    for name, content in (("weights/m.gguf", TEXT), (where, OLD)):
        (paths.root / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.root / name).write_bytes(content)
    mine = spec(None, "mine", model="weights/m.gguf", mmproj=where)
    hub = repo_of({})
    result = models.pull(paths, mine, hub, silent, PullOptions(keep_original=keep))
    assert (paths.root / where).read_bytes() == OLD
    assert result.artifact.projector is not None
    assert result.artifact.projector.repair is not None
    events: list[Event] = []
    again = models.pull(paths, mine, hub, events.append, PullOptions(keep_original=keep))
    assert (again.artifact, again.downloaded, events) == (result.artifact, (), [])
    garbage.collect(paths)
    assert (paths.root / where).read_bytes() == OLD
    # A projector that its owner replaces by a good one needs no copy any more.
    rewrite(paths.root / where, EYES)
    last = models.pull(paths, mine, hub, silent).artifact.projector
    assert last is not None
    assert last.repair is None
    assert sha256((paths.models / last.path).read_bytes()) == last.sha256 == sha256(EYES)


# `--frozen` and `--upgrade`.


def test_frozen_takes_what_the_lock_says(paths: StackPaths) -> None:
    hub = repo_of(dict(GOOD))
    frozen = PullOptions(frozen=True)
    with pytest.raises(ConfigError, match="--frozen: .* for eyes: it is not in it"):
        models.pull(paths, eyes(), hub, silent, frozen)
    locked = models.pull(paths, eyes(), hub, silent).artifact
    text = paths.lock_file.read_text()
    for path in below(paths.models):
        (paths.models / path).unlink()
    hub.repos["org/any-GGUF"]["m-Q4_K_M.gguf"] = language(seed=9)  # what a new look would choose
    assert models.pull(paths, eyes(), hub, silent, frozen).artifact == locked
    assert paths.lock_file.read_text() == text
    with pytest.raises(ConfigError, match=f"it was pulled from {SOURCE}") as caught:
        models.pull(paths, eyes(f"{SOURCE}:Q4_K_M"), hub, silent, frozen)
    assert "llmctl models pull eyes" in (caught.value.hint or "")


def test_upgrade_says_what_changed(paths: StackPaths) -> None:
    hub = repo_of(dict(GOOD))
    upgrade = PullOptions(upgrade=True)
    assert models.pull(paths, eyes(), hub, silent, upgrade).changes == (
        "it was never pulled before",
    )
    assert models.pull(paths, eyes(), hub, silent, upgrade).changes == ()
    newer = language(seed=5)
    hub.repos["org/any-GGUF"]["m.gguf"] = newer
    assert models.pull(paths, eyes(), hub, silent).downloaded == ()  # the lock still holds
    hub.asked.clear()
    result = models.pull(paths, eyes(), hub, silent, upgrade)
    assert result.changes == (
        f"eyes/m.gguf: SHA-256 {sha256(TEXT)[:12]}... -> {sha256(newer)[:12]}...",
    )
    assert result.downloaded == ("eyes/m.gguf",)
    assert (paths.models / "eyes/m.gguf").read_bytes() == newer
    hub.repos["org/any-GGUF"]["mmproj-F16.gguf"] = projector(seed=3)
    assert models.pull(paths, eyes(), hub, silent, upgrade).changes == (
        "eyes/mmproj-F16.gguf: is new",
        "eyes/mmproj.gguf: is no longer a part of it",
    )


def test_a_lock_without_headers_is_filled_in(paths: StackPaths) -> None:
    """As an older llmctl left it: nothing is transferred, the headers are read from the disk."""
    hub = repo_of(dict(GOOD))
    models.pull(paths, eyes(), hub, silent)
    lock = models.read_lock(paths)
    (locked,) = lock.models.values()
    bare = dataclasses.replace(
        locked, model=tuple(dataclasses.replace(file, header={}) for file in locked.model)
    )
    files.write_atomic(paths.lock_file, format_lock(Lock({bare.name: bare})))
    hub.asked.clear()
    result = models.pull(paths, eyes(), hub, silent)
    assert (result.downloaded, hub.asked) == ((), [])
    assert models.read_lock(paths).models["eyes"].model[0].header["width"] == 64


def test_verify_hashes_only_what_changed(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = repo_of(dict(GOOD))
    models.pull(paths, eyes(), hub, silent)
    hashed: list[str] = []
    real = files.sha256_of

    def counted(path: Path, *rest: object) -> str:
        hashed.append(path.name)
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "sha256_of", counted)
    assert [check.verdict for check in models.verify(paths, None, silent)] == ["ok", "ok"]
    assert hashed == []
    assert [c.verdict for c in models.verify(paths, None, silent, deep=True)] == ["ok", "ok"]
    assert hashed == ["m.gguf", "mmproj.gguf"]
    # What a disk alters by itself leaves size and times alone: only --deep finds it.
    place = paths.models / "eyes/m.gguf"
    stat = place.stat()
    damaged = bytearray(TEXT)
    damaged[-1] ^= 1
    with place.open("r+b") as file:
        file.write(damaged)
    os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [c.verdict for c in models.verify(paths, None, silent)] == ["ok", "ok"]
    assert [c.verdict for c in models.verify(paths, None, silent, deep=True)] == ["changed", "ok"]
    # And what is known once is known to everyone.
    assert [c.verdict for c in models.verify(paths, None, silent)] == ["changed", "ok"]
