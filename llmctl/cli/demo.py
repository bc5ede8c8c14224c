"""`llmctl demo`: a fresh picture, two questions, two answers."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.ask import document, measures, shown
from llmctl.cli.options import HERE, DirectoryOption, FileOption, OutputOption, SetOption
from llmctl.cli.output import Mode, Output, print_text, printable
from llmctl.cli.program import spelled

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.core.picture import Drawing
    from llmctl.core.services import Hop
    from llmctl.ops.ask import Answer

COLUMNS = 32
PICTURE = "demo.png"  # in .llmctl/


def demo(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Whom to ask; by default the stack's first model."),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds for each answer.")
    ] = 300.0,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Draw a picture, ask the running stack about it in two languages, and show both.

    The picture is chosen by chance and stays in .llmctl/demo.png, for the curl printed at the end.
    """
    from llmctl import files
    from llmctl.cli.stack import load
    from llmctl.core.picture import two_drawings
    from llmctl.ops import ask as ops
    from llmctl.ops.smoke import QUESTION

    human = output is Mode.HUMAN
    paths, resolved = load(directory, file, sets)
    name = resolved.stack.model(model).name
    hop = ops.gateway(paths, resolved.stack)
    drawing, _ = two_drawings(random.SystemRandom())
    picture = ops.drawn(drawing)
    if human:
        print_text(shown(picture, sys.stdout, COLUMNS) or "")
        print_text(f"\ndrawn: {drawing.english} ({drawing.japanese})")
    answers = []
    for text in QUESTION.values():
        question = ops.Question(text, (picture,))
        answer = ops.ask(hop, name, question, timeout=timeout, heard=lambda _: None)
        named = _named(answer, drawing)
        answers.append(document(question, answer) | named)
        if human:
            print_text(_told(text, answer, named))
    place = paths.state / PICTURE
    files.write_atomic(place, picture.data)
    curl = spelled(_curl(hop, name, QUESTION["ja"], place, directory))
    value = {
        "drawn": {"en": drawing.english, "ja": drawing.japanese},
        "picture": str(place),
        "endpoint": hop.base_url,
        "answers": answers,
        "curl": curl,
    }
    Output(output).data(value, f"\nendpoint  {hop.base_url}   model  {name}\n\n{curl}")


def _named(answer: Answer, drawing: Drawing) -> dict[str, Any]:
    from llmctl.core.picture import colour_named, shape_named

    return {
        "names_colour": colour_named(answer.text) is drawing.colour,
        "names_shape": shape_named(answer.text) is drawing.shape,
    }


def _told(question: str, answer: Answer, named: dict[str, Any]) -> str:
    """Question, answer, what it got right, and how long it took."""
    things = [thing for thing in ("colour", "shape") if named[f"names_{thing}"]]
    right = (
        f"names the right {' and '.join(things)}" if things else "names neither colour nor shape"
    )
    words = printable(answer.text).strip().replace("\n", "\n   ") or "(nothing)"
    return f"\nQ  {question}\nA  {words}\n   {right}; {measures(answer)}"


def _curl(hop: Hop, model: str, question: str, picture: Path, directory: Path) -> str:
    """The question as a command that works when pasted; the shell puts the picture in."""
    import json
    import os
    import shlex

    near = os.path.relpath(picture)
    file = shlex.quote(near)
    here = "" if directory == HERE else f" -C {shlex.quote(str(directory))}"
    key = f'  -H "Authorization: Bearer $(llmctl key{here})" \\\n' if hop.key else ""
    return (
        f"curl -s {hop.base_url}/chat/completions -H 'Content-Type: application/json' \\\n{key}"
        "  -d @- <<END\n"
        f'{{"model": {json.dumps(model)}, "messages": [{{"role": "user", "content": [\n'
        f'  {{"type": "text", "text": {json.dumps(question, ensure_ascii=False)}}},\n'
        '  {"type": "image_url", "image_url": {"url":'
        f" \"data:image/png;base64,$(base64 < {file} | tr -d '\\n')\"}}}}]}}]}}\n"
        "END"
    )
