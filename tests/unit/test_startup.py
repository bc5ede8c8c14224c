"""What the command line imports before it knows what is asked: not a clock, a list of modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "docker",
    "huggingface_hub",
    "jinja2",
    "litellm",
    "psutil",
    "pydantic",
    "pynvml",
    "requests",
    "rich",
    "xllamacpp",
    "yaml",
}
PROBE = """
import sys
sys.argv = ["llmctl", *sys.argv[1:]]
from llmctl.__main__ import main
try:
    main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
print("modules:", *sorted({name.split(".")[0] for name in sys.modules}))
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].removeprefix("modules:").split())


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["models", "--help"], ["up", "--help"]]
)
def test_help_and_version_import_no_sdk(arguments: list[str]) -> None:
    assert imported(*arguments) & HEAVY == set()


def test_version_does_not_even_import_the_command_tree() -> None:
    assert "typer" not in imported("--version")


def test_the_probe_sees_a_heavy_import() -> None:
    assert "yaml" in imported("config", "render", "--stdout")
