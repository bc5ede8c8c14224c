"""Sizes of the network, in one place for the training model and for the GGUF files."""

from __future__ import annotations

from dataclasses import dataclass

from training.preprocess import IMAGE_SIZE


@dataclass(frozen=True)
class Shape:
    """All sizes. `feed_forward != width`: llama.cpp takes equal ones for files of an old converter."""

    patch: int = 12
    vision_width: int = 128
    vision_heads: int = 4
    vision_feed_forward: int = 320
    vision_blocks: int = 3
    projector_width: int = 256
    vocabulary: int = 1024
    width: int = 128
    heads: int = 4
    feed_forward: int = 384
    blocks: int = 4
    context: int = 2048
    epsilon: float = 1e-5
    rope_base: float = 10_000.0

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return IMAGE_SIZE // self.patch

    @property
    def patches(self) -> int:
        """Tokens that a picture takes."""
        return self.grid**2


SHAPE = Shape()
