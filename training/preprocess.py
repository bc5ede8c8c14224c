"""From a picture of any size to the 72 x 72 pixels that the vision tower looks at.

Training must see what llama.cpp computes, and its versions differ, so there are several ways here.
`Way.EXACT` is what tools/mtmd does today for a projector of type "mlp": fit into the square with the
aspect kept, Pillow's antialiased bicubic filter, centred on a border of the colour (122, 116, 104).
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from PIL import Image

IMAGE_SIZE = 72
BORDER = (122, 116, 104)
MEAN = STD = 0.5

Pixels = npt.NDArray[np.uint8]


class Way(IntEnum):
    """How a picture is made small."""

    EXACT = 0
    CUBIC = 1  # four taps whatever the scale: mtmd until 2025
    LINEAR = 2  # two taps: the first llava.cpp
    STRETCHED = 3  # no border: other engines


def fit(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width, height of a picture inside the square."""
    scale = min(IMAGE_SIZE / width, IMAGE_SIZE / height)
    w = min(math.ceil(width * scale), IMAGE_SIZE)
    h = min(math.ceil(height * scale), IMAGE_SIZE)
    return (IMAGE_SIZE - w) // 2, (IMAGE_SIZE - h) // 2, w, h


def shrink(picture: Image.Image, way: Way = Way.EXACT) -> Pixels:
    """An RGB picture as uint8 of shape (72, 72, 3)."""
    square = (IMAGE_SIZE, IMAGE_SIZE)
    if picture.size == square:
        return np.asarray(picture, np.uint8)
    if way is Way.STRETCHED:
        return np.asarray(picture.resize(square, Image.Resampling.BICUBIC), np.uint8)
    left, top, width, height = fit(*picture.size)
    if way is Way.EXACT:
        small = picture.resize((width, height), Image.Resampling.BICUBIC)
    else:
        kind = Image.Resampling.BICUBIC if way is Way.CUBIC else Image.Resampling.BILINEAR
        across, down = picture.width / width, picture.height / height
        # `transform` samples without antialiasing, as those versions did.
        small = picture.transform(
            (width, height), Image.Transform.AFFINE, (across, 0, 0, 0, down, 0), kind
        )
    canvas = Image.new("RGB", square, BORDER)
    canvas.paste(small, (left, top))
    return np.asarray(canvas, np.uint8)
