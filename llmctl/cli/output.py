"""The only place that prints: data to stdout, everything else to stderr.

Three modes: `human` (tables, bars on a terminal, plain lines elsewhere), `json` (one document on
stdout, errors as one document too), `quiet` (only what a script would want: names, paths, nothing).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from llmctl.cli.program import spelled
from llmctl.core.events import Event, Note, Progress, Step, silent

if TYPE_CHECKING:
    from llmctl.errors import LlmctlError


class Mode(StrEnum):
    """What `--output` takes."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


class Output:
    """Prints in one mode.

    Attributes:
        mode: human, json or quiet.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode

    def data(self, value: Any, human: Callable[[], str] | str, quiet: str = "") -> None:
        """Print the result of a command: `value` as JSON, `human` text, or the `quiet` text."""
        match self.mode:
            case Mode.JSON:
                print(json.dumps(value, ensure_ascii=False, indent=2))
            case Mode.HUMAN:
                print_text(human if isinstance(human, str) else human())
            case Mode.QUIET:
                print_text(quiet)

    def note(self, text: str) -> None:
        """A line for a person; silent in quiet mode."""
        if self.mode is not Mode.QUIET:
            print(text, file=sys.stderr, flush=True)

    def error(self, error: LlmctlError) -> None:
        """Print an error: what and why, the evidence, and the next command."""
        if self.mode is Mode.JSON:
            document = {
                "error": error.message,
                "hint": error.hint,
                "details": error.details,
                "exit_code": error.exit_code,
            }
            print(json.dumps(document, ensure_ascii=False, indent=2))
            return
        print(f"{colour('error:', '1;31')} {error.message}", file=sys.stderr)
        if error.details:
            for line in error.details.rstrip().splitlines():
                print(f"  | {line}", file=sys.stderr)
        if error.hint:
            first, *rest = spelled(error.hint).splitlines()
            print(f"{colour('next:', '1;36')}  {first}", file=sys.stderr)
            for line in rest:
                print(f"       {line}", file=sys.stderr)

    @contextmanager
    def listening(self) -> Iterator[Callable[[Event], None]]:
        """A listener for the events of one operation: bars on a terminal, else plain lines."""
        if self.mode is Mode.QUIET:
            yield silent
        elif self.mode is Mode.HUMAN and sys.stderr.isatty():
            from llmctl.cli.bars import terminal_listener

            with terminal_listener() as listener:
                yield listener
        else:
            yield PlainLines()


class PlainLines:
    """Events as lines for logs and pipes: a step when it begins, a transfer at each tenth."""

    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Print one event."""
        match event:
            case Step(text):
                self._print(f"-> {text}")
            case Note(text, warning):
                self._print(f"{'warning' if warning else 'note'}: {text}")
            case Progress():
                self._progress(event)

    def _progress(self, event: Progress) -> None:
        if event.finished:
            tenth = 11
        elif event.total:
            tenth = int(10 * event.done / event.total)
        else:
            # Nobody knows the total: a line each 15 s of waiting or each GiB of transfer.
            tenth = int(event.done / (15 if event.unit == "s" else 1 << 30))
        if tenth == self._tenths.get(event.task):
            return
        self._tenths[event.task] = tenth
        self._print(f"   {event.task}: {progress_text(event)}")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def progress_text(event: Progress) -> str:
    """In words: "1.2 GB of 4.1 GB (29 %)", "42 s, loading", "done, 3 s"."""
    if event.unit == "s":
        text = f"{event.done:.0f} s"
    elif event.total:
        share = 100 * event.done / event.total
        text = f"{size_text(event.done)} of {size_text(event.total)} ({share:.0f} %)"
    else:
        text = size_text(event.done)
    if event.finished:
        text = f"done, {text}"
    return f"{text}, {event.detail}" if event.detail else text


def size_text(size: float | None) -> str:
    """A size in bytes in powers of ten, as the hub and disk makers print it; "-" for None."""
    if size is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":  # noqa: PLR2004
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError(size)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by display width (a Japanese character counts two), no borders."""
    widths = [max(width(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell + " " * (w - width(cell)) for cell, w in zip(cells, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([colour(line(head), "1", stream=sys.stdout), *map(line, rows)])


def width(text: str) -> int:
    """Columns a terminal gives to `text`."""
    import unicodedata

    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def colour(text: str, code: str, *, stream: Any = None) -> str:
    """ANSI colour when the stream is a terminal and NO_COLOR is not set."""
    import os

    target = stream or sys.stderr
    if not target.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def print_piece(text: str) -> None:
    """Print a part of a line at once, as `printable`."""
    print(printable(text), end="", flush=True)


def printable(text: str) -> str:
    """A model's words without what would steer a terminal; it can say anything."""
    # The joiner makes one emoji of several.
    kept = "\n\t\N{ZERO WIDTH JOINER}"
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_text(text: str) -> None:
    """Print a block to stdout, nothing for an empty one."""
    if text:
        print(text)
