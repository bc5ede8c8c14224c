"""What llmctl needs of a model hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from llmctl.core.artifact import RepoInfo

OnBytes = Callable[[int, int | None], None]
"""Hears the bytes so far and the bytes in all (None when the hub does not say)."""


class Hub(Protocol):
    """A place that repositories of model files are had from."""

    def describe(self, repo: str, revision: str | None) -> RepoInfo:
        """The repository at a branch, tag or commit (None: its main branch).

        Raises:
            HubError: it cannot be had; the message says why, the hint what to do.
        """

    def download(
        self, repo: str, commit: str, remote: str, destination: Path, on_bytes: OnBytes
    ) -> None:
        """Put one file of a commit at `destination`, whole or not at all; its content is unchecked.

        Raises:
            HubError: as `describe`, or the file is not in the repository.
            DiskFullError: no room; nothing is left at `destination`.
        """
