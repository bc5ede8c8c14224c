"""The cache that huggingface_hub keeps on this machine.

Its layout (read with 1.33 and 2.4): `models--<organisation>--<name>/blobs/<SHA-256>` for large
files, and `snapshots/<commit>/<path>`, links to the blobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from llmctl.core.artifact import RepoFile

_SHA256 = re.compile(r"[0-9a-f]{64}")


def find(cache: Path, repo: str, commit: str, file: RepoFile) -> Path | None:
    """The file in the cache at `cache`, its content unchecked; None when it is not there whole."""
    for place in _places(cache, repo, commit, file):
        try:
            real = place.resolve(strict=True)
            size = real.stat().st_size
        except (OSError, RuntimeError):  # absent, a dangling link, links in a circle
            continue
        another = (
            file.sha256 is not None
            and _SHA256.fullmatch(real.name) is not None
            and real.name != file.sha256
        )
        if real.is_file() and file.size in {None, size} and not another:
            return real
    return None


def _places(cache: Path, repo: str, commit: str, file: RepoFile) -> Iterator[Path]:
    folder = cache / f"models--{repo.replace('/', '--')}"
    if file.sha256 is not None and _SHA256.fullmatch(file.sha256):
        yield folder / "blobs" / file.sha256
    parts = file.path.split("/")
    if not {"", ".", ".."} & {commit, *parts} and "/" not in commit:
        yield folder.joinpath("snapshots", commit, *parts)
