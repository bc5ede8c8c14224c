"""What llmctl needs of a model hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from llmctl.core.artifact import RepoFile, RepoInfo
from llmctl.hub.journal import partial_progress

__all__ = ["Hub", "OnBytes", "partial_progress"]

OnBytes = Callable[[int, int | None], None]
"""Hears the bytes so far and the bytes in all (None when the hub does not say)."""


class Hub(Protocol):
    """A place that repositories of model files are had from."""

    def describe(self, repo: str, revision: str | None) -> RepoInfo:
        """The repository at a branch, tag or commit (None: its main branch).

        Raises:
            HubError: it cannot be had; the message says why, the hint what to do.
        """

    def read(self, repo: str, commit: str, remote: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file at a commit; fewer only where the file ends.

        Raises:
            HubError: as `describe`, or the server cannot send a part of a file.
        """

    def cached(self, repo: str, commit: str, file: RepoFile) -> Path | None:
        """Where the client's own cache on this machine holds this file; no network.

        The size matches where it is known; the content is unchecked.
        """

    def download(
        self, repo: str, commit: str, file: RepoFile, aside: Path, on_bytes: OnBytes
    ) -> str:
        """Put a file whole at `aside` and return its SHA-256 in lower-case hex.

        What an earlier run left at `aside` is continued. On return the file has the announced size
        and SHA-256, is synced, and nothing lies beside it. After an error or a kill what came stays
        for the next run, unless it is worth nothing.

        Raises:
            HubError: as `describe`, or the file cannot be had, or is not what was announced.
            DiskFullError: no room; it says how much is missing.
        """
