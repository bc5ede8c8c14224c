"""What a long-running operation tells the outside while it works.

Operations never print. They emit these values to a `Listener`; the CLI draws bars on a terminal and
plain lines elsewhere, tests collect them in a list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step begins, in the words of the plan: "pull image localai/localai:v4.9.0"."""

    text: str


@dataclass(frozen=True)
class Progress:
    """How far a transfer or a wait has come; repeated events share one `task`.

    Attributes:
        task: What is moving, for instance a file name; one bar per task.
        done: Bytes so far (or whole units when `unit` is not "B").
        total: Bytes in all, None when the other side does not say.
        unit: "B" for bytes, "s" for a wait in seconds.
        detail: A few words on the present state.
        finished: True once, when the task has ended well.
    """

    task: str
    done: float
    total: float | None = None
    unit: str = "B"
    detail: str = ""
    finished: bool = False


@dataclass(frozen=True)
class Note:
    """A fact worth a line: something was kept, reused, or is about to surprise the user."""

    text: str
    warning: bool = False


Event = Step | Progress | Note
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """A listener that hears nothing."""
    del event
