"""The chosen settings: what is given up, in which order, and that fixed values stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.memory import (
    GIB,
    MIB,
    Device,
    Model,
    Projector,
    Settings,
    Wanted,
    choose,
    estimate,
    table,
)
from llmctl.errors import ConfigError
from tests.unit.memory_shapes import clip_vit_l_336, llama_7b
from tests.unit.test_memory import gpu, model, with_experts
from tests.unit.test_memory_golden import header

HOST = Device("host", "host", 64 * GIB, 56 * GIB, "cpu")


def card(mib: int) -> Device:
    return Device("GPU", "gpu", mib * MIB, mib * MIB, "cuda")


def test_everything_fits_and_every_setting_is_explicit() -> None:
    chosen = choose(model("llama3.1-8b"), [gpu(24), HOST], Wanted(8192, physical_cores=16))
    assert chosen.fits
    assert chosen.settings.gpu_layers == 33
    assert chosen.settings.flash_attention == "on"
    assert (chosen.settings.cache_type_k, chosen.settings.ubatch) == ("f16", 512)
    assert chosen.threads == 8
    assert {each.setting for each in chosen.decisions} >= {
        *("context", "parallel", "batch", "ubatch", "gpu_layers", "flash_attention"),
        *("cache_type_k", "cache_type_v", "cache_ram", "threads"),
    }
    assert all(chosen.reasons)


def test_slots_go_first_then_context() -> None:
    wanted = Wanted(16384, 4, minimum_context=2048, minimum_parallel=1)
    llama = model("llama3.1-8b")
    whole = estimate(llama, Settings(16384, parallel=4), [gpu(24), HOST]).gpus[0]
    size = (whole.engine_total + 512 * MIB) // MIB
    assert choose(llama, [card(size + 1), HOST], wanted).settings.parallel == 4
    less = choose(llama, [card(size - 1000), HOST], wanted)
    assert less.fits
    assert less.settings.parallel == 1
    assert 2048 <= less.settings.context < 16384
    assert less.settings.cache_type_k == "f16"
    more = Settings(less.settings.context + 256, parallel=1)
    assert not estimate(llama, more, [card(size - 1000), HOST]).fits  # it is the largest


def test_the_guides_card_sizes() -> None:
    """llava-v1.5-7b with 4096 tokens: f16 throughout on 8 GB; a q8_0 cache and more on 6 GB."""
    llava, projector = Model.of([llama_7b()]), Projector.of(clip_vit_l_336())
    eight = choose(llava, [card(8192 - 300), HOST], Wanted(4096), projector)
    assert eight.fits
    assert eight.settings.gpu_layers == 33
    assert eight.settings.cache_type_k == "f16"
    assert eight.settings.projector_on_gpu
    six = choose(llava, [card(6144 - 300), HOST], Wanted(4096), projector)
    assert six.fits
    assert six.settings.gpu_layers == 33
    assert six.settings.cache_type_k == "q8_0"
    assert six.settings.ubatch == 256
    assert not six.settings.projector_on_gpu
    four = choose(llava, [card(4096 - 300), HOST], Wanted(4096), projector)
    assert four.fits
    assert 0 < (four.settings.gpu_layers or 0) < 33


def test_q8_0_is_not_taken_where_cudas_copies_cost_more_than_it_saves() -> None:
    """With few attention blocks the copy of one outweighs the savings of the others."""
    base = header("llama3.1-8b")
    heads = (8,) + (0,) * 31
    values = {**base.values, "llama.attention.head_count_kv": heads}
    sparse = Model.of([replace(base, values=values)])
    chosen = choose(sparse, [card(5200), HOST], Wanted(65536))
    assert chosen.settings.cache_type_k == "f16"
    reason = next(each.reason for each in chosen.decisions if each.setting == "cache_type_k")
    assert "copies" in reason


@pytest.mark.parametrize(
    "fixed",
    [
        {"cache_type_k": "f16"},
        {"ubatch": 512},
        {"gpu_layers": 33},
        {"gpu_layers": 10},
        {"flash_attention": "off"},
        {"context": 8192, "parallel": 2},
        {"kv_unified": False},
    ],
)
@pytest.mark.parametrize("mib", [3000, 6000, 24000])
def test_fixed_values_stay(fixed: dict[str, Any], mib: int) -> None:
    wanted = Wanted(8192, minimum_context=1024, fixed=fixed)
    chosen = choose(model("llama3.1-8b"), [card(mib), HOST], wanted)
    assert {key: getattr(chosen.settings, key) for key in fixed} == fixed
    assert chosen.fits == chosen.estimate.fits


def test_what_cannot_fit_is_said_with_the_numbers() -> None:
    chosen = choose(
        model("llama3.3-70b"), [card(8000), HOST], Wanted(8192, fixed={"gpu_layers": 81})
    )
    assert not chosen.fits
    assert chosen.estimate.missing > 30 * GIB
    small = replace(HOST, free=8 * GIB)
    assert not choose(model("llama3.3-70b"), [card(8000), small], Wanted(8192)).fits
    with pytest.raises(ConfigError, match="no such setting"):
        choose(model("llama3.1-8b"), [HOST], Wanted(8192, fixed={"ngl": 3}))


def test_experts_go_to_ram_before_layers_do() -> None:
    chosen = choose(with_experts(), [card(6000), HOST], Wanted(4096))
    assert chosen.fits
    assert chosen.settings.gpu_layers == 33
    assert 0 < chosen.settings.experts_on_cpu < 32
    assert any("experts" in reason for reason in chosen.reasons)


def test_pictures_are_limited_from_the_start_and_shrink_before_the_projector_moves() -> None:
    projector, qwen = Projector.of(header("mmproj-qwen2.5vl")), model("qwen3-4b")
    roomy = choose(qwen, [card(24000), HOST], Wanted(8192), projector)
    assert roomy.settings.image_max_tokens == 1024
    sizes: dict[tuple[int | None, bool], int] = {}
    for mib in range(5500, 3600, -50):
        chosen = choose(qwen, [card(mib), HOST], Wanted(8192), projector)
        assert chosen.fits
        at = (chosen.settings.image_max_tokens, chosen.settings.projector_on_gpu)
        sizes.setdefault(at, mib)
    assert list(sizes)[:2] == [(1024, True), (512, True)]
    assert list(sizes)[-1] == (256, False)


def test_several_gpus_are_used_by_what_each_has_left() -> None:
    devices = [gpu(24, 0), gpu(24, 1), HOST]
    chosen = choose(model("llama3.3-70b"), devices, Wanted(8192))
    assert chosen.fits
    assert chosen.settings.gpu_layers == 81
    assert len(chosen.settings.tensor_split) == 2
    busy = replace(gpu(24, 0), free=12 * GIB)
    uneven = choose(model("llama3.1-8b"), [busy, gpu(24, 1), HOST], Wanted(8192))
    assert uneven.settings.tensor_split[0] < uneven.settings.tensor_split[1]


def test_without_a_gpu_all_cores_work() -> None:
    chosen = choose(model("llama3.1-8b"), [HOST], Wanted(8192, physical_cores=12))
    assert chosen.fits
    assert chosen.settings.gpu_layers == 0
    assert chosen.threads == 12


def test_checkpoints_and_prompt_cache_fit_what_ram_is_left() -> None:
    tight = replace(HOST, free=3 * GIB)
    chosen = choose(model("qwen3.5-4b"), [gpu(24), tight], Wanted(8192, 4))
    assert chosen.fits
    assert 0 < chosen.settings.context_checkpoints < 32
    assert chosen.settings.cache_ram is not None
    assert 0 <= chosen.settings.cache_ram < 2 * GIB
    assert chosen.estimate.host.total + chosen.estimate.growth <= tight.free


@given(
    st.sampled_from(["llama3.1-8b", "qwen3-4b", "gemma3-4b", "qwen3.5-4b"]),
    st.integers(600, 12000),
    st.integers(256, 65536),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_what_is_chosen_fits_when_it_says_so(
    name: str, mib: int, context: int, slots: int, extra: int
) -> None:
    devices = [card(mib), *(card(mib // 2 + 400) for _ in range(extra)), HOST]
    wanted = Wanted(context, slots, minimum_context=256, minimum_parallel=1)
    chosen = choose(model(name), devices, wanted)
    again = estimate(model(name), chosen.settings, devices)
    assert again.fits == chosen.fits
    assert [each.total for each in again.devices] == [
        each.total for each in chosen.estimate.devices
    ]
    assert chosen.settings.parallel <= slots
    if chosen.fits:
        assert all(each.total <= each.device.free for each in again.devices)


def test_table_marks_the_best_that_fits_and_what_a_gib_more_buys() -> None:
    models = {"Q4_K_M": model("llama3.1-8b"), "small": model("llama3.2-1b")}
    answer = table(models, [card(7000), HOST], Settings(8192))
    assert len(answer.rows) == 2 * 3 * 7 * 3
    assert answer.recommended is not None
    assert answer.recommended.label == "Q4_K_M"
    assert answer.recommended.context >= 8192
    assert sum(row.recommended for row in answer.rows) == 1
    assert all(row.fits == (row.missing == 0) for row in answer.rows)
    poor = table(models, [card(5300), HOST], Settings(8192))
    assert poor.recommended is not None
    assert poor.recommended.label == "small"
    assert poor.next_gib is not None
    assert poor.next_gib.label == "Q4_K_M"
    nothing = table(models, [card(600), replace(HOST, free=GIB)], Settings(8192))
    assert nothing.recommended is None


def test_ram_that_is_short_is_no_reason_to_leave_the_gpus_empty() -> None:
    """70B, 42 GB: neither the cards nor RAM hold it alone; together they do."""
    ram = Device("RAM", "host", 24 * GIB, 22 * GIB, "cpu")
    cards = [replace(gpu(size), name=f"card {size}") for size in (24, 12)]
    chosen = choose(model("llama3.3-70b"), [*cards, ram], Wanted(4096, minimum_context=2048))
    assert chosen.fits
    assert chosen.settings.gpu_layers is not None
    assert 60 <= chosen.settings.gpu_layers < 81
    assert all(memory.weights.bytes for memory in chosen.estimate.gpus)


def test_a_context_that_buys_no_full_offload_is_not_given_up() -> None:
    chosen = choose(model("llama3.3-70b"), [gpu(24), HOST], Wanted(4096, minimum_context=2048))
    assert chosen.fits
    assert chosen.settings.context == 4096
    assert chosen.settings.gpu_layers is not None
    assert 0 < chosen.settings.gpu_layers < 81
