"""Which block of an architecture keeps what between tokens: llama.cpp's rules (b11549, src/models).

A block attends to the whole context, to a sliding window, or not at all; a recurrent block keeps a
state of fixed size instead of, or besides, a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmctl.core.memory.keys import MOST_BLOCKS, Keys
from llmctl.errors import ConfigError

# Blocks that attend to a window, where the file does not say: of every n blocks one is dense, the last
# or (True) the first.
WINDOWS: dict[str, tuple[int, bool]] = {
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gemma4": (1, False),  # always says
    "llama4": (4, False),
    "cohere2": (4, False),
    "exaone4": (4, False),
    "olmo2": (4, False),
    "afmoe": (4, False),
    "mellum": (4, False),
    "gpt-oss": (2, False),
    "plamo3": (8, False),
    "cohere2moe": (4, True),
    "laguna": (4, True),
    "smallthinker": (4, True),
    "modern-bert": (3, True),
}
LLAMA4_CHUNK = 8192
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
INTERVALS = frozenset({"qwen35", "qwen35moe", "qwen3next"})
BOTH = frozenset({"falcon-h1"})  # every block attends and keeps a state
_PLAIN = """
arcee aquila baichuan bailingmoe chatglm command-r dbrx deepseek deepseek2 dots1 ernie4_5
ernie4_5-moe exaone falcon gemma glm4 glm4moe gpt2 gptneox granite granitehybrid granitemoe
hunyuan-dense hunyuan-moe internlm2 jamba lfm2 lfm2moe llama minicpm minicpm3 mistral3 mpt
nemotron nemotron_h olmo olmoe orion phi2 phi3 phimoe plamo plamo2 qwen qwen2 qwen2moe qwen2vl
qwen3 qwen3moe qwen3vl qwen3vlmoe refact seed_oss smollm3 stablelm starcoder starcoder2 xverse
"""
# The graphs of wholly recurrent models were not measured: they count as unknown.
KNOWN = frozenset(_PLAIN.split()) | INTERVALS | BOTH | WINDOWS.keys()

Attention = Literal["full", "window", "none"]


@dataclass(frozen=True)
class Block:
    """What one block keeps.

    Attributes:
        attention: What it attends to; "none" also where it reads another block's cache.
        key: Elements of K per cell.
        value: Elements of V per cell, 0 where V is computed from K.
        recurrent: Elements (f32) of its states per slot: the convolution's, and the recurrence's.
    """

    attention: Attention
    key: int
    value: int
    recurrent: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Layout:
    """An architecture's dimensions.

    Attributes:
        architecture: `general.architecture`.
        known: Whether llama.cpp's rules for it are known here.
        width: Of the embedding.
        heads: Attention heads, the most of any block.
        key_length: Elements of a head's query.
        feed_forward: Of a dense block, the widest.
        experts_used: Per token, 0 in a dense model.
        expert_width: Feed-forward width of one expert.
        window: Tokens a window block sees.
        blocks: One entry each.
        trained_context: Tokens it was trained for.
    """

    architecture: str
    known: bool
    width: int
    heads: int
    key_length: int
    feed_forward: int
    experts_used: int
    expert_width: int
    window: int
    blocks: tuple[Block, ...]
    trained_context: int

    @property
    def stateful(self) -> bool:
        """Whether a finished prompt cannot be cut back, so that the server keeps checkpoints."""
        return any(sum(block.recurrent) or block.attention == "window" for block in self.blocks)


def read_layout(keys: Keys) -> Layout:
    """The dimensions a header states.

    Raises:
        ConfigError: a key is missing, of a wrong type or absurd; the message names it.
    """
    count = keys.integer("block_count", most=MOST_BLOCKS)
    count -= keys.integer("nextn_predict_layers", 0, least=0, most=count - 1)
    width = keys.integer("embedding_length")
    forward = keys.each("feed_forward_length", count, 0)
    if keys.architecture in RECURRENT:
        heads = 0
        blocks = (Block("none", 0, 0, _states(keys, width)),) * count
    else:
        heads = max(keys.each("attention.head_count", count, least=0))
        if heads == 0:
            raise ConfigError(
                f"this GGUF cannot be planned: the key {keys.architecture}.attention.head_count is 0",
                hint="the file is damaged or was written by a broken converter; take another one",
            )
        blocks = _blocks(keys, count, width, heads)
    return Layout(
        architecture=keys.architecture,
        known=keys.architecture in KNOWN,
        width=width,
        heads=heads,
        key_length=keys.integer("attention.key_length", width // heads) if heads else 0,
        feed_forward=max(forward),
        experts_used=keys.integer("expert_used_count", 0, least=0, most=4096),
        expert_width=keys.integer("expert_feed_forward_length", 0, least=0),
        window=_window(keys),
        blocks=blocks,
        trained_context=keys.integer("context_length", 4096, most=1 << 32),
    )


def _blocks(keys: Keys, count: int, width: int, heads: int) -> tuple[Block, ...]:
    kv_heads = keys.each("attention.head_count_kv", count, heads)
    key = keys.integer("attention.key_length", width // heads)
    value = keys.integer("attention.value_length", width // heads)
    key_window = keys.integer("attention.key_length_swa", key)
    value_window = keys.integer("attention.value_length_swa", value)
    latent = keys.has("attention.key_length_mla")
    own = count - keys.integer("attention.shared_kv_layers", 0, least=0, most=count - 1)
    window = _window_blocks(keys, count)
    recurrent = _recurrent_blocks(keys, count, kv_heads)
    states = _states(keys, width) if any(recurrent) else (0, 0)
    blocks = []
    for index in range(count):
        state = states if recurrent[index] else (0, 0)
        attends = not recurrent[index] or keys.architecture in BOTH
        if not attends or index >= own or not kv_heads[index]:
            blocks.append(Block("none", 0, 0, state))
            continue
        k, v = (key_window, value_window) if window[index] else (key, value)
        k, v = (k, 0) if latent else (kv_heads[index] * k, kv_heads[index] * v)
        blocks.append(Block("window" if window[index] else "full", k, v, state))
    return tuple(blocks)


def _window(keys: Keys) -> int:
    if keys.architecture == "llama4":
        return keys.integer("attention.chunk_size", LLAMA4_CHUNK)
    if keys.architecture not in WINDOWS:
        return 0
    return keys.integer("attention.sliding_window", 0, least=0)


def _window_blocks(keys: Keys, count: int) -> tuple[bool, ...]:
    """Which blocks see a window only. An unknown architecture gets no such discount."""
    if not _window(keys):
        return (False,) * count
    name = "attention.sliding_window_pattern"
    every, dense_first = WINDOWS[keys.architecture]
    value = keys.header.values.get(f"{keys.architecture}.{name}")
    if isinstance(value, tuple):
        return tuple(bool(item) for item in keys.each(name, count))
    every = keys.integer(name, every, least=0, most=MOST_BLOCKS)
    if every == 0:
        return (True,) * count
    dense = 0 if dense_first else every - 1
    return tuple(index % every != dense for index in range(count))


def _recurrent_blocks(keys: Keys, count: int, kv_heads: tuple[int, ...]) -> tuple[bool, ...]:
    if keys.architecture in BOTH:
        return (True,) * count
    if keys.architecture in INTERVALS:
        every = keys.integer("full_attention_interval", 4, most=MOST_BLOCKS)
        return tuple((index + 1) % every != 0 for index in range(count))
    if keys.has("ssm.state_size") or keys.has("shortconv.l_cache"):
        forward = keys.each("feed_forward_length", count, 0)
        nemotron = keys.architecture == "nemotron_h"  # its feed-forward blocks keep nothing
        return tuple(
            heads == 0 and not (nemotron and forward[index]) for index, heads in enumerate(kv_heads)
        )
    return (False,) * count


def _states(keys: Keys, width: int) -> tuple[int, int]:
    """f32 elements per block and slot: the convolution's or token shift's, and the recurrence's."""
    if keys.architecture in RECURRENT and keys.architecture.startswith(("rwkv", "arwkv")):
        shifts = keys.integer("token_shift_count", 2, least=0, most=16)
        return shifts * width, width * keys.integer("wkv.head_size")
    if keys.has("shortconv.l_cache"):
        return width * (keys.integer("shortconv.l_cache", most=1 << 16) - 1), 0
    inner = keys.integer("ssm.inner_size")
    state = keys.integer("ssm.state_size")
    groups = keys.integer("ssm.group_count", 0, least=0, most=1 << 16)
    convolution = keys.integer("ssm.conv_kernel", most=1 << 16) - 1
    return convolution * (inner + 2 * groups * state), state * inner
