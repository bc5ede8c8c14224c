"""Failures that reach a client, in LocalAI's words and shape (core/schema/openai.go)."""

from __future__ import annotations

import logging
import math
from typing import Any

log = logging.getLogger("localai")


class ApiError(Exception):
    """Anything that is answered with ``{"error": {"code", "message", "type"}}``."""

    def __init__(self, status: int, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """The answer's JSON; LocalAI mostly leaves ``type`` empty."""
        return {"error": {"code": self.status, "message": str(self), "type": self.kind}}


class LoadError(ApiError):
    """A model could not be loaded. Only the first request is told so, see ``CooldownError``."""

    def __init__(self, cause: str) -> None:
        super().__init__(500, f"failed to load model with internal loader: {cause}")


class CooldownError(ApiError):
    """A load was not even tried, because one failed a moment ago."""

    def __init__(self, model: str, remaining_s: float) -> None:
        seconds = max(1, math.ceil(remaining_s))
        super().__init__(
            503,
            f'model "{model}" load is in cooldown after a recent failure; retry after {seconds}s',
        )
        self.headers["Retry-After"] = str(seconds)


def unauthorized() -> ApiError:
    """No key or a wrong one."""
    return ApiError(401, "An authentication key is required", "invalid_request_error")


def model_not_found(name: str) -> ApiError:
    """The name matches nothing that is configured."""
    return ApiError(
        404,
        f'model "{name}" not found. To see available models, call GET /v1/models',
        "invalid_request_error",
    )


def log_error(message: str, *values: object) -> None:
    """One line at level error, as LocalAI logs: the cause and no traceback."""
    log.error(message, *values)
