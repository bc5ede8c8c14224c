"""Stage A: the vision tower learns to tell colours, shapes, numbers and places. Needs torch.

`Probes` are linear layers on the tower's features that are thrown away in the end: some look at each
patch (which object is here?), some at the mean of all (what is in the picture?). The patch labels
are what gets shapes learnt quickly: every patch of an object has to know what it belongs to.
"""

# Without torch installed, its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, warn-unused-ignores=False

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model import Vision, to_input
from training.muon import Optimiser, schedule
from training.pool import NONE, VALIDATION, Pool
from training.shape import SHAPE
from training.words import COLOURS, MOST, PLACES, SHAPES

log = logging.getLogger(__name__)

BATCH = 96
PEAK = 1.5e-3
SAVE_EVERY = 300  # steps
LABELS = ("colour", "shape", "count", "place")
_SIZES = {"colour": len(COLOURS), "shape": len(SHAPES), "count": MOST, "place": len(PLACES)}
_MIRRORED = [PLACES.index(p) for p in ("right", "left", "top", "bottom", "middle")]  # type: ignore[arg-type]


class Probes(nn.Module):
    """What stage A reads off the features."""

    def __init__(self) -> None:
        super().__init__()
        width = SHAPE.vision_width
        self.whole = nn.ModuleDict({name: nn.Linear(width, _SIZES[name]) for name in LABELS})
        self.patch_colour = nn.Linear(width, 1 + len(COLOURS))
        self.patch_shape = nn.Linear(width, 1 + len(SHAPES))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Logits by label."""
        mean = features.mean(1)
        out = {name: layer(mean) for name, layer in self.whole.items()}
        out["patch_colour"] = self.patch_colour(features).flatten(0, 1)
        out["patch_shape"] = self.patch_shape(features).flatten(0, 1)
        return out


def batch(
    pool: Pool, chosen: np.ndarray, rng: np.random.Generator | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures and labels; with a generator half are mirrored and all shifted by up to 3 pixels."""
    pixels = torch.from_numpy(pool.pixels[chosen])
    labels = {name: torch.from_numpy(getattr(pool, name)[chosen]) for name in LABELS}
    labels["count"] = labels["count"] - 1
    patches = {
        name: torch.from_numpy(getattr(pool, name)[chosen]).view(-1, SHAPE.grid, SHAPE.grid)
        for name in ("patch_colour", "patch_shape")
    }
    images = to_input(pixels)
    if rng is not None:
        half = len(chosen) // 2
        images[:half] = images[:half].flip(-1)
        for name in patches:
            patches[name] = torch.cat((patches[name][:half].flip(-1), patches[name][half:]))
        place = labels["place"][:half]
        mirrored = torch.tensor(_MIRRORED)[place.clamp(min=0)]
        labels["place"][:half] = torch.where(place == NONE, place, mirrored)
        images = _shifted(images, *rng.integers(-3, 4, 2))
    labels |= {name: value.flatten().long() for name, value in patches.items()}
    return images, labels


def _shifted(images: Tensor, across: int, down: int) -> Tensor:
    padded = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    size = images.shape[-1]
    return padded[:, :, 3 + down : 3 + down + size, 3 + across : 3 + across + size].contiguous()


def loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    """Sum of the cross entropies; pictures without a label count nothing."""
    total = torch.zeros(())
    for name, values in logits.items():
        if (labels[name] != NONE).any():
            total = total + functional.cross_entropy(values, labels[name], ignore_index=NONE)
    return total


@torch.no_grad()
def accuracy(vision: Vision, probes: Probes, pool: Pool) -> dict[str, float]:
    """Share of right answers on the validation pictures, by label."""
    right: dict[str, list[bool]] = {name: [] for name in LABELS}
    for chosen in np.array_split(np.arange(len(pool) - VALIDATION, len(pool)), 10):
        images, labels = batch(pool, chosen, None)
        logits = probes(vision.tower(images))
        for name in LABELS:
            known = labels[name] != NONE
            hit = logits[name].argmax(-1)[known] == labels[name][known]
            right[name] += hit.tolist()
    return {name: sum(values) / len(values) for name, values in right.items()}


def train(
    vision: Vision,
    probes: Probes,
    pool: Pool,
    steps: int,
    seed: int,
    save: Callable[[], None] = lambda: None,
) -> None:
    """Train both in place for a number of steps of BATCH pictures; `save` is called now and then."""
    rng = np.random.default_rng(seed)
    optimiser = Optimiser(vision, probes)
    order = np.empty(0, np.int64)
    began = time.monotonic()
    for step in range(steps):
        if len(order) < BATCH:
            order = np.concatenate((order, rng.permutation(len(pool) - VALIDATION)))
        chosen, order = order[:BATCH], order[BATCH:]
        images, labels = batch(pool, chosen, rng)
        value = loss(probes(vision.tower(images)), labels)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step(schedule(step, steps, PEAK))
        if step % 100 == 99 or step == steps - 1:  # noqa: PLR2004
            scores = " ".join(f"{k} {v:.3f}" for k, v in accuracy(vision, probes, pool).items())
            seconds = time.monotonic() - began
            log.info(
                "A %d/%d %.0f s loss %.3f | %s", step + 1, steps, seconds, value.item(), scores
            )
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            save()
