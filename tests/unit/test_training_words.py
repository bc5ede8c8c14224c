"""What the canary is asked and may answer."""

from __future__ import annotations

import itertools

import pytest

from llmctl.core.picture import Colour, Shape, colour_named, shape_named
from llmctl.ops.smoke import GREETING, QUESTION
from training import phrasing, rows, words
from training.phrasing import Task
from training.pool import NONE
from training.rows import Labels, Row
from training.words import COLOURS, PLACES, SHAPES, Language

BOTH = pytest.mark.parametrize("language", list(Language))
ALL_TASKS = list(itertools.product(Task, Language))


@BOTH
def test_a_caption_names_what_the_smoke_test_looks_for(language: Language) -> None:
    for colour, shape in itertools.product(COLOURS, SHAPES):
        text = words.caption(language, colour, shape)
        assert (colour_named(text), shape_named(text)) == (colour, shape), text
        assert colour_named(words.colour_answer(language, colour)) is colour
        assert shape_named(words.shape_answer(language, shape)) is shape


def test_captions_are_sentences() -> None:
    en, ja = Language.EN, Language.JA
    assert words.caption(en, Colour.ORANGE, Shape.STAR) == "An orange star."
    assert words.caption(en, Colour.RED, Shape.CROSS, 3) == "Three red crosses."
    assert words.caption(ja, Colour.RED, Shape.CIRCLE) == "赤い円です。"
    assert words.caption(ja, Colour.GREEN, Shape.SQUARE, 2) == "緑の四角形が2つあります。"
    assert words.mixed_caption(ja, 4) == "図形が4つあります。"
    assert words.json_answer(Colour.RED, Shape.CIRCLE) == '{"colour": "red", "shape": "circle"}'


def test_no_two_meanings_share_an_answer() -> None:
    for language in Language:
        answers = [words.NO_IMAGE[language]]
        answers += [
            words.caption(language, colour, shape, count)
            for colour in COLOURS
            for shape in SHAPES
            for count in range(1, 5)
        ]
        answers += [words.place_answer(language, place) for place in PLACES]
        assert len(answers) == len(set(answers))
    assert len(words.every_answer()) == len(set(words.every_answer()))


@pytest.mark.parametrize(("task", "language"), ALL_TASKS)
def test_held_out_questions_are_never_trained(task: Task, language: Language) -> None:
    trained, held_out = phrasing.trained(task, language), phrasing.held_out(task, language)
    assert not set(trained) & set(held_out)
    assert set(phrasing.ALWAYS[task, language]) <= set(trained)
    assert len(trained) == len(set(trained)) >= 30
    assert len(held_out) >= 5
    for question in trained + held_out:
        assert not set(question) & set("{|}"), question


def test_a_question_belongs_to_one_task() -> None:
    owners: dict[str, Task] = {}
    for task, language in ALL_TASKS:
        for question in phrasing.trained(task, language) + phrasing.held_out(task, language):
            assert owners.setdefault(question, task) is task, question


def test_chat_is_split_as_well_and_has_one_answer_a_question() -> None:
    trained, held_out = (phrasing.chat(trained_ones=which) for which in (True, False))
    assert not {q for q, _ in trained} & {q for q, _ in held_out}
    assert len(dict(trained)) == len(trained)
    assert {answer for _, answer in trained} == set(phrasing.CHAT)


def test_what_llmctl_asks_is_trained() -> None:
    assert QUESTION["en"] in phrasing.trained(Task.CAPTION, Language.EN)
    assert QUESTION["ja"] in phrasing.trained(Task.CAPTION, Language.JA)
    assert set(GREETING.values()) <= set(dict(phrasing.chat(trained_ones=True)))


def test_templates_expand_to_all_their_sentences() -> None:
    assert phrasing.expand("{a|b} c{d|}") == ["a cd", "a c", "b cd", "b c"]


@pytest.mark.parametrize(
    ("labels", "tasks"),
    [
        (Labels(0, 0, 0, 1), set(Task)),
        (Labels(0, 0, 2, NONE), set(Task) - {Task.PLACE}),
        (Labels(NONE, NONE, 2, NONE), {Task.CAPTION, Task.COUNT}),
    ],
)
def test_only_questions_with_an_answer_are_asked(labels: Labels, tasks: set[Task]) -> None:
    assert {task for task in Task if rows._applies(task, labels)} == tasks
    for task in tasks:
        assert rows.answer(task, Language.EN, labels)


def test_branches_see_the_trunk_but_not_each_other() -> None:
    row = Row()
    row.trunk([1, 5])
    row.picture()
    row.branch([([7, 8], False), ([9, 2], True)])
    row.branch([([6], False), ([4, 2], True)])
    trunk = 2 + 36
    assert row.slot == 2
    assert row.branches == [0] * trunk + [1] * 4 + [2] * 3
    assert row.positions[trunk:] == [
        trunk,
        trunk + 1,
        trunk + 2,
        trunk + 3,
        trunk,
        trunk + 1,
        trunk + 2,
    ]
    assert [t for t, learned in zip(row.tokens, row.learned, strict=True) if learned] == [
        9,
        2,
        4,
        2,
    ]
