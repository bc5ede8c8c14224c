"""`llmctl ask`: a question about pictures, without writing curl."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import HERE, DirectoryOption, FileOption, OutputOption, SetOption
from llmctl.cli.output import Mode, Output, colour, print_piece
from llmctl.errors import UsageError

if TYPE_CHECKING:
    from llmctl.ops.ask import Answer, Picture, Question

COLUMNS = 48


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar='[PICTURE]... "QUESTION"',
            help="Pictures (file, http(s) or data: address, - for standard input), then the"
            " question. Pictures alone are asked what is in them; a question alone is fine.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Whom to ask; by default the stack's first model."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")
    ] = 512,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, max=2, help="0: the likeliest answer.")
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds for the whole answer.")
    ] = 300.0,
    show: Annotated[
        bool, typer.Option("--show", help="Show the pictures in the terminal first (PNG only).")
    ] = False,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Ask the running stack about pictures; the answer comes word by word on a terminal.

    PNG, JPEG, GIF and BMP are taken, up to 48 MB in all. Exit code 5 when no answer comes.
    """
    from llmctl.cli.stack import load
    from llmctl.ops import ask as ops

    out = Output(output)
    sources, text = ops.divide(words)
    paths, resolved = load(directory, file, sets)
    name = resolved.stack.model(model).name
    hop = ops.gateway(paths, resolved.stack)
    pictures = ops.load_pictures(sources, stdin=_stdin, timeout=timeout)
    if show and output is Mode.HUMAN:
        for picture in pictures:
            out.note(shown(picture, sys.stderr) or f"{picture.source}: no preview (PNG up to 1 MP)")
    question = ops.Question(text, pictures, max_tokens, temperature)
    live = output is Mode.HUMAN and sys.stdout.isatty()
    hear = _Hearing(live)
    try:
        answer = ops.ask(hop, name, question, timeout=timeout, heard=hear)
    finally:
        hear.end()
    out.data(document(question, answer), "" if live else answer.text, answer.text)
    if output is Mode.HUMAN:
        _tell(out, question, answer, live=live)


class _Hearing:
    """Prints the pieces of an answer when somebody watches; and the line break after the last."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._open = False

    def __call__(self, piece: str) -> None:
        if self._live:
            print_piece(piece)
            self._open = True

    def end(self) -> None:
        """Leave the cursor at the start of a line."""
        if self._open:
            print_piece("\n")


def document(question: Question, answer: Answer) -> dict[str, Any]:
    """A question and its answer for JSON; times in milliseconds."""
    first = answer.first_token_s
    return {
        "model": answer.model,
        "question": question.text,
        "pictures": [
            {"source": one.source, "bytes": len(one.data), "format": one.format.name}
            for one in question.pictures
        ],
        "answer": answer.text,
        "finish_reason": answer.finish,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "first_token_ms": None if first is None else round(1000 * first),
        "total_ms": round(1000 * answer.total_s),
    }


def measures(answer: Answer) -> str:
    """Tokens and times on one line: "canary: 81+6 tokens, first after 0.02 s, all in 0.03 s"."""
    counted = (answer.prompt_tokens, answer.completion_tokens)
    tokens = "" if None in counted else f"{counted[0]}+{counted[1]} tokens, "
    first = "" if answer.first_token_s is None else f"first after {answer.first_token_s:.2f} s, "
    return f"{answer.model}: {tokens}{first}all in {answer.total_s:.2f} s"


def shown(picture: Picture, stream: Any, columns: int = COLUMNS) -> str | None:
    """A picture as text for `stream`, in colours where it takes them; None without a preview."""
    import shutil

    from llmctl.core.pictureview import preview

    width = min(columns, shutil.get_terminal_size().columns - 1)
    # What `colour` does to a text tells whether this stream takes colours.
    return preview(picture.data, width, colours=colour("x", "0", stream=stream) != "x")


def _tell(out: Output, question: Question, answer: Answer, *, live: bool) -> None:
    if live:
        out.note(colour(measures(answer), "2"))
    # LocalAI says "stop" in a stream whatever the reason.
    if answer.finish == "length" or (answer.completion_tokens or 0) >= question.max_tokens:
        more = 2 * question.max_tokens
        out.note(f"the answer was cut at its longest; for more: --max-tokens {more}")
    elif not answer.text:
        said = "only a thought of its own" if answer.thought else "nothing"
        out.note(f"{answer.model} said {said}")


def _stdin(most: int) -> bytes:
    """Standard input, at most so many bytes; a terminal has no picture to give."""
    if sys.stdin.isatty():
        raise UsageError(
            "-: nothing is piped in", hint='llmctl ask - "What is this?" < picture.png'
        )
    return sys.stdin.buffer.read(most)
