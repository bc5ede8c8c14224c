"""The two GGUF files, from plain arrays. Needs gguf and numpy, not torch.

Which keys llama.cpp needs was found by leaving them out one at a time. The one that fails silently
is `clip.vision.feature_layer`: without it a graph for an "mlp" projector leaves out the last block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from training.preprocess import IMAGE_SIZE, MEAN, STD
from training.prompts import CHAT_TEMPLATE
from training.shape import SHAPE

TEXT_NAME, PROJECTOR_NAME = "canary-f16.gguf", "mmproj-canary-f16.gguf"
UNKNOWN, BOS, EOS = 0, 1, 2
FEATURE_LAYER = "clip.vision.feature_layer"
_LAYER_NORM_EPSILON = 1e-5  # torch's default
_CONTROL_AND_BYTES = 259  # the first tokens of every vocabulary

Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Vocabulary:
    """What GGUF stores: pieces, scores and types (1 normal, 2 unknown, 3 control, 6 byte)."""

    pieces: list[str]
    scores: list[float]
    types: list[int]


def write_text_model(weights: Weights, vocabulary: Vocabulary, path: Path) -> None:
    """The language model, with its tokenizer and chat template; the same input gives the same bytes."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llmctl canary")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(SHAPE.context)
    writer.add_embedding_length(SHAPE.width)
    writer.add_block_count(SHAPE.blocks)
    writer.add_feed_forward_length(SHAPE.feed_forward)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.heads)
    writer.add_rope_dimension_count(SHAPE.width // SHAPE.heads)
    writer.add_rope_freq_base(SHAPE.rope_base)
    writer.add_layer_norm_rms_eps(SHAPE.epsilon)
    writer.add_vocab_size(len(vocabulary.pieces))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)
    _finish(writer, weights, text_shapes())


def write_projector(weights: Weights, path: Path, *, feature_layer: bool = True) -> None:
    """The vision tower and the projector; without `feature_layer` only to show what that breaks."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("llmctl canary, vision")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_text_encoder", val=False)
    writer.add_bool("clip.has_vision_encoder", val=True)
    writer.add_bool("clip.has_llava_projector", val=True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", val=True)
    writer.add_uint32("clip.vision.image_size", IMAGE_SIZE)
    writer.add_uint32("clip.vision.patch_size", SHAPE.patch)
    writer.add_uint32("clip.vision.embedding_length", SHAPE.vision_width)
    writer.add_uint32("clip.vision.feed_forward_length", SHAPE.vision_feed_forward)
    writer.add_uint32("clip.vision.projection_dim", SHAPE.width)
    writer.add_uint32("clip.vision.block_count", SHAPE.vision_blocks)
    writer.add_uint32("clip.vision.attention.head_count", SHAPE.vision_heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", _LAYER_NORM_EPSILON)
    writer.add_array("clip.vision.image_mean", [MEAN] * 3)
    writer.add_array("clip.vision.image_std", [STD] * 3)
    if feature_layer:
        writer.add_array(FEATURE_LAYER, [SHAPE.vision_blocks])
    _finish(writer, weights, vision_shapes())


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a text model that `write_text_model` wrote."""
    fields = gguf.GGUFReader(path).fields
    return Vocabulary(
        *(
            fields[key].contents()
            for key in (
                "tokenizer.ggml.tokens",
                "tokenizer.ggml.scores",
                "tokenizer.ggml.token_type",
            )
        )
    )


def read_weights(path: Path) -> Weights:
    """All tensors of a file as float32, for writing it again with other keys."""
    return {
        tensor.name: np.asarray(tensor.data, np.float32) for tensor in gguf.GGUFReader(path).tensors
    }


def text_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the language model."""
    width, wide = SHAPE.width, SHAPE.feed_forward
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (SHAPE.vocabulary, width)}
    for block in range(SHAPE.blocks):
        prefix = f"blk.{block}."
        shapes |= {f"{prefix}{name}.weight": (width,) for name in ("attn_norm", "ffn_norm")}
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"{prefix}{name}.weight"] = (width, width)
        shapes |= {f"{prefix}{name}.weight": (wide, width) for name in ("ffn_gate", "ffn_up")}
        shapes[f"{prefix}ffn_down.weight"] = (width, wide)
    return shapes | {"output_norm.weight": (width,), "output.weight": (SHAPE.vocabulary, width)}


def vision_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the vision tower and the projector. `ffn_up` is the first of its two matrices."""
    width, wide, middle = SHAPE.vision_width, SHAPE.vision_feed_forward, SHAPE.projector_width
    layers: dict[str, tuple[int, ...]] = {
        "v.patch_embd": (width, 3, SHAPE.patch, SHAPE.patch),
        "v.pre_ln": (width,),
        "v.post_ln": (width,),
    }
    for block in range(SHAPE.vision_blocks):
        prefix = f"v.blk.{block}."
        layers |= {f"{prefix}{name}": (width,) for name in ("ln1", "ln2")}
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            layers[f"{prefix}{name}"] = (width, width)
        layers |= {f"{prefix}ffn_up": (wide, width), f"{prefix}ffn_down": (width, wide)}
    layers |= {"mm.0": (middle, width), "mm.2": (SHAPE.width, middle)}
    shapes: dict[str, tuple[int, ...]] = {"v.position_embd.weight": (SHAPE.patches, width)}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def random_weights(seed: int) -> Weights:
    """Untrained weights with which every tensor matters: no zeros, no ones.

    A trained model is sure of itself and hides small differences. Its bytes are never likely here,
    because llama.cpp reports no log-probability for half a character.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for name, shape in (text_shapes() | vision_shapes()).items():
        noise = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            # Vectors called weight belong to norms; the others are biases.
            values = 0.1 * noise + float(name.endswith(".weight"))
        elif name in ("token_embd.weight", "v.position_embd.weight"):
            values = noise
        else:
            values = noise / math.sqrt(math.prod(shape[1:]))
        weights[name] = values.astype(np.float16).astype(np.float32)  # as the files store them
    weights["output.weight"][:_CONTROL_AND_BYTES] = 0
    return weights


def _finish(
    writer: gguf.GGUFWriter, weights: Weights, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Add the tensors, f16 for matrices and f32 for vectors and positions, and write the file."""
    for name, shape in shapes.items():
        tensor = weights[name]
        if tensor.shape != shape:
            raise ValueError(f"{name} is {tensor.shape}, not {shape}")
        whole = len(shape) == 1 or name == "v.position_embd.weight"
        writer.add_tensor(name, tensor.astype(np.float32 if whole else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
