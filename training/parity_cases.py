"""What the parity test asks; see `training.parity`."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from llmctl.core import picture
from llmctl.core.picture import Colour, Shape

SEED = 1
TOP = 8
LIMIT = 0.05  # log-probabilities; f16 weights and f16 attention in llama.cpp cost 0.003
SIZES = ((336, 336), (320, 187), (190, 301), (72, 72), (64, 40))
QUESTIONS = ("What is in this picture?", "この画像には何が写っていますか？")


@dataclass(frozen=True)
class Case:
    """A question, with a picture of a size in pixels or without one."""

    question: str
    size: tuple[int, int] | None


CASES = tuple(Case(question, size) for question in QUESTIONS for size in (None, *SIZES))


def green_star(width: int, height: int) -> Image.Image:
    """Cut out of a square picture; the pixels do not depend on Pillow."""
    side = max(width, height)
    png = picture.draw(Shape.STAR, Colour.GREEN, side, (240, 230, 200))
    with Image.open(io.BytesIO(png)) as image:
        left, top = (side - width) // 2, (side - height) // 2
        return image.convert("RGB").crop((left, top, left + width, top + height))
