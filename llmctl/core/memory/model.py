"""A model as its headers describe it: its dimensions, and its bytes by block."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.ggml import TensorType
from llmctl.core.gguf import GgufHeader, Tensor
from llmctl.core.memory.facts import padded
from llmctl.core.memory.keys import Keys, architecture_of
from llmctl.core.memory.layout import Layout, read_layout
from llmctl.errors import ConfigError

GPU_ALIGNMENT, HOST_ALIGNMENT = 128, 32
QUANTISED_ROW = 512  # CUDA and its kin read whole multiples of it
# What llama.cpp's CPU backend lays out anew for its own kernels, when there is no GPU.
REPACKED = frozenset({"Q4_0", "Q4_K", "Q8_0", "IQ4_NL"})

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_EXPERTS = re.compile(r"ffn_(up|down|gate|gate_up)_(ch)?exps(\.|$)")
# Looked up by token or position: always in RAM (llama.cpp's input layer).
_INPUTS = re.compile(
    r"(token_embd|per_layer_token_embd|position_embd|token_types)\.|token_embd_norm\."
)


@dataclass(frozen=True)
class Weights:
    """A group of tensors.

    Attributes:
        gpu: Bytes in a GPU's buffer, padded as it pads.
        host: Bytes in RAM.
        experts_gpu: Of `gpu`, what can be left in RAM when experts are.
        experts_host: The same in RAM.
        repacked: Bytes of matrices that the CPU backend copies into its own layout.
        sizes: Unpadded bytes by tensor, its name without `blk.N.`.
    """

    gpu: int
    host: int
    experts_gpu: int
    experts_host: int
    repacked: int
    sizes: Mapping[str, int]

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return max(self.sizes.values(), default=0)


@dataclass(frozen=True)
class Model:
    """A language model.

    Attributes:
        layout: Its dimensions.
        blocks: Weights by block.
        inputs: What always lies in RAM.
        head: The output norm and matrix, and whatever else belongs to no block.
        tied: Bytes on a GPU of the embedding, which serves as the output matrix as well; 0 when there
            is one of its own.
        vocabulary: Tokens.
        file_size: Bytes of all its files.
    """

    layout: Layout
    blocks: tuple[Weights, ...]
    inputs: Weights
    head: Weights
    tied: int
    vocabulary: int
    file_size: int

    @classmethod
    def of(cls, headers: Sequence[GgufHeader]) -> Model:
        """The model whose shards have these headers, in order.

        Raises:
            ConfigError: shards are missing, or a key or tensor is missing, of a wrong type or absurd.
        """
        if not headers:
            raise ConfigError("a model needs at least one GGUF file", hint="name its files")
        first = headers[0]
        _check_shards(headers)
        architecture = architecture_of(first)
        if architecture == "clip":
            raise ConfigError(
                "this GGUF is a projector, not a language model",
                hint="give the language model, and the projector beside it",
            )
        layout = read_layout(Keys(first, architecture))
        inputs: list[Tensor] = []
        head: list[Tensor] = []
        blocks: list[list[tuple[str, Tensor]]] = [[] for _ in layout.blocks]
        for tensor in (tensor for header in headers for tensor in header.tensors):
            match = _BLOCK.match(tensor.name)
            if match is None:
                (inputs if _INPUTS.match(tensor.name) else head).append(tensor)
            elif len(match[1]) < 6 and int(match[1]) < len(blocks):  # noqa: PLR2004
                # Blocks beyond the last one predict further tokens; the server does not load them.
                blocks[int(match[1])].append((match[2], tensor))
        for index, block in enumerate(blocks):
            if not block:
                raise _incomplete(f"blk.{index} has no tensors")
        embedding = next((t for t in inputs if t.name == "token_embd.weight"), None)
        output = next((t for t in head if t.name == "output.weight"), None)
        if embedding is None:
            raise _incomplete("the tensor token_embd.weight is missing")
        rows = (output or embedding).shape
        return cls(
            layout=layout,
            blocks=tuple(_weights(block) for block in blocks),
            inputs=_weights((t.name, t) for t in inputs),
            head=_weights((t.name, t) for t in head),
            tied=0 if output else on_gpu(embedding),
            vocabulary=rows[1] if len(rows) > 1 else 0,
            file_size=sum(header.file_size for header in headers),
        )

    @property
    def layers(self) -> int:
        """What can be offloaded: the blocks and the output head."""
        return len(self.blocks) + 1

    @property
    def weight_bytes(self) -> int:
        """All weights, unpadded."""
        groups = (*self.blocks, self.inputs, self.head)
        return sum(sum(group.sizes.values()) for group in groups)

    @property
    def has_experts(self) -> bool:
        """Whether there are experts that could stay in RAM."""
        return any(block.experts_gpu for block in self.blocks)


def on_gpu(tensor: Tensor) -> int:
    """Bytes of a tensor in a GPU's buffer: quantised rows are padded for its kernels."""
    return padded(tensor.nbytes + row_padding(tensor.shape[0], tensor.type), GPU_ALIGNMENT)


def row_padding(elements: int, kind: TensorType) -> int:
    """Bytes a GPU adds behind a quantised tensor whose rows are no multiple of its kernels' step."""
    over = elements % QUANTISED_ROW
    return kind.bytes_of(QUANTISED_ROW - over) if over and kind.quantised else 0


def _weights(tensors: Iterable[tuple[str, Tensor]]) -> Weights:
    gpu = host = experts_gpu = experts_host = repacked = 0
    sizes: dict[str, int] = {}
    for name, tensor in tensors:
        sizes[name] = tensor.nbytes
        a, b = on_gpu(tensor), padded(tensor.nbytes, HOST_ALIGNMENT)
        gpu += a
        host += b
        if _EXPERTS.match(name):
            experts_gpu += a
            experts_host += b
        if len(tensor.shape) > 1 and tensor.type.name in REPACKED and not _INPUTS.match(name):
            repacked += tensor.nbytes
    return Weights(gpu, host, experts_gpu, experts_host, repacked, sizes)


def _check_shards(headers: Sequence[GgufHeader]) -> None:
    count = headers[0].integer("split.count") or 1
    if len(headers) != count:
        raise ConfigError(
            f"this model lies in {count} files, and {len(headers)} of them were given",
            hint="give all files -00001-of-… onwards, in order",
        )


def _incomplete(what: str) -> ConfigError:
    return ConfigError(
        f"this GGUF cannot be planned: {what}",
        hint="the file is damaged or only a part of a model; take another one",
    )
