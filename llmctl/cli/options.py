"""Options that many commands share, and how a command finds its stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli.output import Mode

OutputOption = Annotated[
    Mode,
    typer.Option("--output", "-o", envvar="LLMCTL_OUTPUT", help="human, json, or quiet."),
]
DirectoryOption = Annotated[
    Path,
    typer.Option(
        "--directory",
        "-C",
        envvar="LLMCTL_DIRECTORY",
        help="Directory of the stack.",
        show_default=False,
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", envvar="LLMCTL_FILE", help="Stack file; default llmctl.yaml there."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the stack file for this run."),
]
GpuOption = Annotated[
    str | None,
    typer.Option("--gpu", metavar="KIND", help="auto, none, nvidia, amd, intel or vulkan."),
]
EngineOption = Annotated[
    str | None,
    typer.Option("--engine", metavar="KIND", help="auto, docker, or process (no containers)."),
]
HERE = Path()
