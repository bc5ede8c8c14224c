"""llama.cpp computes what the training model computes.

Random weights, because a trained model is sure of itself and hides differences. What the training
model says of them lies in tests/golden, so that no torch is needed here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training import gguf_pair
from training.parity_cases import CASES, LIMIT, SEED, TOP, green_star
from training.served import Served, with_image

EXPECTED = Path(__file__).parents[1] / "golden" / "canary_parity.json"
CANARY = Path(__file__).parents[2] / "llmctl" / "canary"


def differences(directory: Path, *, feature_layer: bool) -> list[float]:
    """For each case the largest difference of a log-probability; a token that is missing counts 1."""
    text, projector = directory / "text.gguf", directory / "projector.gguf"
    weights = gguf_pair.random_weights(SEED)
    vocabulary = gguf_pair.read_vocabulary(CANARY / gguf_pair.TEXT_NAME)
    gguf_pair.write_text_model(weights, vocabulary, text)
    gguf_pair.write_projector(weights, projector, feature_layer=feature_layer)
    served = Served(text, projector)
    found = []
    for row in expected():
        content = row["question"]
        if row["size"]:
            content = with_image(green_star(*row["size"]), row["question"])
        theirs = served.chat(content, top=TOP + 4).logprobs
        ours = {int(token): value for token, value in row["top"].items()}
        assert len(ours) == TOP
        found.append(
            max(abs(theirs[t] - ours[t]) if t in theirs else 1 for t in ours),
        )
    return found


def expected() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(EXPECTED.read_text("utf-8"))
    return rows


def test_llama_cpp_agrees_with_the_training_model(tmp_path: Path) -> None:
    found = differences(tmp_path, feature_layer=True)
    assert max(found) < LIMIT, found


def test_a_missing_feature_layer_changes_every_answer_about_a_picture(tmp_path: Path) -> None:
    """It fails silently: the file loads, and the last vision block is left out."""
    found = differences(tmp_path, feature_layer=False)
    for case, difference in zip(CASES, found, strict=True):
        assert (difference < LIMIT) == (case.size is None), (case, difference)


def test_the_recipe_still_makes_this_tokenizer_and_these_values(tmp_path: Path) -> None:
    for module in ("torch", "sentencepiece"):
        pytest.importorskip(module, reason="needs the extra `training`; its results are committed")
    from training import parity, tokenizer

    tokenizer.train(tmp_path / "tokenizer.model")
    made = tokenizer.Tokenizer(tmp_path / "tokenizer.model")
    assert made.vocabulary() == gguf_pair.read_vocabulary(CANARY / gguf_pair.TEXT_NAME)
    for ours, row in zip(parity.expected(made), expected(), strict=True):
        assert (ours["question"], list(ours["size"] or ())) == (row["question"], row["size"] or [])
        assert ours["top"] == pytest.approx(row["top"], abs=1e-3)
