"""The preview: the decoder against Pillow's, and what is drawn."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from llmctl.core.picture import RGB, Colour, Shape, draw
from llmctl.core.pictureview import MOST_PIXELS, decode_png, preview


def noise(width: int = 31, height: int = 17) -> Image.Image:
    """Smooth enough for every filter of the format to be chosen somewhere, and not flat."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rough = np.random.default_rng(0).integers(0, 9, (height, width, 4))
    levels = np.stack([x * 7, y * 13, x * y, 255 - x], axis=-1) + rough
    return Image.fromarray(np.asarray(levels % 256, dtype=np.uint8), "RGBA")


def png(image: Image.Image, **options: object) -> bytes:
    with io.BytesIO() as file:
        image.save(file, "PNG", **options)
        return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_every_simple_kind_is_decoded(mode: str) -> None:
    image = noise().convert("RGB").convert(mode) if mode == "P" else noise().convert(mode)
    pixels = decode_png(png(image))
    assert pixels is not None
    assert (pixels.width, pixels.height) == image.size
    expected = image.convert("RGBA").convert("RGB") if mode != "RGBA" else image.convert("RGB")
    assert b"".join(pixels.rows) == expected.tobytes()


@pytest.mark.parametrize("kind", range(5))
def test_every_filter(kind: int) -> None:
    """Written by hand, because an encoder chooses for itself; the first row is unfiltered."""
    rows = [bytes([10, 200, 30] * 3), bytes([250, 1, 77, 9, 8, 7, 128, 0, 255])]
    coded = b"\0" + rows[0] + bytes([kind]) + filtered(kind, rows[1], rows[0])
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(coded)),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    with Image.open(io.BytesIO(data)) as image:
        assert image.convert("RGB").tobytes() == b"".join(rows)
    pixels = decode_png(data)
    assert pixels is not None
    assert list(pixels.rows) == rows


def filtered(kind: int, row: bytes, above: bytes) -> bytes:
    coded = []
    for i, value in enumerate(row):
        left, up, corner = (row[i - 3], above[i], above[i - 3]) if i >= 3 else (0, above[i], 0)
        estimate = left + up - corner
        nearest = min((left, up, corner), key=lambda one: abs(estimate - one))
        coded.append(value - (0, left, up, (left + up) // 2, nearest)[kind] & 255)
    return bytes(byte & 255 for byte in coded)


def test_what_is_not_decoded() -> None:
    whole = png(noise().convert("RGB"))
    large = png(Image.new("L", (1, 1)))
    large = large.replace(struct.pack(">II", 1, 1), struct.pack(">II", MOST_PIXELS + 1, 1))
    for data in (
        b"",
        b"GIF89a",
        whole[:40],
        whole[: len(whole) // 2],
        large,
        png(noise().convert("1")),
        png(Image.new("I;16", (4, 4))),
    ):
        assert decode_png(data) is None
        assert preview(data, 40, colours=True) is None


def test_blocks_show_the_colours() -> None:
    text = preview(draw(Shape.SQUARE, Colour.BLUE), 20, colours=True)
    assert text is not None
    lines = text.splitlines()
    assert len(lines) == 10
    assert all(line.count("▀") == 20 and line.endswith("\x1b[0m") for line in lines)
    blue = "38;2;" + ";".join(map(str, RGB[Colour.BLUE]))
    assert blue in lines[5]
    assert blue not in lines[0]
    assert "38;2;255;255;255" in lines[0]


def test_characters_show_the_shape() -> None:
    text = preview(draw(Shape.CIRCLE, Colour.BLACK), 20, colours=False)
    assert text is not None
    assert "\x1b" not in text
    inked = [len(re.sub(r"\s", "", line)) for line in text.split("\n")]
    assert inked[0] == inked[-1] == 0
    assert max(inked) == inked[5] > inked[2] > 0


def test_a_small_picture_is_not_enlarged_and_a_flat_one_keeps_its_shape() -> None:
    text = preview(png(Image.new("RGB", (6, 2))), 40, colours=False)
    assert text == "@@@@@@"
    assert preview(png(Image.new("RGB", (1, 1))), 40, colours=False) == "@"
