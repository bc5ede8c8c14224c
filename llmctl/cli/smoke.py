"""`llmctl smoke-test`: prove that the model sees, hop by hop."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.options import HERE, DirectoryOption, FileOption, OutputOption, SetOption
from llmctl.cli.output import Mode, Output, table, width
from llmctl.cli.program import spelled
from llmctl.errors import UnhealthyError

if TYPE_CHECKING:
    from llmctl.core.sight import Check
    from llmctl.core.smoke_report import SmokeReport

ANSWER_COLUMNS = 44


class HopChoice(StrEnum):
    """What `--hop` takes."""

    ENGINE = "engine"
    GATEWAY = "gateway"
    BOTH = "both"


def smoke_test(
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")
    ] = None,
    hop: Annotated[
        HopChoice, typer.Option("--hop", help="Ask the engine directly, the gateway, or both.")
    ] = HopChoice.BOTH,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds for each answer.")
    ] = 300.0,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")
    ] = None,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Prove that the model sees: fresh pictures, two languages, directly and through the gateway.

    A picture must add tokens to the prompt, so one that was lost on the way is noticed although
    the answer is HTTP 200. A model that the catalogue knows to name colour and shape (canary) must
    name what was drawn, and must say so when there is no picture. Exit code 5 when a check fails.
    """
    from llmctl import files
    from llmctl.cli.stack import load
    from llmctl.ops import smoke
    from llmctl.ops.endpoint import hops
    from llmctl.ops.models import capabilities

    out = Output(output)
    paths, resolved = load(directory, file, sets, None)
    stack = resolved.stack
    models = [stack.model(name).name for name in model or [m.name for m in stack.models]]
    chosen = [one for one in hops(paths, stack) if hop in (HopChoice.BOTH, one.name)]
    with out.listening() as listen:
        report = smoke.run(
            chosen, models, timeout=timeout, listen=listen, require=capabilities(stack.models)
        )
    if junit is not None:
        files.write_atomic(junit, smoke.junit(report))
    out.data(report.document(), lambda: human(report))
    if not report.ok:
        if output is Mode.HUMAN:
            for hint in report.hints:
                out.note("next:  " + spelled(hint).replace("\n", "\n       "))
        raise typer.Exit(UnhealthyError.exit_code)


def human(report: SmokeReport) -> str:
    """The report as a table, the failures in full, and the verdict as the last line."""
    several = len({check.model for check in report.checks}) > 1
    head = ["hop", *(["model"] if several else []), "check", "result", "time", "tokens", "answer"]
    rows = [
        [
            check.hop,
            *([check.model] if several else []),
            _name(check),
            check.verdict.finding.value,
            _times(check),
            _tokens(check),
            _shown(check.answer) or "-",
        ]
        for check in report.checks
    ]
    drawn = dict.fromkeys(check.drawing for check in report.checks if check.drawing)
    lines = [table(head, rows), ""]
    if drawn:
        lines.append("drawn: " + ", ".join(f"{one.english} ({one.japanese})" for one in drawn))
    return "\n".join([*lines, *_failures(report), report.verdict])


def _failures(report: SmokeReport) -> list[str]:
    """Each reason once, with the checks that failed for it."""
    failed: dict[tuple[str, str, str], list[str]] = {}
    for check in report.checks:
        if not check.ok:
            place = (check.hop, check.model, _printable(check.verdict.reason))
            failed.setdefault(place, []).append(_name(check))
    return [
        f"{hop}: {model}: {', '.join(names)}: {reason}"
        for (hop, model, reason), names in failed.items()
    ]


def _name(check: Check) -> str:
    return f"{check.kind} {check.language}{' stream' if check.streaming else ''}"


def _times(check: Check) -> str:
    whole = f"{check.latency_s:.2f} s"
    if check.first_token_s is None:
        return whole
    return f"{whole}, first {check.first_token_s:.2f} s"


def _tokens(check: Check) -> str:
    """Prompt and answer, with the picture's share: "612+9 (576 picture)"."""
    document = check.document()
    read, written = document["prompt_tokens"], document["completion_tokens"]
    if read is None:
        return "-"
    share = "" if check.picture_tokens is None else f" ({check.picture_tokens} picture)"
    return f"{read}+{written if written is not None else '?'}{share}"


def _shown(text: str) -> str:
    """A model's words on one line of a table."""
    line = _printable(text)
    if width(line) <= ANSWER_COLUMNS:
        return line
    while width(line) > ANSWER_COLUMNS - 3:
        line = line[:-1]
    return line + "..."


def _printable(text: str) -> str:
    """Without what would steer a terminal: a model and a server can say anything."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
