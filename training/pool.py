"""The training pictures, drawn once: `python -m training.pool DIR [--size N]`.

A pool is two files: `pixels.npy`, uint8 of shape (N, 72, 72, 3), and `labels.npz` with one row per
picture. The last `VALIDATION` pictures are for choosing between runs, never for training.
"""

from __future__ import annotations

import argparse
import io
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from llmctl.core import picture
from training.preprocess import IMAGE_SIZE, Way, fit, shrink
from training.scenes import Difficulty, Kind, Scene, draw, scene
from training.words import COLOURS, PLACES, SHAPES, Place

SIZE = 48_000
VALIDATION = 1_000
PATCH = 12
GRID = IMAGE_SIZE // PATCH
NONE = -1  # a label that a picture does not have
T = TypeVar("T")

_KINDS = ((Kind.SINGLE, 0.52), (Kind.PLACED, 0.2), (Kind.SEVERAL, 0.2), (Kind.MIXED, 0.08))
_WAYS = ((Way.EXACT, 0.68), (Way.CUBIC, 0.13), (Way.LINEAR, 0.1), (Way.STRETCHED, 0.09))
_EASY, _SMOKE = 0.22, 0.03  # shares; smoke: as llmctl's smoke test draws
_GROUNDS: tuple[picture.Rgb, ...] = ((255, 255, 255), (240, 240, 240), (200, 200, 200))


@dataclass(frozen=True)
class Example:
    """One picture and its labels; see `Pool`."""

    pixels: npt.NDArray[np.uint8]
    colour: int
    shape: int
    count: int
    place: int
    patch_colour: npt.NDArray[np.int8]
    patch_shape: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Pool:
    """All pictures with their labels.

    Attributes:
        pixels: uint8, (N, 72, 72, 3), on disk.
        colour: Index of COLOURS, NONE where objects differ. int64, (N,), as the next three.
        shape: Index of SHAPES, NONE where objects differ.
        count: Objects, from 1.
        place: Index of PLACES, NONE where it is not clear.
        patch_colour: 0 for ground, else 1 + the colour of the object there. int8, (N, 36).
        patch_shape: The same for shapes.
    """

    pixels: npt.NDArray[np.uint8]
    colour: npt.NDArray[np.int64]
    shape: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    patch_colour: npt.NDArray[np.int8]
    patch_shape: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.pixels)


def example(seed: int) -> Example:
    """The training picture of a seed."""
    rng = random.Random(f"pool/{seed}")  # noqa: S311 - no secret
    if rng.random() < _SMOKE:
        return _smoke_example(rng)
    difficulty = Difficulty.EASY if rng.random() < _EASY else Difficulty.HARD
    what = scene(seed, difficulty, _pick(rng, _KINDS))
    way = _pick(rng, _WAYS)
    first = what.things[0]
    patch_colour, patch_shape = _patches(what, way)
    return Example(
        pixels=shrink(draw(what), way),
        colour=COLOURS.index(first.colour) if what.alike else NONE,
        shape=SHAPES.index(first.shape) if what.alike else NONE,
        count=len(what.things),
        place=NONE if what.place is None else PLACES.index(what.place),
        patch_colour=patch_colour,
        patch_shape=patch_shape,
    )


def _smoke_example(rng: random.Random) -> Example:
    colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
    png = picture.draw(shape, colour, rng.randint(64, 336), rng.choice(_GROUNDS))
    with Image.open(io.BytesIO(png)) as image:
        pixels = shrink(image.convert("RGB"))
    inner = np.zeros((GRID, GRID), np.int8)
    inner[1:-1, 1:-1] = 1
    return Example(
        pixels,
        COLOURS.index(colour),
        SHAPES.index(shape),
        1,
        PLACES.index(Place.MIDDLE),
        inner.ravel() * np.int8(1 + COLOURS.index(colour)),
        inner.ravel() * np.int8(1 + SHAPES.index(shape)),
    )


def _patches(what: Scene, way: Way) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Which object is at which patch: where the patch's middle lies in the object's square."""
    left, top, width, height = fit(what.width, what.height)
    if way is Way.STRETCHED:
        left, top, width, height = 0, 0, IMAGE_SIZE, IMAGE_SIZE
    middles = (np.arange(GRID) + 0.5) * PATCH
    colours, shapes = np.zeros((GRID, GRID), np.int8), np.zeros((GRID, GRID), np.int8)
    for thing in what.things:
        x = left + thing.x * width / what.width
        y = top + thing.y * height / what.height
        across, down = thing.radius * width / what.width, thing.radius * height / what.height
        covered = np.outer(np.abs(middles - y) <= down, np.abs(middles - x) <= across)
        covered[min(int(y / PATCH), GRID - 1), min(int(x / PATCH), GRID - 1)] = True
        colours[covered] = 1 + COLOURS.index(thing.colour)
        shapes[covered] = 1 + SHAPES.index(thing.shape)
    return colours.ravel(), shapes.ravel()


def build(directory: Path, size: int = SIZE, first: int = 0) -> None:
    """Draw the pool into a directory: `size` pictures from seed `first` on."""
    directory.mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(
        directory / "pixels.npy", "w+", np.uint8, (size, IMAGE_SIZE, IMAGE_SIZE, 3)
    )
    rows: list[Example] = []
    for number in range(size):
        one = example(first + number)
        pixels[number] = one.pixels
        rows.append(one)
    pixels.flush()
    labels: dict[str, Any] = {
        name: np.array([getattr(row, name) for row in rows], np.int64)
        for name in ("colour", "shape", "count", "place")
    }
    for name in ("patch_colour", "patch_shape"):
        labels[name] = np.stack([getattr(row, name) for row in rows])
    np.savez(directory / "labels.npz", **labels)


def load(*directories: Path) -> Pool:
    """The pools of some directories as one; the pixels are read into memory."""
    columns: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    for directory in directories:
        columns["pixels"].append(np.load(directory / "pixels.npy"))
        with np.load(directory / "labels.npz") as labels:
            for name in labels.files:
                columns[name].append(labels[name])
    return Pool(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _pick(rng: random.Random, shares: tuple[tuple[T, float], ...]) -> T:
    return rng.choices([share[0] for share in shares], [share[1] for share in shares])[0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--first", type=int, default=0, help="seed of the first picture")
    arguments = parser.parse_args()
    build(arguments.directory, arguments.size, arguments.first)


if __name__ == "__main__":
    main()
