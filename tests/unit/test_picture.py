"""The test pictures, decoded by Pillow, which had no part in writing them."""

from __future__ import annotations

import base64
import io
import itertools
import random

import pytest
from PIL import Image

from llmctl.core.picture import (
    COLOUR_WORDS,
    JAPANESE,
    RGB,
    SHAPE_WORDS,
    Colour,
    Drawing,
    Shape,
    colour_named,
    draw,
    shape_named,
    two_drawings,
    unreadable,
)


def decoded(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
        return image.convert("RGB")


def ink(image: Image.Image) -> set[tuple[int, int]]:
    """The pixels that are not white."""
    width, height = image.size
    return {
        (x, y)
        for x, y in itertools.product(range(width), range(height))
        if image.getpixel((x, y)) != (255, 255, 255)
    }


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("colour", Colour)
def test_two_colours_only_and_the_middle_is_inked(shape: Shape, colour: Colour) -> None:
    image = decoded(draw(shape, colour, 64))
    assert image.size == (64, 64)
    assert {rgb for _, rgb in image.getcolors() or []} == {(255, 255, 255), RGB[colour]}
    assert image.getpixel((32, 32)) == RGB[colour]


# Share of the picture that each shape covers, from its geometry on a 2 x 2 plane.
AREAS = {
    Shape.CIRCLE: 3.1416 * 0.66**2 / 4,
    Shape.SQUARE: (2 * 0.58) ** 2 / 4,
    Shape.TRIANGLE: 3 * 3**0.5 / 4 * 0.78**2 / 4,
    Shape.STAR: 5 * 0.78 * 0.3 * 0.5878 / 4,  # ten triangles of 36 degrees
    Shape.CROSS: (2 * 0.4 * 1.36 - 0.4**2) / 4,
}


@pytest.mark.parametrize("shape", Shape)
def test_a_shape_covers_what_its_geometry_says(shape: Shape) -> None:
    size = 224
    share = len(ink(decoded(draw(shape, Colour.BLUE, size)))) / size**2
    assert share == pytest.approx(AREAS[shape], abs=0.01)


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("size", [16, 97, 336])
def test_a_shape_lies_inside_and_is_symmetric(shape: Shape, size: int) -> None:
    pixels = ink(decoded(draw(shape, Colour.BLACK, size)))
    assert all(0 < x < size - 1 and 0 < y < size - 1 for x, y in pixels)
    mirrored = {(size - 1 - x, y) for x, y in pixels}
    assert len(pixels ^ mirrored) <= 2 * size**0.5  # a pixel's middle on the very edge may differ


@pytest.mark.parametrize("shape", [Shape.TRIANGLE, Shape.STAR])
def test_a_shape_with_a_tip_points_upwards(shape: Shape) -> None:
    pixels = ink(decoded(draw(shape, Colour.RED, 64)))
    top = min(y for _, y in pixels)
    assert {x for x, y in pixels if y == top} <= {31, 32}


def test_shapes_differ() -> None:
    pixels = [ink(decoded(draw(shape, Colour.RED, 64))) for shape in Shape]
    for one, other in itertools.combinations(pixels, 2):
        assert len(one ^ other) > 0.1 * len(one | other)


def test_colours_differ() -> None:
    for one, other in itertools.combinations(RGB.values(), 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) >= 85


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert draw(Shape.STAR, Colour.PINK) == draw(Shape.STAR, Colour.PINK)


def test_another_ground() -> None:
    image = decoded(draw(Shape.CIRCLE, Colour.RED, 32, (10, 20, 30)))
    assert image.getpixel((0, 0)) == (10, 20, 30)


def test_too_small_to_see() -> None:
    with pytest.raises(ValueError, match="15 pixels"):
        draw(Shape.CIRCLE, Colour.RED, 15)


def test_a_data_uri_holds_the_picture() -> None:
    uri = Drawing(Shape.CROSS, Colour.GREEN).data_uri(64)
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(text, validate=True) == draw(Shape.CROSS, Colour.GREEN, 64)


def test_a_picture_is_small_enough_for_every_limit() -> None:
    assert all(len(Drawing(shape, Colour.BLUE).data_uri()) < 4096 for shape in Shape)


def test_an_unreadable_picture_passes_for_one_until_it_is_decoded() -> None:
    with Image.open(io.BytesIO(unreadable())) as image:
        assert (image.format, image.size) == ("PNG", (336, 336))
        with pytest.raises(OSError, match=r".+"):
            image.load()


def test_two_drawings_have_nothing_in_common_and_vary() -> None:
    pairs = [two_drawings(random.Random(seed)) for seed in range(50)]
    assert all(a.shape is not b.shape and a.colour is not b.colour for a, b in pairs)
    assert {a.shape for a, _ in pairs} == set(Shape)
    assert {a.colour for a, _ in pairs} == set(Colour)


@pytest.mark.parametrize(
    ("text", "colour", "shape"),
    [
        ("A red circle.", Colour.RED, Shape.CIRCLE),
        ("The image shows a large BLUE Square on a white background.", Colour.BLUE, Shape.SQUARE),
        ("赤い円です。", Colour.RED, Shape.CIRCLE),
        ("青い丸が描かれています", Colour.BLUE, Shape.CIRCLE),
        ("緑色の正方形", Colour.GREEN, Shape.SQUARE),
        ("黄色い三角形があります。", Colour.YELLOW, Shape.TRIANGLE),
        ("オレンジ色の四角形", Colour.ORANGE, Shape.SQUARE),
        ("紫の星", Colour.PURPLE, Shape.STAR),
        ("黒い十字", Colour.BLACK, Shape.CROSS),
        ('{"colour": "pink", "shape": "triangle"}', Colour.PINK, Shape.TRIANGLE),
        ("redの円", Colour.RED, Shape.CIRCLE),
        ("two orange stars", Colour.ORANGE, Shape.STAR),
        # Inside other words nothing is named.
        ("The scenery is blurred, the squared starlight dotted.", None, None),
        ("I see no picture.", None, None),
        ("画像がありません。", None, None),
        ("", None, None),
        # A list of everything names its first entry, whatever is in the picture.
        ("blue, red, green; star, circle", Colour.BLUE, Shape.STAR),
    ],
)
def test_words_in_an_answer(text: str, colour: Colour | None, shape: Shape | None) -> None:
    assert (colour_named(text), shape_named(text)) == (colour, shape)


@pytest.mark.parametrize("drawing", [Drawing(s, c) for s in Shape for c in Colour])
def test_our_own_descriptions_are_understood(drawing: Drawing) -> None:
    for text in (drawing.english, drawing.japanese):
        assert (colour_named(text), shape_named(text)) == (drawing.colour, drawing.shape)


def test_no_word_names_two_things() -> None:
    words = [*itertools.chain(*COLOUR_WORDS.values()), *itertools.chain(*SHAPE_WORDS.values())]
    assert len(words) == len(set(words))
    assert set(COLOUR_WORDS) | set(SHAPE_WORDS) == set(JAPANESE) == {*Colour, *Shape}
