"""`llmctl up`, `down`, `plan`, `status`, `logs`, `key`."""

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
from llmctl.cli.program import spelled
from llmctl.cli.stack import load

if TYPE_CHECKING:
    from llmctl.ops.measuring import Measured
    from llmctl.ops.up import UpResult
    from llmctl.paths import StackPaths

ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Go on although the memory plan says that it cannot fit."),
]

PENDING = 4
UNHEALTHY = 5
MINUTE, HOUR, DAY = 60, 3600, 86400


def up(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    gpu: GpuOption = None,
    engine: EngineOption = None,
    output: OutputOption = Mode.HUMAN,
    no_pull: Annotated[
        bool, typer.Option("--no-pull", help="Fail instead of pulling missing model files.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, change nothing.")
    ] = False,
    force: ForceOption = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds each service has to become ready.")
    ] = 900,
) -> None:
    """Pull, render, start and prove: bring the stack to what llmctl.yaml says."""
    from llmctl.core.plan_text import action_text
    from llmctl.hub import connect_hub
    from llmctl.ops import engines
    from llmctl.ops import up as ops

    if dry_run:
        plan(directory, file, sets, gpu, engine, output, force=force)
        return
    out = Output(output)
    paths, resolved = load(directory, file, sets, gpu, engine)
    stack = resolved.stack
    with out.listening() as listen:
        result = ops.up(
            paths,
            stack,
            engines.connect(paths, stack),
            connect_hub(),
            listen,
            pull=not no_pull,
            force=force,
            timeout_s=timeout,
        )
    model = stack.models[0].name
    out.data(
        {
            "endpoint": result.endpoint,
            "model": model,
            "models": [m.name for m in stack.models],
            "needs_key": result.needs_key,
            "gpu": result.survey.gpu.kind,
            "changed": [action_text(action) for action in result.changed.actions],
        },
        lambda: _farewell(result, model, paths),
        result.endpoint,
    )


def _farewell(result: UpResult, model: str, paths: StackPaths) -> str:
    """Endpoint, a curl that works when pasted, and where to go from here."""
    key = '  -H "Authorization: Bearer $(llmctl key)" \\\n' if result.needs_key else ""
    count = len(result.changed.actions)
    done = f"{count} change{'s' * (count != 1)}" if count else "nothing to change"
    here = "" if paths.root.samefile(HERE) else f" -C {paths.root}"
    key = key.replace("llmctl key", f"llmctl key{here}")
    return spelled(
        f"{result.survey.stack.name} is up ({done}), {model} answers\n\n"
        f"endpoint  {result.endpoint}   model  {model}\n\n"
        f"curl -s {result.endpoint}/chat/completions -H 'Content-Type: application/json' \\\n{key}"
        f'  -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Say OK."}}]}}\'\n\n'
        f"next: llmctl smoke-test{here}   # proves that it sees pictures\n"
        f"      llmctl status{here} | logs | down"
    )


def plan(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    gpu: GpuOption = None,
    engine: EngineOption = None,
    output: OutputOption = Mode.HUMAN,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 4 when something would change.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Print what `up` would do, and why."""
    from llmctl.core.plan_text import action_text, plan_text
    from llmctl.hub import connect_hub
    from llmctl.ops import engines
    from llmctl.ops.survey import survey

    out = Output(output)
    paths, resolved = load(directory, file, sets, gpu, engine)
    with out.listening() as listen:
        found = survey(
            paths,
            resolved.stack,
            engines.connect(paths, resolved.stack),
            connect_hub(),
            listen,
            force=force,
        )
    out.data(
        found.plan.to_json(),
        lambda: plan_text(found.plan),
        "\n".join(action_text(action) for action in found.plan.actions),
    )
    if exit_code and found.plan.actions:
        raise typer.Exit(PENDING)


def down(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
    volumes: Annotated[
        bool,
        typer.Option("--volumes", "-v", help="Remove the stack's volumes too (backends, data)."),
    ] = False,
) -> None:
    """Stop and remove the stack's containers and network; models and configuration stay."""
    from llmctl.core.plan_text import action_text
    from llmctl.ops import engines
    from llmctl.ops import up as ops

    out = Output(output)
    paths, resolved = load(directory, file, sets)
    stack = resolved.stack
    with out.listening() as listen:
        done = ops.down(paths, stack.name, engines.connect(paths, stack), listen, volumes=volumes)
    words = [action_text(action) for action in done.actions]
    human = f"{stack.name} is down" if words else f"{stack.name}: nothing was running"
    out.data({"stack": stack.name, "changed": words}, human)


def status(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Show services, health, loaded models and the endpoint; exit 5 when something is not ready."""
    from llmctl.ops import engines
    from llmctl.ops.status import status as look

    paths, resolved = load(directory, file, sets)
    stack = resolved.stack
    found = look(paths, stack, engines.connect(paths, stack))

    def human() -> str:
        rows = [
            (s.service, s.state, "yes" if s.ready else "no", _uptime(s.uptime_s), s.image, s.detail)
            for s in found.services
        ]
        key = ", key: llmctl key" if found.needs_key else ""
        states = ", ".join(f"{n} {'loaded' if up else 'not loaded'}" for n, up in found.models)
        return (
            table(("SERVICE", "STATE", "READY", "UPTIME", "IMAGE", "DETAIL"), rows)
            + f"\n\nendpoint  {found.endpoint}{key}\nmodels    {states}"
            + "".join(_memory_text(name, one) for name, one in found.memory.items())
        )

    value: dict[str, Any] = {
        "stack": found.stack,
        "healthy": found.healthy,
        "endpoint": found.endpoint,
        "needs_key": found.needs_key,
        "services": [vars(service) for service in found.services],
        "models": [{"name": name, "loaded": loaded} for name, loaded in found.models],
        "memory": {
            name: {"ratio": one.ratio, "lines": [vars(line) for line in one.lines]}
            for name, one in found.memory.items()
        },
    }
    Output(output).data(value, human, "healthy" if found.healthy else "unhealthy")
    if not found.healthy:
        raise typer.Exit(UNHEALTHY)


def _memory_text(name: str, found: Measured) -> str:
    """Plan and measurement of one model, a line a term."""
    from llmctl.core.sizes import memory_text

    rows = [
        (
            line.device,
            line.term.replace("_", " "),
            memory_text(line.planned),
            memory_text(line.measured),
        )
        for line in found.lines
    ]
    ratio = f"{100 * found.ratio:.1f} % of the plan" if found.ratio is not None else ""
    return f"\n\n{table((f'MEMORY OF {name}', 'TERM', 'PLANNED', 'MEASURED'), rows)}\n{ratio}"


def logs(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
    service: Annotated[
        str | None,
        typer.Argument(help="As `status` lists them; by default the one that runs the model."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, help="Only the last lines.")
    ] = None,
) -> None:
    """Print a service's log."""
    from llmctl.cli.output import print_text
    from llmctl.ops import engines
    from llmctl.ops.status import service_container

    paths, resolved = load(directory, file, sets)
    stack = resolved.stack
    engine = engines.connect(paths, stack)
    container = service_container(stack, service, engine)
    lines = engine.logs(container, tail=tail, follow=follow)
    if output is Mode.JSON:
        # One object a line: a document would never end while following.
        import json

        for line in lines:
            print_text(json.dumps({"service": service, "line": line}, ensure_ascii=False))
        return
    for line in lines:
        print_text(line or " ")


def key(
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Print the gateway key, for clients."""
    from llmctl.errors import ConfigError
    from llmctl.ops.keys import key_in_use

    paths, resolved = load(directory, file, sets)
    found = key_in_use(paths, resolved.stack)
    if found is None:
        raise ConfigError(
            "this gateway is open: it listens on loopback only and takes any key",
            hint="gateway: {auth: key}   # in llmctl.yaml, to ask for one",
        )
    Output(output).data({"key": found.reveal()}, found.reveal(), found.reveal())


def _uptime(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < DAY else f"{seconds / DAY:.1f} d"
