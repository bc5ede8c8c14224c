"""What `pipx install .` and `uv tool install .` do: build a wheel, install it alone, run it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmctl.paths import builtin_templates, bundled_directory

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout, built by its own backend; nothing is fetched."""
    directory = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(directory)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return directory / done.stdout.split()[-1]


def test_the_wheel_carries_templates_and_catalogue_and_nothing_of_ours(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for template in builtin_templates().glob("*.j2"):
        assert f"llmctl/_templates/{template.name}" in names
    assert "llmctl/catalog.json" in names
    for path in bundled_directory("canary").glob("*.*"):
        assert f"llmctl/canary/{path.name}" in names
    outside = {name.split("/")[0] for name in names} - {"llmctl"}
    assert {name.rsplit(".", 1)[-1] for name in outside} == {"dist-info"}


def test_the_installed_wheel_renders_outside_any_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    stack = tmp_path / "stack"
    stack.mkdir()
    # -P and PYTHONPATH: our own package comes from the wheel, its dependencies from this environment.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMCTL_")}
    code = "import llmctl; print(llmctl.__file__); from llmctl.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "config", "render", "--set", "gpu=none"],
        cwd=stack,
        env=environment | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert (stack / "models" / "llava.yaml").is_file()
    assert (stack / "litellm" / "litellm.yaml").is_file()
