"""`up` and `down`: bring a stack to what is wanted, or to nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl import files
from llmctl.core.deployment import Deployment, container_name
from llmctl.core.events import Listener, Note
from llmctl.core.plan import (
    CreateService,
    FetchModel,
    Plan,
    ReplaceService,
    StartService,
    plan,
)
from llmctl.core.services import LITELLM, backends
from llmctl.core.stack import Stack
from llmctl.engine.base import Engine
from llmctl.errors import ConfigError, OutOfMemoryError
from llmctl.ops import configure, models, readiness
from llmctl.ops.choosing import keep, step_down
from llmctl.ops.converge import Applier
from llmctl.ops.endpoint import endpoints
from llmctl.ops.keys import ensure_key
from llmctl.ops.survey import Survey, survey
from llmctl.ops.templates import keep_rendered
from llmctl.paths import StackPaths

if TYPE_CHECKING:
    from llmctl.core.verdict import Formats

READY_S = 900.0


@dataclass(frozen=True)
class UpResult:
    """What `up` did.

    Attributes:
        changed: The actions that were applied, in order.
        survey: The stack as it was found last.
        endpoint: Base URL of the OpenAI-compatible API, with /v1.
        needs_key: Whether a client must send the key.
    """

    changed: Plan
    survey: Survey
    endpoint: str
    needs_key: bool


def up(
    paths: StackPaths,
    stack: Stack,
    engine: Engine,
    hub: models.Hub,
    listen: Listener,
    *,
    pull: bool = True,
    force: bool = False,
    timeout_s: float = READY_S,
) -> UpResult:
    """Make the stack run and prove that it answers.

    Args:
        paths: The stack directory.
        stack: What the user wants.
        engine: Where it runs.
        hub: Where models come from.
        listen: Hears each step.
        pull: Whether missing models may be pulled.
        force: Whether settings that do not fit into memory are tried nevertheless.
        timeout_s: Seconds each service has to become ready.

    Raises:
        LlmctlError: whatever goes wrong, with the next command.
    """
    with files.exclusive(paths.state / "lock", "llmctl up"):
        if stack.needs_key:
            ensure_key(paths)
        found = survey(paths, stack, engine, hub if pull else None, listen, force=force)
        fetches = tuple(a for a in found.plan.actions if isinstance(a, FetchModel))
        if fetches and not pull:
            names = ", ".join(path for a in fetches for path, _ in a.model.files)
            raise ConfigError(
                f"--no-pull, but model files are missing: {names}", hint="llmctl models pull"
            )
        _refuse_edits(found)
        if fetches:
            # The files' hashes are a part of what runs, and known only now: plan anew.
            _applier(found, engine, hub, listen, timeout_s).apply(Plan(stack.name, fetches))
            found = survey(paths, stack, engine, hub, lambda _event: None, force=force)
        # Before anything starts: what then holds the memory must not be planned around.
        keep(paths, found.settled, listen)
        keep_rendered(paths, found.deployment)
        try:
            _start(found, engine, hub, listen, timeout_s)
        except OutOfMemoryError as error:
            found = _one_step_down(found, error, engine, listen)
            _start(found, engine, hub, listen, timeout_s)
    where = endpoints(paths, stack, found.info.kind, found.info.host_gateway)
    return UpResult(
        Plan(stack.name, (*fetches, *found.plan.actions)),
        found,
        f"{where.gateway}/v1",
        stack.needs_key,
    )


def _start(
    found: Survey, engine: Engine, hub: models.Hub, listen: Listener, timeout_s: float
) -> None:
    """Apply the plan, wait for every service, and compare what was loaded with its memory plan."""
    _applier(found, engine, hub, listen, timeout_s).apply(found.plan)
    _all_ready(found, engine, listen, timeout_s)
    touched = _touched(found.plan)
    for backend in backends(found.stack, found.info.kind):
        if backend.service in touched:
            from llmctl.ops import measuring

            measuring.record(found.paths, found.stack, engine, backend, found.settled, listen)


def _one_step_down(
    found: Survey, error: OutOfMemoryError, engine: Engine, listen: Listener
) -> Survey:
    """The same stack with a smaller choice for the model that did not fit, or the error itself."""
    model = error.model or ""
    before = found.settled.get(model)
    if before is None or not step_down(found.paths, model):
        raise error
    again = survey(found.paths, found.stack, engine, None, lambda _event: None)
    now = again.settled.get(model)
    if now is None or now.settings == before.settings:
        raise error
    listen(
        Note(f"{model}: ran out of memory while loading; once more, one step down", warning=True)
    )
    keep(found.paths, again.settled, listen)
    keep_rendered(found.paths, again.deployment)
    return again


def down(paths: StackPaths, name: str, engine: Engine, listen: Listener, *, volumes: bool) -> Plan:
    """Remove everything of a stack that runs, and with `volumes` what it stored in the engine."""
    with files.exclusive(paths.state / "lock", "llmctl down"):
        nothing = Deployment(name, str(paths.root), purge=volumes)
        engine.info()
        found = plan(nothing, engine.observe(name, ()))
        Applier(
            engine,
            nothing,
            fetch=_not_in_a_removal,
            write=_not_in_a_removal,
            ready=_not_in_a_removal,
            listen=listen,
        ).apply(found)
        return found


def _applier(
    found: Survey, engine: Engine, hub: models.Hub, listen: Listener, timeout_s: float
) -> Applier:
    specs = {spec.name: spec for spec in found.stack.models}
    rendered = {file.path: file for file in found.deployment.files}

    def formats() -> Formats:
        from llmctl.core.verdict import formats_of

        return formats_of(found.info.kind, found.stack.localai_image)

    options = models.PullOptions(formats=formats)

    def fetch(name: str) -> None:
        models.pull(found.paths, specs[name], hub, listen, options)

    def write(path: str) -> None:
        configure.write(found.paths, [rendered[path]], force=False, listen=listen)

    def ready(service: str) -> None:
        if service == LITELLM:
            # Its proof goes through the engine, which may be running without the model in memory.
            for backend in backends(found.stack, found.info.kind):
                _wait(backend.service, found, engine, listen, timeout_s)
        _wait(service, found, engine, listen, timeout_s)

    return Applier(engine, found.deployment, fetch, write, ready, listen)


def _all_ready(found: Survey, engine: Engine, listen: Listener, timeout_s: float) -> None:
    """Prove what was already running too: a model may be unloaded, a service wedged."""
    touched = _touched(found.plan)
    for spec in found.deployment.services:
        if not spec.job and spec.service not in touched:
            _wait(spec.service, found, engine, listen, timeout_s)


def _touched(done: Plan) -> set[str]:
    """Services that the plan started."""
    return {
        action.spec.service
        for action in done.actions
        if isinstance(action, CreateService | ReplaceService | StartService)
    }


def _wait(service: str, found: Survey, engine: Engine, listen: Listener, timeout_s: float) -> None:
    watch = readiness.Watch(
        engine=engine,
        container=container_name(found.stack.name, service),
        deadline_s=time.monotonic() + timeout_s,
        budget_s=timeout_s,
        listen=listen,
    )
    where = endpoints(found.paths, found.stack, found.info.kind, found.info.host_gateway)
    readiness.wait_for(service, where, watch)


def _refuse_edits(found: Survey) -> None:
    """Stop before the first change when a rendered file carries a person's edits."""
    states = configure.compare(found.paths, found.deployment.files)
    edited = [state for state in states if state.state == "edited"]
    if edited:
        raise configure.edited_by_hand(edited)


def _not_in_a_removal(what: str) -> None:
    raise AssertionError(f"a plan for nothing asks for {what}")
