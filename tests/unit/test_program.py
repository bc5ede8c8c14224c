"""Printed commands can be pasted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmctl.cli.program import spelled


@pytest.fixture
def script(tmp_path: Path) -> Path:
    found = tmp_path / "bin" / "llmctl"
    found.parent.mkdir()
    found.write_text("#!/bin/sh\n", encoding="utf-8")
    found.chmod(0o755)
    return found


def test_on_the_path_it_is_a_word(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert spelled("llmctl up") == "llmctl up"


def test_elsewhere_it_is_what_was_typed(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(script)])
    text = "llmctl up   # or $(llmctl key); edit llmctl.yaml, rm .llmctl/gateway.key, cd llmctl"
    assert spelled(text) == text.replace("llmctl up", f"{script} up").replace(
        "llmctl key", f"{script} key"
    )


def test_as_a_module_it_is_python_m(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/llmctl/__main__.py"])
    assert spelled("llmctl status").endswith(" -m llmctl status")
