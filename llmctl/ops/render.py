"""Render a stack's configuration without an engine."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl import host
from llmctl.core.deployment import RenderedFile
from llmctl.core.events import Listener, Note
from llmctl.core.hostfacts import GpuChoice
from llmctl.core.resolve import rendered_files
from llmctl.core.stack import Stack
from llmctl.core.tuning import Settled
from llmctl.errors import EngineError
from llmctl.ops import engines, models
from llmctl.ops.choosing import Circumstances, settle
from llmctl.ops.gpu import choose_gpu_for
from llmctl.ops.survey import serves
from llmctl.ops.templates import load_templates
from llmctl.paths import StackPaths


@dataclass(frozen=True)
class Rendered:
    """The files of a stack as they should be, and what they were rendered with.

    Attributes:
        files: The files.
        settled: The settings that the memory plan chose, by model.
        gpu: The GPU of this host that they are for.
    """

    files: tuple[RenderedFile, ...]
    settled: dict[str, Settled]
    gpu: GpuChoice


def render_stack(paths: StackPaths, stack: Stack, listen: Listener) -> Rendered:
    """Render for the GPU of this host; what does not fit its memory is told, not refused.

    Raises:
        ConfigError: a repository that was never looked up (`llmctl models pull`), or a template
            that renders nonsense.
    """
    facts = host.facts()
    engine = engines.connect(paths, stack)
    # Whether the engine can pass the GPU is `up`'s question; a file can be rendered without one.
    gpu = choose_gpu_for(engines.kind(engine), stack, facts, engine_has_nvidia=None)
    if stack.gpu == "auto" and gpu.kind == "none":
        listen(Note(f"rendered for the CPU: {gpu.reason}"))
    artifacts = tuple(models.resolve(paths, spec, None) for spec in stack.models)

    def running() -> bool:
        try:
            return serves(stack, engine)
        except EngineError:
            return False

    build = engines.build_of(engines.kind(engine), stack)
    around = Circumstances(gpu, facts.physical_cores, running, strict=False, build=build)
    settled = settle(paths, stack, artifacts, around, listen)
    rendered = rendered_files(
        stack,
        artifacts,
        facts,
        gpu,
        load_templates(paths),
        engine=engines.kind(engine),
        chosen=settled,
    )
    return Rendered(rendered.files, settled, gpu)
