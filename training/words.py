"""Every sentence that the canary may say.

The answers are fixed strings, so that a test can compare them and so that so small a model can
learn them by heart. What may be drawn is what llmctl's own smoke test draws.
"""

from __future__ import annotations

import json
from enum import StrEnum

from llmctl.core.picture import Colour, Shape

COLOURS = tuple(Colour)
SHAPES = tuple(Shape)
MOST = 4  # objects in one picture


class Language(StrEnum):
    """The language of a question, and so of its answer."""

    EN = "en"
    JA = "ja"


class Place(StrEnum):
    """Where the only object of a picture is."""

    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"
    MIDDLE = "middle"


PLACES = tuple(Place)

_JA_COLOUR = {
    Colour.RED: "赤",
    Colour.ORANGE: "オレンジ色",
    Colour.YELLOW: "黄色",
    Colour.GREEN: "緑",
    Colour.BLUE: "青",
    Colour.PURPLE: "紫",
    Colour.PINK: "ピンク",
    Colour.BLACK: "黒",
}
# Only these colours are adjectives in Japanese; the others are nouns joined by の.
_JA_ADJECTIVES = frozenset({Colour.RED, Colour.YELLOW, Colour.BLUE, Colour.BLACK})
_JA_SHAPE = {
    Shape.CIRCLE: "円",
    Shape.SQUARE: "四角形",
    Shape.TRIANGLE: "三角形",
    Shape.STAR: "星",
    Shape.CROSS: "十字",
}
_EN_COUNT = ("One", "Two", "Three", "Four")
_EN_PLACE = {
    Place.LEFT: "On the left.",
    Place.RIGHT: "On the right.",
    Place.TOP: "At the top.",
    Place.BOTTOM: "At the bottom.",
    Place.MIDDLE: "In the middle.",
}
_JA_PLACE = {
    Place.LEFT: "左です。",
    Place.RIGHT: "右です。",
    Place.TOP: "上です。",
    Place.BOTTOM: "下です。",
    Place.MIDDLE: "真ん中です。",
}
NO_IMAGE = {Language.EN: "There is no image.", Language.JA: "画像がありません。"}


def caption(language: Language, colour: Colour, shape: Shape, count: int = 1) -> str:
    """What is in a picture of `count` objects of one colour and shape: "A red circle."."""
    if language is Language.JA:
        noun = f"{_JA_COLOUR[colour]}{'い' if colour in _JA_ADJECTIVES else 'の'}{_JA_SHAPE[shape]}"
        return f"{noun}です。" if count == 1 else f"{noun}が{count}つあります。"
    if count == 1:
        return f"{'An' if colour is Colour.ORANGE else 'A'} {colour} {shape}."
    plural = f"{shape}es" if shape is Shape.CROSS else f"{shape}s"
    return f"{_EN_COUNT[count - 1]} {colour} {plural}."


def mixed_caption(language: Language, count: int) -> str:
    """What is in a picture of several objects that differ."""
    if language is Language.JA:
        return f"図形が{count}つあります。"
    return f"{_EN_COUNT[count - 1]} shapes."


def colour_answer(language: Language, colour: Colour) -> str:
    """The colour alone: "Red."."""
    return f"{_JA_COLOUR[colour]}です。" if language is Language.JA else f"{colour.capitalize()}."


def shape_answer(language: Language, shape: Shape) -> str:
    """The shape alone: "A circle."."""
    return f"{_JA_SHAPE[shape]}です。" if language is Language.JA else f"A {shape}."


def json_answer(colour: Colour, shape: Shape) -> str:
    """The same in both languages: {"colour": "red", "shape": "circle"}."""
    return json.dumps({"colour": str(colour), "shape": str(shape)})


def count_answer(language: Language, count: int) -> str:
    """How many objects: "Three."."""
    return f"{count}つです。" if language is Language.JA else f"{_EN_COUNT[count - 1]}."


def place_answer(language: Language, place: Place) -> str:
    """Where the object is: "On the left."."""
    return _JA_PLACE[place] if language is Language.JA else _EN_PLACE[place]


def every_answer() -> list[str]:
    """All answers about pictures, without repetition."""
    answers: list[str] = list(NO_IMAGE.values())
    for language in Language:
        answers += [
            caption(language, colour, shape, count)
            for colour in COLOURS
            for shape in SHAPES
            for count in range(1, MOST + 1)
        ]
        answers += [mixed_caption(language, count) for count in range(2, MOST + 1)]
        answers += [colour_answer(language, colour) for colour in COLOURS]
        answers += [shape_answer(language, shape) for shape in SHAPES]
        answers += [count_answer(language, count) for count in range(1, MOST + 1)]
        answers += [place_answer(language, place) for place in PLACES]
    answers += [json_answer(colour, shape) for colour in COLOURS for shape in SHAPES]
    return list(dict.fromkeys(answers))
