"""Pictures of plain shapes, from a seed: what is on them and the pixels.

Two difficulties. EASY is a demonstration: a large, clean shape in a colour of CSS or of llmctl's
smoke test on white, grey or black. HARD is what the canary is trained on: small objects down to
17 % of the shorter side in radius, slanted, any shade, tinted grounds, noise, JPEG, odd aspects.
"""

# ruff: noqa: PLR2004 - the numbers are shares of a random draw

from __future__ import annotations

import colorsys
import io
import math
import random
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

import numpy as np
from PIL import Image, ImageDraw

from llmctl.core.picture import RGB, Colour, Rgb, Shape
from training.words import COLOURS, MOST, SHAPES, Place

# Training uses seeds from 0 on; these ranges are for evaluation and nothing else.
HELD_OUT_HARD = 1_000_000_000
HELD_OUT_EASY = 2_000_000_000

CSS: dict[Colour, tuple[Rgb, ...]] = {
    Colour.RED: ((255, 0, 0), (220, 20, 60)),
    Colour.ORANGE: ((255, 165, 0), (255, 140, 0)),
    Colour.YELLOW: ((255, 255, 0), (255, 215, 0)),
    Colour.GREEN: ((0, 128, 0), (0, 255, 0)),
    Colour.BLUE: ((0, 0, 255), (30, 80, 255)),
    Colour.PURPLE: ((128, 0, 128), (75, 0, 130)),
    Colour.PINK: ((255, 105, 180), (255, 192, 203)),
    Colour.BLACK: ((0, 0, 0), (20, 20, 20)),
}
# Hue in degrees, saturation, value. The gaps between hues are colours that people disagree about.
_SHADES: dict[Colour, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    Colour.RED: ((-9, 8), (0.78, 1), (0.7, 1)),
    Colour.ORANGE: ((21, 39), (0.8, 1), (0.88, 1)),
    Colour.YELLOW: ((49, 62), (0.7, 1), (0.85, 1)),
    Colour.GREEN: ((90, 150), (0.55, 1), (0.35, 1)),
    Colour.BLUE: ((208, 246), (0.65, 1), (0.5, 1)),
    Colour.PURPLE: ((272, 302), (0.6, 1), (0.4, 0.8)),
    Colour.PINK: ((322, 352), (0.24, 0.62), (0.9, 1)),
    Colour.BLACK: ((0, 360), (0, 1), (0, 0.1)),
}
_LEAST_CONTRAST = 75.0  # distance in RGB between ink and ground; CSS pink on white has 82


class Difficulty(StrEnum):
    """See the module."""

    EASY = "easy"
    HARD = "hard"


class Kind(Enum):
    """What a picture is for."""

    SINGLE = "single"  # one object, anywhere
    PLACED = "placed"  # one object, clearly on one side or in the middle
    SEVERAL = "several"  # one to four objects of one colour and shape
    MIXED = "mixed"  # two to four objects that differ


@dataclass(frozen=True)
class Thing:
    """One object: centre and radius in pixels, slant in degrees, breadth of arms or inner points."""

    shape: Shape
    colour: Colour
    ink: Rgb
    x: float
    y: float
    radius: float
    slant: float
    breadth: float


@dataclass(frozen=True)
class Scene:
    """A picture by what is on it. `place` is None where nobody would ask for it."""

    width: int
    height: int
    ground: Rgb
    things: tuple[Thing, ...]
    place: Place | None
    smooth: bool
    noise: float
    jpeg: int | None
    seed: int

    @property
    def alike(self) -> bool:
        """Whether all objects have one colour and one shape."""
        return len({(thing.colour, thing.shape) for thing in self.things}) == 1


def scene(
    seed: int,
    difficulty: Difficulty,
    kind: Kind,
    *,
    colour: Colour | None = None,
    shape: Shape | None = None,
) -> Scene:
    """The scene of a seed; the same arguments give the same scene.

    Args:
        seed: Any integer; see HELD_OUT_EASY and HELD_OUT_HARD.
        difficulty: How clean it is.
        kind: What it is for.
        colour: The colour of the (first) object, by default drawn.
        shape: Its shape, by default drawn.
    """
    rng = random.Random(f"{seed}/{difficulty}/{kind.value}")  # noqa: S311 - no secret
    colour = colour or rng.choice(COLOURS)
    shape = shape or rng.choice(SHAPES)
    count = 1
    if kind is Kind.SEVERAL:
        count = rng.randint(1, MOST)
    elif kind is Kind.MIXED:
        count = rng.randint(2, MOST)
    looks = [(colour, shape)] * count
    while kind is Kind.MIXED and len(set(looks)) == 1:
        looks = [(colour, shape)]
        looks += [(rng.choice(COLOURS), rng.choice(SHAPES)) for _ in range(count - 1)]
    width, height = _size(rng, difficulty)
    ground, inks = _colours(rng, difficulty, [look[0] for look in looks])
    place = rng.choice(list(Place)) if kind is Kind.PLACED else None
    spots = _spots(rng, difficulty, kind, count, width, height, place)
    slant = 8 if difficulty is Difficulty.EASY else 20
    things = tuple(
        Thing(
            look[1], look[0], ink, x, y, radius, rng.uniform(-slant, slant), rng.uniform(0.3, 0.46)
        )
        for look, ink, (x, y, radius) in zip(looks, inks, spots, strict=True)
    )
    rough = difficulty is Difficulty.HARD
    return Scene(
        width=width,
        height=height,
        ground=ground,
        things=things,
        place=place,
        smooth=rng.random() < 0.6,
        noise=rng.choice((0, 0, 3, 6, 10)) if rough else 0,
        jpeg=rng.randint(35, 95) if rough and rng.random() < 0.5 else None,
        seed=seed,
    )


def draw(what: Scene) -> Image.Image:
    """The picture, RGB."""
    factor = 2 if what.smooth else 1
    image = Image.new("RGB", (what.width * factor, what.height * factor), what.ground)
    pen = ImageDraw.Draw(image)
    for thing in what.things:
        _draw_thing(pen, scaled(thing, factor))
    if what.smooth:
        image = image.resize((what.width, what.height), Image.Resampling.BOX)
    if what.noise:
        image = _noisy(image, what.noise, what.seed)
    if what.jpeg is None:
        return image
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=what.jpeg)
        return Image.open(file).convert("RGB")


def scaled(thing: Thing, factor: float) -> Thing:
    """The same object in a picture that is `factor` times as large."""
    return replace(thing, x=thing.x * factor, y=thing.y * factor, radius=thing.radius * factor)


def _size(rng: random.Random, difficulty: Difficulty) -> tuple[int, int]:
    if difficulty is Difficulty.EASY:
        side = rng.choice((224, 256, 320, 336, 384, 448, 512))
        return (side, side) if rng.random() < 0.7 else (side, round(side * rng.uniform(0.75, 1)))
    side = rng.randint(72, 320)
    aspect = rng.uniform(0.62, 1)
    sides = (side, round(side * aspect))
    return sides if rng.random() < 0.5 else (sides[1], sides[0])


def _colours(
    rng: random.Random, difficulty: Difficulty, colours: list[Colour]
) -> tuple[Rgb, list[Rgb]]:
    """A ground, and for every colour an ink that stands out from it. Equal colours share an ink."""
    while True:
        ground = _ground(rng, difficulty)
        inks = {colour: _ink(rng, difficulty, colour) for colour in dict.fromkeys(colours)}
        if all(math.dist(ground, ink) >= _LEAST_CONTRAST for ink in inks.values()):
            return ground, [inks[colour] for colour in colours]


def _ground(rng: random.Random, difficulty: Difficulty) -> Rgb:
    if difficulty is Difficulty.EASY:
        level = rng.choice((255, 255, 255, 0, 128, 192, 211, 240))
        return (level, level, level)
    if rng.random() < 0.3:
        return (255, 255, 255) if rng.random() < 0.8 else (0, 0, 0)
    # Pale or dim tints: nothing that has a claim to one of the colours.
    saturation = rng.uniform(0, 0.16) if rng.random() < 0.6 else 0
    return _rgb(rng.random(), saturation, rng.uniform(0.1, 1))


def _ink(rng: random.Random, difficulty: Difficulty, colour: Colour) -> Rgb:
    if difficulty is Difficulty.EASY or rng.random() < 0.3:
        return rng.choice((RGB[colour], *CSS[colour]))
    (hue, saturation, value) = (rng.uniform(*span) for span in _SHADES[colour])
    return _rgb(hue / 360 % 1, saturation, value)


def _rgb(hue: float, saturation: float, value: float) -> Rgb:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return (round(red * 255), round(green * 255), round(blue * 255))


def _spots(
    rng: random.Random,
    difficulty: Difficulty,
    kind: Kind,
    count: int,
    width: int,
    height: int,
    place: Place | None,
) -> list[tuple[float, float, float]]:
    """Centre and radius of every object; inside the picture and apart from each other."""
    short = min(width, height)
    easy = difficulty is Difficulty.EASY
    if kind in (Kind.SEVERAL, Kind.MIXED):
        low, high = (0.13, 0.2) if easy else (0.11, 0.2)
    elif kind is Kind.PLACED:
        low, high = (0.14, 0.22) if easy else (0.12, 0.24)
    else:
        low, high = (0.24, 0.4) if easy else (0.17, 0.46)
    while True:
        spots: list[tuple[float, float, float]] = []
        for _ in range(60):
            radius = short * rng.uniform(low, high)
            x, y = _centre(rng, place)
            x, y = x * width, y * height
            if place is None:
                x = radius + (x / width) * (width - 2 * radius)
                y = radius + (y / height) * (height - 2 * radius)
            clear = all(math.dist((x, y), spot[:2]) > 1.12 * (radius + spot[2]) for spot in spots)
            inside = radius <= x <= width - radius and radius <= y <= height - radius
            if clear and inside:
                spots.append((x, y, radius))
            if len(spots) == count:
                return spots


def _centre(rng: random.Random, place: Place | None) -> tuple[float, float]:
    """A centre as a share of width and height."""
    near, middle = rng.uniform(0.14, 0.28), rng.uniform(0.42, 0.58)
    match place:
        case None:
            return rng.random(), rng.random()
        case Place.LEFT:
            return near, middle
        case Place.RIGHT:
            return 1 - near, middle
        case Place.TOP:
            return middle, near
        case Place.BOTTOM:
            return middle, 1 - near
        case Place.MIDDLE:
            return middle, rng.uniform(0.42, 0.58)


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    if thing.shape is Shape.CIRCLE:
        r = thing.radius
        pen.ellipse((thing.x - r, thing.y - r, thing.x + r, thing.y + r), fill=thing.ink)
    else:
        pen.polygon(outline(thing), fill=thing.ink)


def outline(thing: Thing) -> list[tuple[float, float]]:
    """The corners of a shape that is no circle; all lie within its radius."""
    match thing.shape:
        case Shape.SQUARE:
            corners = [(1.0, 45.0 + 90 * i) for i in range(4)]
        case Shape.TRIANGLE:
            corners = [(1.0, 120.0 * i) for i in range(3)]
        case Shape.STAR:
            corners = [(1.0 if i % 2 == 0 else thing.breadth, 36.0 * i) for i in range(10)]
        case Shape.CROSS:
            half = thing.breadth * 0.8
            tip, notch = math.degrees(math.atan(half)), half * math.sqrt(2)
            reach = math.cos(math.radians(tip))  # so that the tips' corners lie on the circle
            corners = []
            for i in range(4):
                corners += [(1.0, 90 * i - tip), (1.0, 90 * i + tip)]
                corners += [(notch * reach, 90 * i + 45)]
        case _:
            raise AssertionError(thing.shape)
    return [
        (
            thing.x + thing.radius * distance * math.sin(math.radians(angle + thing.slant)),
            thing.y - thing.radius * distance * math.cos(math.radians(angle + thing.slant)),
        )
        for distance, angle in corners
    ]


def _noisy(image: Image.Image, sigma: float, seed: int) -> Image.Image:
    """Gaussian noise of `sigma` levels, from the seed."""
    noise = np.random.default_rng(seed).standard_normal(
        (image.height, image.width, 3), dtype=np.float32
    )
    return Image.fromarray(
        np.clip(np.asarray(image, np.float32) + sigma * noise, 0, 255).astype(np.uint8), "RGB"
    )
