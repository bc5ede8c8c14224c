"""The engine a stack asks for, or the one that is there.

The process engine is imported where it is asked for: a no-op `up` on Docker needs none of it.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from llmctl.core.observed import Observed
from llmctl.core.stack import Stack
from llmctl.engine.base import Engine
from llmctl.engine.docker import DockerEngine
from llmctl.errors import EngineUnreachableError
from llmctl.paths import StackPaths


def connect(paths: StackPaths, stack: Stack) -> Engine:
    """The engine of a stack.

    "auto" stays with local processes where the stack already runs as such; else it is Docker, unless
    no Docker Engine answers and the parts for local processes are installed.

    Raises:
        EngineUnreachableError: with "auto", where neither is to be had.
    """
    if stack.engine == "process":
        return _processes(paths)
    docker = DockerEngine()
    if stack.engine == "docker":
        return docker
    if paths.processes.is_dir() and _processes(paths).observe(stack.name, ()) != Observed():
        return _processes(paths)
    try:
        # Without the local parts there is no choice to make, and no question to ask.
        if local_parts_are_here():
            docker.info()
    except EngineUnreachableError:
        return _processes(paths)
    return docker


def kind_of(paths: StackPaths, stack: Stack) -> str:
    """The kind of engine `connect` finds, "docker" or "process"."""
    return kind(connect(paths, stack))


def kind(engine: Engine) -> str:
    """The kind of an engine, "docker" or "process", without asking it."""
    return "docker" if isinstance(engine, DockerEngine) else "process"


def build_of(kind: str, stack: Stack) -> str:
    """The build of the engine, as far as it is known before it runs."""
    if kind == "process":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"xllamacpp {version('xllamacpp')}"
        except PackageNotFoundError:
            return "xllamacpp"
    from llmctl.core.resolve_docker import LOCALAI_VERSION

    return stack.localai_image or f"localai {LOCALAI_VERSION}"


def local_parts_are_here() -> bool:
    """Whether llama.cpp's server and the LiteLLM proxy are installed beside llmctl."""
    # The program that is started, not the package: a stack's own litellm/ directory looks like one.
    return find_spec("xllamacpp") is not None and Path(sys.executable).with_name("litellm").exists()


def _processes(paths: StackPaths) -> Engine:
    from llmctl.engine.process import ProcessEngine

    return ProcessEngine(paths.processes)
