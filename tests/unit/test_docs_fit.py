"""The numbers in docs/fit.md are the program's own."""

from __future__ import annotations

from pathlib import Path

from llmctl.core.memory import Device, Model, Projector, Settings, Wanted, choose, estimate
from tests.unit.memory_shapes import clip_vit_l_336, llama_7b

MIB, GIB = 1 << 20, 1 << 30
DOCS = Path(__file__).parents[2] / "docs/fit.md"
HOST = Device("RAM", "host", 32 * GIB, 30 * GIB, "cpu")
LABELS = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "compute": "compute buffer",
    "projector_weights": "projector",
    "projector_compute": "its compute buffer",
    "reserve": "reserve",
}


def card(total: int, free: int) -> Device:
    return Device("card", "gpu", total, free, "cuda")


def test_the_guides_table() -> None:
    model, eyes = Model.of([llama_7b()]), Projector.of(clip_vit_l_336())
    gpu = estimate(model, Settings(4096), [card(24 * GIB, 24 * GIB), HOST], eyes).gpus[0]
    rows = [
        f"| {LABELS[name]} | {term.bytes / MIB:.1f} | {term.provenance} |"
        for name, term in gpu.terms.items()
        if term.bytes
    ]
    rows.append(f"| together | {gpu.total / MIB:.1f} | |")
    assert "\n".join(rows) in DOCS.read_text(encoding="utf-8")


def test_the_recommended_settings() -> None:
    model, eyes = Model.of([llama_7b()]), Projector.of(clip_vit_l_336())
    text = DOCS.read_text(encoding="utf-8")
    for gib, free in ((8, 7892), (6, 5844)):
        devices = (card(gib * GIB, free * MIB), HOST)
        found = choose(model, devices, Wanted(4096, physical_cores=8), eyes)
        settings = found.settings
        place = "on the GPU" if settings.projector_on_gpu else "in RAM"
        row = (
            f"| {gib} GB ({free} MiB free) | {settings.context} | {settings.gpu_layers} |"
            f" {settings.cache_type_k} | {settings.ubatch} | {place} |"
            f" {found.estimate.gpu_total // MIB} |"
        )
        assert found.fits
        assert row in text, row
