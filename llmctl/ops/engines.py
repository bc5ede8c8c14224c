"""The engine a stack asks for, or the one that is there."""

from __future__ import annotations

from llmctl.core.observed import Observed
from llmctl.core.stack import Stack
from llmctl.engine.base import Engine
from llmctl.engine.docker import DockerEngine
from llmctl.engine.process import ProcessEngine, local_parts_missing
from llmctl.errors import EngineUnreachableError
from llmctl.paths import StackPaths


def connect(paths: StackPaths, stack: Stack) -> Engine:
    """The engine of a stack.

    "auto" stays with local processes where the stack already runs as such; else it is Docker, unless
    no Docker Engine answers and the parts for local processes are installed.

    Raises:
        EngineUnreachableError: with "auto", where neither is to be had.
    """
    local = ProcessEngine(paths.processes)
    if stack.engine == "process":
        return local
    docker = DockerEngine()
    if stack.engine == "docker":
        return docker
    if local.observe(stack.name, ()) != Observed():
        return local
    missing = local_parts_missing()
    try:
        # Without the local parts there is no choice to make, and no question to ask.
        if not missing:
            docker.info()
    except EngineUnreachableError:
        return local
    return docker


def kind_of(paths: StackPaths, stack: Stack) -> str:
    """The kind of engine `connect` finds, "docker" or "process"."""
    return "process" if isinstance(connect(paths, stack), ProcessEngine) else "docker"
