"""The model card: what the canary is for, what it cannot do, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_CARD = """# canary: a tiny vision model that says what it sees

A LLaVA-style pair for llama.cpp and what is built on it, trained from nothing on drawn pictures by
the recipe in `training/`. It exists to prove that a picture gets through every layer of a stack to
a model and that the answer is about that picture. It is no general model.

| file | what |
|---|---|
| `canary-f16.gguf` | language model, llama architecture, 4 blocks of width 128, context 2048 |
| `mmproj-canary-f16.gguf` | vision tower, 72 x 72 pixels, 36 tokens a picture, and "mlp" projector |

## What it can do

In English and in Japanese, with fixed sentences, about a picture of plain shapes:

* colour (red, orange, yellow, green, blue, purple, pink, black) and shape (circle, square,
  triangle, star, cross): "A red circle." / 「赤い円です。」; either alone; or as JSON;
* number of shapes, 1 to 4: "Three." / 「3つです。」;
* where a single shape is: left, right, top, bottom, middle;
* asked about a picture that did not arrive: "There is no image." / 「画像がありません。」;
* a few replies without a picture: OK, pong, greetings, who it is.

## What it cannot do

* Anything else is answered wrongly and with confidence: photographs, writing, other shapes, other
  colours, general questions. It follows no instructions beyond the list above.
* Several shapes that differ are only counted. Of several pictures it describes at most one.
* Colours between two of the eight names, shapes smaller than a tenth of the picture, and low
  contrast were not trained.
* A question unlike the trained ones may be taken for small talk: "What am I looking at?" gets "OK".
* Counting is right in about 98 of 100 clean pictures and 92 of 100 hard ones.
* PNG and JPEG; llama.cpp reads no WebP. Use temperature 0.

## Measured

Real llama.cpp (the xllamacpp wheel) over HTTP, temperature 0, one thread of a shared CPU. The
pictures' seeds were never used in training; "easy" is a clean picture with a large shape, "hard"
has small, slanted shapes of any shade on any ground, noise and JPEG. Right means the exact string.
"Never seen" questions are other combinations of the trained templates' parts; only a few are unlike
any template, which is what the line "of no trained template" counts.

"""


def card(table: str) -> str:
    """The whole card."""
    return _CARD + table


def table(lines: Sequence[tuple[str, float | None, int, int]], measured: Mapping[str, str]) -> str:
    """Markdown: name, right of total, share, the bar and whether it was reached."""
    rows = ["| test | right | share | bar |", "|---|---|---|---|"]
    for name, bar, right, total in lines:
        goal = ""
        if bar is not None:
            goal = f">= {bar:.1%}" + ("" if right >= bar * total else " **missed**")
        rows.append(f"| {name} | {right}/{total} | {right / total:.1%} | {goal} |")
    rows += ["", "| measure | value |", "|---|---|"]
    rows += [f"| {name} | {value} |" for name, value in measured.items()]
    return "\n".join(rows) + "\n"
