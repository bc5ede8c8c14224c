"""Rows of tokens for stage B: one picture, several questions about it, all prompt formats.

A row is a trunk (everything up to the picture) and branches that see the trunk and themselves but not
each other, so that the expensive part, the picture, is computed once for several questions.
"""

# ruff: noqa: PLR2004 - the numbers are shares of a random draw

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from training import phrasing, prompts, words
from training.gguf_pair import BOS, EOS
from training.phrasing import Task
from training.pool import NONE
from training.shape import SHAPE
from training.words import COLOURS, PLACES, SHAPES, Language

if TYPE_CHECKING:
    from training.tokenizer import Tokenizer

BRANCHES = 3  # questions about a picture
TEXT_BRANCHES = 5  # questions in a row without one
# How often each task is asked, as far as it applies to the picture.
TASKS = {
    Task.CAPTION: 0.42,
    Task.COLOUR: 0.1,
    Task.SHAPE: 0.16,
    Task.JSON: 0.08,
    Task.COUNT: 0.14,
    Task.PLACE: 0.1,
}
# For a second round: number and place come slowest, and only some pictures can be asked for a place.
SPATIAL_TASKS = {
    Task.CAPTION: 0.28,
    Task.COLOUR: 0.06,
    Task.SHAPE: 0.14,
    Task.JSON: 0.08,
    Task.COUNT: 0.24,
    Task.PLACE: 0.5,
}
_ALWAYS, _CHAT, _TEXT_FIRST = 0.25, 0.04, 0.1
_VICUNA, _TURNS = 0.35, 0.08  # shares of batches, so that the rows of a batch are of one length


@dataclass(frozen=True)
class Labels:
    """What is on a picture, as indices into the tuples of `words`; NONE where it has no such thing."""

    colour: int
    shape: int
    count: int  # objects less one
    place: int


@dataclass
class Row:
    """Tokens with what the network has to know about each of them.

    Attributes:
        tokens: Ids; 0 where the picture goes.
        positions: For the rotary embedding.
        branches: 0 in the trunk, else the branch's number.
        learned: Whether the token is part of an answer.
        slot: Where the picture begins, None without one.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    slot: int | None = None

    def trunk(self, ids: list[int]) -> None:
        """Append to the trunk, before there are branches."""
        self._add(ids, 0, len(self.tokens), learned=False)

    def picture(self) -> None:
        """Append the picture to the trunk."""
        self.slot = len(self.tokens)
        self.trunk([0] * SHAPE.patches)

    def branch(self, parts: list[tuple[list[int], bool]]) -> None:
        """Append a branch: ids, and whether they are learnt."""
        trunk = self.branches.count(0)
        number, offset = max(self.branches) + 1, 0
        for ids, learned in parts:
            self._add(ids, number, trunk + offset, learned=learned)
            offset += len(ids)

    def _add(self, ids: list[int], branch: int, start: int, *, learned: bool) -> None:
        self.tokens += ids
        self.positions += range(start, start + len(ids))
        self.branches += [branch] * len(ids)
        self.learned += [learned] * len(ids)


class RowWriter:
    """Writes rows at random, from a seed."""

    def __init__(
        self, tokenizer: Tokenizer, seed: int, tasks: Mapping[Task, float] = TASKS
    ) -> None:
        self._encode, self._tasks = tokenizer.encode, tasks
        self._rng = random.Random(seed)  # noqa: S311 - no secret

    def pictures(self, labels: list[Labels]) -> list[Row]:
        """A batch of rows of similar length, one for each picture."""
        vicuna, turns = self._rng.random() < _VICUNA, self._rng.random() < _TURNS
        return [self._picture_row(one, vicuna=vicuna, turns=turns) for one in labels]

    def texts(self, number: int) -> list[Row]:
        """A batch of rows without pictures."""
        vicuna = self._rng.random() < _VICUNA
        rows = []
        for _ in range(number):
            row = Row()
            row.trunk([BOS, *self._system(vicuna=vicuna)])
            for _ in range(TEXT_BRANCHES):
                question, answer = self._without_picture()
                row.branch(
                    [
                        (self._user(question) + self._encode(prompts.ASK), False),
                        ([*self._encode(answer), EOS], True),
                    ]
                )
            rows.append(row)
        return rows

    def _picture_row(self, labels: Labels, *, vicuna: bool, turns: bool) -> Row:
        rng, encode, row = self._rng, self._encode, Row()
        row.trunk([BOS, *self._system(vicuna=vicuna)])
        user = "USER:" if rng.random() < 0.05 else prompts.USER
        if rng.random() < _TEXT_FIRST:
            question, answer = self._about(labels)
            between = rng.choice(("", "", "\n"))
            row.trunk(encode(user + question) + encode(between))
            row.picture()
            row.branch([(encode(prompts.ASK), False), ([*encode(answer), EOS], True)])
            return row
        row.trunk(encode(user))
        row.picture()
        gap = encode("\n") if rng.random() < 0.12 else []
        for _ in range(BRANCHES):
            question, answer = self._about(labels)
            parts = [
                (gap + encode(question) + encode(prompts.ASK), False),
                ([*encode(answer), EOS], True),
            ]
            if turns:
                # Earlier answers come back with the template's space, which is nothing to learn.
                parts[0] = (gap + encode(question), False)
                parts[1] = ([*encode(f"{prompts.ASK} {answer}"), EOS], False)
                question, answer = self._about(labels)
                parts.append((encode(f"\n{prompts.USER}{question}{prompts.ASK}"), False))
                parts.append(([*encode(answer), EOS], True))
            row.branch(parts)
        return row

    def _system(self, *, vicuna: bool) -> list[int]:
        if vicuna:
            return self._encode(prompts.VICUNA + self._rng.choice(("\n", "\n", "\n", "\n\n", " ")))
        if self._rng.random() < 0.12:
            return self._encode(self._rng.choice(prompts.SYSTEM_SENTENCES[1:]) + "\n\n")
        return []

    def _user(self, question: str) -> list[int]:
        """Cut before the question, as around a picture, or in one piece: the tokens may differ."""
        choice = self._rng.random()
        if choice < 0.3:
            return self._encode(prompts.USER) + self._encode(question)
        return self._encode(("USER:" if choice < 0.37 else prompts.USER) + question)

    def _without_picture(self) -> tuple[str, str]:
        if self._rng.random() < 0.4:
            return self._chat()
        language = self._rng.choice(list(Language))
        return self._question(self._rng.choice(list(Task)), language), words.NO_IMAGE[language]

    def _chat(self) -> tuple[str, str]:
        pairs = phrasing.chat(trained_ones=True)
        if self._rng.random() < 0.25:
            return self._rng.choice([p for p in pairs if p[0] in phrasing.ALWAYS_CHAT])
        answer = self._rng.choice(list(phrasing.CHAT))
        return self._rng.choice([pair for pair in pairs if pair[1] == answer])

    def _about(self, labels: Labels) -> tuple[str, str]:
        """A question about a picture, with its answer."""
        if self._rng.random() < _CHAT:
            return self._chat()
        known = {task: share for task, share in self._tasks.items() if _applies(task, labels)}
        task = self._rng.choices(list(known), list(known.values()))[0]
        language = self._rng.choice(list(Language))
        if task is Task.CAPTION and language is Language.EN and self._rng.random() < 0.04:
            return "", answer(task, language, labels)
        return self._question(task, language), answer(task, language, labels)

    def _question(self, task: Task, language: Language) -> str:
        every = phrasing.trained(task, language)
        if self._rng.random() < _ALWAYS:
            every = phrasing.ALWAYS[task, language]
        return self._rng.choice(every)


def answer(task: Task, language: Language, labels: Labels) -> str:
    """The right answer about a picture."""
    count = labels.count + 1
    if task is Task.COUNT:
        return words.count_answer(language, count)
    if task is Task.PLACE:
        return words.place_answer(language, PLACES[labels.place])
    if labels.colour == NONE:
        return words.mixed_caption(language, count)
    colour, shape = COLOURS[labels.colour], SHAPES[labels.shape]
    if task is Task.COLOUR:
        return words.colour_answer(language, colour)
    if task is Task.SHAPE:
        return words.shape_answer(language, shape)
    if task is Task.JSON:
        return words.json_answer(colour, shape)
    return words.caption(language, colour, shape, count)


def _applies(task: Task, labels: Labels) -> bool:
    if task is Task.PLACE:
        return labels.place != NONE
    return labels.colour != NONE or task in (Task.CAPTION, Task.COUNT)
