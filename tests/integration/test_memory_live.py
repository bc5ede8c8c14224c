"""The plan against llama.cpp itself: small models of several architectures, loaded by its own server.

One server per process: several in one process hang each other, and so does one that is taken down
before its loop runs. So each load is this file run as a program, which prints llama.cpp's log and ends
hard.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llmctl.core.gguf import parse_header
from llmctl.core.memory import GIB, MIB, Device, Estimate, Model, Projector, Settings, estimate
from llmctl.core.memory.observed import by_place, parse_buffer_lines

HOST = Device("host", "host", 64 * GIB, 64 * GIB, "cpu")
PRINTED = MIB // 100  # llama.cpp prints hundredths
F16, Q4_0, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("F16", "Q4_0", "Q8_0"))


@dataclass(frozen=True)
class Shape:
    """A model to write."""

    architecture: str
    width: int = 512
    forward: int = 1408
    heads: int = 8
    kv_heads: int = 8
    head: int = 64
    blocks: int = 4
    kind: gguf.GGMLQuantizationType = F16
    tied: bool = False
    biased: bool = False
    normed: bool = False
    window: int = 0
    fillers: int = 6000


SHAPES = {
    "llama-mha": Shape("llama"),
    "llama-gqa": Shape("llama", kv_heads=2, kind=Q4_0),
    "qwen2": Shape("qwen2", kv_heads=4, kind=Q8_0, biased=True),
    "qwen3-tied": Shape("qwen3", kv_heads=2, head=128, tied=True, normed=True),
    "gemma3-window": Shape("gemma3", kv_heads=4, blocks=8, tied=True, normed=True, window=512),
}
CONFIGS = {
    "short": Settings(context=2048),
    "quantised-cache": Settings(context=8192, cache_type_k="q8_0", cache_type_v="q8_0"),
    "slots-apart": Settings(context=8192, parallel=4, kv_unified=False),
    "slots-together-small-ubatch": Settings(context=4096, parallel=4, ubatch=128),
    "no-flash-attention": Settings(context=4096, flash_attention="off"),
}


def write_model(path: Path, shape: Shape) -> None:
    """Write a model of zeros that llama.cpp loads."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    tokens += [f"▁w{number}" for number in range(shape.fillers)]
    kinds += [gguf.TokenType.NORMAL] * shape.fillers
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_context_length(32768)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.window:
        writer.add_sliding_window(shape.window)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    _matrix(writer, "token_embd.weight", len(tokens), shape.width, shape.kind)
    _vector(writer, "output_norm.weight", shape.width)
    if not shape.tied:
        _matrix(writer, "output.weight", len(tokens), shape.width, shape.kind)
    for index in range(shape.blocks):
        _write_block(writer, f"blk.{index}.", shape)
    _finish(writer)


def _write_block(writer: gguf.GGUFWriter, prefix: str, shape: Shape) -> None:
    query, key = shape.heads * shape.head, shape.kv_heads * shape.head
    for name in ("attn_norm", "ffn_norm"):
        _vector(writer, f"{prefix}{name}.weight", shape.width)
    for name, rows, columns in (
        ("attn_q", query, shape.width),
        ("attn_k", key, shape.width),
        ("attn_v", key, shape.width),
        ("attn_output", shape.width, query),
        ("ffn_gate", shape.forward, shape.width),
        ("ffn_up", shape.forward, shape.width),
        ("ffn_down", shape.width, shape.forward),
    ):
        _matrix(writer, f"{prefix}{name}.weight", rows, columns, shape.kind)
        if shape.biased and name in {"attn_q", "attn_k", "attn_v"}:
            _vector(writer, f"{prefix}{name}.bias", rows)
    if shape.normed:
        _vector(writer, f"{prefix}attn_q_norm.weight", shape.head)
        _vector(writer, f"{prefix}attn_k_norm.weight", shape.head)
    if shape.window:
        _vector(writer, f"{prefix}post_attention_norm.weight", shape.width)
        _vector(writer, f"{prefix}post_ffw_norm.weight", shape.width)


def write_projector(path: Path, width: int, image: int) -> None:
    """Write a CLIP encoder of two blocks with an MLP onto `width`."""
    own, forward, patch = 1024, 4096, 14  # as CLIP ViT-L
    writer = gguf.GGUFWriter(path, "clip")
    for key, flag in (
        ("has_text_encoder", False),
        ("has_vision_encoder", True),
        ("has_llava_projector", True),
        ("use_gelu", True),
    ):
        writer.add_bool(f"clip.{key}", flag)
    writer.add_string("clip.projector_type", "mlp")
    for key, value in (
        ("image_size", image),
        ("patch_size", patch),
        ("embedding_length", own),
        ("feed_forward_length", forward),
        ("projection_dim", width),
        ("block_count", 2),
        ("attention.head_count", 16),
    ):
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_tensor("v.patch_embd.weight", np.zeros((own, 3, patch, patch), np.float16))
    _vector(writer, "v.class_embd", own)
    _matrix(writer, "v.position_embd.weight", (image // patch) ** 2 + 1, own, F16)
    _matrix(writer, "mm.0.weight", width, own, F16)
    _vector(writer, "mm.0.bias", width)
    _matrix(writer, "mm.2.weight", width, width, F16)
    _vector(writer, "mm.2.bias", width)
    norms = ["v.pre_ln", "v.post_ln"]
    norms += [f"v.blk.{index}.{name}" for index in range(2) for name in ("ln1", "ln2")]
    for name in norms:
        _vector(writer, f"{name}.weight", own)
        _vector(writer, f"{name}.bias", own)
    matrices = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (own, own))
    matrices |= {"ffn_up": (forward, own), "ffn_down": (own, forward)}
    for index in range(2):
        for name, (rows, columns) in matrices.items():
            _matrix(writer, f"v.blk.{index}.{name}.weight", rows, columns, F16)
            _vector(writer, f"v.blk.{index}.{name}.bias", rows)
    _finish(writer)


def _matrix(
    writer: gguf.GGUFWriter, name: str, rows: int, columns: int, kind: gguf.GGMLQuantizationType
) -> None:
    zeros = np.zeros((rows, columns), np.float32)
    if kind == F16:
        writer.add_tensor(name, zeros.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(zeros, kind), raw_dtype=kind)


def _vector(writer: gguf.GGUFWriter, name: str, length: int) -> None:
    writer.add_tensor(name, np.zeros(length, np.float32))


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass(frozen=True)
class Load:
    """What the program is told."""

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    projector: str = ""


def loaded(model: Path, settings: Settings, projector: Path | None = None) -> str:
    """llama.cpp's log of loading the model."""
    told = Load(str(model), asdict(settings), str(projector or ""))
    answer = subprocess.run(
        [sys.executable, "-m", "tests.integration.test_memory_live", json.dumps(asdict(told))],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stderr


def planned(
    model: Path, settings: Settings, projector: Path | None = None, gpus: Sequence[Device] = ()
) -> Estimate:
    """The estimate from the files' headers."""
    beside = Projector.of(parse_header(projector.read_bytes())) if projector else None
    header = parse_header(model.read_bytes())
    return estimate(Model.of([header]), settings, [*gpus, HOST], beside)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("memory")
    paths = {name: directory / f"{name}.gguf" for name in SHAPES}
    for name, path in paths.items():
        write_model(path, SHAPES[name])
    return paths


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", SHAPES)
def test_buffers_are_as_planned(written: dict[str, Path], name: str, config: str) -> None:
    settings = CONFIGS[config]
    measured = by_place(parse_buffer_lines(loaded(written[name], settings)))["host"]
    ours = planned(written[name], settings).host
    assert ours.weights.bytes == pytest.approx(measured["weights"], abs=PRINTED)
    # a model with windows has two caches, each printed
    assert ours.kv_cache.bytes == pytest.approx(measured["kv_cache"], abs=2 * PRINTED)
    assert ours.output.bytes == pytest.approx(measured["output"], abs=PRINTED)
    assert ours.compute.bytes == pytest.approx(measured["compute"], rel=0.1)


@pytest.mark.parametrize("flash", ["on", "off"])
def test_projector_is_as_planned(written: dict[str, Path], tmp_path: Path, flash: str) -> None:
    projector = tmp_path / "mmproj.gguf"
    write_projector(projector, SHAPES["llama-mha"].width, image=336)
    settings = Settings(context=2048, flash_attention="on" if flash == "on" else "off")
    log = loaded(written["llama-mha"], settings, projector)
    measured = by_place(parse_buffer_lines(log))["host"]
    ours = planned(written["llama-mha"], settings, projector)
    assert ours.host.projector_weights.bytes == pytest.approx(
        measured["projector_weights"], abs=PRINTED
    )
    assert ours.host.projector_compute.bytes == pytest.approx(
        measured["projector_compute"], rel=0.1
    )
    assert ours.picture_tokens == 576
    assert ours.host.total > planned(written["llama-mha"], settings).host.total


def main() -> None:
    """Load what the argument says and end."""
    import xllamacpp

    told = Load(**json.loads(sys.argv[1]))
    settings = Settings(**told.settings)
    flash = xllamacpp.llama_flash_attn_type
    p = xllamacpp.CommonParams()
    p.model.path = told.model
    if told.projector:
        p.mmproj.path = told.projector
    p.n_ctx, p.n_parallel, p.kv_unified = settings.context, settings.parallel, settings.kv_unified
    p.n_batch, p.n_ubatch = settings.batch, settings.ubatch
    p.flash_attn_type = {
        "on": flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": flash.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "auto": flash.LLAMA_FLASH_ATTN_TYPE_AUTO,
    }[settings.flash_attention]
    for key in ("cache_type_k", "cache_type_v"):
        name = getattr(settings, key).upper()
        setattr(p, key, getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name}"))
    p.hostnames = ["127.0.0.1"]
    p.cpuparams.n_threads = 1
    p.fit_params, p.no_extra_bufts = False, True
    # A projector reserves its buffers when it is warmed up, and not before the first picture else.
    p.warmup = bool(told.projector)
    p.verbosity = 4
    server = xllamacpp.Server(p)  # kept: its destructor waits for a loop that has not begun
    sys.stderr.flush()
    assert server
    os._exit(0)


if __name__ == "__main__":
    main()
