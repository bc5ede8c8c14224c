"""`llmctl models inspect` and `gc`: what a model is before it is here, and what need not be here."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import HERE, DirectoryOption, FileOption, OutputOption, SetOption
from llmctl.cli.output import Mode, Output, colour, size_text, table
from llmctl.cli.stack import load

if TYPE_CHECKING:
    from llmctl.core.stack import Stack
    from llmctl.core.verdict import Finding, Formats
    from llmctl.ops.models.garbage import Garbage
    from llmctl.ops.models.inspecting import Inspection
    from llmctl.paths import StackPaths

REFUSED = 3
WHY = {
    "unfinished": "unfinished transfer",
    "original": "a repaired copy is used instead",
    "unused": "no model uses it",
}
MARKS = {"refuse": ("no", "31"), "warn": ("careful", "33"), "note": ("note", "36")}


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME|hf://ORGANISATION/REPOSITORY[:QUANT][@REVISION]|FILE.gguf",
            help="A model of the stack or the catalogue, a repository, or a file on this machine.",
        ),
    ],
    mmproj: Annotated[
        Path | None,
        typer.Option("--mmproj", help="The projector of a FILE; default: the one beside it."),
    ] = None,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Say what a model is and whether it will work, from its headers; exit 3 when it cannot."""
    from llmctl.hub import connect_hub
    from llmctl.ops.models import inspecting

    out = Output(output)
    paths, resolved = load(directory, file, sets)
    formats = formats_for(paths, resolved.stack)
    if inspecting.is_file(source):
        found = inspecting.inspect_files(Path(source).expanduser(), mmproj, formats)
    else:
        from llmctl.cli.models import spec_of

        spec = spec_of(paths, resolved.stack.models, source)
        found = inspecting.inspect(paths, spec, connect_hub(), formats)
    out.data(
        _json(source, found, formats),
        lambda: _text(source, found),
        "works" if found.works else "\n".join(f.code for f in found.findings if _grave(f)),
    )
    if not found.works:
        raise typer.Exit(REFUSED)


def collect_garbage(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Delete unfinished transfers and files that llmctl fetched and no model uses any more."""
    from llmctl.cli.models import confirm
    from llmctl.ops.models import garbage

    out = Output(output)
    paths = load(directory, file)[0]
    found = garbage.garbage(paths)
    if found and not dry_run:
        if not yes:
            total = size_text(sum(one.bytes for one in found))
            lines = [f"{one.path}  {size_text(one.bytes)}  {WHY[one.why]}" for one in found]
            confirm(f"delete {len(found)} files ({total})", lines, "llmctl models gc --yes")
        found = garbage.collect(paths)
    out.data(
        {
            "deleted": not dry_run,
            "bytes": sum(one.bytes for one in found),
            "files": [dataclasses.asdict(one) for one in found],
        },
        lambda: _garbage_text(found, dry_run=dry_run),
        "\n".join(one.path for one in found),
    )


def formats_for(paths: StackPaths, stack: Stack) -> Formats:
    """What the engine of this stack takes."""
    from llmctl.core.verdict import formats_of
    from llmctl.ops.engines import kind_of

    return formats_of(kind_of(paths, stack), stack.localai_image)


def _grave(finding: Finding) -> bool:
    return finding.level == "refuse"


def _json(source: str, found: Inspection, formats: Formats) -> dict[str, Any]:
    artifact = found.artifact
    return {
        "source": source,
        "works": found.works,
        "engine": formats.engine,
        "repo": artifact.repo,
        "commit": artifact.commit,
        "licence": artifact.licence or (found.language.licence if found.language else None),
        "model": dataclasses.asdict(found.language) if found.language else None,
        "projector": dataclasses.asdict(found.projector) if found.projector else None,
        "findings": [dataclasses.asdict(one) for one in found.findings],
        "files": [
            {
                "path": one.original.path,
                "remote": one.remote,
                "size": one.original.size,
                "sha256": one.original.sha256,
                "repair": one.repair.kind if one.repair else None,
            }
            for one in artifact.files
        ],
        "needed_bytes": found.needed,
        "free_bytes": found.free,
    }


def _text(source: str, found: Inspection) -> str:
    artifact = found.artifact
    parts = [f"{key:<12} {value}" for key, value in _facts(found) if value]
    rows = [
        (
            one.remote or one.original.path,
            size_text(one.original.size),
            "repaired copy" if one.repair else "",
        )
        for one in artifact.files
    ]
    parts += ["", table(("FILE", "SIZE", ""), rows)]
    if artifact.repo or found.needed:
        parts.append(f"to download: {size_text(found.needed)}, free: {size_text(found.free)}")
    parts.append("")
    for one in found.findings:
        word, style = MARKS[one.level]
        parts.append(f"{colour(f'{word:<8}', style, stream=sys.stdout)} {one.message}")
        parts += [f"         {line}" for line in (one.hint or "").splitlines()]
    if found.works:
        parts.append(colour("this works", "1;32", stream=sys.stdout))
        parts += [f"next: llmctl models pull {source}"] if found.needed else []
    else:
        parts.append(colour("this cannot work", "1;31", stream=sys.stdout))
    return "\n".join(parts)


def _facts(found: Inspection) -> list[tuple[str, str | None]]:
    artifact, model, eyes = found.artifact, found.language, found.projector
    facts: list[tuple[str, str | None]] = [
        ("repository", artifact.repo),
        ("commit", artifact.commit),
        ("licence", artifact.licence or (model.licence if model else None)),
    ]
    if model:
        heads = f", {model.heads} heads ({model.heads_kv} for the KV cache)" if model.heads else ""
        facts += [
            ("model", model.name),
            ("architecture", f"{model.architecture}, {model.layers} layers{heads}"),
            ("quantisation", f"{model.quantisation}, {_billions(model.parameters)} parameters"),
            ("context", f"{model.context} tokens" if model.context else None),
            ("prompt", _prompt(model.chat_template, model.image_marker)),
        ]
    if eyes:
        size = (
            f", pictures {eyes.image_size} px, patches {eyes.patch_size} px"
            if eyes.image_size
            else ""
        )
        facts += [
            ("projector", f"{eyes.kind or 'unknown'}, {eyes.quantisation}{size}"),
            ("a picture", _tokens(eyes.tokens, eyes.tokens_range)),
            (
                "widths",
                f"projector {eyes.width}, model {model.width}"
                if model and eyes.width and model.width
                else None,
            ),
        ]
    return facts


def _prompt(template: bool, marker: bool | None) -> str:
    if not template:
        return "no chat template in the file"
    return "chat template with a place for pictures" if marker else "chat template"


def _tokens(fixed: int | None, limits: tuple[int, int] | None) -> str | None:
    if limits:
        return f"takes {limits[0]} to {limits[1]} tokens, as its size demands"
    return f"takes {fixed} tokens" if fixed else None


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 10**8 else f"{count / 1e6:.2f} million"


def _garbage_text(found: tuple[Garbage, ...], *, dry_run: bool) -> str:
    if not found:
        return "nothing to delete"
    rows = [(one.path, size_text(one.bytes), WHY[one.why]) for one in found]
    total = size_text(sum(one.bytes for one in found))
    end = f"\n\n{total} would come free\nnext: llmctl models gc" if dry_run else f"\n\n{total} free"
    return table(("FILE", "SIZE", "WHY"), rows) + end
