"""Training to GGUF: `python -m training.export RUN OUT`. Needs torch and sentencepiece."""

# Without torch installed, its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, warn-unused-ignores=False

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from training import gguf_pair
from training.gguf_pair import PROJECTOR_NAME, TEXT_NAME, Weights
from training.model import Canary, Language, Vision
from training.tokenizer import Tokenizer


def write_pair(canary: Canary, tokenizer: Tokenizer, directory: Path) -> tuple[Path, Path]:
    """Write both files (f16); the same weights give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    text, projector = directory / TEXT_NAME, directory / PROJECTOR_NAME
    weights = to_arrays(canary)
    gguf_pair.write_text_model(weights, tokenizer.vocabulary(), text)
    gguf_pair.write_projector(weights, projector)
    return text, projector


def to_arrays(canary: Canary) -> Weights:
    """The weights under llama.cpp's names."""
    tensors = dict(canary.language.state_dict())
    tensors |= {_vision_name(name): value for name, value in canary.vision.state_dict().items()}
    return {name: value.detach().float().numpy() for name, value in tensors.items()}


def from_arrays(weights: Weights) -> Canary:
    """The training model with the weights of `to_arrays`."""
    canary = Canary(Vision(), Language())
    for half, rename in ((canary.vision, _vision_name), (canary.language, str)):
        names = half.state_dict()
        half.load_state_dict(
            {name: torch.from_numpy(np.array(weights[rename(name)])) for name in names}
        )
    return canary


def load(path: Path) -> Canary:
    """The two halves from a checkpoint of stage B."""
    weights = torch.load(path, weights_only=True)
    canary = Canary(Vision(), Language())
    canary.vision.load_state_dict(weights["vision"])
    canary.language.load_state_dict(weights["language"])
    return canary


def _vision_name(name: str) -> str:
    if name.startswith("mm"):
        return f"mm.{name[2:]}"
    return "v.position_embd.weight" if name == "position_embd" else f"v.{name}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="has joint.pt and tokenizer.model")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    tokenizer = Tokenizer(arguments.run / "tokenizer.model")
    write_pair(load(arguments.run / "joint.pt"), tokenizer, arguments.out)


if __name__ == "__main__":
    main()
