"""Stage A from the command line: `python -m training.train_vision OUT POOL...`. Needs torch.

Writes OUT/vision.pt, the tower's and the probes' weights, now and then and at the end.
"""

# Without torch installed, its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, warn-unused-ignores=False

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from training import pool as pools
from training.model import Vision
from training.stage_vision import Probes, train

STEPS = 1800
SEED = 20_261_122


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("pool", type=Path, nargs="+")
    parser.add_argument("--resume", action="store_true", help="start from OUT/vision.pt")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    vision, probes = Vision(), Probes()
    arguments.out.mkdir(parents=True, exist_ok=True)

    if arguments.resume:
        weights = torch.load(arguments.out / "vision.pt", weights_only=True)
        vision.load_state_dict(weights["vision"])
        probes.load_state_dict(weights["probes"])

    def save() -> None:
        weights = {"vision": vision.state_dict(), "probes": probes.state_dict()}
        torch.save(weights, arguments.out / "vision.pt")

    pool = pools.load(*arguments.pool)
    train(vision, probes, pool, arguments.steps, arguments.seed, save)
    save()


if __name__ == "__main__":
    main()
