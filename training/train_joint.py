"""Stage B: `python -m training.train_joint RUN POOL...` learns to answer. Needs torch.

Starts from RUN/vision.pt and RUN/tokenizer.model, writes RUN/joint.pt. `--second` goes on from
RUN/joint.pt with more questions about number and place.
"""

# Without torch installed, its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, warn-unused-ignores=False

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training import pool as pools
from training import stage_vision
from training.gguf_pair import BOS, EOS
from training.model import Canary, Language, Vision, to_input
from training.muon import Optimiser, schedule
from training.phrasing import Task
from training.pool import VALIDATION, Pool
from training.prompts import ASK, USER
from training.rows import SPATIAL_TASKS, TASKS, Labels, Row, RowWriter, answer
from training.shape import SHAPE
from training.stage_vision import LABELS, Probes
from training.tokenizer import Tokenizer
from training.words import Language as Tongue

log = logging.getLogger(__name__)

SEED = 20_261_123
PICTURES, TEXTS = 48, 10  # rows in a step
PROBES_WEIGHT = 0.3
LOG_EVERY, SAVE_EVERY = 50, 300  # steps


@dataclass
class Learner:
    """Everything that is trained."""

    canary: Canary
    probes: Probes

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        parts = {
            "vision": self.canary.vision.state_dict(),
            "language": self.canary.language.state_dict(),
            "probes": self.probes.state_dict(),
        }
        aside = path.with_suffix(".new")
        torch.save(parts, aside)
        aside.replace(path)

    def load(self, path: Path) -> None:
        """Take the parts that a checkpoint has."""
        parts = torch.load(path, weights_only=True)
        self.canary.vision.load_state_dict(parts["vision"])
        self.probes.load_state_dict(parts["probes"])
        if "language" in parts:
            self.canary.language.load_state_dict(parts["language"])


def loss(canary: Canary, rows: list[Row], pictures: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies of all answer tokens, and for each whether it was right."""
    length = max(len(row.tokens) for row in rows)
    shape = (len(rows), length)
    tokens, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    branches, learned = torch.full(shape, -1), torch.zeros(shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        size = len(row.tokens)
        tokens[number, :size] = torch.tensor(row.tokens)
        positions[number, :size] = torch.tensor(row.positions)
        branches[number, :size] = torch.tensor(row.branches)
        learned[number, :size] = torch.tensor(row.learned)
    mine, other = branches.unsqueeze(2), branches.unsqueeze(1)
    mask = ((mine == other) | (other == 0)).tril().unsqueeze(1)  # padding sees padding: no NaN
    slots = torch.tensor([(n, row.slot) for n, row in enumerate(rows) if row.slot is not None])
    x = canary.embed(tokens, pictures, slots)
    states = canary.language(x, positions, mask)[:, :-1][learned[:, 1:]]
    logits = canary.language.output(states)
    targets = tokens[:, 1:][learned[:, 1:]]
    return functional.cross_entropy(logits, targets, reduction="sum"), logits.argmax(-1) == targets


def step(learner: Learner, pool: Pool, chosen: np.ndarray, writer: RowWriter,
         rng: np.random.Generator) -> tuple[float, float]:  # fmt: skip
    """Gradients of one step; the mean loss of an answer token, and the share that were right."""
    canary = learner.canary
    images, labels = stage_vision.batch(pool, chosen, rng)
    features = canary.vision.tower(images)
    aside = stage_vision.loss(learner.probes(features), labels)
    known = [Labels(*row) for row in torch.stack([labels[name] for name in LABELS], 1).tolist()]
    seen, right = loss(canary, writer.pictures(known), canary.vision.project(features))
    blind, right_blind = loss(canary, writer.texts(TEXTS), None)
    number = len(right) + len(right_blind)
    mean = (seen + blind) / number
    (mean + PROBES_WEIGHT * aside).backward()  # type: ignore[no-untyped-call]
    return mean.item(), (int(right.sum()) + int(right_blind.sum())) / number


@torch.no_grad()
def captions_right(canary: Canary, tokenizer: Tokenizer, pool: Pool, number: int = 200) -> float:
    """Share of validation pictures whose English caption is right, each token given those before."""
    start = len(pool) - VALIDATION
    chosen = np.arange(start, start + number)
    pictures = canary.vision(to_input(torch.from_numpy(pool.pixels[chosen])))
    right = 0
    for picture, index in zip(pictures, chosen, strict=True):
        labels = Labels(*(int(getattr(pool, name)[index]) - (name == "count") for name in LABELS))
        row = Row()
        row.trunk([BOS, *tokenizer.encode(USER)])
        row.picture()
        text = answer(Task.CAPTION, Tongue.EN, labels)
        row.branch(
            [
                (tokenizer.encode("What is in this image?" + ASK), False),
                ([*tokenizer.encode(text), EOS], True),
            ]
        )
        right += bool(loss(canary, [row], picture[None])[1].all())
    return right / number


@dataclass(frozen=True)
class Plan:
    """One round: the length of its schedule, where it stops, its seed, peaks and questions."""

    steps: int
    until: int
    seed: int
    peak_vision: float
    peak_language: float
    tasks: Mapping[Task, float]


FIRST = Plan(1250, 900, SEED, 8e-4, 2e-3, TASKS)
# The second round starts from where the first one stopped, still warm.
SECOND = Plan(740, 740, SEED + 1, 6e-4, 1.5e-3, SPATIAL_TASKS)


def train(learner: Learner, tokenizer: Tokenizer, pool: Pool, plan: Plan, path: Path) -> None:
    """Train in place and write checkpoints."""
    rng, writer = np.random.default_rng(plan.seed), RowWriter(tokenizer, plan.seed, plan.tasks)
    vision = Optimiser(learner.canary.vision, learner.probes)
    language = Optimiser(learner.canary.language)
    order = np.empty(0, np.int64)
    began, losses, hits = time.monotonic(), [], []
    for number in range(plan.until):
        if len(order) < PICTURES:
            order = np.concatenate((order, rng.permutation(len(pool) - VALIDATION)))
        chosen, order = order[:PICTURES], order[PICTURES:]
        value, hit = step(learner, pool, chosen, writer, rng)
        losses.append(value)
        hits.append(hit)
        vision.step(schedule(number, plan.steps, plan.peak_vision))
        language.step(schedule(number, plan.steps, plan.peak_language))
        if number % LOG_EVERY == LOG_EVERY - 1:
            log.info(
                "B %d/%d %.0f s loss %.4f tokens %.4f", number + 1, plan.until,
                time.monotonic() - began, np.mean(losses[-LOG_EVERY:]), np.mean(hits[-LOG_EVERY:]),
            )  # fmt: skip
        if number % SAVE_EVERY == SAVE_EVERY - 1:
            learner.save(path)
            log.info("captions %.3f", captions_right(learner.canary, tokenizer, pool))
    learner.save(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("pool", type=Path, nargs="+")
    parser.add_argument("--second", action="store_true", help="the second round, from RUN/joint.pt")
    parser.add_argument("--steps", type=int, help="instead of the plan's, to try things out")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    plan = SECOND if arguments.second else FIRST
    if arguments.steps:
        plan = replace(plan, steps=arguments.steps, until=arguments.steps)
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    learner = Learner(Canary(Vision(SHAPE), Language(SHAPE)), Probes())
    path = arguments.run / "joint.pt"
    learner.load(path if arguments.second else arguments.run / "vision.pt")
    tokenizer = Tokenizer(arguments.run / "tokenizer.model")
    train(learner, tokenizer, pools.load(*arguments.pool), plan, path)


if __name__ == "__main__":
    main()
