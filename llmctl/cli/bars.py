"""Progress on a terminal: a rich bar per transfer, a spinner per wait, lines for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from llmctl.core.events import Event, Note, Progress, Step


class _OnlyFor(ProgressColumn):
    """A column drawn for tasks of one unit, so that waits and transfers share one display."""

    def __init__(self, unit: str, column: ProgressColumn) -> None:
        super().__init__()
        self._unit = unit
        self._column = column

    def render(self, task: Task) -> Text:
        if task.fields["unit"] != self._unit:
            return Text()
        rendered = self._column(task)
        return rendered if isinstance(rendered, Text) else Text(str(rendered))


@contextmanager
def terminal_listener() -> Iterator[Callable[[Event], None]]:
    """A listener that draws on stderr while the block runs."""
    console = Console(stderr=True)
    bars = RichProgress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        _OnlyFor("B", DownloadColumn()),
        _OnlyFor("B", TransferSpeedColumn()),
        _OnlyFor("B", TimeRemainingColumn()),
        _OnlyFor("s", TimeElapsedColumn()),
        TextColumn("{task.fields[detail]}", style="dim"),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def listen(event: Event) -> None:
        match event:
            case Step(text):
                console.print(f"[bold cyan]→[/] {escape(text)}", highlight=False)
            case Note(text, warning):
                style = "yellow" if warning else "dim"
                console.print(f"[{style}]{escape(text)}[/]", highlight=False)
            case Progress():
                if event.task not in tasks:
                    tasks[event.task] = bars.add_task(
                        escape(event.task), total=event.total, unit=event.unit, detail=""
                    )
                # A wait has no total of its own; its bar fills when it ends.
                done = max(event.done, 1) if event.finished else event.done
                total = event.total or (done if event.finished else None)
                bars.update(
                    tasks[event.task], completed=done, total=total, detail=escape(event.detail)
                )

    with bars:
        yield listen
