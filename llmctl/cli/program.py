"""How the user can call llmctl again: the commands we print must work when pasted."""

from __future__ import annotations

import os
import re
import shutil
import sys


def spelled(text: str) -> str:
    """`text` with each `llmctl COMMAND` spelled so that it runs in the user's shell.

    From a checkout's environment (`make up`) the command is not on PATH; then it is the path that was
    typed, such as `.venv/bin/llmctl`.
    """
    name = program()
    if name == "llmctl":
        return text
    return re.sub(r"(?<![\w./-])llmctl (?=[a-z-])", lambda _match: f"{name} ", text)


def program() -> str:
    """The word or words that start this llmctl again."""
    typed = sys.argv[0]
    if typed.endswith("__main__.py"):
        return f"{os.path.basename(sys.executable)} -m llmctl"  # noqa: PTH119 - pathlib is not loaded
    found = shutil.which("llmctl")
    same = found and os.path.exists(typed) and os.path.samefile(found, typed)  # noqa: PTH110, PTH121
    return "llmctl" if same or not os.path.exists(typed) else typed  # noqa: PTH110
