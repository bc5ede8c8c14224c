"""The settings of a stack's models, from their headers and what this machine has free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmctl.core.artifact import Artifact
from llmctl.core.events import Listener, Note
from llmctl.core.fitting import Fit, Wish, devices_of, fit, given_settings, refusal, with_room
from llmctl.core.memory import Device, Model, Projector
from llmctl.core.stack import ModelSpec, Stack
from llmctl.core.tuning import Settled
from llmctl.errors import ConfigError
from llmctl.ops.choosing import Circumstances, Here
from llmctl.ops.host import machine
from llmctl.ops.measuring import measured, subject
from llmctl.ops.models.headers import local_header
from llmctl.paths import StackPaths


@dataclass(frozen=True)
class Planner:
    """Plans what has to be planned anew.

    Attributes:
        paths: The stack directory.
        stack: What the user wants.
        around: What else decides.
        kept: What was settled before: its engine may still hold that.
        listen: Hears what does not fit, where that is not refused.
    """

    paths: StackPaths
    stack: Stack
    around: Circumstances
    kept: Mapping[str, Settled]
    listen: Listener

    def settle(
        self, here: Here, keys: Mapping[str, str], still: Mapping[str, Settled]
    ) -> dict[str, Settled]:
        """Each model's settings; they share the GPUs in their order.

        Args:
            here: The models whose files are here.
            keys: What each one's choice rests on.
            still: The choices that stand.

        Raises:
            ConfigError: what the user fixed cannot fit.
        """
        kind = self.around.gpu.kind
        hardware = machine("none" if kind == "none" else None)
        devices = devices_of(hardware, kind, self.stack.gpu_devices)
        if kind != "none" and len(devices) == 1:
            # The engine runs elsewhere, or the driver does not tell: there is nothing to choose by.
            self.listen(
                Note("the GPU's memory is not known here, so all layers go there: llmctl host")
            )
            return dict(still)
        if self.kept and self.around.running():
            for before in self.kept.values():
                devices = with_room(devices, before.taken)
        for standing in still.values():
            devices = _without(devices, standing)
        found: dict[str, Settled] = {}
        for spec, artifact in here:
            settled = still.get(spec.name)
            if settled is None:
                key, ram = keys[spec.name], hardware.memory.usable
                settled = self._plan(spec, artifact, key, devices, ram)
                if settled is None:
                    continue
                devices = _without(devices, settled)
            found[spec.name] = settled
        return found

    def _plan(
        self,
        spec: ModelSpec,
        artifact: Artifact,
        key: str,
        devices: tuple[Device, ...],
        ram: int,
    ) -> Settled | None:
        """None where the plan cannot read the model: the engine may still be able to load it."""
        try:
            model, projector = models_of(self.paths, artifact)
        except ConfigError as error:
            text = f"{spec.name}: no memory plan, so the defaults: {error.message}"
            self.listen(Note(text, warning=True))
            return None
        gpus = tuple(device.name for device in devices if device.kind == "gpu")
        of = subject(artifact, self.around.build, gpus)
        # What earlier loads of the same took beyond the plan, or found missing.
        before = measured(self.paths).get(of)
        short = before.less() if before else {}
        devices = with_room(devices, {name: -size for name, size in short.items()})
        answer = fit(model, projector, wish_of(spec, self.around), devices)
        wrong = refusal(spec.name, answer.estimate, ram)
        if wrong and not self.around.force:
            if self.around.strict:
                raise wrong
            self.listen(Note(wrong.message, warning=True))
        settled = _settled(key, of, answer, fits=wrong is None)
        threads = spec.threads or settled.settings.threads
        return replace(
            settled,
            forced=self.around.force and wrong is not None,
            settings=replace(settled.settings, threads=threads),
        )


def _without(devices: tuple[Device, ...], settled: Settled) -> tuple[Device, ...]:
    return with_room(devices, {name: -size for name, size in settled.taken.items()})


def _settled(key: str, of: str, found: Fit, *, fits: bool) -> Settled:
    return Settled(
        key=key,
        settings=given_settings(found.settings, found.threads),
        reasons=tuple((one.setting, one.reason) for one in found.decisions),
        taken=found.taken,
        terms=found.terms,
        subject=of,
        fits=fits,
        fresh=True,
    )


def models_of(paths: StackPaths, artifact: Artifact) -> tuple[Model, Projector | None]:
    """A model whose files are here, as the memory plan sees it.

    Raises:
        ConfigError: a header is damaged or cannot be planned.
    """
    headers = [local_header(paths.models / file.path) for file in artifact.model]
    projector = artifact.projector
    eyes = Projector.of(local_header(paths.models / projector.path)) if projector else None
    return Model.of(headers), eyes


def wish_of(spec: ModelSpec, around: Circumstances) -> Wish:
    """What the stack file asks for of a model's engine."""
    return Wish(
        context=spec.context,
        parallel=spec.parallel,
        gpu_layers=spec.gpu_layers,
        tuning=spec.tuning,
        cores=around.cores,
        # SYCL hangs with mmap (LocalAI's own documentation).
        mmap=around.gpu.kind != "intel",
    )
