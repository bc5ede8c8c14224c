"""What the training model says of random weights, for the test that llama.cpp says the same.

    python -m training.parity RUN FIXTURE

Writes FIXTURE, a JSON file of log-probabilities. Needs torch and sentencepiece; the test needs
neither. Write it again whenever the tokenizer, the sizes or the chat template change.
"""

# Without torch installed, its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, warn-unused-ignores=False

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from training import export, prompts
from training.gguf_pair import BOS, random_weights
from training.model import Canary, to_input
from training.parity_cases import CASES, SEED, TOP, Case, green_star
from training.preprocess import shrink
from training.shape import SHAPE
from training.tokenizer import Tokenizer


@torch.no_grad()
def log_probabilities(canary: Canary, tokenizer: Tokenizer, case: Case) -> torch.Tensor:
    """Of every token, to be the first of the answer."""
    tail = case.question + prompts.ASK
    if case.size is None:
        ids = [BOS, *tokenizer.encode(prompts.USER + tail)]
        pictures, slots = None, torch.zeros(0, 2, dtype=torch.long)
    else:
        # Text around a picture is tokenised piece by piece.
        head = [BOS, *tokenizer.encode(prompts.USER)]
        ids = head + [0] * SHAPE.patches + tokenizer.encode(tail)
        pixels = torch.from_numpy(shrink(green_star(*case.size)).copy())
        pictures, slots = canary.vision(to_input(pixels[None])), torch.tensor([[0, len(head)]])
    x = canary.embed(torch.tensor([ids]), pictures, slots)
    positions = torch.arange(len(ids))[None]
    mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()[None, None]
    states = canary.language(x, positions, mask)
    logits: torch.Tensor = canary.language.output(states[0, -1])
    return logits.log_softmax(-1)


def expected(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The fixture: for every case its likeliest TOP tokens and their log-probabilities."""
    canary = export.from_arrays(random_weights(SEED))
    rows = []
    for case in CASES:
        values, tokens = log_probabilities(canary, tokenizer, case).topk(TOP)
        top = {str(t): round(v, 5) for t, v in zip(tokens.tolist(), values.tolist(), strict=True)}
        rows.append({"question": case.question, "size": case.size, "top": top})
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="has tokenizer.model")
    parser.add_argument("fixture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = expected(Tokenizer(arguments.run / "tokenizer.model"))
    arguments.fixture.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
