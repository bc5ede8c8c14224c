"""Render a stack's configuration without an engine."""

from __future__ import annotations

from llmctl import host
from llmctl.core.deployment import RenderedFile
from llmctl.core.events import Listener, Note
from llmctl.core.resolve import rendered_files
from llmctl.core.stack import Stack
from llmctl.ops import models
from llmctl.ops.engines import kind_of
from llmctl.ops.gpu import choose_gpu_for
from llmctl.ops.templates import load_templates
from llmctl.paths import StackPaths


def render_stack(paths: StackPaths, stack: Stack, listen: Listener) -> tuple[RenderedFile, ...]:
    """The files of a stack as they should be, for the GPU of this host.

    Raises:
        ConfigError: a repository that was never looked up (`llmctl models pull`), or a template
            that renders nonsense.
    """
    facts = host.facts()
    engine = kind_of(paths, stack)
    # Whether the engine can pass the GPU is `up`'s question; a file can be rendered without one.
    gpu = choose_gpu_for(engine, stack, facts, engine_has_nvidia=None)
    if stack.gpu == "auto" and gpu.kind == "none":
        listen(Note(f"rendered for the CPU: {gpu.reason}"))
    artifacts = tuple(models.resolve(paths, spec, None) for spec in stack.models)
    return rendered_files(stack, artifacts, facts, gpu, load_templates(paths), engine=engine)
