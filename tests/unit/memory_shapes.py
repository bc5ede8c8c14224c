"""Headers of models for the memory tests, written with the `gguf` package: true shapes, no weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from llmctl.core.gguf import GgufHeader, parse_header

Shapes = Mapping[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType]]
F16, F32 = gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32
Q4_K, Q6_K = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K


def header_of(architecture: str, values: Iterable[tuple[str, Any]], tensors: Shapes) -> GgufHeader:
    """The header of a file with these keys and tensors (shapes with the contiguous dimension last)."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "header.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        for key, value in values:
            match value:
                case bool():
                    writer.add_bool(key, value)
                case int():
                    writer.add_uint32(key, value)
                case str():
                    writer.add_string(key, value)
                case float():
                    writer.add_float32(key, value)
                case _:
                    writer.add_array(key, value)
        for name, (shape, kind) in tensors.items():
            block, size = gguf.GGML_QUANT_SIZES[kind]
            nbytes = int(np.prod(shape)) // block * size
            writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return parse_header(path.read_bytes())


def llama_7b() -> GgufHeader:
    """Vicuna 7B as in llava-v1.5-7b, in the usual mixture of q4_K and q6_K."""
    width, forward, vocabulary, blocks = 4096, 11008, 32000, 32
    tensors: dict[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType]] = {
        "token_embd.weight": ((vocabulary, width), Q4_K),
        "output_norm.weight": ((width,), F32),
        "output.weight": ((vocabulary, width), Q6_K),
    }
    for index in range(blocks):
        # Q4_K_M keeps more bits for attn_v and ffn_down in the first and last eighth, and in each third
        # block between.
        eighth = blocks // 8
        more = index < eighth or index >= 7 * eighth or (index - eighth) % 3 == 2
        kind = Q6_K if more else Q4_K
        for name in ("attn_q", "attn_k", "attn_output"):
            tensors[f"blk.{index}.{name}.weight"] = ((width, width), Q4_K)
        tensors[f"blk.{index}.attn_v.weight"] = ((width, width), kind)
        for name in ("ffn_gate", "ffn_up"):
            tensors[f"blk.{index}.{name}.weight"] = ((forward, width), Q4_K)
        tensors[f"blk.{index}.ffn_down.weight"] = ((width, forward), kind)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{index}.{name}.weight"] = ((width,), F32)
    values = [
        ("llama.block_count", blocks),
        ("llama.context_length", 4096),
        ("llama.embedding_length", width),
        ("llama.feed_forward_length", forward),
        ("llama.attention.head_count", 32),
        ("llama.attention.head_count_kv", 32),
        ("llama.attention.layer_norm_rms_epsilon", 1e-5),
        ("llama.rope.dimension_count", 128),
    ]
    return header_of("llama", values, tensors)


def clip_vit_l_336() -> GgufHeader:
    """The projector beside it: 23 of CLIP ViT-L/14-336's blocks, f16, without the newer keys."""
    width, forward, projection = 1024, 4096, 4096
    tensors: dict[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType]] = {
        "v.class_embd": ((width,), F32),
        "v.patch_embd.weight": ((width, 3, 14, 14), F16),
        "v.position_embd.weight": ((577, width), F16),
        "mm.0.weight": ((projection, width), F16),
        "mm.0.bias": ((projection,), F32),
        "mm.2.weight": ((projection, projection), F16),
        "mm.2.bias": ((projection,), F32),
    }
    for name in ("v.pre_ln", "v.post_ln"):
        for part in ("weight", "bias"):
            tensors[f"{name}.{part}"] = ((width,), F32)
    for index in range(23):
        matrices = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (width, width))
        matrices |= {"ffn_down": (forward, width), "ffn_up": (width, forward)}
        for name, shape in matrices.items():
            tensors[f"v.blk.{index}.{name}.weight"] = (shape, F16)
            tensors[f"v.blk.{index}.{name}.bias"] = (shape[:1], F32)
        for name in ("ln1", "ln2"):
            for part in ("weight", "bias"):
                tensors[f"v.blk.{index}.{name}.{part}"] = ((width,), F32)
    values = [
        ("clip.has_text_encoder", False),
        ("clip.has_vision_encoder", True),
        ("clip.has_llava_projector", True),
        ("clip.vision.image_size", 336),
        ("clip.vision.patch_size", 14),
        ("clip.vision.embedding_length", width),
        ("clip.vision.feed_forward_length", forward),
        ("clip.vision.projection_dim", 768),
        ("clip.vision.attention.head_count", 16),
        ("clip.vision.attention.layer_norm_epsilon", 1e-5),
        ("clip.vision.block_count", 23),
        ("clip.use_gelu", False),
    ]
    return header_of("clip", values, tensors)
