"""`llmctl fit`: does it fit, what takes the memory, what should the settings be."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.host import HostGpuOption, HostRamOption
from llmctl.cli.options import HERE, DirectoryOption, FileOption, OutputOption, SetOption
from llmctl.cli.output import Mode, Output, colour, table
from llmctl.cli.stack import load
from llmctl.errors import UsageError

if TYPE_CHECKING:
    from llmctl.core.events import Listener
    from llmctl.core.fitting import Wish
    from llmctl.core.memory import Row, Table
    from llmctl.core.stack import ModelSpec, Stack
    from llmctl.ops.fit import Place, Report, Subject
    from llmctl.paths import StackPaths

DOES_NOT_FIT = 3


def fit(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|hf://ORGANISATION/REPOSITORY[:QUANT][@REVISION]|FILE...]",
            help="A model of the stack or the catalogue, a repository, or GGUF files on this machine"
            " (a model, and its projector); by default the stack's models.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", min=256, help="Tokens of context, over all slots.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option("--parallel", min=1, max=256, help="Slots: requests at a time.")
    ] = None,
    kv_type: Annotated[
        str | None,
        typer.Option("--kv-type", metavar="TYPE", help="Of the KV cache: f16, q8_0, q4_0, ..."),
    ] = None,
    gpu: HostGpuOption = None,
    ram: HostRamOption = None,
    image_max_tokens: Annotated[
        int | None, typer.Option("--image-max-tokens", min=1, help="Most tokens of one picture.")
    ] = None,
    gpu_layers: Annotated[
        int | None,
        typer.Option(
            "--gpu-layers",
            min=0,
            help="Layers on the GPU, the output counted as one. With it nothing is chosen: what is"
            " not said has its default.",
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Logical batch.")] = None,
    ubatch: Annotated[int | None, typer.Option("--ubatch", min=1, help="Physical batch.")] = None,
    flash_attention: Annotated[
        str | None,
        typer.Option("--flash-attention", metavar="auto|on|off", help="auto, on or off."),
    ] = None,
    tensor_split: Annotated[
        str | None, typer.Option("--tensor-split", metavar="2,1", help="Shares of the GPUs.")
    ] = None,
    kv_unified: Annotated[
        bool | None,
        typer.Option(
            "--kv-unified/--no-kv-unified", help="One context for all slots, or one each."
        ),
    ] = None,
    legacy_logits: Annotated[
        bool,
        typer.Option("--legacy-logits", help="For an engine from before June 2026 (b9538)."),
    ] = False,
    mmproj: Annotated[
        Path | None, typer.Option("--mmproj", help="The projector that belongs to a FILE.")
    ] = None,
    combinations: Annotated[
        bool,
        typer.Option("--table", help="Quantisations × cache types × contexts × slots."),
    ] = False,
    directory: DirectoryOption = HERE,
    file: FileOption = None,
    sets: SetOption = None,
    output: OutputOption = Mode.HUMAN,
) -> None:
    """Say whether a model fits this machine, or another one, and with which settings; exit 3 if not.

    Only headers are read: nothing is downloaded and nothing is started.
    """
    said = {
        "context": context,
        "parallel": parallel,
        "gpu_layers": gpu_layers,
        "cache_type_k": kv_type,
        "cache_type_v": kv_type,
        "image_max_tokens": image_max_tokens,
        "batch": batch,
        "ubatch": ubatch,
        "flash_attention": flash_attention,
        "tensor_split": tensor_split,
        "kv_unified": None if kv_unified is None else "on" if kv_unified else "off",
    }
    flags = {key: value for key, value in said.items() if value is not None}
    out = Output(output)
    with out.listening() as listen:
        asked = _Asked(directory, file, tuple(sets or ()), flags, legacy_logits, gpu, ram, listen)
        if combinations:
            _table(out, asked, sources or [], mmproj)
        else:
            _reports(out, asked, sources or [], mmproj)


def _reports(out: Output, asked: _Asked, sources: list[str], mmproj: Path | None) -> None:
    from llmctl.core.fit_report import fit_document
    from llmctl.ops.fit import report

    found = [
        report(subject, place, wish, exact="gpu_layers" in asked.flags)
        for subject, place, wish in asked.subjects(sources, mmproj)
    ]
    documents = [fit_document(one.subject.name, one.fit, _more(one)) for one in found]
    fits = all(one.fit.estimate.fits for one in found)
    out.data(
        documents[0] if len(documents) == 1 else {"fits": fits, "models": documents},
        lambda: "\n\n\n".join(_text(one) for one in found),
        "fits" if fits else "does not fit",
    )
    if not fits:
        raise typer.Exit(DOES_NOT_FIT)


def _table(out: Output, asked: _Asked, sources: list[str], mmproj: Path | None) -> None:
    from llmctl.core.fit_report import table_document
    from llmctl.ops.fit import combinations

    (subject, place, wish), *others = asked.subjects(sources, mmproj)
    if others:
        names = ", ".join((subject.name, *(one[0].name for one in others)))
        raise UsageError(f"--table is for one model, and the stack has {names}", hint="name one")
    found = combinations(subject, place, wish, asked.hub(), asked.listen)
    best = found.recommended
    out.data(
        {"model": subject.name, **table_document(found)},
        lambda: _table_text(subject, found),
        f"{best.label} {best.kv_type} {best.context} {best.slots}" if best else "does not fit",
    )
    if best is None:
        raise typer.Exit(DOES_NOT_FIT)


@dataclasses.dataclass
class _Asked:
    """The command line, as far as it says what to plan, and on what."""

    directory: Path
    file: Path | None
    sets: tuple[str, ...]
    flags: dict[str, Any]
    legacy_logits: bool
    gpu: str | None
    ram: str | None
    listen: Listener

    def subjects(
        self, sources: list[str], mmproj: Path | None
    ) -> list[tuple[Subject, Place, Wish]]:
        """The models, each with the machine and the wishes for it."""
        from llmctl.ops.fit import from_files, from_spec
        from llmctl.ops.host import machine

        paths, stack = self._stack()
        hardware = machine(self.gpu, self.ram)
        cores = hardware.physical_cores
        given = [*sources, *([str(mmproj)] if mmproj else [])]
        if sources and all(map(_is_file, given)):
            subject = from_files([Path(one).expanduser() for one in given])
            wish = self._wish(self._plain(), cores)
            return [(subject, self._place(paths, stack, hardware), wish)]
        if len(given) > 1:
            raise UsageError(
                "several files, or one model: " + ", ".join(given),
                hint="llmctl fit model.gguf mmproj-model.gguf",
            )
        from llmctl.cli.inspect import formats_for

        formats = formats_for(paths, stack)
        found = []
        for spec in self._specs(stack, sources):
            ours = spec in stack.models and self.gpu is None
            place = self._place(paths, stack, hardware, ours=ours)
            subject = from_spec(paths, spec, self.hub(), formats)
            found.append((subject, place, self._wish(spec, cores)))
        return found

    def hub(self) -> Any:
        """The hub."""
        from llmctl.hub import connect_hub

        return connect_hub()

    def _stack(self, *more: str) -> tuple[StackPaths, Stack]:
        """The stack with the flags as if they were set in it; so they are checked like its keys."""
        flags = [f"{key}={value}" for key, value in self.flags.items()]
        paths, resolved = load(self.directory, self.file, [*self.sets, *flags, *more])
        return paths, resolved.stack

    def _specs(self, stack: Stack, sources: list[str]) -> tuple[ModelSpec, ...]:
        if not sources:
            return stack.models
        for spec in stack.models:
            if sources[0] in {spec.name, spec.source}:
                return (spec,)
        return self._stack(f"models={sources[0]}")[1].models[:1]

    def _place(
        self, paths: StackPaths, stack: Stack, hardware: Any, *, ours: bool = False
    ) -> Place:
        from llmctl.ops.fit import place_of, stack_place

        return stack_place(paths, stack, hardware) if ours else place_of(hardware)

    def _plain(self) -> ModelSpec:
        """A model with the stack's own settings, the flags among them."""
        return self._stack("models=file")[1].models[0]

    def _wish(self, spec: ModelSpec, cores: int) -> Wish:
        """What is wished for: a flag wins over what the model's own entry says."""
        from llmctl.core.fitting import Wish

        plain = self._plain()

        def said(key: str) -> Any:
            return getattr(plain if key in self.flags else spec, key)

        insisted = {*spec.tuning.insisted, *self.flags} & {"context", "parallel"}
        changes = {
            key: getattr(plain.tuning, key) for key in self.flags if hasattr(plain.tuning, key)
        }
        if self.legacy_logits:
            changes["legacy_logits"] = True
        tuning = dataclasses.replace(spec.tuning, **changes, insisted=tuple(sorted(insisted)))
        cores = spec.threads or cores
        return Wish(said("context"), said("parallel"), said("gpu_layers"), tuning, cores)


def _is_file(source: str) -> bool:
    named = source.lower().endswith(".gguf") and not source.startswith("hf://")
    return named or Path(source).expanduser().is_file()


def _more(one: Report) -> dict[str, Any]:
    place = one.place
    return {
        "quantisation": one.subject.label,
        "next_gib": one.next_gib,
        "notes": list(one.notes),
        "held_by": {
            gpu.name: [dataclasses.asdict(process) for process in gpu.processes]
            for gpu in place.gpus
        },
    }


def _text(one: Report) -> str:
    from llmctl.core import fit_text

    estimate = one.fit.estimate
    head, rows = fit_text.terms(estimate)
    fits = colour("fits", "1;32", stream=sys.stdout)
    verdict = fits if estimate.fits else colour("does not fit", "1;31", stream=sys.stdout)
    layers = one.fit.settings.gpu_layers or 0
    if estimate.fits and estimate.gpus and layers < estimate.layers:
        verdict += f", with {layers} of {estimate.layers} layers on the GPU"
    architecture = one.subject.model.layout.architecture
    parts = [
        f"{one.subject.name} ({architecture}, {one.subject.label}): {verdict}",
        table(("device", "memory", "", ""), fit_text.bars(estimate)) + f"\n{fit_text.LEGEND}",
        table(head, rows),
        "\n".join(
            filter(
                None,
                (
                    fit_text.settings_text(one.fit.settings, estimate.layers, one.fit.threads),
                    fit_text.pictures_text(estimate),
                    fit_text.hidden_text(estimate),
                    *fit_text.holders_text(one.place.gpus),
                ),
            )
        ),
        "\n".join(["why:", *(f"  {reason}" for reason in one.fit.reasons)])
        if one.fit.reasons
        else "",
        f"one GiB more would buy: {one.next_gib}" if one.next_gib else "",
        "\n".join(f"note: {note}" for note in one.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _table_text(subject: Subject, found: Table) -> str:
    from llmctl.core.fit_text import combinations

    head, rows = combinations(found)
    best, more = found.recommended, found.next_gib
    parts = [
        table(head, rows),
        f"recommended ◀: {_row_text(best)}" if best else "none of them fits with all its layers",
        f"one GiB more would buy: {_row_text(more)}" if more else "",
        "sizes with everything on the GPU, the reserve included; in brackets what does not fit",
        *(f"note: {note}" for note in subject.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _row_text(row: Row) -> str:
    slots = f"{row.slots} slot{'s' * (row.slots != 1)}"
    return f"{row.label}, KV {row.kv_type}, context {row.context}, {slots}"
