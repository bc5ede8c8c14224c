"""Docker's pull stream, layer by layer, as one bar."""

from __future__ import annotations

from typing import Any

from llmctl.core.events import Listener, Progress


class PullProgress:
    """Sums the download of all layers; extraction is told in words.

    The stream is the engine's `POST /images/create`: objects with id, status and progressDetail
    {current, total}, or {error}.
    """

    def __init__(self, image: str, listen: Listener) -> None:
        self._image = image
        self._listen = listen
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}

    def line(self, line: dict[str, Any]) -> None:
        """Take one object of the stream; raises APIError for an error in it."""
        if "error" in line:
            from docker.errors import APIError

            raise APIError(str(line["error"]))
        layer, status = line.get("id", ""), line.get("status", "")
        detail = line.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._total[layer] = int(detail["total"])
            self._done[layer] = int(detail.get("current", 0))
        elif status in {"Download complete", "Pull complete"} and layer in self._total:
            self._done[layer] = self._total[layer]
        else:
            return
        self._listen(
            Progress(
                self._image, sum(self._done.values()), sum(self._total.values()), detail=status
            )
        )

    def finish(self) -> None:
        """The image is here."""
        total = sum(self._total.values())
        self._listen(Progress(self._image, total, total or None, finished=True))
