"""The errors a user can cause or meet, each with what happened and what mends it.

Only these are caught at the top of the CLI. Anything else is a bug of llmctl and shows its
traceback. Exit codes follow the house table: 1 failed, 2 usage, 3 configuration, 4 changes
pending, 5 unhealthy, 130 interrupted.
"""

from __future__ import annotations


class LlmctlError(Exception):
    """Something failed that is not a bug.

    Args:
        message: What happened, where, and why; one or more lines, no trailing full stop needed.
        hint: The command or the line that mends it.
        details: Evidence, such as the last log lines of a container.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, details: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class UsageError(LlmctlError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class ConfigError(LlmctlError):
    """The stack file, a template, a rendered file or the host does not allow what was asked."""

    exit_code = 3


class UnhealthyError(LlmctlError):
    """A service runs but does not answer as it must."""

    exit_code = 5


class OutOfMemoryError(UnhealthyError):
    """A model did not load because memory ran out.

    Attributes:
        model: Its name, None where that cannot be told.
    """

    model: str | None = None


class EngineError(LlmctlError):
    """The container engine refused or failed."""


class EngineUnreachableError(EngineError):
    """No container engine answers."""


class ImageNotFoundError(EngineError):
    """An image does not exist, neither here nor where the engine pulls from."""


class HubError(LlmctlError):
    """The model hub refused or failed."""


class GateError(HubError):
    """A repository's terms have to be accepted, or a token is needed that has accepted them."""

    exit_code = 3


class DiskFullError(LlmctlError):
    """The file system has no room for what has to be written."""
