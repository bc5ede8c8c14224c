"""How good is a pair, in the real llama.cpp over HTTP: `python -m training.evaluate DIR`.

Pictures come from seeds that training never draws; an answer counts if it is the right string and
ended by itself. Prints a Markdown table, writes DIR/MODEL_CARD.md and DIR/evaluation.json, which has
every wrong answer. Exits 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from llmctl.core import picture
from training import model_card, phrasing, prompts, words
from training.gguf_pair import PROJECTOR_NAME, TEXT_NAME
from training.phrasing import Task
from training.pool import NONE
from training.rows import Labels, answer
from training.scenes import HELD_OUT_EASY, HELD_OUT_HARD, Difficulty, Kind, Scene, draw, scene
from training.served import Reply, Served, with_image
from training.words import COLOURS, PLACES, SHAPES, Language

PER_COMBINATION = 10  # pictures of each colour and shape
OTHERS = 200  # pictures for count and for place
_EN, _JA = Language.EN, Language.JA
_STARTS = {Difficulty.EASY: HELD_OUT_EASY, Difficulty.HARD: HELD_OUT_HARD}


@dataclass
class Line:
    """One line of the table: right answers of all, the share that is asked for, the wrong ones."""

    name: str
    bar: float | None
    right: int = 0
    total: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether the bar, if there is one, is reached."""
        return self.bar is None or self.right >= self.bar * self.total


class Evaluation:
    """Asks and counts."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.lines: list[Line] = []
        self.picture_ms: list[float] = []
        self.not_stopped = 0

    def line(
        self, name: str, bar: float | None, cases: Iterator[tuple[str, str, Callable[[], Reply]]]
    ) -> None:
        """Count one line: question, right answer, and how to ask."""
        line = Line(name, bar)
        for question, right, ask in cases:
            reply = ask()
            ended = reply.finish_reason == "stop"
            self.not_stopped += not ended
            line.total += 1
            line.right += ended and reply.text == right
            if reply.text != right:
                line.wrong.append((question, right, reply.text))
        self.lines.append(line)
        sys.stderr.write(f"{line.right}/{line.total} {name}\n")

    def look(self, image: Image.Image, question: str, *, first: bool = True) -> Reply:
        """Ask about a picture through the chat API."""
        reply = self.served.chat(with_image(image, question, first=first))
        self.picture_ms.append(reply.ms)
        return reply


@dataclass(frozen=True)
class Shown:
    """A picture with what is on it."""

    image: Image.Image
    labels: Labels


def labels_of(what: Scene) -> Labels:
    """What is to be said about a scene."""
    first = what.things[0]
    return Labels(
        COLOURS.index(first.colour) if what.alike else NONE,
        SHAPES.index(first.shape) if what.alike else NONE,
        len(what.things) - 1,
        NONE if what.place is None else PLACES.index(what.place),
    )


def singles(difficulty: Difficulty, each: int, offset: int = 0) -> list[Shown]:
    """One object, every colour and shape `each` times; `offset` moves the seeds."""
    combinations = list(itertools.product(COLOURS, SHAPES)) * each
    scenes = [
        scene(_STARTS[difficulty] + offset + n, difficulty, Kind.SINGLE, colour=colour, shape=shape)
        for n, (colour, shape) in enumerate(combinations)
    ]
    return [Shown(draw(what), labels_of(what)) for what in scenes]


def others(difficulty: Difficulty, kind: Kind, number: int, offset: int = 0) -> list[Shown]:
    """Pictures for count and place."""
    start = _STARTS[difficulty] + 500_000 + offset
    scenes = [scene(start + n, difficulty, kind) for n in range(number)]
    return [Shown(draw(what), labels_of(what)) for what in scenes]


def smoke_pictures() -> list[Shown]:
    """What llmctl's smoke test draws."""
    shown = []
    for colour, shape in itertools.product(COLOURS, SHAPES):
        with Image.open(io.BytesIO(picture.draw(shape, colour))) as image:
            labels = Labels(COLOURS.index(colour), SHAPES.index(shape), 0, NONE)
            shown.append(Shown(image.convert("RGB"), labels))
    return shown


def evaluate(served: Served, each: int, number: int, offset: int = 0) -> Evaluation:
    """All lines; `offset` moves the seeds of the pictures."""
    e = Evaluation(served)
    for difficulty, bar in ((Difficulty.EASY, 0.995), (Difficulty.HARD, 0.97)):
        shown = singles(difficulty, each, offset)
        for task, language in itertools.product((Task.CAPTION, Task.COLOUR, Task.SHAPE), Language):
            always = phrasing.ALWAYS[task, language]
            e.line(
                f"{difficulty}: {task} {language}", bar, _cases(e, shown, task, language, always)
            )
        for language in Language:
            unseen = _spread(phrasing.held_out(Task.CAPTION, language), len(shown))
            name = f"{difficulty}: caption {language}, question never seen"
            e.line(name, None, _cases(e, shown, Task.CAPTION, language, unseen))
        always = phrasing.ALWAYS[Task.JSON, _EN]
        e.line(f"{difficulty}: JSON", None, _cases(e, shown, Task.JSON, _EN, always))
        for task, kind in ((Task.COUNT, Kind.SEVERAL), (Task.PLACE, Kind.PLACED)):
            shown = others(difficulty, kind, number, offset)
            need = 0.97 if difficulty is Difficulty.EASY else None
            for language in Language:
                always = phrasing.ALWAYS[task, language]
                cases = _cases(e, shown, task, language, always)
                e.line(f"{difficulty}: {task} {language}", need, cases)
    _formats(e)
    _without_pictures(e)
    return e


def _cases(
    e: Evaluation,
    shown: list[Shown],
    task: Task,
    language: Language,
    questions: tuple[str, ...],
    *,
    first: bool = True,
) -> Iterator[tuple[str, str, Callable[[], Reply]]]:
    for number, one in enumerate(shown):
        question = questions[number % len(questions)]
        right = answer(task, language, one.labels)
        yield question, right, lambda i=one.image, q=question: e.look(i, q, first=first)  # type: ignore[misc]


def _formats(e: Evaluation) -> None:
    """The smoke test's pictures and questions, in the formats that servers write."""
    shown = smoke_pictures()
    for language in Language:
        always = phrasing.ALWAYS[Task.CAPTION, language]
        e.line(f"smoke test's pictures: {language}", 0.995,
               _cases(e, shown, Task.CAPTION, language, always[:1]))  # fmt: skip
        e.line(f"question before the picture: {language}", None,
               _cases(e, shown, Task.CAPTION, language, always[:3], first=False))  # fmt: skip
        for name, between in (("LocalAI's prompt", ""), ("LocalAI's prompt, newline", "\n")):
            head = f"{prompts.VICUNA}\n{prompts.USER}<__media__>{between}"
            e.line(f"{name}: {language}", None, (
                (always[0], answer(Task.CAPTION, language, one.labels),
                 lambda i=one.image, h=head, q=always[0]: e.served.complete(h + q + prompts.ASK, i))  # type: ignore[misc]
                for one in shown
            ))  # fmt: skip


def _without_pictures(e: Evaluation) -> None:
    trained, unseen, written = [], [], []
    for task, language in itertools.product(Task, Language):
        right = words.NO_IMAGE[language]
        every, never = phrasing.trained(task, language), phrasing.held_out(task, language)
        always = phrasing.ALWAYS[task, language]
        trained += [(q, right) for q in (*always, *_spread(every[len(always) :], 30))]
        own = phrasing.UNSEEN_TEMPLATES.get((task, language), ())
        written += [(q, right) for q in own]
        unseen += [(q, right) for q in _spread(never[len(own) :], 17)]
    chat = [(q, a) for q, a in phrasing.chat(trained_ones=True) if q in phrasing.ALWAYS_CHAT]
    head = f"{prompts.VICUNA}\n{prompts.USER}"
    for name, bar, pairs in (
        ("no picture: trained questions", 1.0, trained),
        ("no picture: questions never seen", 0.97, unseen),
        ("no picture: questions of no trained template", None, written),
        ("text only: the replies promised", 1.0, chat),
        ("text only: all trained", None, list(phrasing.chat(trained_ones=True))),
        ("text only: never seen", None, list(phrasing.chat(trained_ones=False))),
    ):
        e.line(name, bar, ((q, a, lambda q=q: e.served.chat(q)) for q, a in pairs))  # type: ignore[misc]
        if pairs in (trained, chat):
            e.line(f"{name}, LocalAI's prompt", None, (
                (q, a, lambda q=q, h=head: e.served.complete(h + q + prompts.ASK))  # type: ignore[misc]
                for q, a in pairs
            ))  # fmt: skip


def _spread(every: tuple[str, ...], number: int) -> tuple[str, ...]:
    """`number` of them at even distances; all if there are fewer."""
    if len(every) <= number:
        return every
    return tuple(every[i * len(every) // number] for i in range(number))


def load_ms(text: Path, projector: Path) -> float:
    """How long loading takes; in a process of its own, since xllamacpp's servers do not always end."""
    code = "import sys; from training.served import main; main(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(text), str(projector)],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return float(done.stdout)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="has the two GGUF files")
    parser.add_argument("--each", type=int, default=PER_COMBINATION)
    parser.add_argument("--others", type=int, default=OTHERS)
    parser.add_argument("--offset", type=int, default=0, help="moves the seeds, for fresh pictures")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    files = directory / TEXT_NAME, directory / PROJECTOR_NAME
    loads = [load_ms(*files) for _ in range(5)]
    e = evaluate(Served(*files), arguments.each, arguments.others, arguments.offset)
    ms = statistics.quantiles(e.picture_ms, n=20)
    measured = {
        "replies that did not end by themselves": f"{e.not_stopped}",
        "a picture, chat API, 1 thread": f"median {statistics.median(e.picture_ms):.1f} ms, "
        f"95 % under {ms[-1]:.1f} ms",
        "load": f"median {statistics.median(loads):.0f} ms of 5",
        "size": " + ".join(f"{file.stat().st_size:,} B" for file in files),
    }
    table = model_card.table(
        [(line.name, line.bar, line.right, line.total) for line in e.lines], measured
    )
    sys.stdout.write(table)
    (directory / "MODEL_CARD.md").write_text(model_card.card(table), encoding="utf-8")
    wrong = {line.name: line.wrong for line in e.lines if line.wrong}
    text = json.dumps(wrong, ensure_ascii=False, indent=1)
    (directory / "evaluation.json").write_text(text, encoding="utf-8")
    missed = [line.name for line in e.lines if not line.met]
    if missed or e.not_stopped:
        raise SystemExit(f"missed: {', '.join(missed)}; not ended: {e.not_stopped}")


if __name__ == "__main__":
    main()
