"""From what the user wants to what should run: `Stack` + artifacts + host facts -> `Deployment`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from llmctl.core.artifact import Artifact
from llmctl.core.deployment import Deployment, RenderedFile, WantedModel
from llmctl.core.hostfacts import GpuChoice, HostFacts
from llmctl.core.render import ModelValues, render
from llmctl.core.resolve_docker import containers
from llmctl.core.resolve_process import processes
from llmctl.core.services import Surroundings, api_base
from llmctl.core.stack import Stack

ALL_LAYERS = 999


def resolve(stack: Stack, artifacts: tuple[Artifact, ...], around: Surroundings) -> Deployment:
    """Everything that should run for a stack.

    Args:
        stack: What the user wants.
        artifacts: The files of each model, in the stack's order.
        around: Host, engine, key and templates.

    Raises:
        ConfigError: a choice that cannot work on this host, or a template that renders nonsense.
    """
    files = rendered_files(
        stack, artifacts, around.host, around.gpu, around.templates, engine=around.engine
    )
    build = processes if around.engine == "process" else containers
    return dataclasses.replace(
        build(stack, artifacts, around, files),
        files=files,
        models=tuple(
            WantedModel(a.name, a.source, tuple((f.path, f.size) for f in a.files))
            for a in artifacts
        ),
    )


def rendered_files(
    stack: Stack,
    artifacts: tuple[Artifact, ...],
    host: HostFacts,
    gpu: GpuChoice,
    templates: Mapping[str, tuple[str, str]],
    *,
    engine: str,
) -> tuple[RenderedFile, ...]:
    """The configuration files alone, for `config render`."""
    used = gpu.kind != "none"
    values = []
    for spec, artifact in zip(stack.models, artifacts, strict=True):
        layers = spec.gpu_layers
        values.append(
            ModelValues(
                name=spec.name,
                model=artifact.model[0].path,
                mmproj=artifact.projector.path if artifact.projector else None,
                context=spec.context,
                parallel=spec.parallel,
                threads=spec.threads or host.physical_cores,
                gpu=used,
                gpu_layers=layers if layers is not None else ALL_LAYERS if used else 0,
                # SYCL hangs with mmap (LocalAI's own documentation).
                mmap=gpu.kind != "intel",
                template=artifact.template,
                api_base=api_base(stack, engine, spec.name),
            )
        )
    return render(tuple(values), templates=templates, needs_key=stack.needs_key)
