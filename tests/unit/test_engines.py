"""Which engine a stack gets."""

from __future__ import annotations

import dataclasses
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.deployment import ServiceSpec
from llmctl.core.stack import resolve_stack
from llmctl.engine.docker import DockerEngine
from llmctl.engine.process import ProcessEngine
from llmctl.ops import engines
from llmctl.paths import StackPaths

STACK = resolve_stack(None, file="llmctl.yaml", environment={}, flags={}).stack


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StackPaths]:
    """A stack directory on a machine without Docker, with the local parts installed."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setattr(engines, "local_parts_are_here", lambda: True)
    with warnings.catch_warnings():
        # The SDK leaks its socket when nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        yield StackPaths.at(tmp_path)
        gc.collect()


def test_auto_takes_local_processes_where_no_docker_answers(paths: StackPaths) -> None:
    assert isinstance(engines.connect(paths, STACK), ProcessEngine)
    assert engines.kind_of(paths, STACK) == "process"


def test_auto_is_docker_when_the_local_parts_are_missing(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "local_parts_are_here", lambda: False)
    assert isinstance(engines.connect(paths, STACK), DockerEngine)


def test_a_word_in_the_stack_decides(paths: StackPaths) -> None:
    docker = dataclasses.replace(STACK, engine="docker")
    process = dataclasses.replace(STACK, engine="process")
    assert isinstance(engines.connect(paths, docker), DockerEngine)
    assert isinstance(engines.connect(paths, process), ProcessEngine)


def test_auto_stays_with_the_processes_that_are_there(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "local_parts_are_here", lambda: False)
    engine = ProcessEngine(paths.processes)
    engine.create(STACK.name, str(paths.root), "", ServiceSpec("llama", "psutil"), "llmctl-llama")
    assert isinstance(engines.connect(paths, STACK), ProcessEngine)
