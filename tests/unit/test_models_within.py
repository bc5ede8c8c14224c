"""Of a repository's quantisations, the best that fits: chosen by headers and the listing's sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.artifact import RepoFile, RepoInfo
from llmctl.core.stack import ModelSpec
from llmctl.errors import ConfigError, UsageError
from llmctl.ops.models.within import best_within
from tests.world.gguf_bytes import language, projector

GIB = 1 << 30
SIZES = {
    "v-F16.gguf": 15 * GIB,
    "v-Q8_0.gguf": 8 * GIB,
    "v-Q6_K.gguf": 6 * GIB,
    "v-Q4_K_M.gguf": 4 * GIB,
    "v-Q2_K-00001-of-00002.gguf": 1 * GIB,
    "v-Q2_K-00002-of-00002.gguf": 1 * GIB,
    "v-Q3_K_S-00001-of-00002.gguf": 1 * GIB,  # its second part is missing
    "mmproj-F16.gguf": 1 * GIB,
}


class Hub:
    """A listing with sizes of its own over headers of tiny files."""

    def __init__(self) -> None:
        self.read_from: set[str] = set()

    def describe(self, repo: str, revision: str | None) -> RepoInfo:
        del revision
        files = tuple(RepoFile(path, size) for path, size in SIZES.items())
        return RepoInfo(repo, "c" * 40, None, gated=False, files=files)

    def read(self, repo: str, commit: str, remote: str, start: int, stop: int) -> bytes:
        del repo, commit
        self.read_from.add(remote)
        content = projector() if "mmproj" in remote else language()
        return content[start:stop]

    def cached(self, *_: object) -> Path | None:
        raise AssertionError

    def download(self, *_: object) -> str:
        raise AssertionError


def spec(source: str = "hf://org/v-GGUF") -> ModelSpec:
    return ModelSpec("v", source, None, None, 4096, 1, None, None, "auto")


@pytest.mark.parametrize(
    ("budget", "best"),
    [
        (24, "v-Q8_0.gguf"),  # F16 would fit, too, and is no better for its size
        (9, "v-Q8_0.gguf"),
        (8, "v-Q6_K.gguf"),
        (5, "v-Q4_K_M.gguf"),
        (3, "v-Q2_K-00001-of-00002.gguf"),
    ],
)
def test_the_best_that_fits(budget: int, best: str) -> None:
    hub = Hub()
    artifact = best_within(spec(), hub, budget * GIB)
    assert artifact.model[0].remote == best
    assert artifact.projector is not None
    assert hub.read_from == {"v-Q4_K_M.gguf", "mmproj-F16.gguf"}  # no other header was needed


def test_a_budget_below_every_one() -> None:
    with pytest.raises(ConfigError, match=r"nothing of it fits 1(\.0)? GiB: the smallest, v-Q2_K"):
        best_within(spec(), Hub(), 1 * GIB)


def test_nothing_to_choose() -> None:
    with pytest.raises(UsageError, match="chooses among a repository's quantisations"):
        best_within(spec("llava"), Hub(), 8 * GIB)
