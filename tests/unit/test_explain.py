"""`config explain`: a value, why, what it takes, where it goes, and what the engine made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli.main import run
from llmctl.core.explain import KNOWN, difference, step, told_by, value_in
from llmctl.core.fitting import Wish, fit
from llmctl.core.gguf import parse_header
from llmctl.core.memory import Device, Model, estimate
from llmctl.core.observed import ObservedService
from llmctl.core.settings import MODEL_SETTINGS, STACK_SETTINGS
from llmctl.core.tuning import Tuning
from llmctl.engine.process import ProcessEngine
from tests.world import gguf_bytes

GIB = 1 << 30
STACK = """\
engine: process
parallel: 2
models:
  - {name: my.model, model: a.gguf, mmproj: eyes.gguf, context: 1024}
  - {name: other, model: a.gguf}
  - {name: third, source: llava, parallel: 1}
gateway: {port: 29000}
"""
LOG = """\
0.00.001 I cmn  common_param: system_info: n_threads = 3 (n_threads_batch = 2) / 2 | CPU : SSE3 = 1
0.00.002 I load_tensors: offloaded 20/33 layers to GPU
0.00.033 I llama_context: n_seq_max             = 2
0.00.033 I llama_context: n_ctx                 = 1024
0.00.033 I llama_context: n_ctx_seq             = 512
0.00.033 I llama_context: n_batch               = 512
0.00.033 I llama_context: n_ubatch              = 128
0.00.033 I llama_context: kv_unified            = true
0.00.048 I llama_kv_cache: size = 8.00 MiB (  4096 cells), K (q8_0): 4.00 MiB, V (f16): 4.00 MiB
0.00.054 I resolve_fused_ops: Flash Attention enabled
0.00.083 I clip_ctx: CLIP using CUDA0 backend
0.00.104 I srv    load_model: prompt cache is enabled, size limit: 64 MiB
0.00.104 I srv    load_model: context checkpoints enabled, max = 32, min spacing = 8192
"""
TOLD = {
    "context": "1024",
    "parallel": "2",
    "threads": "3",
    "gpu_layers": "20/33",
    "batch": "512",
    "ubatch": "128",
    "cache_type_k": "q8_0",
    "cache_type_v": "f16",
    "flash_attention": "enabled",
    "kv_unified": "true",
    "projector_on_gpu": "CUDA0",
    "cache_ram": "64 MiB",
    "ctx_checkpoints": "32",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "llmctl.yaml").write_text(STACK, encoding="utf-8")
    (tmp_path / "models" / "my.model").mkdir(parents=True)
    (tmp_path / "models" / "other").mkdir()
    for place in ("a.gguf", "models/my.model/a.gguf", "models/other/a.gguf"):
        (tmp_path / place).write_bytes(gguf_bytes.language())
    for place in ("eyes.gguf", "models/my.model/eyes.gguf"):
        (tmp_path / place).write_bytes(gguf_bytes.projector())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of ours that has loaded the first model and wrote LOG."""

    def inspect(_self: object, container: str) -> ObservedService:
        return ObservedService(
            service="llama",
            container=container,
            state="running",
            digest="",
            spec="{}",
            directory="",
            image_id="",
            created="",
        )

    def logs(_self: object, container: str, *, tail: int | None, follow: bool) -> Iterator[str]:
        assert tail
        assert not follow
        yield from LOG.splitlines() if container.endswith("llama-my.model") else ()

    monkeypatch.setattr(ProcessEngine, "inspect", inspect)
    monkeypatch.setattr(ProcessEngine, "logs", logs)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["config", "explain", *arguments, "--output", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_key_can_be_explained() -> None:
    assert set(KNOWN) == {s.path for s in (*STACK_SETTINGS, *MODEL_SETTINGS)}


@pytest.mark.usefixtures("running")
def test_a_models_context(capsys: pytest.CaptureFixture[str]) -> None:
    document = told(capsys, "models.my.model.context")
    assert (document["key"], document["value"]) == ("models.0.context", 1024)
    assert document["origin"] == "llmctl.yaml"
    (effect,) = document["effects"]
    assert (effect["model"], effect["value"], effect["step"]) == ("my.model", 1024, 2048)
    assert effect["difference"].startswith("RAM +")
    assert effect["takes"]["RAM"] > 200 << 20
    assert (effect["place"], effect["rendered"]) == ("models/my.model.yaml: context_size", 1024)
    assert effect["effective"] == "1024"


def test_a_key_of_the_stack_is_explained_for_each_model_that_has_it_from_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = told(capsys, "parallel")
    assert [effect["model"] for effect in document["effects"]] == ["my.model", "other"]
    assert document["effects"][0]["rendered"] == "2"
    assert document["effects"][0]["effective"] is None  # nothing runs
    one = told(capsys, "models.third.parallel")["effects"]
    # Without its files nothing is known of its memory, and the rest is.
    assert [(e["takes"], e["difference"], e["rendered"]) for e in one] == [(None, None, "1")]


def test_what_is_no_models_and_what_is_in_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    document = told(capsys, "gateway.port")
    assert (document["value"], document["effects"]) == (29000, [])
    assert document["decides"] == "the port the gateway is published on"
    (effect,) = told(capsys, "gateway.auth")["effects"]
    assert effect["model"] is None
    assert effect["place"] == "litellm/litellm.yaml: general_settings"


@pytest.mark.usefixtures("running")
def test_a_person_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "explain", "cache_ram", "--set", "cache_ram=64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["cache_ram", "=", "64", "(--set", "cache_ram)"]
    assert ["my.model"] in lines
    assert ["value", "64"] in lines
    assert ["at", "32", "RAM", "while", "serving", "-32", "MiB"] in lines
    assert ["running", "the", "engine", "says", "64", "MiB"] in lines
    assert any(line[:2] == ["rendered", "models/my.model.yaml:"] for line in lines)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("gpu_layer", "gpu_layer: unknown key, did you mean gpu_layers?"),
        ("models.other.contxt", "models.other.contxt: unknown key, did you mean context?"),
        ("models.7.context", "models.7.context: the stack has no such model"),
        ("models", "models: unknown key"),
    ],
)
def test_what_there_is_not(capsys: pytest.CaptureFixture[str], key: str, message: str) -> None:
    assert run(["config", "explain", key]) == 3
    assert message in capsys.readouterr().err


def test_the_engines_words() -> None:
    found = {key: told_by(LOG, known.told) for key, known in KNOWN.items() if known.told}
    assert found == TOLD
    assert told_by(LOG + LOG.replace("= 1024", "= 2048"), KNOWN["context"].told or "") == "2048"
    assert told_by("", KNOWN["context"].told or "") is None


def test_every_setting_that_takes_memory_has_a_step_that_is_another_value() -> None:
    model = Model.of([parse_header(gguf_bytes.language(width=1024))])
    devices = (
        Device("card", "gpu", 8 * GIB, 8 * GIB, "cuda"),
        Device("RAM", "host", 32 * GIB, 30 * GIB, "cpu"),
    )
    found = fit(model, None, Wish(4096, 1, tuning=Tuning(image_max_tokens=512)), devices)
    for known in KNOWN.values():
        if known.field is None or known.field == "tensor_split":
            continue
        other = step(found.settings, known.field, found.estimate)
        assert other is not None, known.field
        assert getattr(other, known.field) != getattr(found.settings, known.field)
        estimate(model, other, devices)
    longer = step(found.settings, "context", found.estimate)
    assert longer is not None
    assert "card +" in difference(found.estimate, estimate(model, longer, devices))
    assert difference(found.estimate, found.estimate) == "nothing"


def test_what_is_impossible_is_no_step() -> None:
    model = Model.of([parse_header(gguf_bytes.language())])
    host = (Device("RAM", "host", 32 * GIB, 30 * GIB, "cpu"),)
    settings = Wish(512, 1, 0, Tuning(cache_type_v="q8_0")).settings
    found = estimate(model, settings, host)
    for name in ("gpu_layers", "projector_on_gpu", "flash_attention", "image_max_tokens"):
        assert step(settings, name, found) is None


def test_a_place_in_a_rendered_file() -> None:
    document = {"a": {"b": [{"c": 1}]}, "options": ["x:1", "y:2", "x:3"]}
    assert value_in(document, "a.b.0.c") == 1
    assert value_in(document, "options.x") == "3"
    for nowhere in ("a.b.1.c", "a.x", "options.z", "a.b.0.c.d"):
        assert value_in(document, nowhere) is None
    assert value_in(None, "options.x") is None
