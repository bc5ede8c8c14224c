"""The network, as llama.cpp computes it. Needs torch.

`Vision` is what tools/mtmd builds for `clip.projector_type` "mlp"; `Language` is its `llama`
architecture. `training.gguf_pair` has the tensors' names; a test holds the two together.
"""

# Without torch installed, its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, warn-unused-ignores=False

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.preprocess import MEAN, STD
from training.shape import SHAPE, Shape


def to_input(pixels: Tensor) -> Tensor:
    """uint8 (B, 72, 72, 3) to normalised float (B, 3, 72, 72)."""
    return ((pixels.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


class VisionBlock(nn.Module):
    """Attention and feed-forward with the norms in front, biases everywhere."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.vision_width
        self.heads = shape.vision_heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn_q, self.attn_k = nn.Linear(width, width), nn.Linear(width, width)
        self.attn_v, self.attn_out = nn.Linear(width, width), nn.Linear(width, width)
        self.ffn_up = nn.Linear(width, shape.vision_feed_forward)
        self.ffn_down = nn.Linear(shape.vision_feed_forward, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, patches, width) to the same."""
        h = self.ln1(x)
        q, k, v = (
            _split(layer(h), self.heads) for layer in (self.attn_q, self.attn_k, self.attn_v)
        )
        x = x + self.attn_out(_join(functional.scaled_dot_product_attention(q, k, v)))
        h = functional.gelu(self.ffn_up(self.ln2(x)), approximate="tanh")
        return x + self.ffn_down(h)


class Vision(nn.Module):
    """The vision tower and the projector."""

    def __init__(self, shape: Shape = SHAPE) -> None:
        super().__init__()
        width = shape.vision_width
        self.patch_embd = nn.Conv2d(3, width, shape.patch, stride=shape.patch)
        self.position_embd = nn.Parameter(_sines(shape.grid, width))
        self.pre_ln, self.post_ln = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blk = nn.ModuleList(VisionBlock(shape) for _ in range(shape.vision_blocks))
        self.mm0 = nn.Linear(width, shape.projector_width)
        self.mm2 = nn.Linear(shape.projector_width, shape.width)

    def tower(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, 3, 72, 72) to features (B, patches, vision_width)."""
        x = self.patch_embd(images).flatten(2).transpose(1, 2) + self.position_embd
        x = self.pre_ln(x)
        for block in self.blk:
            x = block(x)
        out: Tensor = self.post_ln(x)
        return out

    def project(self, features: Tensor) -> Tensor:
        """Features to what the language model takes for embeddings (B, patches, width)."""
        out: Tensor = self.mm2(functional.gelu(self.mm0(features), approximate="tanh"))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Tower and projector."""
        return self.project(self.tower(images))


class LanguageBlock(nn.Module):
    """A llama block: RMSNorm, rotary attention, gated feed-forward; no biases."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attn_norm = nn.RMSNorm(width, eps=shape.epsilon)
        self.ffn_norm = nn.RMSNorm(width, eps=shape.epsilon)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.ffn_gate = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_up = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """(B, T, width) to the same; `turn` is the cosines and sines of `Language.turns`."""
        h = self.attn_norm(x)
        q = _rotate(_split(self.attn_q(h), self.heads), turn)
        k = _rotate(_split(self.attn_k(h), self.heads), turn)
        v = _split(self.attn_v(h), self.heads)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.attn_output(_join(attended))
        h = self.ffn_norm(x)
        gated = functional.silu(self.ffn_gate(h)) * self.ffn_up(h)
        out: Tensor = x + self.ffn_down(gated)
        return out


class Language(nn.Module):
    """The language model."""

    def __init__(self, shape: Shape = SHAPE) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(LanguageBlock(shape) for _ in range(shape.blocks))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.output = nn.Linear(shape.width, shape.vocabulary, bias=False)
        half = shape.width // shape.heads // 2
        speeds = shape.rope_base ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), speeds)
        self.cosines: Tensor
        self.sines: Tensor
        self.register_buffer("cosines", angles.cos().float(), persistent=False)
        self.register_buffer("sines", angles.sin().float(), persistent=False)
        nn.init.normal_(self.token_embd.weight, std=0.5)
        nn.init.normal_(self.output.weight, std=shape.width**-0.5)

    def turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, 1, T, head / 2) for positions (B, T)."""
        return self.cosines[positions].unsqueeze(1), self.sines[positions].unsqueeze(1)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, T, width) to states before `output`.

        Args:
            x: Token or picture embeddings.
            positions: (B, T), counted along each branch.
            mask: (B, 1, T, T), true where the first may look at the second.
        """
        turn = self.turns(positions)
        for block in self.blk:
            x = block(x, turn, mask)
        out: Tensor = self.output_norm(x)
        return out


@dataclass
class Canary:
    """Both halves."""

    vision: Vision
    language: Language

    def embed(self, tokens: Tensor, pictures: Tensor | None, slots: Tensor) -> Tensor:
        """Token embeddings with the projected pictures put into their slots.

        Args:
            tokens: (B, T) ids; whatever stands in a slot is overwritten.
            pictures: (P, patches, width), None without pictures.
            slots: (P, 2): row, and the first position in it.
        """
        x: Tensor = self.language.token_embd(tokens)
        if pictures is None:
            return x
        patches = torch.arange(pictures.shape[1])
        rows = slots[:, :1].expand(-1, len(patches))
        return x.index_put((rows, slots[:, 1:] + patches), pictures)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding on neighbouring pairs: llama.cpp's NORM, so q and k are exported as they are."""
    cosines, sines = turn
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack(
        (even * cosines - odd * sines, even * sines + odd * cosines), dim=-1
    ).flatten(-2)


def _sines(grid: int, width: int) -> Tensor:
    """Two-dimensional positions (patches, width): learning starts knowing who is next to whom."""
    quarter = width // 4
    speeds = 100.0 ** -(torch.arange(quarter) / quarter)
    waves = torch.outer(torch.arange(grid), speeds)
    one = torch.cat((waves.sin(), waves.cos()), 1)
    rows = one.repeat_interleave(grid, 0)
    columns = one.repeat(grid, 1)
    return torch.cat((rows, columns), 1) * 0.5
