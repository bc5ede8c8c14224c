"""Between a stack and the memory plan: devices, wishes, refusals, and what a GiB buys."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.fit_text import BAR, bar, bars, terms
from llmctl.core.fitting import (
    LEAST_CONTEXT,
    Fit,
    Wish,
    devices_of,
    fit,
    given_settings,
    next_gib,
    planned_settings,
    refusal,
    wanted,
    with_room,
)
from llmctl.core.gguf import parse_header
from llmctl.core.gpus import Gpu, Hardware, Memory
from llmctl.core.memory import Device, Model, Projector
from llmctl.core.tuning import EngineSettings, Tuning
from tests.world import gguf_bytes

MIB, GIB = 1 << 20, 1 << 30
HOST = Device("RAM", "host", 32 * GIB, 30 * GIB, "cpu")


def card(total: int, *, name: str = "card", free: int | None = None) -> Device:
    return Device(name, "gpu", total, total if free is None else free, "cuda")


def gpu(kind: Any = "nvidia", name: str = "RTX", index: int = 0, **changes: Any) -> Gpu:
    base = Gpu(kind, name, index, f"GPU-{index}", 8 * GIB, 7 * GIB, False, None)  # noqa: FBT003
    return dataclasses.replace(base, **changes)


def box(*gpus: Gpu) -> Hardware:
    memory = Memory(total=64 * GIB, available=50 * GIB, limit=16 * GIB)
    return Hardware(gpus, memory, 8, 16, None, None, unified=False, problems=())


def model(width: int = 1024, vocabulary: int = 4096) -> Model:
    return Model.of([parse_header(gguf_bytes.language(width=width, vocabulary=vocabulary))])


def test_the_engine_gets_the_gpus_of_one_maker_and_the_host_last() -> None:
    found = devices_of(box(gpu(), gpu("intel", "Arc"), gpu(index=1)))
    assert [(d.name, d.backend) for d in found] == [
        ("RTX #0", "cuda"),
        ("RTX #1", "cuda"),
        ("RAM", "cpu"),
    ]
    assert (found[0].total, found[0].free) == (8 * GIB, 7 * GIB)
    # What the cgroup allows, not what the machine has.
    assert (found[-1].total, found[-1].free) == (16 * GIB, 16 * GIB)


def test_the_stacks_kind_and_devices_decide() -> None:
    hardware = box(gpu(), gpu("intel", "Arc"), gpu(index=1), gpu("amd", "RX", shared=True))
    assert [d.name for d in devices_of(hardware, "none")] == ["RAM"]
    assert [d.name for d in devices_of(hardware, "intel")] == ["Arc", "RAM"]
    assert [d.name for d in devices_of(hardware, "nvidia", ("GPU-1",))] == ["RTX", "RAM"]
    assert [d.name for d in devices_of(hardware, "nvidia", ("0",))] == ["RTX", "RAM"]
    assert {d.backend for d in devices_of(hardware, "vulkan")} == {"vulkan", "cpu"}
    # Integrated graphics are left alone beside a card, and taken alone.
    assert "RX" not in [d.name for d in devices_of(hardware, "vulkan")]
    assert [d.name for d in devices_of(hardware, "amd")] == ["RX", "RAM"]


def test_a_gpu_that_does_not_tell_counts_as_free_or_not_at_all() -> None:
    found = devices_of(box(gpu(free=None), gpu(name="dumb", total=0, index=1)))
    assert [(d.name, d.free) for d in found][:1] == [("RTX", 8 * GIB)]
    assert len(found) == 2


def test_room_stays_within_what_there_is() -> None:
    devices = (card(8 * GIB, free=6 * GIB), HOST)
    assert with_room(devices, {"card": 5 * GIB})[0].free == 8 * GIB
    assert with_room(devices, {"card": -7 * GIB})[0].free == 0
    assert with_room(devices, {"card": -GIB, "other": GIB})[0].free == 5 * GIB


def test_what_nobody_fixed_has_its_default() -> None:
    found = Wish(4096, 1).settings
    assert (found.batch, found.ubatch, found.cache_type_k) == (512, 512, "f16")
    assert (found.kv_unified, found.projector_on_gpu, found.cache_ram) == (True, True, 2048 * MIB)
    tuning = Tuning(
        batch=64, kv_unified=False, projector_on_gpu=False, cache_ram=-1, ctx_checkpoints=0
    )
    found = Wish(4096, 2, 3, tuning).settings
    assert (found.batch, found.ubatch, found.kv_unified) == (64, 64, False)
    assert (found.projector_on_gpu, found.cache_ram, found.context_checkpoints) == (False, -1, 0)


@given(
    st.builds(
        EngineSettings,
        context=st.integers(1, 1 << 20),
        threads=st.integers(1, 64),
        gpu_layers=st.integers(0, 999),
        flash_attention=st.sampled_from(("auto", "on", "off")),
        cache_ram=st.integers(-1, 1 << 20),
        tensor_split=st.lists(st.floats(0, 9)).map(tuple),
    )
)
def test_what_is_given_is_what_was_planned(given_: EngineSettings) -> None:
    assert given_settings(planned_settings(given_), given_.threads) == given_


def test_a_context_nobody_insisted_on_may_shrink_and_what_is_fixed_may_not() -> None:
    free = wanted(Wish(8192, 4))
    assert (free.minimum_context, free.minimum_parallel, free.fixed) == (LEAST_CONTEXT, 1, {})
    tuning = Tuning(cache_type_k="f16", insisted=("context",))
    found = wanted(Wish(8192, 4, gpu_layers=7, tuning=tuning))
    assert (found.minimum_context, found.minimum_parallel) == (None, 1)
    assert found.fixed == {"cache_type_k": "f16", "context": 8192, "gpu_layers": 7}


def test_the_chooser_speaks_where_there_is_a_gpu_and_only_there() -> None:
    wish = Wish(4096, 1, cores=6)
    chosen = fit(model(), None, wish, (card(8 * GIB), HOST))
    assert chosen.settings.gpu_layers == 2  # one block, and the output
    assert chosen.reasons
    alone = fit(model(), None, wish, (HOST,))
    assert (alone.settings.gpu_layers, alone.threads, alone.reasons) == (0, 6, ())
    exact = fit(
        model(), None, dataclasses.replace(wish, gpu_layers=1), (card(8 * GIB), HOST), exact=True
    )
    assert (exact.settings.gpu_layers, exact.reasons) == (1, ())
    assert exact.settings.image_max_tokens is None


def test_the_prompt_cache_is_what_the_ram_leaves() -> None:
    tight = dataclasses.replace(HOST, free=GIB)
    found = fit(model(), None, Wish(4096, 1), (tight,))
    assert found.estimate.fits
    assert 0 < (found.settings.cache_ram or 0) < GIB
    kept = fit(model(), None, Wish(4096, 1, tuning=Tuning(cache_ram=4096)), (tight,))
    assert kept.settings.cache_ram == 4096 * MIB
    assert not kept.estimate.fits


def planned(devices: tuple[Device, ...], **wish: Any) -> Fit:
    return fit(model(), None, Wish(**{"context": 65536, "parallel": 1} | wish), devices)


def test_a_gpu_that_is_too_small_is_refused_with_its_numbers() -> None:
    tuning = Tuning(cache_type_k="f16", cache_type_v="f16", insisted=("context",))
    devices = (card(600 * MIB), HOST)
    found = planned(devices, gpu_layers=2, tuning=tuning)
    wrong = refusal("mine", found.estimate, HOST.total)
    assert wrong is not None
    assert wrong.exit_code == 3
    assert "mine does not fit: card: " in wrong.message
    assert "600 MiB free of 600 MiB" in wrong.message
    assert "kv cache" in (wrong.details or "")
    assert "llmctl fit mine" in (wrong.hint or "")
    assert refusal("mine", planned((card(8 * GIB), HOST)).estimate, HOST.total) is None


def test_ram_is_refused_only_where_an_empty_machine_would_not_do() -> None:
    found = planned((dataclasses.replace(HOST, free=1),)).estimate
    assert not found.fits
    assert refusal("mine", found, 32 * GIB) is None
    wrong = refusal("mine", found, 1 * MIB)
    assert wrong is not None
    assert "RAM: weights and context take" in wrong.message


def test_what_one_gib_more_buys() -> None:
    wish = Wish(4096, 1)
    for free, words in (
        (8 * GIB, None),  # everything the model was trained for
        (530 * MIB, "layers on the GPU instead of"),
    ):
        devices = (card(free), HOST)
        now = fit(model(), None, wish, devices)
        more = next_gib(model(), None, wish, devices, now)
        assert (more is None) if words is None else (words in (more or ""))
    exact = dataclasses.replace(wish, gpu_layers=2)
    devices = (card(530 * MIB), HOST)
    now = fit(model(), None, exact, devices, exact=True)
    assert next_gib(model(), None, exact, devices, now, exact=True) == "it would fit"


def test_a_bar_is_as_wide_as_what_is_free() -> None:
    projector = Projector.of(parse_header(gguf_bytes.projector(width=1024)))
    estimate = fit(model(), projector, Wish(4096, 1), (card(GIB), HOST)).estimate
    for memory in estimate.devices:
        assert len(bar(memory)) == BAR
        assert "!" not in bar(memory)
    exact = Wish(4096, 1, gpu_layers=2)
    full = fit(model(), projector, exact, (card(300 * MIB), HOST), exact=True).estimate
    assert "!" in bar(full.devices[0])
    assert bars(full)[0][-1].startswith("lacks ")
    head, rows = terms(full)
    assert head == ("", "card", "RAM", "known")
    assert {row[0] for row in rows} >= {"weights", "projector", "reserve", "total", "free now"}
    assert all(len(row) == len(head) for row in rows)
