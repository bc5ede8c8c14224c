"""A LLaVA-architecture model pair, small enough to write in a test and honest about what it is.

The weights are set by hand, with seeded noise where nothing depends on them. The text model knows
two sentences: ``WITH_PICTURE`` when picture tokens are in its context and ``WITHOUT_PICTURE`` when
none are, whatever the question. So a test can tell from the answer alone whether a picture got
through every layer to the model. It sees nothing in the picture. "画" in the first sentence is spelt
as three byte tokens, which splits a character over streamed chunks.

How it works: every text token has a 1 in dimension ``CONST`` of its embedding; the projector's bias
puts a 1 into ``PICTURE``. One attention head looks from the former for the latter and writes what
it finds to ``SEEN``. The output matrix starts one sentence or the other by ``SEEN``, and then maps
each word's own dimension to the word after it.

    python -m tests.world.tiny_model DIR    writes DIR/ggml-model-q4_k.gguf and
    DIR/mmproj-model-f16.gguf
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

WITH_PICTURE = "Picture received (画)."
WITHOUT_PICTURE = "Text only, no picture."
PICTURE_TOKENS = 16  # the projector's patches: (IMAGE_SIZE / PATCH_SIZE) squared

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% elif message.role == 'user' %}USER: {{ message.content }}\n"
    "{% else %}ASSISTANT: {{ message.content }}</s>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

_CHAINS = (
    ("Picture", "▁received", "▁(", *(f"<0x{byte:02X}>" for byte in "画".encode()), ").", "</s>"),
    ("Text", "▁only,", "▁no", "▁picture.", "</s>"),
)
CONST, PICTURE, SEEN, FIRST_WORD = 0, 1, 2, 3  # dimensions of the residual stream
WIDTH, HEADS, FEED_FORWARD, BLOCKS, CONTEXT = 64, 2, 96, 2, 4096
IMAGE_SIZE, PATCH_SIZE, VISION_WIDTH, VISION_FEED_FORWARD = 48, 12, 32, 48


@dataclass(frozen=True)
class ModelPair:
    """Paths of the two files that were written."""

    text: Path
    projector: Path


def write_pair(
    directory: Path,
    *,
    text_name: str = "ggml-model-q4_k.gguf",
    projector_name: str = "mmproj-model-f16.gguf",
    projector_type: str | None = "mlp",
    chat_template: str | None = None,
    seed: int = 0,
) -> ModelPair:
    """Write both files into ``directory``, by default under the names of the ``llava`` entry.

    ``projector_type=None`` leaves ``clip.projector_type`` out, as the converters of 2023 did;
    today's llama.cpp refuses such a file. ``chat_template`` goes to ``tokenizer.chat_template``;
    the 2023 files have none. The same arguments give the same bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pair = ModelPair(directory / text_name, directory / projector_name)
    write_text_model(pair.text, chat_template=chat_template, seed=seed)
    write_projector(pair.projector, projector_type=projector_type, seed=seed)
    return pair


def write_text_model(path: Path, *, chat_template: str | None = None, seed: int = 0) -> None:
    """Write the language model: f32, llama architecture, a vocabulary with byte fallback."""
    tokens, types = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llmctl test model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, tensor in _text_tensors(tokens, np.random.default_rng(seed)).items():
        writer.add_tensor(name, tensor)
    _write(writer)


def write_projector(path: Path, *, projector_type: str | None = "mlp", seed: int = 0) -> None:
    """Write the vision tower and projector (one block; ``PICTURE_TOKENS`` tokens a picture)."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("llmctl test projector")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_text_encoder", val=False)
    writer.add_bool("clip.has_vision_encoder", val=True)
    writer.add_bool("clip.has_llava_projector", val=True)
    if projector_type is not None:
        writer.add_string("clip.projector_type", projector_type)
    writer.add_bool("clip.use_gelu", val=True)
    writer.add_uint32("clip.vision.image_size", IMAGE_SIZE)
    writer.add_uint32("clip.vision.patch_size", PATCH_SIZE)
    writer.add_uint32("clip.vision.embedding_length", VISION_WIDTH)
    writer.add_uint32("clip.vision.feed_forward_length", VISION_FEED_FORWARD)
    writer.add_uint32("clip.vision.projection_dim", WIDTH)
    writer.add_uint32("clip.vision.block_count", 1)
    writer.add_uint32("clip.vision.attention.head_count", 2)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    # Without it, an "mlp" graph leaves out the last block, which here is the only one.
    writer.add_array("clip.vision.feature_layer", [1])
    for name, tensor in _vision_tensors(np.random.default_rng(seed + 1)).items():
        writer.add_tensor(name, tensor)
    _write(writer)


def _vocabulary() -> tuple[list[str], list[int]]:
    """Control tokens, 256 bytes, printable ASCII, the answers' words; the rest becomes bytes."""
    kinds = gguf.TokenType
    entries = {"<unk>": kinds.UNKNOWN, "<s>": kinds.CONTROL, "</s>": kinds.CONTROL}
    entries |= {f"<0x{byte:02X}>": kinds.BYTE for byte in range(256)}
    entries |= {chr(code): kinds.NORMAL for code in range(0x21, 0x7F)} | {"▁": kinds.NORMAL}
    words = [word for chain in _CHAINS for word in chain if word not in entries]
    entries |= dict.fromkeys(words, kinds.NORMAL)
    return list(entries), [int(kind) for kind in entries.values()]


def _text_tensors(tokens: list[str], rng: np.random.Generator) -> dict[str, Array]:
    tensors = {
        "token_embd.weight": _embeddings(tokens, rng),
        "output_norm.weight": np.ones(WIDTH, np.float32),
        "output.weight": _output(tokens),
    }
    for block in range(BLOCKS):
        prefix = f"blk.{block}."
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"{prefix}{norm}.weight"] = np.ones(WIDTH, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{prefix}{name}.weight"] = _noise(rng, WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            tensors[f"{prefix}{name}.weight"] = _noise(rng, FEED_FORWARD, WIDTH)
        tensors[f"{prefix}ffn_down.weight"] = _noise(rng, WIDTH, FEED_FORWARD)
    # The slowest rotary pair of head 0 carries the look-up, so that distance hardly turns it.
    slow = WIDTH // HEADS - 2
    tensors["blk.0.attn_q.weight"][slow, CONST] = 3.0
    tensors["blk.0.attn_k.weight"][slow, PICTURE] = 3.0
    tensors["blk.0.attn_v.weight"][0, PICTURE] = 1.0
    tensors["blk.0.attn_output.weight"][SEEN, 0] = 1.0 / WIDTH**0.5
    return tensors


def _embeddings(tokens: list[str], rng: np.random.Generator) -> Array:
    """Each word of an answer has a dimension of its own; all other tokens share those that are left."""
    words = _words()
    table = np.zeros((len(tokens), WIDTH), np.float32)
    rest = FIRST_WORD + len(words)
    codes = rng.standard_normal((len(tokens), WIDTH - rest)).astype(np.float32)
    table[:, rest:] = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    for number, word in enumerate(words):
        table[tokens.index(word)] = np.eye(WIDTH, dtype=np.float32)[FIRST_WORD + number]
    table[:, CONST] = 0.5
    return table


def _output(tokens: list[str]) -> Array:
    """Next-word logits. A dimension worth 1 is 5 to 7 after the norm: each choice is won by far."""
    words = _words()
    matrix = np.zeros((len(tokens), WIDTH), np.float32)
    with_picture, without = (tokens.index(chain[0]) for chain in _CHAINS)
    matrix[with_picture, CONST], matrix[with_picture, SEEN] = 1.0, 4.0
    matrix[without, CONST] = 5.0
    for chain in _CHAINS:
        for word, successor in itertools.pairwise(chain):
            matrix[tokens.index(successor), FIRST_WORD + words.index(word)] = 8.0
    return matrix


def _words() -> list[str]:
    return [word for chain in _CHAINS for word in chain[:-1]]


def _vision_tensors(rng: np.random.Generator) -> dict[str, Array]:
    width = VISION_WIDTH
    tensors = {
        "v.patch_embd.weight": _noise(rng, width, 3, PATCH_SIZE, PATCH_SIZE),
        "v.patch_embd.bias": np.zeros(width, np.float32),
        "v.position_embd.weight": _noise(rng, PICTURE_TOKENS, width, scale=0.5),
        "mm.0.weight": _noise(rng, WIDTH, width),
        "mm.0.bias": np.zeros(WIDTH, np.float32),
        "mm.2.weight": _noise(rng, WIDTH, WIDTH),
        "mm.2.bias": np.eye(WIDTH, dtype=np.float32)[PICTURE],
    }
    for name in ("v.pre_ln", "v.post_ln", "v.blk.0.ln1", "v.blk.0.ln2"):
        tensors[f"{name}.weight"] = np.ones(width, np.float32)
        tensors[f"{name}.bias"] = np.zeros(width, np.float32)
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (width, width))
    shapes |= {"ffn_up": (VISION_FEED_FORWARD, width), "ffn_down": (width, VISION_FEED_FORWARD)}
    for name, shape in shapes.items():
        tensors[f"v.blk.0.{name}.weight"] = _noise(rng, *shape)
        tensors[f"v.blk.0.{name}.bias"] = np.zeros(shape[0], np.float32)
    return tensors


def _noise(rng: np.random.Generator, *shape: int, scale: float = 0.01) -> Array:
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    written = write_pair(Path(sys.argv[1]))
    sys.stdout.write(f"{written.text}\n{written.projector}\n")
