"""The command tree, and the one place where errors become text and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from llmctl import __version__
from llmctl.cli.output import Mode, Output
from llmctl.errors import LlmctlError

INTERRUPTED = 130


def _version(asked: bool) -> None:
    if asked:
        print(f"llmctl {__version__}")  # noqa: T201
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """From a GPU box and a model name to a vision endpoint you can trust."""
    del version


# Name -> module of llmctl.cli and its function, in the order of the help.
COMMANDS = {
    "up": ("lifecycle", "up"),
    "ask": ("ask", "ask"),
    "demo": ("demo", "demo"),
    "smoke-test": ("smoke", "smoke_test"),
    "status": ("lifecycle", "status"),
    "host": ("host", "host"),
    "fit": ("fit", "fit"),
    "logs": ("lifecycle", "logs"),
    "plan": ("lifecycle", "plan"),
    "down": ("lifecycle", "down"),
    "key": ("lifecycle", "key"),
}
GROUPS = ("models", "config")


def tree(only: str | None = None) -> typer.Typer:
    """The command tree, or the part of it that one command line needs: importing all takes longer.

    Args:
        only: A command or group; None, or a name that there is not, for all of them.
    """
    app = typer.Typer(
        name="llmctl",
        help="From a GPU box and a model name to a vision endpoint you can trust.",
        epilog="First time? `llmctl up` does everything; `llmctl smoke-test` proves it sees pictures.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        # Plain help loads no rich: `llmctl --help` stays as fast as `--version`.
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    wanted = {only} if only in {*COMMANDS, *GROUPS} else {*COMMANDS, *GROUPS}
    for name, (module, function) in COMMANDS.items():
        if name in wanted:
            app.command(name)(getattr(import_module(f"llmctl.cli.{module}"), function))
    for name in GROUPS:
        if name in wanted:
            app.add_typer(import_module(f"llmctl.cli.{name}").app, name=name)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        app = tree(arguments[0] if arguments else None)
        app(args=list(arguments), prog_name="llmctl", standalone_mode=True)
    except LlmctlError as error:
        Output(_mode(arguments)).error(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader (`| head`) has gone; nothing more can be told to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as leaving:
        # Typer turns Ctrl-C inside a command into this exit code, silently.
        if leaving.code == INTERRUPTED:
            print("\ninterrupted; run the same command again to continue", file=sys.stderr)  # noqa: T201
        return leaving.code if isinstance(leaving.code, int) else 1
    return 0


def _mode(arguments: Sequence[str]) -> Mode:
    """The output mode of a command line that failed, wherever its error came up."""
    words = list(arguments)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, inline = word.partition("=")
        if name in {"--output", "-o"}:
            word = inline or following  # noqa: PLW2901
        elif word.startswith("-o") and not word.startswith("--"):
            word = word[2:]  # noqa: PLW2901
        else:
            continue
        return Mode(word) if word in set(Mode) else Mode.HUMAN
    asked = os.environ.get("LLMCTL_OUTPUT", "")
    return Mode(asked) if asked in set(Mode) else Mode.HUMAN
