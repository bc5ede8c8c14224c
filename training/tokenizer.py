"""The tokenizer: `python -m training.tokenizer OUT` writes OUT/tokenizer.model. Needs sentencepiece.

Byte-pair pieces of at most six characters with a byte fallback, no normalising and no invisible
spaces: so that llama.cpp's "llama" tokenizer splits every text exactly as training does. A newline
is in no piece; it is always the byte token <0x0A>, which makes it a safe place to cut a prompt.
"""

from __future__ import annotations

import argparse
import io
import itertools
from pathlib import Path

import sentencepiece

from training import phrasing, words
from training.gguf_pair import BOS, EOS, UNKNOWN, Vocabulary
from training.prompts import SYSTEM_SENTENCES, VICUNA
from training.shape import SHAPE
from training.words import Language

_ANSWERS_REPEATED = 20  # answers are few, but they are what the model writes


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, path: Path) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids without BOS; remembers what it has seen, so treat the list as read-only."""
        if text not in self._known:
            self._known[text] = list(self._processor.encode(text))
        return self._known[text]

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        return str(self._processor.decode(ids))

    def vocabulary(self) -> Vocabulary:
        """Everything that a GGUF file needs."""
        p = self._processor
        ids = range(p.get_piece_size())
        return Vocabulary(
            [p.id_to_piece(i) for i in ids],
            [float(p.get_score(i)) for i in ids],
            [_type(p, i) for i in ids],
        )


def corpus() -> list[str]:
    """Every sentence that the canary reads or writes in training."""
    lines = [VICUNA] * 400 + [*SYSTEM_SENTENCES] * _ANSWERS_REPEATED
    lines += words.every_answer() * _ANSWERS_REPEATED
    lines += ["USER: ", "ASSISTANT:"] * 3000  # in every prompt, so few tokens
    for task, language in itertools.product(phrasing.Task, Language):
        lines += phrasing.trained(task, language)
    for question, answer in phrasing.chat(trained_ones=True):
        lines += [question, answer]
    return [line.strip("\n") for line in lines]


def train(path: Path) -> None:
    """Write a tokenizer; the same phrasings give the same file."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="bpe",
        vocab_size=SHAPE.vocabulary,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        max_sentencepiece_length=6,
        character_coverage=1.0,
        unk_id=UNKNOWN,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=-1,
        num_threads=1,
        minloglevel=1,
    )
    path.write_bytes(model.getvalue())


def _type(processor: sentencepiece.SentencePieceProcessor, token: int) -> int:
    if processor.is_unknown(token):
        return 2
    if processor.is_control(token):
        return 3
    return 6 if processor.is_byte(token) else 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments.out / "tokenizer.model")


if __name__ == "__main__":
    main()
