"""Look at everything a stack depends on, and work out what should run and what must be done."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

from llmctl import host
from llmctl.core.artifact import Artifact
from llmctl.core.deployment import Deployment, RenderedFile
from llmctl.core.events import Listener, Note
from llmctl.core.hostfacts import GpuChoice
from llmctl.core.llama_settings import llama_settings
from llmctl.core.localai_config import load_strict
from llmctl.core.observed import Observed
from llmctl.core.plan import Plan, plan
from llmctl.core.resolve import resolve
from llmctl.core.services import LITELLM, Surroundings
from llmctl.core.stack import Stack
from llmctl.core.tuning import Settled
from llmctl.engine.base import Engine, EngineInfo
from llmctl.errors import ConfigError
from llmctl.ops import configure, models
from llmctl.ops.choosing import Circumstances, settle
from llmctl.ops.engines import build_of
from llmctl.ops.gpu import choose_gpu_for
from llmctl.ops.keys import key_digest, read_key
from llmctl.ops.templates import load_rendered, load_templates
from llmctl.paths import StackPaths

NEW_KEY = "to be generated"


@dataclass(frozen=True)
class Survey:
    """A stack, the world around it, and the plan between.

    Attributes:
        paths: The stack directory.
        stack: What the user wants.
        artifacts: The files of each model.
        gpu: The GPU that was chosen.
        info: The engine.
        deployment: What should run.
        observed: What runs.
        plan: The difference.
        settled: The engine's settings as the memory plan chose them, by model.
    """

    paths: StackPaths
    stack: Stack
    artifacts: tuple[Artifact, ...]
    gpu: GpuChoice
    info: EngineInfo
    deployment: Deployment
    observed: Observed
    plan: Plan
    settled: dict[str, Settled]


def survey(
    paths: StackPaths,
    stack: Stack,
    engine: Engine,
    hub: models.Hub | None,
    listen: Listener,
    *,
    force: bool = False,
) -> Survey:
    """Everything about a stack, without changing anything.

    Args:
        paths: The stack directory.
        stack: What the user wants.
        engine: Where it runs.
        hub: Where unknown repositories are looked up, None to stay offline.
        listen: Hears what is worth knowing, such as a GPU that is not used.
        force: Take settings that do not fit into memory.

    Raises:
        EngineUnreachableError: first of all, before anything is looked up or downloaded.
        ConfigError: what is asked for cannot work here.
    """
    info = engine.info()
    facts = host.facts()
    gpu = choose_gpu_for(info.kind, stack, facts, engine_has_nvidia=info.nvidia)
    if stack.gpu == "auto" and gpu.kind == "none":
        listen(Note(f"no GPU is used: {gpu.reason}", warning=True))
    artifacts = tuple(models.resolve(paths, spec, hub) for spec in stack.models)
    around = Surroundings(
        directory=str(paths.root),
        host=facts,
        gpu=gpu,
        machine=info.machine,
        host_gateway=info.host_gateway,
        key_digest=_key_digest(paths, stack),
        key_file=str(paths.gateway_key),
        templates=load_templates(paths),
        engine=info.kind,
        python=sys.executable,
        rendered=load_rendered(paths),
    )
    settled = settle(
        paths,
        stack,
        artifacts,
        Circumstances(
            gpu,
            facts.physical_cores,
            lambda: serves(stack, engine),
            force=force,
            build=build_of(info.kind, stack),
        ),
        listen,
    )
    deployment = resolve(stack, artifacts, around, settled)
    if info.kind == "process":
        for text in unmapped(deployment.files):
            listen(Note(text, warning=True))
    observed = look(paths, deployment, artifacts, engine)
    found = plan(deployment, observed)
    return Survey(paths, stack, artifacts, gpu, info, deployment, observed, found, settled)


def serves(stack: Stack, engine: Engine) -> bool:
    """Whether something of this stack runs that may hold a model."""
    services = engine.observe(stack.name, ()).services
    return any(one.state == "running" and one.service != LITELLM for one in services)


def look(
    paths: StackPaths, deployment: Deployment, artifacts: tuple[Artifact, ...], engine: Engine
) -> Observed:
    """What runs and what lies on disk for a deployment.

    Raises:
        ConfigError: a stack of this name was started from another directory.
    """
    images = tuple(spec.image for spec in deployment.services)
    observed = engine.observe(deployment.stack, images)
    for service in observed.services:
        if service.directory != deployment.directory:
            raise ConfigError(
                f'a stack named "{deployment.stack}" already runs from {service.directory}',
                hint=f"stop it first: llmctl down -C {service.directory}\n"
                "or give this one a name of its own: name: other   (in llmctl.yaml)",
            )
    present = frozenset(
        (artifact.name, file.path)
        for artifact in artifacts
        for file in set(artifact.files) - set(models.missing(paths, artifact))
    )
    return dataclasses.replace(
        observed, files=configure.hashes_on_disk(paths, deployment.files), models=present
    )


def unmapped(files: tuple[RenderedFile, ...]) -> list[str]:
    """What the rendered models say that llama.cpp's own server cannot be told."""
    prompts = {file.path: file.content for file in files}
    found = []
    for path, content in prompts.items():
        if path.startswith("models/") and path.endswith(".yaml"):
            prompt = prompts.get(path.removesuffix(".yaml") + ".tmpl")
            keys = llama_settings(load_strict(content), prompt).unmapped
            found += [f"{path}: {key} has no counterpart without LocalAI" for key in keys]
    return found


def _key_digest(paths: StackPaths, stack: Stack) -> str | None:
    if not stack.needs_key:
        return None
    key = read_key(paths)
    return key_digest(key) if key else NEW_KEY
