"""The engine a stack asks for."""

from __future__ import annotations

from llmctl.core.stack import Stack
from llmctl.engine.base import Engine
from llmctl.engine.docker import DockerEngine


def connect(stack: Stack) -> Engine:
    """The engine of a stack; nothing is sent to it yet."""
    del stack  # both "auto" and "docker" are Docker, the only engine there is today
    return DockerEngine()
