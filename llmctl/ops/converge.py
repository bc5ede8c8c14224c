"""Apply a plan: the only code that changes what runs.

Every action can be interrupted; the next plan starts from what is there then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from llmctl import host
from llmctl.core.deployment import Deployment, ServiceSpec, aside_name, container_name
from llmctl.core.events import Listener, Note, Progress, Step
from llmctl.core.plan import (
    Action,
    CreateNetwork,
    CreateService,
    CreateVolume,
    FetchModel,
    Plan,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    ReplaceService,
    RunJob,
    StartService,
    WriteFile,
)
from llmctl.core.plan_text import action_text
from llmctl.engine.base import Engine
from llmctl.errors import EngineError, LlmctlError
from llmctl.ops.readiness import last_lines

JOB_POLL_S = 0.2


@dataclass(frozen=True)
class Applier:
    """Applies the actions of a plan to one engine.

    Attributes:
        engine: Where containers, networks and volumes are changed.
        deployment: What the plan leads to.
        fetch: Pulls the model of that name.
        write: Writes the rendered file of that path.
        ready: Waits until the service of that name does its work.
        listen: Hears each step.
    """

    engine: Engine
    deployment: Deployment
    fetch: Callable[[str], None]
    write: Callable[[str], None]
    ready: Callable[[str], None]
    listen: Listener

    def apply(self, plan: Plan) -> None:
        """Apply every action in order; the first failure ends it.

        New services start side by side: nobody waits for one until the last of them is on its way.
        """
        self._check_ports(plan)
        starting: list[str] = []
        for action in plan.actions:
            self.listen(Step(action_text(action)))
            if isinstance(action, CreateService):
                self._create(action.spec)
                starting.append(action.spec.service)
                continue
            self._wait_for(starting)
            self._apply(action)
        self._wait_for(starting)

    def _wait_for(self, starting: list[str]) -> None:
        while starting:
            self.ready(starting.pop(0))

    def _apply(self, action: Action) -> None:
        engine, stack = self.engine, self.deployment.stack
        match action:
            case FetchModel(model):
                self.fetch(model.name)
            case WriteFile(path):
                self.write(path)
            case PullImage(image):
                engine.pull_image(image, self.listen)
            case CreateNetwork(network):
                engine.create_network(stack, network)
            case CreateVolume(volume):
                engine.create_volume(stack, volume)
            case RunJob():
                self._run_job(action)
            case CreateService():
                raise AssertionError("started side by side in apply")
            case StartService(spec):
                engine.start(container_name(stack, spec.service))
                self.ready(spec.service)
            case ReplaceService(spec):
                self._replace(spec)
            case RemoveContainer(_, container):
                engine.remove(container)
            case RemoveNetwork(network):
                engine.remove_network(network)
            case RemoveVolume(volume):
                engine.remove_volume(volume)
            case _:
                assert_never(action)

    def _create(self, spec: ServiceSpec) -> None:
        """Create and start; a container the engine refuses to start is not left behind."""
        container = container_name(self.deployment.stack, spec.service)
        network = self.deployment.network or ""
        self.engine.create(
            self.deployment.stack, self.deployment.directory, network, spec, container
        )
        try:
            self.engine.start(container)
        except LlmctlError:
            self.engine.remove(container)
            raise

    def _replace(self, spec: ServiceSpec) -> None:
        """Stop, set aside, create, wait, remove; on failure the old container is put back.

        The old one stops first because there is one GPU and one port. An interrupt leaves the new
        container where it is: the next `up` goes on waiting for it.
        """
        stack, engine = self.deployment.stack, self.engine
        container = container_name(stack, spec.service)
        aside = aside_name(stack, spec.service)
        engine.remove(aside)
        engine.stop(container)
        engine.rename(container, aside)
        try:
            self._create(spec)
            self.ready(spec.service)
        except LlmctlError as error:
            engine.remove(container)
            engine.rename(aside, container)
            engine.start(container)
            note = f"{spec.service}: the change failed, the previous container runs again"
            self.listen(Note(note, warning=True))
            raise error from None
        engine.remove(aside)

    def _run_job(self, action: RunJob) -> None:
        if action.stale:
            self.engine.remove(action.stale)
        self._create(action.spec)
        container = container_name(self.deployment.stack, action.spec.service)
        began = time.monotonic()
        while True:
            found = self.engine.inspect(container)
            if found is None or found.state in {"exited", "dead"}:
                break
            seconds = time.monotonic() - began
            last = last_lines(self.engine, container, count=1)
            detail = last[-1].strip() if last else ""
            self.listen(Progress(action.spec.service, seconds, unit="s", detail=detail))
            time.sleep(JOB_POLL_S)
        seconds = time.monotonic() - began
        if found is None or found.exit_code != 0:
            code = found.exit_code if found else "unknown"
            raise EngineError(
                f"{action.spec.service} failed with exit code {code}",
                hint="the engine's host needs network access for this step; or give the backend as a"
                "\nfile: localai.backend: ocifile:///PATH.tar",
                details="\n".join(last_lines(self.engine, container)),
            )
        self.listen(Progress(action.spec.service, seconds, unit="s", finished=True))

    def _check_ports(self, plan: Plan) -> None:
        """Find a taken port, and its holder, before anything is stopped for it."""
        ours = {
            container_name(self.deployment.stack, spec.service) for spec in self.deployment.services
        }
        for action in plan.actions:
            if not isinstance(action, CreateService | ReplaceService | StartService):
                continue
            for port in action.spec.ports:
                owner = host.port_owner(port.host, port.host_port)
                if owner is None:
                    continue
                holder = self.engine.port_holder(port.host_port)
                if holder in ours:
                    continue
                by = f"the container {holder}" if holder else owner
                key = "gateway.port" if action.spec.service == "litellm" else "localai.port"
                raise EngineError(
                    f"port {port.host}:{port.host_port} is taken by {by}",
                    hint=(f"docker stop {holder}   # or:\n" if holder else "")
                    + f"choose another port: {key} in llmctl.yaml, or --set {key}=NUMBER",
                )
