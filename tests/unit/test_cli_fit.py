"""`llmctl fit`, as somebody calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llmctl.hub
from llmctl.cli.main import run
from llmctl.core.gguf import GgufError
from llmctl.hub.huggingface import HuggingFaceHub
from tests.unit.golden import HEADERS, sparse
from tests.unit.test_startup import imported
from tests.world import gguf_bytes
from tests.world.hub import LocalHub, Repo

MIB, GIB = 1 << 20, 1 << 30
CARD = ("--gpu", "24GiB", "--ram", "64GiB")
TERMS = (
    *("weights", "kv_cache", "state", "compute", "output"),
    *("projector_weights", "projector_compute", "reserve"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMCTL_ENGINE", "docker")  # nobody is asked whether one answers
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert run(["fit", "--output", "json", *arguments]) == code
    return json.loads(capsys.readouterr().out)


def test_a_header_grown_to_the_models_size_is_enough(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(sparse("llama3.1-8b", here / "model.gguf"))
    document = told(capsys, place, *CARD)
    gpu, host = document["devices"]
    assert (gpu["kind"], host["kind"]) == ("gpu", "host")
    for device in (gpu, host):
        assert all(isinstance(device[name], int) for name in (*TERMS, "total", "free"))
        assert device["total"] == sum(device[name] for name in TERMS)
        assert device["fits"] is True
        assert set(device["provenance"]) == set(TERMS)
    assert document["fits"] is True
    assert document["settings"]["gpu_layers"] == document["layers"] == 33
    assert document["provenance"]["weights"] == "exact"
    assert document["provenance"]["compute"] == "closed form"
    assert document["picture_tokens"] is None
    assert {key: value for key, value in document["reasons"][4].items() if key != "reason"} == {
        "setting": "gpu_layers",
        "value": 33,
    }


CASES = [
    case
    for case in json.loads((HEADERS.parent / "cases.json").read_text(encoding="utf-8"))["cases"]
    if case["shape"] == "llama3.1-8b"
]


def flags_of(config: dict[str, Any]) -> list[str]:
    """What a golden case was measured with, as flags."""
    ubatch = config.get("n_ubatch", 512)
    flags = {
        "--context": config["n_ctx"],
        "--parallel": config.get("n_seq", 1),
        "--batch": max(2048, ubatch),
        "--ubatch": ubatch,
        "--gpu-layers": config["ngl"],
        "--kv-type": config.get("tk", "f16"),
        "--flash-attention": "off" if config.get("fa") == 0 else "auto",
        "--gpu": ",".join(["80GiB"] * config["n_gpu"]) or "none",
    }
    if config["tensor_split"]:
        flags["--tensor-split"] = ",".join(map(str, config["tensor_split"]))
    more = [] if config.get("unified", True) else ["--no-kv-unified"]
    more += ["--legacy-logits"] if config["n_outputs"] == 0 else []
    return [word for flag, value in flags.items() for word in (flag, str(value))] + more


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case["config"]))
def test_llama_cpps_own_numbers_come_through_the_command(
    here: Path, capsys: pytest.CaptureFixture[str], case: dict[str, Any]
) -> None:
    """Weights and cache to the byte, the compute buffer within a tenth or 32 MiB."""
    place = str(sparse("llama3.1-8b", here / "model.gguf"))
    document = told(capsys, place, *flags_of(case["config"]), "--ram", "512GiB")
    buffers = {name: numbers for name, numbers in case["buffers"].items() if "FAKE" in name}
    gpus = [numbers for name, numbers in sorted(buffers.items()) if "Host" not in name]
    found = [device for device in document["devices"] if device["kind"] == "gpu"]
    assert len(found) == len(gpus) == case["config"]["n_gpu"]
    for device, (weights, cache, compute) in zip(found, gpus, strict=True):
        assert (device["weights"], device["kv_cache"]) == (weights, cache)
        assert abs(device["compute"] - compute) <= max(compute // 10, 32 * MIB)
        total = device["total"] - device["reserve"]
        assert total >= 0.995 * (weights + cache + compute)
    assert document["reasons"] == []


def test_what_is_said_is_planned_and_nothing_else_is_chosen(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(sparse("llama3.1-8b", here / "model.gguf"))
    document = told(
        capsys,
        *(place, "--gpu", "24GiB,12GiB", "--ram", "64GiB", "--gpu-layers", "20"),
        *("--ubatch", "128", "--batch", "256", "--flash-attention", "off", "--tensor-split", "2,1"),
        *("--no-kv-unified", "--parallel", "2", "--legacy-logits", "--kv-type", "f16"),
    )
    settings = document["settings"]
    assert (settings["gpu_layers"], settings["ubatch"], settings["batch"]) == (20, 128, 256)
    assert (settings["flash_attention"], settings["tensor_split"]) == ("off", [2.0, 1.0])
    assert (settings["kv_unified"], settings["legacy_logits"]) == (False, True)
    assert (settings["parallel"], settings["cache_type_v"]) == (2, "f16")
    assert document["reasons"] == []
    assert len(document["devices"]) == 3


def test_it_says_when_it_does_not_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(sparse("llama3.1-8b", here / "model.gguf"))
    small = ("--gpu", "4GiB", "--ram", "64GiB")
    document = told(capsys, place, *small, "--gpu-layers", "33", code=3)
    assert document["fits"] is document["devices"][0]["fits"] is False
    assert document["devices"][0]["total"] > 4 * GIB
    assert run(["fit", place, *small, "--gpu-layers", "33"]) == 3
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert "lacks " in text
    # Left to llmctl, some layers stay in RAM.
    chosen = told(capsys, place, *small)
    assert 0 < chosen["settings"]["gpu_layers"] < 33
    assert "layers on the GPU instead of" in chosen["next_gib"]
    assert run(["fit", place, *small]) == 0
    layers = chosen["settings"]["gpu_layers"]
    assert f"fits, with {layers} of 33 layers on the GPU" in capsys.readouterr().out


def test_a_person_sees_bars_terms_reasons_and_what_a_gib_buys(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(sparse("gemma3-4b", here / "model.gguf"))
    eyes = str(sparse("mmproj-gemma3", here / "eyes.gguf"))
    assert run(["fit", eyes, model, "--gpu", "6GiB", "--ram", "16GiB", "--context", "8192"]) == 0
    text = capsys.readouterr().out
    for part in (
        "model.gguf (gemma3, Q4_K): fits",
        "█ weights",
        "of 6.0 GiB free",
        "projector's compute",
        "35 of 35 layers on the GPU",
        "a picture takes up to 256 of 8192 tokens and leaves 7936 for words",
        "RAM besides, while serving: context checkpoints",
        "why:\n  context is 8192, as you set it",
        "one GiB more would buy: room for up to",
    ):
        assert part in text, part


def test_a_projector_beside_it_is_named_and_not_counted(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(sparse("llama3.2-1b", here / "model.gguf"))
    sparse("mmproj-smolvlm", here / "mmproj-model.gguf")
    document = told(capsys, place, *CARD)
    assert document["devices"][0]["projector_weights"] == 0
    assert any("mmproj-model.gguf lies beside it" in note for note in document["notes"])
    named = told(capsys, place, "--mmproj", "mmproj-model.gguf", *CARD)
    assert named["devices"][0]["projector_weights"] > 0
    assert named["notes"] == []


def test_shards_are_found_beside_the_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shard(number: int, names: tuple[str, ...]) -> None:
        values: dict[str, gguf_bytes.Value] = {"split.no": number, "split.count": 2}
        if number == 0:
            values |= {
                "general.architecture": "llama",
                "llama.context_length": 4096,
                "llama.embedding_length": 64,
                "llama.block_count": 1,
                "llama.feed_forward_length": 128,
                "llama.attention.head_count": 2,
            }
        data = gguf_bytes.gguf(values, dict.fromkeys(names, (64, 64)))
        (here / f"m-0000{number + 1}-of-00002.gguf").write_bytes(data)

    shard(0, ("token_embd.weight", "output.weight"))
    assert run(["fit", "m-00001-of-00002.gguf", *CARD]) == 3
    assert "m-00002-of-00002.gguf: does not exist" in capsys.readouterr().err
    shard(1, ("blk.0.attn_q.weight", "output_norm.weight"))
    document = told(capsys, "m-00001-of-00002.gguf", *CARD)
    assert document["devices"][0]["weights"] == 3 * 64 * 64 * 4
    assert told(capsys, "m-00002-of-00002.gguf", *CARD)["devices"] == document["devices"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.gguf"], 3, "missing.gguf: does not exist"),
        (["a.gguf", "b.gguf"], 2, "expected one language model and at most one projector"),
        (["a.gguf", "canary"], 2, "several files, or one model"),
        (["a.gguf", "--kv-type", "q9"], 3, "cache_type_k: expected one of auto, f16"),
        (["a.gguf", "--tensor-split", "x"], 3, "tensor_split: expected auto or shares"),
        (["a.gguf", "--flash-attention", "off", "--kv-type", "q8_0"], 3, "needs flash attention"),
        (["a.gguf", "--gpu", "lots"], 2, "--gpu"),
        (["eyes.gguf"], 2, "got 0 and 1"),
        (["text.gguf"], 3, "text.gguf"),
    ],
)
def test_what_cannot_be_planned(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    for name in ("a", "b"):
        (here / f"{name}.gguf").write_bytes(gguf_bytes.language())
    (here / "eyes.gguf").write_bytes(gguf_bytes.projector())
    (here / "text.gguf").write_text("not a model", encoding="utf-8")
    assert run(["fit", *CARD, *arguments]) == code
    assert message in capsys.readouterr().err


def test_the_stack_and_its_settings_are_the_default(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMCTL_ENGINE")
    (here / "llmctl.yaml").write_text(
        "engine: process\nparallel: 2\nmodels:\n"
        "  - {name: mine, model: a.gguf, mmproj: eyes.gguf, context: 1024, cache_ram: 64}\n"
        "  - canary\n",
        encoding="utf-8",
    )
    (here / "a.gguf").write_bytes(gguf_bytes.language())
    (here / "eyes.gguf").write_bytes(gguf_bytes.projector())
    document = told(capsys, "--ram", "16GiB")
    mine, canary = document["models"]
    assert (mine["model"], mine["settings"]["context"], mine["settings"]["parallel"]) == (
        *("mine", 1024),
        2,
    )
    assert mine["settings"]["cache_ram"] == 64 * MIB
    # The process engine has the CPU only, whatever the machine has.
    assert [device["kind"] for device in canary["devices"]] == ["host"]
    assert mine["picture_tokens"] == 16
    one = told(capsys, "mine", "--ram", "16GiB", "--context", "2048")
    assert one["settings"]["context"] == 2048
    imagined = told(capsys, "mine", *CARD)
    assert [device["kind"] for device in imagined["devices"]] == ["gpu", "host"]


def test_a_repository_is_planned_from_its_headers_and_the_table_from_all_of_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session

    files: dict[str, bytes | Path] = {
        "m-Q4_K_M.gguf": gguf_bytes.language(width=64),
        "m-Q8_0.gguf": gguf_bytes.language(width=64, vocabulary=64),
        "mmproj-m-f16.gguf": gguf_bytes.projector(width=64),
    }
    with LocalHub({"org/m-GGUF": Repo(files)}) as hub:
        monkeypatch.setattr(llmctl.hub, "connect_hub", lambda: HuggingFaceHub(hub.url, token=False))
        document = told(capsys, "hf://org/m-GGUF:Q4_K_M", *CARD)
        assert document["devices"][0]["projector_weights"] > 0
        table = told(capsys, "hf://org/m-GGUF:Q4_K_M", *CARD, "--table")
        assert run(["fit", "hf://org/m-GGUF", *CARD, "--table"]) == 0
        close_session()
    assert not (here / "models").exists()
    assert {row["label"] for row in table["rows"]} == {"Q4_K_M", "Q8_0"}
    assert {row["kv_type"] for row in table["rows"]} == {"f16", "q8_0", "q4_0"}
    (best,) = [row for row in table["rows"] if row["recommended"]]
    assert table["recommended"] == best
    assert best["label"] == "Q8_0"  # the larger one fits as well
    assert best["context"] == 4096
    text = capsys.readouterr().out
    assert text.splitlines()[0].split()[:3] == ["quantisation", "KV", "slots"]
    assert text.count("◀") == 2
    assert "recommended ◀: Q8_0, KV f16, context 4096, 1 slot" in text


def test_a_table_in_which_nothing_fits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(sparse("llama3.1-8b", here / "model.gguf"))
    document = told(capsys, place, "--gpu", "1GiB", "--ram", "64GiB", "--table", code=3)
    assert (document["fits"], document["recommended"]) == (False, None)
    assert all(row["missing"] > 0 for row in document["rows"])


def test_the_help_imports_nothing_heavy() -> None:
    assert imported("fit", "--help") & {"yaml", "rich", "docker", "pynvml", "psutil"} == set()


def test_damage_is_no_crash(here: Path) -> None:
    data = gguf_bytes.language()
    (here / "short.gguf").write_bytes(data[:200])
    assert run(["fit", "short.gguf", *CARD]) == GgufError.exit_code
