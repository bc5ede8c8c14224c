"""From what the user wants to what should run: `Stack` + artifacts + host facts -> `Deployment`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from llmctl.core.artifact import Artifact
from llmctl.core.deployment import Deployment, Rendered, WantedModel
from llmctl.core.hostfacts import GpuChoice, HostFacts
from llmctl.core.render import ModelValues, render
from llmctl.core.resolve_docker import containers
from llmctl.core.resolve_process import processes
from llmctl.core.services import Surroundings, api_base
from llmctl.core.stack import ModelSpec, Stack
from llmctl.core.tuning import ALL_LAYERS, EngineSettings, Settled


def resolve(
    stack: Stack,
    artifacts: tuple[Artifact, ...],
    around: Surroundings,
    chosen: Mapping[str, Settled] | None = None,
) -> Deployment:
    """Everything that should run for a stack.

    Args:
        stack: What the user wants.
        artifacts: The files of each model, in the stack's order.
        around: Host, engine, key and templates.
        chosen: What the memory plan chose for a model, by name.

    Raises:
        ConfigError: a choice that cannot work on this host, or a template that renders nonsense.
    """
    rendered = rendered_files(
        stack,
        artifacts,
        around.host,
        around.gpu,
        around.templates,
        engine=around.engine,
        chosen=chosen,
        before=around.rendered,
    )
    files = rendered.files
    build = processes if around.engine == "process" else containers
    return dataclasses.replace(
        build(stack, artifacts, around, files),
        files=files,
        rendered=rendered.inputs,
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
    chosen: Mapping[str, Settled] | None = None,
    before: Rendered | None = None,
) -> Rendered:
    """The configuration files alone, for `config render`."""
    values = []
    for spec, artifact in zip(stack.models, artifacts, strict=True):
        settled = (chosen or {}).get(spec.name)
        settings = settled.settings if settled else plain_settings(spec, host, gpu)
        values.append(
            ModelValues(
                name=spec.name,
                model=artifact.model[0].path,
                mmproj=artifact.projector.path if artifact.projector else None,
                gpu=gpu.kind != "none",
                template=artifact.template,
                api_base=api_base(stack, engine, spec.name),
                engine=settings,
            )
        )
    return render(tuple(values), templates=templates, needs_key=stack.needs_key, before=before)


def plain_settings(spec: ModelSpec, host: HostFacts, gpu: GpuChoice) -> EngineSettings:
    """A model's settings where no memory plan chose any: all layers on a GPU, and the defaults."""
    layers = spec.gpu_layers
    return spec.tuning.settings(
        context=spec.context,
        parallel=spec.parallel,
        threads=spec.threads or host.physical_cores,
        gpu_layers=layers if layers is not None else ALL_LAYERS if gpu.kind != "none" else 0,
        # SYCL hangs with mmap (LocalAI's own documentation).
        mmap=gpu.kind != "intel",
    )
