"""`llmctl models inspect`, and what `pull` makes of its verdict, against a hub on this machine."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from llmctl import files
from llmctl.cli.main import run
from llmctl.core.gguf import FIRST_READ
from llmctl.hub.journal import Journal
from tests.integration.hub_cli import TOKEN, hub_of_the_commands, llmctl_json
from tests.world.gguf_bytes import gguf, language, projector
from tests.world.hub import LocalHub, Repo

TEXT = language(width=256, vocabulary=60)  # 2.5 MB
EYES = projector(width=256)
OLD = projector(width=256, kind=None)
EARS = gguf({"general.architecture": "clip", "clip.projector_type": "ultravox"}, {"a.x": (3,)})
PAGE = b"<!DOCTYPE html><html>sign in</html>" + b" " * 200_000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4\n"
TORCH = b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{}}' + bytes(200_000)
ANY = "hf://org/any-GGUF"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    repos = {"org/any-GGUF": Repo({"m.gguf": TEXT, "mmproj.gguf": EYES})}
    with hub_of_the_commands(repos, tmp_path / "home", monkeypatch) as hub:
        yield hub


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    directory = tmp_path / "stack"
    directory.mkdir()
    return directory


def offer(hub: LocalHub, **changes: bytes | None) -> None:
    """Change the repository: m=..., mmproj=...; None takes a file away."""
    contents: dict[str, bytes | Path] = dict(hub.repos["org/any-GGUF"].files)
    for name, content in changes.items():
        if content is None:
            del contents[f"{name}.gguf"]
        else:
            contents[f"{name}.gguf"] = content
    hub.repos["org/any-GGUF"] = Repo(contents)


def test_a_model_that_works(hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = llmctl_json(capsys, stack, "inspect", ANY)
    assert (found["works"], found["findings"], found["engine"]) == (True, [], "LocalAI v4.9")
    assert (found["repo"], found["commit"]) == ("org/any-GGUF", hub.repos["org/any-GGUF"].commit)
    model, eyes = found["model"], found["projector"]
    assert (model["architecture"], model["quantisation"], model["layers"]) == ("llama", "F32", 1)
    assert (model["context"], model["heads"], model["heads_kv"]) == (4096, 2, 1)
    assert (model["width"], eyes["width"], eyes["kind"]) == (256, 256, "mlp")
    assert (model["chat_template"], model["image_marker"]) == (True, True)
    assert (eyes["image_size"], eyes["patch_size"], eyes["tokens"]) == (48, 12, 16)
    assert [(file["remote"], file["size"]) for file in found["files"]] == [
        ("m.gguf", len(TEXT)),
        ("mmproj.gguf", len(EYES)),
    ]
    assert found["needed_bytes"] == len(TEXT) + len(EYES)
    # The listing, and two requests for each file: where it lies, and its first 64 KiB.
    assert hub.requests.total() == 5
    assert dict(hub.sent) == {"m.gguf": FIRST_READ, "mmproj.gguf": FIRST_READ}
    assert list(stack.iterdir()) == []


REFUSED: dict[str, tuple[dict[str, bytes | None], str, str]] = {
    "an HTML page": ({"m": PAGE}, "not-gguf", "m.gguf: is an HTML page"),
    "a Git LFS pointer": ({"m": POINTER}, "not-gguf", "m.gguf: is a Git LFS pointer"),
    "a safetensors file": ({"m": TORCH}, "not-gguf", "m.gguf: is a safetensors file"),
    "another model's projector": (
        {"mmproj": projector(width=128)},
        "projector-of-another-model",
        "it belongs to another model",
    ),
    "a type the engine does not know": (
        {"mmproj": projector(width=256, kind="glm5v")},
        "projector-type-unknown",
        'LocalAI v4.9 does not know projectors of type "glm5v"',
    ),
    "ears only": ({"mmproj": EARS}, "projector-without-eyes", "for sound, not for pictures"),
    "no projector": ({"mmproj": None}, "no-projector", "no vision projector"),
    "one part of three": (
        {"m": language(width=256, extra={"split.count": 3, "split.no": 0})},
        "shards-incomplete",
        "is part 1 of 3",
    ),
    "less than its header speaks of": ({"m": TEXT[:-40]}, "truncated", "it is not whole"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    changes, code, words = REFUSED[case]
    offer(hub, **changes)
    found = llmctl_json(capsys, stack, "inspect", ANY, code=3)
    assert not found["works"]
    first = found["findings"][0]
    assert (first["level"], first["code"]) == ("refuse", code)
    assert words in first["message"]
    assert first["hint"]
    assert run(["models", "inspect", ANY, "-C", str(stack), "-o", "quiet"]) == 3
    assert code in capsys.readouterr().out.split()
    hub.forget()
    error = llmctl_json(capsys, stack, "pull", ANY, code=3)
    assert words in error["error"]
    assert error["hint"]
    assert max(hub.sent.values(), default=0) <= FIRST_READ
    assert not list(stack.rglob("*.gguf*"))
    assert not (stack / "llmctl.lock").exists()


def test_the_engine_that_the_stack_pins_decides(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A width that this kind reads from the tensor that is there, too.
    offer(hub, mmproj=projector(width=256, kind="deepseek4v"))
    assert not llmctl_json(capsys, stack, "inspect", ANY, code=3)["works"]
    found = llmctl_json(capsys, stack, "inspect", ANY, "--set", "engine=process")
    assert (found["works"], found["engine"]) == (True, "llama.cpp of October 2026")
    image = "localai.image=localai/localai:v5.0.0"
    assert llmctl_json(capsys, stack, "inspect", ANY, "--set", image)["works"]


def test_shards_that_the_listing_lacks(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos["org/any-GGUF"] = Repo(
        {"m-00001-of-00002.gguf": TEXT, "mmproj.gguf": EYES, "README.md": b""}
    )
    for command in ("inspect", "pull"):
        error = llmctl_json(capsys, stack, command, ANY, code=3)
        assert "one of 2 parts, and part 2 is missing" in error["error"]
        assert "m-00001-of-00002.gguf" in error["details"]
    assert hub.sent.total() == 0


def test_the_disk_is_too_small(
    hub: LocalHub,
    stack: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 1_000_000)
    found = llmctl_json(capsys, stack, "inspect", ANY, code=3)
    assert (found["needed_bytes"], found["free_bytes"]) == (len(TEXT) + len(EYES), 1_000_000)
    first = found["findings"][0]
    assert first["code"] == "disk-full"
    assert first["message"] == (
        f"{stack / 'models'}: {(len(TEXT) + len(EYES)) / 1e9:.2f} GB are needed, 0.00 GB are free"
    )
    error = llmctl_json(capsys, stack, "pull", ANY, code=1)
    assert "are needed" in error["error"]
    assert hub.sent.total() == 4 * FIRST_READ  # both headers, twice
    assert not list(stack.rglob("*.gguf*"))


def test_a_gate(hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repos["org/any-GGUF"] = Repo(
        {"m.gguf": TEXT, "mmproj.gguf": EYES}, gated=True, readers=frozenset({TOKEN})
    )
    found = llmctl_json(capsys, stack, "inspect", ANY, code=3)
    (finding,) = found["findings"]
    assert (finding["level"], finding["code"]) == ("refuse", "gated")
    assert f"{hub.url}/org/any-GGUF" in finding["hint"]
    error = llmctl_json(capsys, stack, "pull", ANY, code=3)
    assert f"{hub.url}/org/any-GGUF" in error["hint"]
    assert hub.sent.total() == 0


def test_an_old_projector(hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Repaired by `pull`, rendered as repaired, and its original deleted where that is asked for."""
    offer(hub, mmproj=OLD)
    found = llmctl_json(capsys, stack, "inspect", ANY)
    assert found["works"]
    assert [(one["level"], one["code"]) for one in found["findings"]] == [
        ("note", "projector-repaired")
    ]
    assert found["files"][1]["repair"] == "mlp"
    assert found["needed_bytes"] == len(TEXT) + 2 * len(OLD)

    (pulled,) = llmctl_json(capsys, stack, "pull", ANY)
    assert pulled["projector"]["path"] == "any/mmproj.repaired.gguf"
    lock = json.loads((stack / "llmctl.lock").read_text())["models"]["any"]["projector"]
    assert lock["repair"]["original"] == "any/mmproj.gguf"
    assert len({lock["sha256"], lock["repair"]["sha256"]}) == 2
    (stack / "llmctl.yaml").write_text(f"models:\n  - name: any\n    source: {ANY}\n")
    assert run(["config", "render", "-C", str(stack)]) == 0
    rendered = yaml.safe_load((stack / "models/any.yaml").read_text())
    assert rendered["mmproj"] == "any/mmproj.repaired.gguf"
    capsys.readouterr()

    hub.forget()
    (again,) = llmctl_json(capsys, stack, "pull", ANY, "--discard-original")
    assert (again["downloaded"], hub.requests.total()) == ([], 0)
    assert sorted(path.name for path in (stack / "models/any").iterdir()) == [
        "m.gguf",
        "mmproj.repaired.gguf",
    ]
    assert llmctl_json(capsys, stack, "pull", ANY)[0]["downloaded"] == []
    assert hub.requests.total() == 0
    assert [one["verdict"] for one in llmctl_json(capsys, stack, "verify", "--deep")] == ["ok"] * 2


def test_the_human_text(hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "inspect", ANY, "-C", str(stack)]) == 0
    out = capsys.readouterr().out
    assert "architecture llama, 1 layers, 2 heads (1 for the KV cache)" in out
    assert "projector 256, model 256" in out
    assert "takes 16 tokens" in out
    assert out.splitlines()[-2:] == ["this works", f"next: llmctl models pull {ANY}"]
    offer(hub, mmproj=projector(width=128))
    assert run(["models", "inspect", ANY, "-C", str(stack)]) == 3
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "this cannot work"
    assert "no       the projector puts out vectors of 128 numbers" in out


def test_a_name_cannot_paint_the_terminal(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;owned\x07\x1b[31m"
    offer(hub, m=language(width=256, architecture=evil, extra={"general.license": evil}))
    run(["models", "inspect", ANY, "-C", str(stack)])
    assert "\x1b" not in capsys.readouterr().out


def test_files_on_this_machine(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_ENGINE", "docker")
    model, eyes = tmp_path / "m.gguf", tmp_path / "mmproj.gguf"
    model.write_bytes(TEXT)
    found = llmctl_json(capsys, stack, "inspect", str(model), code=3)
    assert [one["code"] for one in found["findings"]] == ["no-projector"]
    eyes.write_bytes(EYES)
    found = llmctl_json(capsys, stack, "inspect", str(model))
    assert (found["works"], found["projector"]["kind"]) == (True, "mlp")
    other = tmp_path / "other.gguf"
    other.write_bytes(projector(width=128))
    found = llmctl_json(capsys, stack, "inspect", str(model), "--mmproj", str(other), code=3)
    assert found["findings"][0]["code"] == "projector-of-another-model"
    # A projector by itself.
    found = llmctl_json(capsys, stack, "inspect", str(eyes))
    assert (found["model"], found["projector"]["width"]) == (None, 256)
    page = tmp_path / "page.gguf"
    page.write_bytes(PAGE)
    found = llmctl_json(capsys, stack, "inspect", str(page), code=3)
    assert "is an HTML page" in found["findings"][0]["message"]
    error = llmctl_json(capsys, stack, "inspect", str(tmp_path / "none.gguf"), code=3)
    assert "does not exist" in error["error"]


def test_frozen_and_upgrade(hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = llmctl_json(capsys, stack, "pull", ANY, "--frozen", "--upgrade", code=2)
    assert "contradict each other" in error["error"]
    error = llmctl_json(capsys, stack, "pull", ANY, "--frozen", code=3)
    assert "llmctl.lock does not say what to take for any" in error["error"]
    assert hub.sent.total() == 0
    llmctl_json(capsys, stack, "pull", ANY)
    lock = (stack / "llmctl.lock").read_text()
    offer(hub, m=language(width=256, vocabulary=60, seed=4))
    assert llmctl_json(capsys, stack, "pull", ANY, "--frozen")[0]["downloaded"] == []
    assert (stack / "llmctl.lock").read_text() == lock
    hub.forget()
    (upgraded,) = llmctl_json(capsys, stack, "pull", ANY, "--upgrade")
    assert upgraded["downloaded"] == ["any/m.gguf"]
    assert len(upgraded["changes"]) == 1
    assert upgraded["changes"][0].startswith("any/m.gguf: SHA-256 ")
    assert hub.sent["mmproj.gguf"] == 0  # its header was read from the disk
    assert llmctl_json(capsys, stack, "pull", ANY, "--upgrade")[0]["changes"] == []


def test_unfinished_transfers_are_listed_and_collected(
    stack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = stack / "models/.partial/m.gguf.0123456789ab"
    place.parent.mkdir(parents=True)
    place.write_bytes(bytes(1 << 18))
    journal = Journal(place, "sha256:0", 1 << 20)
    journal.record(0, 0)
    journal.close()
    rows = llmctl_json(capsys, stack, "list")
    (row,) = [row for row in rows if row.get("unfinished")]
    assert (row["name"], row["done"], row["total"]) == ("m.gguf", 1 << 18, 1 << 20)
    assert run(["models", "list", "-C", str(stack)]) == 0
    out = capsys.readouterr().out
    assert "UNFINISHED" in out
    assert "llmctl models gc" in out

    planned = llmctl_json(capsys, stack, "gc", "--dry-run")
    assert (planned["deleted"], planned["files"][0]["why"]) == (False, "unfinished")
    assert place.exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    refused = llmctl_json(capsys, stack, "gc", code=2)
    assert refused["hint"] == "llmctl models gc --yes"
    assert place.exists()
    done = llmctl_json(capsys, stack, "gc", "--yes")
    assert (done["deleted"], done["bytes"]) == (True, planned["bytes"])
    assert list(place.parent.iterdir()) == []
    assert run(["models", "gc", "-C", str(stack)]) == 0
    assert capsys.readouterr().out == "nothing to delete\n"


def cached_by_the_hubs_own_client(hub: LocalHub, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download("org/any-GGUF", name, endpoint=hub.url, token=False))


def test_the_cache_of_other_tools_is_used(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Linked and verified, never moved; of the file itself only the header is asked for."""
    cached = cached_by_the_hubs_own_client(hub, "m.gguf")
    assert cached.is_symlink()
    hub.forget()
    (pulled,) = llmctl_json(capsys, stack, "pull", ANY)
    place = stack / "models/any/m.gguf"
    assert place.samefile(cached)
    assert not place.is_symlink()
    assert cached.read_bytes() == TEXT
    assert pulled["downloaded"] == ["any/mmproj.gguf"]
    assert pulled["bytes"] == len(EYES)
    assert hub.sent["m.gguf"] <= FIRST_READ
    assert llmctl_json(capsys, stack, "verify", "--deep")[0]["verdict"] == "ok"
    llmctl_json(capsys, stack, "rm", "any", "--yes")
    assert cached.read_bytes() == TEXT


def test_a_wrong_file_in_that_cache_is_ignored(
    hub: LocalHub, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = cached_by_the_hubs_own_client(hub, "m.gguf")
    damaged = TEXT[:-1] + b"?"
    cached.resolve().write_bytes(damaged)
    (pulled,) = llmctl_json(capsys, stack, "pull", ANY)
    assert pulled["downloaded"] == ["any/m.gguf", "any/mmproj.gguf"]
    assert (stack / "models/any/m.gguf").read_bytes() == TEXT
    assert cached.read_bytes() == damaged  # not ours to mend
