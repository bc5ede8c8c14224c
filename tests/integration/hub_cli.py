"""The command line on a hub on this machine, with nothing of the user's environment about it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import llmctl.hub
from llmctl.cli.main import run
from llmctl.hub.huggingface import HuggingFaceHub
from tests.world.hub import LocalHub, Repo

TOKEN = "hf_secretSECRETsecret"


@contextmanager
def hub_of_the_commands(
    repos: dict[str, Repo], home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalHub]:
    """A hub with these repositories that every command run in this process talks to."""
    from huggingface_hub import close_session, constants

    for name in list(os.environ):
        if name.startswith(("HF_", "LLMCTL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LLMCTL_ENGINE", "docker")  # said, so that no Docker Engine is asked for
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    with LocalHub(repos) as hub:
        hub.tokens = {TOKEN}
        monkeypatch.setattr(llmctl.hub, "connect_hub", lambda: HuggingFaceHub(hub.url))
        yield hub
        close_session()


def llmctl_json(
    capsys: pytest.CaptureFixture[str], stack: Path, *arguments: str, code: int = 0
) -> Any:
    """What `llmctl models ...` prints as JSON; it must end with that exit code."""
    assert run(["models", *arguments, "-C", str(stack), "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)
