"""The estimate against llama.cpp's own numbers (tests/golden/memory)."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.gguf import GgufHeader, parse_header
from llmctl.core.memory import GIB, MIB, Device, DeviceMemory, Model, Projector, Settings, estimate

GOLDEN = Path(__file__).parents[1] / "golden" / "memory"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "cases.json").read_bytes())["cases"]
NEVER_UNDER = 0.005


@cache
def header(name: str) -> GgufHeader:
    return parse_header(lzma.decompress((GOLDEN / "headers" / f"{name}.head.xz").read_bytes()))


def settings_of(config: dict[str, Any]) -> Settings:
    ubatch = config.get("n_ubatch", 512)
    return Settings(
        context=config["n_ctx"],
        parallel=config.get("n_seq", 1),
        batch=ubatch,
        ubatch=ubatch,
        gpu_layers=config["ngl"],
        flash_attention="off" if config.get("fa") == 0 else "auto",
        cache_type_k=config.get("tk", "f16"),
        cache_type_v=config.get("tv", "f16"),
        kv_unified=config.get("unified", True),
        tensor_split=tuple(config["tensor_split"] or ()),
        legacy_logits=config["n_outputs"] == 0,
    )


@dataclass(frozen=True)
class Measured:
    """One device of a case, llama.cpp's bytes beside ours; `few` is the sum's tolerance."""

    weights: int
    cache: int
    compute: int
    ours: DeviceMemory
    few: float

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute

    @property
    def error(self) -> float:
        ours = self.ours.engine_total - self.ours.output.bytes  # measured apart
        return ours / self.total - 1 if self.total else float(ours)


def measured(case: dict[str, Any]) -> list[Measured]:
    config = case["config"]
    # Vulkan: the stand-in devices make no f16 copies of a quantised cache, as CUDA does.
    gpus = [
        Device(f"GPU {index}", "gpu", 96 * GIB, 96 * GIB, "vulkan")
        for index in range(config["n_gpu"])
    ]
    host = Device("host", "host", 512 * GIB, 512 * GIB, "cpu")
    settings = settings_of(config)
    answer = estimate(Model.of([header(case["shape"])]), settings, [*gpus, host])
    layers = answer.layers
    one = config["n_gpu"] == 0 or (config["n_gpu"] == 1 and config["ngl"] >= layers)
    found = []
    for index, ours in enumerate(answer.devices):
        name = f"FAKE{index}" if index < len(gpus) else "(host)"
        rows = [row for buffer, row in case["buffers"].items() if name in buffer]
        sums = [sum(row[column] for row in rows) for column in range(3)]
        found.append(Measured(sums[0], sums[1], sums[2], ours, 0.01 if one else 0.03))
    return found


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{i}-{case['shape']}" for i, case in enumerate(CASES)]
)
def test_estimate_equals_llama_cpp(case: dict[str, Any]) -> None:
    for device in measured(case):
        assert device.ours.weights.bytes == device.weights
        assert device.ours.weights.provenance == "exact"
        assert device.ours.kv_cache.bytes == device.cache
        assert -NEVER_UNDER <= device.error <= device.few
        off = abs(device.ours.compute.bytes - device.compute)
        assert off <= max(32 * MIB, 0.1 * device.compute)
    host = measured(case)[-1].ours
    assert host.output.bytes / MIB == pytest.approx(case["output_mib"], abs=0.006)


def test_there_are_all_cases() -> None:
    assert len(CASES) == 86
    assert {case["config"]["n_gpu"] for case in CASES} == {0, 1, 2}


def test_mean_error_is_far_below_the_bound() -> None:
    errors = [abs(device.error) for case in CASES for device in measured(case) if device.total]
    assert sum(errors) / len(errors) < 0.001


PUBLISHED = [  # MiB on an MI300X with flash attention off and on (llama.cpp's own report)
    ("mmproj-gemma3", 1132, 121),
    ("mmproj-qwen2.5vl", 4872, 705),
    ("mmproj-qwen3vl-4b", 4728, 323),
]


@pytest.mark.parametrize(("name", "off", "on"), PUBLISHED)
def test_projector_buffers_as_published(name: str, off: int, on: int) -> None:
    projector = Projector.of(header(name))
    assert projector.compute_bytes("off", None) / MIB == pytest.approx(off, rel=0.1)
    assert projector.compute_bytes("on", None) / MIB == pytest.approx(on, rel=0.1)


def test_projector_weights_are_the_file() -> None:
    sizes = json.loads((GOLDEN / "headers" / "sizes.json").read_bytes())
    for name, *_ in PUBLISHED:
        weights = Projector.of(header(name)).weights
        content = sizes[name]["file_bytes"] - sizes[name]["header_bytes"]
        assert weights == pytest.approx(content, rel=1e-5)


def test_hybrid_model_caches_its_attention_blocks_only() -> None:
    """Qwen3.5-4B: 8 of 32 blocks attend; published: 50.25 MiB of state per slot, 50.27 a checkpoint."""
    devices = [
        Device("GPU", "gpu", 24 * GIB, 24 * GIB, "cuda"),
        Device("host", "host", 64 * GIB, 64 * GIB, "cpu"),
    ]
    model = Model.of([header("qwen3.5-4b")])
    answer = estimate(model, Settings(context=262144), devices)
    assert answer.gpus[0].kv_cache.bytes == 8 * 2 * 4 * 256 * 2 * 262144
    assert answer.gpus[0].state.bytes == int(50.25 * MIB)
    assert answer.host_hidden["context checkpoints"].bytes == 32 * int(50.25 * MIB)
    four = estimate(model, Settings(context=262144, parallel=4), devices)
    assert four.gpus[0].state.bytes == 4 * int(50.25 * MIB)
    assert answer.gpus[0].compute.bytes / MIB == pytest.approx(330, rel=0.1)  # published: 0.31 GiB
    q8 = estimate(
        model, Settings(context=262144, cache_type_k="q8_0", cache_type_v="q8_0"), devices
    )
    added = q8.gpus[0].compute.bytes - answer.gpus[0].compute.bytes
    assert added / GIB == pytest.approx(1.0, rel=0.1)  # published: CUDA's f16 copies
