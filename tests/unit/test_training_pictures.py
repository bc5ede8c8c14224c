"""The canary's pictures and labels."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from PIL import Image

from llmctl.core.picture import RGB, Colour
from training import pool, preprocess
from training.preprocess import BORDER, IMAGE_SIZE, Way, fit, shrink
from training.scenes import (
    CSS,
    HELD_OUT_EASY,
    HELD_OUT_HARD,
    Difficulty,
    Kind,
    Thing,
    draw,
    outline,
    scene,
)
from training.words import COLOURS, PLACES, SHAPES, Place

EVERY = [(difficulty, kind) for difficulty in Difficulty for kind in Kind]
every = pytest.mark.parametrize(("difficulty", "kind"), EVERY)


@every
def test_a_seed_gives_the_same_picture_and_another_one_another(
    difficulty: Difficulty, kind: Kind
) -> None:
    assert scene(7, difficulty, kind) == scene(7, difficulty, kind)
    assert draw(scene(7, difficulty, kind)).tobytes() == draw(scene(7, difficulty, kind)).tobytes()
    assert scene(7, difficulty, kind) != scene(8, difficulty, kind)


@every
def test_objects_lie_inside_and_apart_and_stand_out(difficulty: Difficulty, kind: Kind) -> None:
    for seed in range(200):
        what = scene(seed, difficulty, kind)
        for number, thing in enumerate(what.things):
            assert thing.radius <= thing.x <= what.width - thing.radius
            assert thing.radius <= thing.y <= what.height - thing.radius
            assert math.dist(thing.ink, what.ground) >= 75
            for other in what.things[:number]:
                apart = math.dist((thing.x, thing.y), (other.x, other.y))
                assert apart > thing.radius + other.radius


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_stays_within_its_radius_and_reaches_it(shape: object) -> None:
    for seed in range(50):
        thing = scene(seed, Difficulty.HARD, Kind.SINGLE, shape=shape).things[0]  # type: ignore[arg-type]
        if shape != "circle":
            reaches = [math.dist(corner, (thing.x, thing.y)) for corner in outline(thing)]
            assert max(reaches) == pytest.approx(thing.radius)


def test_a_kind_holds_what_it_says() -> None:
    for seed in range(200):
        assert len(scene(seed, Difficulty.EASY, Kind.SINGLE).things) == 1
        assert scene(seed, Difficulty.EASY, Kind.SINGLE).place is None
        assert scene(seed, Difficulty.EASY, Kind.PLACED).place in PLACES
        assert scene(seed, Difficulty.EASY, Kind.SEVERAL).alike
        mixed = scene(seed, Difficulty.EASY, Kind.MIXED)
        assert 2 <= len(mixed.things) <= 4
        assert not mixed.alike


@pytest.mark.parametrize("difficulty", list(Difficulty))
def test_a_place_is_where_the_object_is(difficulty: Difficulty) -> None:
    seen = set()
    for seed in range(300):
        what = scene(seed, difficulty, Kind.PLACED)
        x, y = what.things[0].x / what.width, what.things[0].y / what.height
        off = max((abs(x - 0.5), "x"), (abs(y - 0.5), "y"))
        found = Place.MIDDLE
        if off[0] > 0.15 and off[1] == "x":
            found = Place.LEFT if x < 0.5 else Place.RIGHT
        elif off[0] > 0.15:
            found = Place.TOP if y < 0.5 else Place.BOTTOM
        assert what.place is found
        seen.add(found)
    assert seen == set(PLACES)


def test_the_seeds_of_training_and_evaluation_do_not_meet() -> None:
    assert pool.SIZE < HELD_OUT_HARD < HELD_OUT_EASY


def test_inks_bear_the_name_of_their_colour() -> None:
    hues = {Colour.RED: 0, Colour.ORANGE: 33, Colour.YELLOW: 56, Colour.GREEN: 120}
    hues |= {Colour.BLUE: 230, Colour.PURPLE: 288, Colour.PINK: 340}
    for colour in COLOURS:
        drawn = [scene(s, Difficulty.HARD, Kind.SINGLE, colour=colour) for s in range(100)]
        for ink in (RGB[colour], *CSS[colour], *(one.things[0].ink for one in drawn)):
            hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in ink))
            if colour is Colour.BLACK:
                assert value <= 0.1
                continue
            away = abs(360 * hue - hues[colour])
            assert min(away, 360 - away) <= 32, (colour, ink)
            assert saturation > 0.2


def test_the_whole_picture_is_fitted_into_the_square_with_a_border() -> None:
    assert fit(336, 336) == (0, 0, 72, 72)
    assert fit(300, 200) == (0, 12, 72, 48)
    assert fit(20, 100) == (28, 0, 15, 72)
    white = Image.new("RGB", (300, 200), "white")
    pixels = shrink(white)
    assert pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert (pixels[12:60] == 255).all()
    assert (pixels[:12] == BORDER).all()
    assert (pixels[60:] == BORDER).all()


@pytest.mark.parametrize("way", list(Way))
def test_every_way_keeps_things_where_they_are(way: Way) -> None:
    image = Image.new("RGB", (288, 288), "white")
    image.paste("red", (0, 144, 144, 288))
    pixels = shrink(image, way).astype(int)
    assert abs(pixels[:34] - 255).max() <= 1
    assert abs(pixels[38:, :34] - (255, 0, 0)).max() <= 1
    assert abs(pixels[38:, 38:] - 255).max() <= 1


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    image = draw(scene(3, Difficulty.HARD, Kind.MIXED)).resize((IMAGE_SIZE, IMAGE_SIZE))
    assert (shrink(image, preprocess.Way.CUBIC) == np.asarray(image)).all()


def test_patches_are_labelled_where_the_object_is() -> None:
    """The colour of most labelled patches is the label's, and of most others it is not."""
    hits = total = 0
    for seed in range(150):
        one = pool.example(seed)
        if one.colour == pool.NONE or one.patch_colour.max() == 0:
            continue
        assert one.patch_colour.shape == one.patch_shape.shape == (36,)
        assert ((one.patch_colour > 0) == (one.patch_shape > 0)).all()
        assert set(one.patch_colour) <= {0, one.colour + 1}
        blocks = one.pixels.reshape(6, 12, 6, 12, 3).swapaxes(1, 2).reshape(36, 144, 3)
        ground = np.median(blocks.reshape(-1, 3), axis=0)
        strength = np.abs(blocks - ground).max(-1).mean(-1)
        hits += int(one.patch_colour[strength.argmax()] > 0)
        total += 1
    assert total > 80
    # The border of an odd aspect can be stronger than a pale object.
    assert hits / total > 0.7


def test_a_pool_is_written_and_read_back(tmp_path: pytest.TempPathFactory) -> None:
    from pathlib import Path

    directory = Path(str(tmp_path)) / "pool"
    pool.build(directory, 12)
    loaded = pool.load(directory)
    assert len(loaded) == 12
    for seed in range(12):
        one = pool.example(seed)
        assert (loaded.pixels[seed] == one.pixels).all()
        assert (loaded.colour[seed], loaded.shape[seed]) == (one.colour, one.shape)
        assert (loaded.count[seed], loaded.place[seed]) == (one.count, one.place)
        assert (loaded.patch_shape[seed] == one.patch_shape).all()


def test_corners_follow_the_slant() -> None:
    from llmctl.core.picture import Shape

    upright = Thing(Shape.TRIANGLE, Colour.RED, (255, 0, 0), 10, 10, 5, 0, 0.4)
    assert outline(upright)[0] == pytest.approx((10, 5))
