"""Properties of the estimate, and what it refuses."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.ggml import TYPES
from llmctl.core.gguf import Elided, GgufHeader, Tensor, Value
from llmctl.core.memory import GIB, MIB, Device, Model, Projector, Settings, estimate
from llmctl.core.memory.observed import by_place, parse_buffer_lines
from llmctl.errors import ConfigError
from tests.unit.memory_shapes import clip_vit_l_336, llama_7b
from tests.unit.test_memory_golden import header

HOST = Device("host", "host", 128 * GIB, 100 * GIB, "cpu")
NAMES = ("llama3.1-8b", "qwen3-4b", "gemma3-4b", "qwen3.5-4b")


@cache
def model(name: str) -> Model:
    return Model.of([header(name)])


def gpu(gib: int, number: int = 0, *, backend: Any = "cuda", shared: bool = False) -> Device:
    return Device(f"GPU {number}", "gpu", gib * GIB, gib * GIB, backend, shared)


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, Settings, int]:
    """A model, settings and a number of GPUs."""
    kv = draw(st.sampled_from(["f16", "q8_0", "q4_0"]))
    return (
        draw(st.sampled_from(NAMES)),
        Settings(
            context=draw(st.integers(256, 65536)),
            parallel=draw(st.integers(1, 8)),
            ubatch=draw(st.sampled_from([128, 256, 512])),
            gpu_layers=draw(st.none() | st.integers(0, 40)),
            cache_type_k=kv,
            cache_type_v=kv,
            kv_unified=draw(st.booleans()),
            legacy_logits=draw(st.booleans()),
        ),
        draw(st.integers(0, 3)),
    )


def whole(name: str, of: Settings, gpus: int) -> int:
    answer = estimate(model(name), of, [*(gpu(80, i) for i in range(gpus)), HOST])
    return sum(memory.total for memory in answer.devices)


@given(plans(), st.integers(0, 65536))
def test_more_context_never_takes_less(plan: tuple[str, Settings, int], more: int) -> None:
    name, of, gpus = plan
    of = dataclasses.replace(of, gpu_layers=None if gpus else 0)
    larger = dataclasses.replace(of, context=of.context + more)
    assert whole(name, larger, gpus) >= whole(name, of, gpus)


@given(plans(), st.integers(0, 65536))
def test_more_context_in_part_offload(plan: tuple[str, Settings, int], more: int) -> None:
    """There ggml's allocator decides, which may find a better hole for a larger cache."""
    name, of, _ = plan
    less, larger = (
        estimate(model(name), dataclasses.replace(of, context=context), [gpu(80), HOST])
        for context in (of.context, of.context + more)
    )
    hole = max(block.largest for block in model(name).blocks)
    for before, after in zip(less.devices, larger.devices, strict=True):
        for term in before.terms:
            room = hole if term == "compute" and before.device.kind == "gpu" else 0
            assert after.terms[term].bytes + room >= before.terms[term].bytes


@given(plans(), st.integers(1, 4))
def test_more_slots_never_take_less(plan: tuple[str, Settings, int], more: int) -> None:
    name, of, gpus = plan
    # With a part in RAM the allocator's holes decide, and they may be better for more slots.
    layers = None if gpus else 0
    of = dataclasses.replace(of, context=of.context * of.parallel, gpu_layers=layers)
    # each slot keeps its share of the context
    count = of.parallel + more
    larger = dataclasses.replace(of, parallel=count, context=of.context // of.parallel * count)
    assert whole(name, larger, gpus) >= whole(name, of, gpus)


@given(plans(), st.integers(0, 39))
def test_more_layers_never_take_less_of_the_gpu(
    plan: tuple[str, Settings, int], layers: int
) -> None:
    name, of, _ = plan
    few, many = (
        estimate(model(name), dataclasses.replace(of, gpu_layers=count), [gpu(80), HOST]).gpus[0]
        for count in (layers, layers + 1)
    )
    assert many.weights.bytes >= few.weights.bytes
    assert many.kv_cache.bytes + many.state.bytes >= few.kv_cache.bytes + few.state.bytes
    # the last layer ends the copies of weights, and adds no less than they took
    assert many.total >= few.total or layers + 1 == model(name).layers


@given(plans(), st.lists(st.integers(1, 100), min_size=2, max_size=2), st.integers(1, 100))
def test_the_split_moves_bytes_and_keeps_their_sum(
    plan: tuple[str, Settings, int], shares: list[int], other: int
) -> None:
    name, of, _ = plan
    devices = [gpu(80, 0, backend="vulkan"), gpu(80, 1, backend="vulkan"), HOST]
    one, two = (
        estimate(model(name), dataclasses.replace(of, tensor_split=split), devices)
        for split in (tuple(map(float, shares)), (float(other), 50.0))
    )
    for term in ("weights", "kv_cache", "state", "output", "reserve"):
        sums = {sum(memory.terms[term].bytes for memory in each.devices) for each in (one, two)}
        if term == "kv_cache" and "q" in of.cache_type_k:
            assert max(sums) - min(sums) <= 4096 * len(model(name).blocks)
        else:
            assert len(sums) == 1


def test_the_last_layer_to_be_offloaded_is_the_first_block() -> None:
    one = estimate(model("llama3.1-8b"), Settings(2048, gpu_layers=1), [gpu(80), HOST])
    assert one.gpus[0].kv_cache.bytes == 0  # only the output head
    assert one.gpus[0].weights.bytes == model("llama3.1-8b").head.gpu
    assert one.layers == 33
    assert estimate(model("llama3.1-8b"), Settings(2048), [gpu(80), HOST]).settings.gpu_layers == 33


def test_legacy_logits_are_reserved_for_the_whole_ubatch() -> None:
    """gemma3-270m's kind of surprise: 514.5 MiB instead of 22.8 for a large vocabulary."""
    name, devices = "gemma3-4b", [gpu(80), HOST]
    now, then = (
        estimate(model(name), Settings(4096, legacy_logits=legacy), devices).gpus[0].compute.bytes
        for legacy in (False, True)
    )
    assert then - now > 400 * MIB
    assert then >= 512 * 262144 * 4


def test_cuda_unpacks_a_quantised_cache() -> None:
    of = Settings(32768, cache_type_k="q8_0", cache_type_v="q8_0")
    cuda, vulkan = (
        estimate(model("llama3.1-8b"), of, [gpu(80, backend=backend), HOST]).gpus[0].compute.bytes
        for backend in ("cuda", "vulkan")
    )
    assert cuda - vulkan == 2 * 32768 * 2 * 8 * 128


def test_quantised_values_need_flash_attention() -> None:
    of = Settings(4096, cache_type_v="q8_0", flash_attention="off")
    with pytest.raises(ConfigError, match="needs flash attention"):
        estimate(model("llama3.1-8b"), of, [gpu(80), HOST])


@pytest.mark.parametrize(
    "of",
    [
        Settings(0),
        Settings(-1),
        Settings(1 << 40),
        Settings(4096, parallel=0),
        Settings(4096, ubatch=0),
        Settings(4096, cache_type_k="q3_k"),
        Settings(4096, tensor_split=(1.0, 2.0)),
        Settings(4096, tensor_split=(0.0,)),
        Settings(4096, tensor_split=(float("nan"),)),
    ],
)
def test_settings_llama_cpp_would_refuse(of: Settings) -> None:
    with pytest.raises(ConfigError):
        estimate(model("llama3.1-8b"), of, [gpu(80), HOST])


def test_shared_memory_is_one_budget() -> None:
    """Weights on an integrated GPU count against the host's RAM as well."""
    shared = Device("Apple", "gpu", 12 * GIB, 12 * GIB, "metal", shared=True)
    small = dataclasses.replace(HOST, total=6 * GIB, free=6 * GIB)
    alone = estimate(model("llama3.1-8b"), Settings(8192), [gpu(12, backend="metal"), small])
    assert alone.fits
    together = estimate(model("llama3.1-8b"), Settings(8192), [shared, small])
    assert not together.fits
    assert not together.gpus[0].fits
    assert together.missing > 0


def test_cpu_repacks_beside_the_mapped_file() -> None:
    answer = estimate(model("llama3.1-8b"), Settings(8192), [HOST])
    assert answer.host_hidden["repacked weights"].bytes == 2664 * MIB  # as measured
    assert answer.fits


def altered(name: str, **values: Value | None) -> GgufHeader:
    """A header with keys replaced (`llama__block_count=…`), None to leave one out."""
    base = header(name)
    changed = dict(base.values)
    for key, value in values.items():
        dotted = key.replace("__", ".")
        if value is None:
            changed.pop(dotted, None)
        else:
            changed[dotted] = value
    return dataclasses.replace(base, values=changed)


HOSTILE: list[tuple[str, Value | None]] = [
    ("general.architecture", None),
    ("general.architecture", 7),
    ("llama.block_count", None),
    ("llama.block_count", 0),
    ("llama.block_count", 1 << 31),
    ("llama.block_count", "32"),
    ("llama.block_count", 33),
    ("llama.embedding_length", None),
    ("llama.embedding_length", -4096),
    ("llama.embedding_length", 1e9),
    ("llama.attention.head_count", 0),
    ("llama.attention.head_count", None),
    ("llama.attention.head_count", Elided("u32", 5000)),
    ("llama.attention.head_count_kv", (8, 8)),
    ("llama.attention.head_count_kv", ("8",) * 32),
    ("llama.attention.head_count_kv", True),
    ("llama.attention.key_length", 0),
    ("llama.attention.value_length", 1 << 40),
    ("llama.feed_forward_length", -1),
    ("llama.context_length", 0),
    ("llama.nextn_predict_layers", 32),
    ("llama.attention.shared_kv_layers", 99),
    ("llama.ssm.state_size", "x"),
    ("split.count", 3),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE)
def test_hostile_headers_are_refused(key: str, value: Value | None) -> None:
    changed = altered("llama3.1-8b", **{key.replace(".", "__"): value})
    if key == "llama.ssm.state_size":  # read only where a block has no attention
        changed = altered(
            "llama3.1-8b",
            llama__ssm__state_size="x",
            llama__attention__head_count_kv=(0,) * 32,
        )
        key = "llama.ssm."
    with pytest.raises(ConfigError) as caught:
        Model.of([changed])
    named = {"split.count": "3 files"}.get(key, key)
    assert named in caught.value.message or "blk.32" in caught.value.message


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), 1 << 63),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-5, 1 << 32), max_size=40).map(tuple),
)
KEYS = sorted(key for key in header("qwen3.5-4b").values if key.startswith("qwen35."))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), SCALARS, min_size=1, max_size=4))
def test_any_metadata_ends_in_a_plan_or_a_refusal(changes: dict[str, Value | None]) -> None:
    changed = altered("qwen3.5-4b", **{key.replace(".", "__"): v for key, v in changes.items()})
    try:
        answer = estimate(Model.of([changed]), Settings(8192, parallel=2), [gpu(24), HOST])
    except ConfigError:
        return
    assert all(term.bytes >= 0 for memory in answer.devices for term in memory.terms.values())


def test_a_model_without_embedding_or_blocks_is_refused() -> None:
    base = header("llama3.1-8b")
    for gone, named in (("token_embd", "token_embd.weight"), ("blk.7.", "blk.7")):
        tensors = tuple(t for t in base.tensors if not t.name.startswith(gone))
        with pytest.raises(ConfigError, match=named):
            Model.of([dataclasses.replace(base, tensors=tensors)])
    with pytest.raises(ConfigError, match="at least one"):
        Model.of([])
    with pytest.raises(ConfigError, match="is a projector"):
        Model.of([clip_vit_l_336()])
    with pytest.raises(ConfigError, match="not a projector"):
        Projector.of(base)


def test_shards_are_one_model() -> None:
    base = header("llama3.1-8b")
    values = {**base.values, "split.count": 2}
    first = dataclasses.replace(base, values=values, tensors=base.tensors[:100])
    second = dataclasses.replace(base, values={"split.count": 2}, tensors=base.tensors[100:])
    joined, alone = Model.of([first, second]), model("llama3.1-8b")
    assert dataclasses.replace(joined, file_size=0) == dataclasses.replace(alone, file_size=0)


def test_unknown_architectures_get_a_wider_margin_and_say_so() -> None:
    base = header("llama3.1-8b")
    values = {key.replace("llama.", "novel.", 1): value for key, value in base.values.items()}
    values["general.architecture"] = "novel"
    devices = [gpu(80), HOST]
    known = estimate(model("llama3.1-8b"), Settings(8192), devices)
    novel = estimate(Model.of([dataclasses.replace(base, values=values)]), Settings(8192), devices)
    assert not novel.known_architecture
    assert any("novel" in note for note in novel.notes)
    assert novel.gpus[0].weights == known.gpus[0].weights
    assert novel.gpus[0].compute.bytes > known.gpus[0].compute.bytes
    assert novel.gpus[0].reserve.bytes == 2 * known.gpus[0].reserve.bytes
    assert {novel.gpus[0].kv_cache.provenance, novel.gpus[0].compute.provenance} == {"margin"}


def test_latent_attention_caches_k_only() -> None:
    """DeepSeek's MLA: one head of 512 + 64, and no V."""
    base = header("llama3.1-8b")
    values = {key.replace("llama.", "deepseek2.", 1): value for key, value in base.values.items()}
    values |= {
        "general.architecture": "deepseek2",
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.key_length_mla": 192,
    }
    latent = Model.of([dataclasses.replace(base, values=values)])
    answer = estimate(latent, Settings(4096), [gpu(80), HOST])
    assert answer.gpus[0].kv_cache.bytes == 32 * 4096 * 576 * 2


def test_shared_caches_and_heads_by_block() -> None:
    shared = Model.of([altered("llama3.1-8b", llama__attention__shared_kv_layers=12)])
    answer = estimate(shared, Settings(4096), [gpu(80), HOST])
    assert answer.gpus[0].kv_cache.bytes == 20 * 4096 * 2 * 1024 * 2
    heads: tuple[int, ...] = (0, 8) * 16
    half = Model.of([altered("llama3.1-8b", llama__attention__head_count_kv=heads)])
    answer = estimate(half, Settings(4096), [gpu(80), HOST])
    assert answer.gpus[0].kv_cache.bytes == 16 * 4096 * 2 * 1024 * 2


def with_experts() -> Model:
    base = header("llama3.1-8b")
    quantised = next(number for number, kind in TYPES.items() if kind.name == "Q4_K")
    experts = tuple(
        Tensor(
            f"blk.{block}.ffn_{name}_exps.weight", (4096, 1024, 16), TYPES[quantised], quantised, 0
        )
        for block in range(32)
        for name in ("gate", "up", "down")
    )
    values = {
        **base.values,
        "llama.expert_used_count": 2,
        "llama.expert_feed_forward_length": 1024,
    }
    return Model.of([dataclasses.replace(base, values=values, tensors=base.tensors + experts)])


def test_experts_can_stay_in_ram() -> None:
    moe, devices = with_experts(), [gpu(80), HOST]
    every = estimate(moe, Settings(4096), devices)
    none = estimate(moe, Settings(4096, experts_on_cpu=True), devices)
    some = estimate(moe, Settings(4096, experts_on_cpu=8), devices)
    moved = 32 * 3 * 4096 * 1024 * 16 // 256 * 144
    assert every.gpus[0].weights.bytes - none.gpus[0].weights.bytes == moved
    assert none.host.weights.bytes - every.host.weights.bytes == moved
    assert every.gpus[0].weights.bytes - some.gpus[0].weights.bytes == moved // 4
    assert none.gpus[0].kv_cache == every.gpus[0].kv_cache


def test_the_guides_configuration() -> None:
    """llava-v1.5-7b q4_k with its f16 projector, 4096 tokens, everything offloaded."""
    llava, projector = Model.of([llama_7b()]), Projector.of(clip_vit_l_336())
    assert llava.file_size == pytest.approx(4_080_263_424, rel=1e-4)  # the published q4_k file
    assert projector.weights == pytest.approx(624_434_336, rel=1e-4)  # and its projector
    answer = estimate(llava, Settings(4096), [gpu(24), HOST], projector)
    terms = {name: term.bytes / MIB for name, term in answer.gpus[0].terms.items()}
    assert terms["kv_cache"] == 2048
    assert terms["weights"] == pytest.approx(3820.9, abs=0.1)
    assert terms["compute"] == pytest.approx(100.5, abs=0.1)
    assert terms["projector_weights"] == pytest.approx(595.5, abs=0.1)
    assert terms["projector_compute"] == pytest.approx(19.3, abs=0.1)
    assert answer.picture_tokens == 576
    assert answer.gpus[0].engine_total / MIB == pytest.approx(6584, abs=1)


def test_a_vision_model_of_any_picture_size_says_what_a_large_one_takes() -> None:
    projector = Projector.of(header("mmproj-qwen3vl-4b"))
    free = estimate(model("qwen3-4b"), Settings(8192), [gpu(24), HOST], projector)
    assert free.picture_tokens == 4096
    assert any("image_max_tokens" in note for note in free.notes)
    of = Settings(8192, image_max_tokens=256)
    small = estimate(model("qwen3-4b"), of, [gpu(24), HOST], projector)
    assert small.picture_tokens == 256
    assert small.notes == ()
    assert 32 * MIB < small.gpus[0].projector_compute.bytes < 54 * MIB  # as measured
    on_cpu = dataclasses.replace(of, projector_on_gpu=False)
    moved = estimate(model("qwen3-4b"), on_cpu, [gpu(24), HOST], projector)
    assert moved.gpus[0].projector_weights.bytes == 0
    assert moved.host.projector_weights == small.gpus[0].projector_weights


LOG = """\
0.00.007.231 I load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  4650.99 MiB
0.00.007.361 I llama_context:  CUDA_Host  output buffer size =     0.49 MiB
0.00.007.410 I llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB
0.00.008.299 I llama_kv_cache: size = 1024.00 MiB (  8192 cells,  32 layers,  1/1 seqs)
llama_memory_recurrent:      CUDA0 RS buffer size =    50.25 MiB
0.00.009.224 I sched_reserve:      CUDA0 compute buffer size =   124.01 MiB
sched_reserve:  CUDA_Host compute buffer size =    40.02 MiB
0.00.009.507 I clip_ctx: CLIP using CUDA0 backend
0.00.009.815 I load_hparams: model size:       595.49 MiB
0.00.031.553 I reserve_compute_meta:      CUDA0 compute buffer size =    19.32 MiB
"""


def test_the_engines_own_words() -> None:
    places = by_place(parse_buffer_lines(LOG))
    assert {kind: round(size / MIB, 2) for kind, size in places["CUDA0"].items()} == {
        "weights": 4650.99,
        "kv_cache": 1024.0,
        "state": 50.25,
        "compute": 124.01,
        "projector_weights": 595.49,
        "projector_compute": 19.32,
    }
    host = {kind: round(size / MIB, 2) for kind, size in places["host"].items()}
    assert host == {"weights": 281.81, "output": 0.49, "compute": 40.02}


@given(st.text())
def test_any_log_can_be_read(text: str) -> None:
    parse_buffer_lines(text)
    parse_buffer_lines(f"x: {text} model buffer size = {text} MiB")
