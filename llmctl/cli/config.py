"""`llmctl config`: render, show, schema, templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import (
    HERE,
    DirectoryOption,
    EngineOption,
    FileOption,
    GpuOption,
    OutputOption,
    SetOption,
)
from llmctl.cli.output import Mode, Output, table
from llmctl.cli.stack import load

if TYPE_CHECKING:
    from llmctl.ops.explain import Explanation

app = typer.Typer(
    help="The stack's configuration: render it, show it, explain it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PENDING = 4


@app.command()
def render(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    gpu: GpuOption = None,
    engine: EngineOption = None,
    output: OutputOption = Mode.HUMAN,
    stdout: Annotated[
        bool, typer.Option("--stdout", help="Print the files, write nothing.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print what would change, write nothing; exit 4 if any.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 4 when a file differs; write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files edited by hand; a .bak is kept.")
    ] = False,
) -> None:
    """Write models/NAME.yaml, models/NAME.tmpl and litellm/litellm.yaml from the templates."""
    from llmctl.ops import configure
    from llmctl.ops.choosing import keep
    from llmctl.ops.render import render_stack

    out = Output(output)
    paths, resolved = load(directory, file, sets, gpu, engine)
    with out.listening() as listen:
        found = render_stack(paths, resolved.stack, listen)
        rendered = found.files
        if stdout:
            texts = [f"# {f.path}\n{f.content}" for f in rendered]
            out.data({f.path: f.content for f in rendered}, "\n".join(texts).rstrip("\n"))
            return
        states = configure.compare(paths, rendered)
        differing = [s for s in states if s.state != "same"]
        if diff or check:
            human = (
                "\n".join(s.diff for s in differing)
                if diff
                else "\n".join(f"{s.path}: {_STATES[s.state]}" for s in states)
            )
            out.data(
                [{"path": s.path, "state": s.state, "diff": s.diff} for s in states],
                human,
                "\n".join(s.path for s in differing),
            )
            if differing:
                raise typer.Exit(PENDING)
            return
        written = configure.write(paths, rendered, force=force, listen=listen)
        keep(paths, found.settled, listen)
    out.data(
        [{"path": s.path, "written": s.path in written} for s in states],
        "\n".join(f"{s.path}: {'written' if s.path in written else 'up to date'}" for s in states),
        "\n".join(written),
    )


_STATES = {
    "same": "up to date",
    "new": "not written yet",
    "stale": "must be written anew",
    "edited": "edited by hand",
}


@app.command()
def show(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    gpu: GpuOption = None,
    output: OutputOption = Mode.HUMAN,
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value came from.")
    ] = False,
) -> None:
    """Print every setting in force; flag > environment > file > default."""
    _, resolved = load(directory, file, sets, gpu)
    rows = [(path, _text(v.value), v.origin) for path, v in resolved.values.items()]
    Output(output).data(
        {p: {"value": v.value, "origin": v.origin} for p, v in resolved.values.items()},
        lambda: (
            table(("KEY", "VALUE", "ORIGIN"), rows)
            if origin
            else table(("KEY", "VALUE"), [row[:2] for row in rows])
        ),
        "\n".join(f"{path}={value}" for path, value, _ in rows),
    )


@app.command()
def explain(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="A key as `config show` lists it: gpu_layers, gateway.auth, models.NAME.context.",
        ),
    ],
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    gpu: GpuOption = None,
    engine: EngineOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Say where a value came from, what it takes of the memory, where it goes, and what came of it."""
    from llmctl.ops import explain as ops

    paths, resolved = load(directory, file, sets, gpu, engine)
    found = ops.explain(paths, resolved, key)
    Output(output).data(ops.as_document(found), lambda: _explained(found), _text(found.value))


def _explained(found: Explanation) -> str:
    from llmctl.core.sizes import memory_text

    lines = [f"{found.key} = {_text(found.value)}   ({found.origin})", f"  {found.doc}"]
    if found.decides:
        lines.append(f"  it decides {found.decides}; it is in no rendered file")
    for one in found.effects:
        taken = (one.takes or {}).items()
        takes = ", ".join(f"{name} {memory_text(size)}" for name, size in taken)
        facts = (
            ("value", _text(one.value)),
            ("why", one.reason),
            ("memory", takes and f"the model takes {takes}"),
            (f"at {_text(one.step)}", one.difference),
            ("rendered", one.place and f"{one.place} = {_text(one.rendered)}"),
            ("running", one.effective and f"the engine says {one.effective}"),
        )
        lines += ["", one.model] if one.model else [""]
        lines += [f"  {label:<10} {words}" for label, words in facts if words]
    return "\n".join(lines)


@app.command()
def schema() -> None:
    """Print the JSON Schema of llmctl.yaml, for editors."""
    from llmctl.core.schema import stack_schema

    Output(Mode.JSON).data(stack_schema(), "")


@app.command()
def templates(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    output: OutputOption = Mode.HUMAN,
    name: Annotated[str | None, typer.Argument(help="Print this template.")] = None,
) -> None:
    """List the templates in force, or print one; copy it to templates/ to change it."""
    from llmctl.core.stack import did_you_mean
    from llmctl.errors import ConfigError
    from llmctl.ops.templates import load_templates

    paths, _ = load(directory, file)
    found = load_templates(paths)
    if name is None:
        rows = [(key, origin) for key, (origin, _) in found.items()]
        Output(output).data(dict(rows), lambda: table(("TEMPLATE", "FROM"), rows), "\n".join(found))
        return
    if name not in found:
        raise ConfigError(
            f"no template {name}{did_you_mean(name, found)}", hint="llmctl config templates"
        )
    text = found[name][1].rstrip("\n")
    Output(output).data({"name": name, "origin": found[name][0], "text": text}, text, text)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "on" if value else "off"
        case tuple():
            return ", ".join(map(str, value)) or "-"
        case dict():
            return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return str(value)
