"""`llmctl models`: what there is, what is here, and how it gets here."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.inspect import collect_garbage, formats_for, inspect
from llmctl.cli.options import HERE, DirectoryOption, FileOption, OutputOption, SetOption
from llmctl.cli.output import Mode, Output, size_text, table
from llmctl.cli.stack import load
from llmctl.errors import LlmctlError, UsageError

if TYPE_CHECKING:
    from llmctl.core.artifact import Artifact
    from llmctl.core.stack import ModelSpec
    from llmctl.ops.models import Listed, PullResult, Removal, Shown
    from llmctl.ops.models.garbage import Partial
    from llmctl.paths import StackPaths

app = typer.Typer(name="models", help="List, pull, check and remove models.", no_args_is_help=True)
FAILED = 1
app.command("inspect")(inspect)
app.command("gc")(collect_garbage)


@app.command("list")
def list_models(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """List the catalogue, and what is on disk."""
    from llmctl.ops import models
    from llmctl.ops.models import garbage

    paths = _paths(directory, file)
    rows = models.listing(paths)
    unfinished = garbage.partials(paths)
    Output(output).data(
        [dataclasses.asdict(row) for row in rows]
        + [{"name": one.file, "unfinished": True, **dataclasses.asdict(one)} for one in unfinished],
        lambda: _listed_text(rows, unfinished),
        "\n".join(row.name for row in rows),
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Catalogue name, or the name it was pulled under.")],
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Show a model's files, licence and origin."""
    from llmctl.ops import models

    shown = models.show(_paths(directory, file), name)
    value = {
        **_artifact_json(shown.artifact),
        "title": shown.title,
        "pulled": shown.pulled,
        "state": {one.file.path: one.state for one in shown.files},
    }
    Output(output).data(
        value, lambda: _shown_text(shown), "\n".join(f.path for f in shown.artifact.files)
    )


@app.command()
def pull(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|hf://ORGANISATION/REPOSITORY[:QUANT][@REVISION]]",
            help="What to pull; by default every model of the stack.",
            show_default=False,
        ),
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Take exactly what llmctl.lock says, or refuse.")
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Look for newer files, and say what changed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Pull although the headers say that it cannot work.")
    ] = False,
    discard_original: Annotated[
        bool,
        typer.Option(
            "--discard-original",
            help="Delete a projector's original once its repaired copy is here.",
        ),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Of a repository's quantisations take the best that fits so much GPU memory: 8GiB.",
        ),
    ] = None,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Inspect, then download model files; each is verified before it gets its final name."""
    from llmctl.core.sizes import parse_size
    from llmctl.hub import connect_hub
    from llmctl.ops import models

    if frozen and upgrade:
        raise UsageError(
            "--frozen and --upgrade contradict each other", hint="llmctl models pull --frozen"
        )
    out = Output(output)
    paths, resolved = load(directory, file, sets)
    stack = resolved.stack
    specs = stack.models if source is None else (spec_of(paths, stack.models, source),)
    hub = connect_hub()
    options = models.PullOptions(
        formats=lambda: formats_for(paths, stack),
        frozen=frozen,
        upgrade=upgrade,
        force=force,
        keep_original=not discard_original,
        memory=None if memory is None else parse_size(memory, "--memory"),
    )
    with out.listening() as listen:
        results = [models.pull(paths, spec, hub, listen, options) for spec in specs]
    out.data(
        [
            {
                **_artifact_json(result.artifact),
                "downloaded": list(result.downloaded),
                "already": list(result.already),
                "bytes": result.bytes,
                "changes": list(result.changes),
            }
            for result in results
        ],
        lambda: "\n".join(map(_pulled_text, results)),
        "\n".join(f"models/{f.path}" for result in results for f in result.artifact.files),
    )


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A pulled model; by default all.", show_default=False)
    ] = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Hash every file again, also those that did not change since."),
    ] = False,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Compare every file's SHA-256 with llmctl.lock; exit 1 when one differs."""
    from llmctl.ops import models

    out = Output(output)
    paths = _paths(directory, file)
    with out.listening() as listen:
        checks = models.verify(paths, name, listen, deep=deep)
    bad = [check for check in checks if check.verdict != "ok"]

    def human() -> str:
        if not checks:
            return "nothing was pulled yet\nnext: llmctl models pull"
        rows = [(check.verdict, f"models/{check.path}", check.model) for check in checks]
        mend = "\n".join(
            f"next: llmctl models pull {m}" for m in dict.fromkeys(c.model for c in bad)
        )
        return table(("STATE", "FILE", "MODEL"), rows) + (f"\n\n{mend}" if bad else "")

    out.data(
        [dataclasses.asdict(check) for check in checks],
        human,
        "\n".join(f"{check.verdict} models/{check.path}" for check in bad),
    )
    if bad:
        raise typer.Exit(FAILED)


@app.command("rm")
def remove(
    name: Annotated[str, typer.Argument(help="A pulled model.")],
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    output: OutputOption = Mode.HUMAN,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model's files; those that another pulled model uses stay."""
    from llmctl.ops import models

    out = Output(output)
    paths = _paths(directory, file)
    removal = models.plan_removal(paths, name)
    if not yes:
        confirm(
            f"delete {_files(len(removal.delete))} of {name} ({size_text(removal.bytes)})",
            [f"models/{path}  {size_text(size)}" for path, size in removal.delete],
            f"llmctl models rm {name} --yes",
        )
    models.remove(paths, removal)
    out.data(
        {**dataclasses.asdict(removal), "bytes": removal.bytes},
        lambda: _removed_text(removal),
        "\n".join(f"models/{path}" for path, _ in removal.delete),
    )


def _paths(directory: DirectoryOption, file: FileOption) -> StackPaths:
    return load(directory, file)[0]


def spec_of(paths: StackPaths, models: tuple[ModelSpec, ...], source: str) -> ModelSpec:
    """The stack's model of that name or source, else one with the defaults."""
    import os

    from llmctl.core.reference import is_reference, parse_reference
    from llmctl.core.stack import resolve_stack

    for model in models:
        if source in {model.name, model.source}:
            return model
    if is_reference(source):
        parse_reference(source)  # its complaints are better than the stack file's
    flags = {"models": ("models pull", source)}
    name = paths.stack_file.name
    return resolve_stack(None, file=name, environment=os.environ, flags=flags).stack.models[0]


def confirm(what: str, lines: list[str], unasked: str) -> None:
    """Ask on a terminal; elsewhere refuse, naming the command that does not ask."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{what}: not without being asked, and there is no terminal to ask on", hint=unasked
        )
    for line in lines:
        typer.echo(f"  {line}", err=True)
    # Not typer.confirm: it writes a part of the prompt to stdout, which is for data.
    typer.echo(f"{what}? [y/N] ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise LlmctlError("nothing was deleted")


def _listed_text(rows: tuple[Listed, ...], unfinished: tuple[Partial, ...]) -> str:
    text = table(
        ("NAME", "MODEL", "LICENCE", "ON DISK", "REPOSITORY"),
        [(r.name, r.title, r.licence or "?", _on_disk(r), r.repo or "-") for r in rows],
    )
    if not unfinished:
        return text
    partials = [
        (one.file, size_text(one.done), size_text(one.total), one.path) for one in unfinished
    ]
    return (
        f"{text}\n\n{table(('UNFINISHED', 'HERE', 'OF', 'PATH'), partials)}"
        "\n\nnext: llmctl models pull   # goes on   or: llmctl models gc   # deletes them"
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _on_disk(row: Listed) -> str:
    if row.here == 0:
        return "-"
    size = size_text(row.bytes)
    return size if row.here == row.of else f"{size}, {row.here} of {row.of} files"


def _shown_text(shown: Shown) -> str:
    artifact = shown.artifact
    facts = {
        "name": artifact.name,
        "model": shown.title,
        "source": artifact.source if artifact.source != artifact.name else None,
        "repository": artifact.repo,
        "commit": artifact.commit,
        "licence": artifact.licence or "not known here; see the repository's page",
        "template": artifact.template,
    }
    rows = [
        (f"models/{one.file.path}", size_text(one.file.size), one.state, one.file.sha256 or "-")
        for one in shown.files
    ]
    head = "\n".join(f"{key:<11} {value}" for key, value in facts.items() if value)
    next_step = "" if shown.pulled else f"\n\nnext: llmctl models pull {artifact.name}"
    return f"{head}\n\n{table(('FILE', 'SIZE', 'STATE', 'SHA-256'), rows)}{next_step}"


def _pulled_text(result: PullResult) -> str:
    artifact = result.artifact
    done = (
        f"pulled {_files(len(result.downloaded))}, {size_text(result.bytes)}"
        if result.downloaded
        else "already here, verified"
    )
    licence = f", licence {artifact.licence}" if artifact.licence else ""
    lines = [f"{artifact.name}: {done}{licence}"]
    lines += [f"  changed: {change}" for change in result.changes]
    lines += [f"  models/{f.path}  {size_text(f.size)}" for f in artifact.files]
    return "\n".join(lines)


def _removed_text(removal: Removal) -> str:
    lines = [
        f"{removal.name}: {_files(len(removal.delete))} deleted, {size_text(removal.bytes)} free"
    ]
    lines += [f"  models/{path} stays: {owner} uses it" for path, owner in removal.shared]
    lines += [f"  {path} stays: rendered configuration" for path in removal.left]
    return "\n".join(lines)


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return dataclasses.asdict(artifact)
