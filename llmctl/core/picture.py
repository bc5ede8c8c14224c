"""Small test pictures, one coloured shape on a plain ground, and the words that describe them.

Drawn with the standard library, because a picture that is asked about must be fresh and must need
neither a download nor a licence.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from random import Random

Rgb = tuple[int, int, int]
Point = tuple[float, float]
Span = tuple[float, float]
WHITE: Rgb = (255, 255, 255)
# What LLaVA 1.5 looks at; other encoders scale.
SIZE = 336


class Colour(StrEnum):
    """Colours that a person would never confuse, and that stand out from white."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"
    BLACK = "black"


class Shape(StrEnum):
    """Shapes with a common name in every language."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"


RGB: Mapping[Colour, Rgb] = {
    Colour.RED: (224, 0, 0),
    Colour.ORANGE: (255, 140, 0),
    Colour.YELLOW: (250, 220, 0),
    Colour.GREEN: (0, 144, 32),
    Colour.BLUE: (0, 48, 224),
    Colour.PURPLE: (128, 0, 160),
    Colour.PINK: (255, 120, 190),
    Colour.BLACK: (0, 0, 0),
}

# English words match whole, Japanese ones anywhere, since Japanese has no spaces.
COLOUR_WORDS: Mapping[Colour, tuple[str, ...]] = {
    Colour.RED: ("red", "crimson", "scarlet", "赤", "レッド"),
    Colour.ORANGE: ("orange", "オレンジ", "橙", "だいだい"),
    Colour.YELLOW: ("yellow", "golden", "黄", "イエロー"),
    Colour.GREEN: ("green", "緑", "みどり", "グリーン"),
    Colour.BLUE: ("blue", "navy", "青", "ブルー"),
    Colour.PURPLE: ("purple", "violet", "紫", "むらさき", "パープル"),
    Colour.PINK: ("pink", "magenta", "ピンク", "桃色"),
    Colour.BLACK: ("black", "黒", "ブラック"),
}
SHAPE_WORDS: Mapping[Shape, tuple[str, ...]] = {
    Shape.CIRCLE: ("circle", "circular", "round", "disc", "disk", "dot", "円", "丸", "サークル"),
    Shape.SQUARE: ("square", "rectangle", "四角", "正方形", "長方形", "スクエア"),
    Shape.TRIANGLE: ("triangle", "triangular", "三角", "トライアングル"),
    Shape.STAR: ("star", "星", "スター"),
    Shape.CROSS: ("cross", "plus", "十字", "プラス", "クロス"),
}
# For people: what was drawn, in Japanese.
JAPANESE: Mapping[Colour | Shape, str] = {
    Colour.RED: "赤",
    Colour.ORANGE: "オレンジ",
    Colour.YELLOW: "黄色",
    Colour.GREEN: "緑",
    Colour.BLUE: "青",
    Colour.PURPLE: "紫",
    Colour.PINK: "ピンク",
    Colour.BLACK: "黒",
    Shape.CIRCLE: "円",
    Shape.SQUARE: "四角形",
    Shape.TRIANGLE: "三角形",
    Shape.STAR: "星",
    Shape.CROSS: "十字",
}

Thing = TypeVar("Thing", Colour, Shape)


@dataclass(frozen=True)
class Drawing:
    """A picture by what is on it."""

    shape: Shape
    colour: Colour

    @property
    def english(self) -> str:
        """In English: "red circle"."""
        return f"{self.colour} {self.shape}"

    @property
    def japanese(self) -> str:
        """In Japanese: 「赤の円」."""
        return f"{JAPANESE[self.colour]}の{JAPANESE[self.shape]}"

    def data_uri(self, size: int = SIZE) -> str:
        """The picture as the `data:` URI that an OpenAI request carries."""
        return data_uri(draw(self.shape, self.colour, size))


def two_drawings(rng: Random) -> tuple[Drawing, Drawing]:
    """Two pictures with nothing in common, so that no answer fits both."""
    shapes = rng.sample(list(Shape), 2)
    colours = rng.sample(list(Colour), 2)
    return Drawing(shapes[0], colours[0]), Drawing(shapes[1], colours[1])


def colour_named(text: str) -> Colour | None:
    """The colour that an English or Japanese text names first."""
    return _first_named(text, COLOUR_WORDS)


def shape_named(text: str) -> Shape | None:
    """The shape that an English or Japanese text names first."""
    return _first_named(text, SHAPE_WORDS)


def _first_named(text: str, words: Mapping[Thing, Sequence[str]]) -> Thing | None:
    """First, not any: a text that lists everything it knows must not count as an answer."""
    places = {thing: _place(text.casefold(), words[thing]) for thing in words}
    thing = min(places, key=lambda one: places[one])
    return thing if places[thing] < math.inf else None


def _place(text: str, words: Sequence[str]) -> float:
    pattern = "|".join(rf"\b{word}s?\b" if word.isascii() else word for word in words)
    # ASCII: in "redの円" the boundary is where the Latin word ends.
    found = re.search(pattern, text, re.ASCII)
    return found.start() if found else math.inf


def draw(shape: Shape, colour: Colour, size: int = SIZE, ground: Rgb = WHITE) -> bytes:
    """A square PNG with one shape in its middle; the same arguments give the same bytes.

    Args:
        shape: What to draw; it spans about two thirds of the picture.
        colour: Its colour.
        size: Width and height in pixels, at least 16.
        ground: Colour around it.

    Raises:
        ValueError: the size is too small to tell the shapes apart.
    """
    if size < 16:  # noqa: PLR2004 - see Raises
        raise ValueError(f"a picture of {size} pixels shows no shape")
    spans = _circle_spans if shape is Shape.CIRCLE else partial(_polygon_spans, _outline(shape))
    ink, paper = bytes(RGB[colour]), bytes(ground)
    rows = []
    for y in range(size):
        row = bytearray(paper * size)
        # The middle of the pixel decides, on coordinates from -1 to 1.
        for left, right in spans((2 * y + 1) / size - 1):
            first = max(0, math.ceil((left + 1) * size / 2 - 0.5))
            end = min(size, math.ceil((right + 1) * size / 2 - 0.5))
            row[3 * first : 3 * end] = ink * (end - first)
        rows.append(bytes(row))
    return _png(size, size, rows)


def unreadable(size: int = SIZE) -> bytes:
    """A PNG to the eye of whoever looks at its head only; no decoder gets a pixel out of it."""
    return _file(size, size, b"these bytes are no pixels")


def data_uri(png: bytes) -> str:
    """A PNG as a `data:` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


RADIUS = 0.66


def _circle_spans(y: float) -> Iterator[Span]:
    if abs(y) < RADIUS:
        half = math.sqrt(RADIUS**2 - y**2)
        yield (-half, half)


def _polygon_spans(outline: Sequence[Point], y: float) -> Iterator[Span]:
    """The stretches of the row at height `y` that lie inside a polygon."""
    edges = zip(outline, [*outline[1:], outline[0]], strict=True)
    crossings = sorted(
        x1 + (y - y1) / (y2 - y1) * (x2 - x1)
        for (x1, y1), (x2, y2) in edges
        if (y1 <= y) != (y2 <= y)
    )
    return zip(crossings[::2], crossings[1::2], strict=True)


def _outline(shape: Shape) -> list[Point]:
    match shape:
        case Shape.SQUARE:
            s = 0.58
            return [(-s, -s), (s, -s), (s, s), (-s, s)]
        case Shape.TRIANGLE:
            return _around(3, [0.78], middle=0.14)
        case Shape.STAR:
            return _around(10, [0.78, 0.3], middle=0.05)
        case Shape.CROSS:
            a, b = 0.2, 0.68
            corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
            return corners + [(-x, -y) for x, y in corners]
    raise AssertionError(shape)


def _around(points: int, radii: Sequence[float], middle: float) -> list[Point]:
    """Points at equal angles, the first one upwards, at alternating distances."""
    angles = (2 * math.pi * i / points for i in range(points))
    return [
        (radii[i % len(radii)] * math.sin(angle), middle - radii[i % len(radii)] * math.cos(angle))
        for i, angle in enumerate(angles)
    ]


def _png(width: int, height: int, rows: Sequence[bytes]) -> bytes:
    return _file(width, height, zlib.compress(b"".join(b"\0" + row for row in rows), 9))


def _file(width: int, height: int, pixels: bytes) -> bytes:
    """An 8-bit RGB PNG; see the PNG specification, sections 5 and 11."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
