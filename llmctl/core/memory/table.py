"""All combinations of quantisation, cache type, context and slots, and which of them fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llmctl.core.memory.estimate import estimate
from llmctl.core.memory.facts import GIB, Device, Settings
from llmctl.core.memory.model import Model
from llmctl.core.memory.projector import Projector

KV_TYPES = ("f16", "q8_0", "q4_0")
CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072)
SLOTS = (1, 2, 4)
# How far a cache type is from f16 for who reads the answers: q8_0 hardly, q4_0 plainly.
_KV_RANK = {"f16": 2, "q8_0": 1, "q4_0": 0}


@dataclass(frozen=True)
class Row:
    """One combination, everything offloaded.

    Attributes:
        label: The quantisation, as the caller names it.
        kv_type: Of K and V.
        context: Tokens over all slots.
        slots: How many.
        bytes: On the GPUs together, reserves included; in RAM where there is no GPU.
        missing: Bytes by which the fullest device falls short, 0 when it fits.
        fits: Whether it does.
        recommended: The one to take.
    """

    label: str
    kv_type: str
    context: int
    slots: int
    bytes: int
    missing: int
    fits: bool
    recommended: bool = False


@dataclass(frozen=True)
class Table:
    """The rows, and what one more GiB on the largest GPU (or of RAM) would buy.

    Attributes:
        rows: In the order of the arguments.
        next_gib: The row that would be recommended then, None when that changes nothing.
    """

    rows: tuple[Row, ...]
    next_gib: Row | None

    @property
    def recommended(self) -> Row | None:
        """The row to take, None when nothing fits."""
        return next((row for row in self.rows if row.recommended), None)


def table(
    models: Mapping[str, Model],
    devices: Sequence[Device],
    base: Settings,
    projector: Projector | None = None,
    *,
    kv_types: Sequence[str] = KV_TYPES,
    contexts: Sequence[int] = CONTEXTS,
    slots: Sequence[int] = SLOTS,
) -> Table:
    """The table for one model in several quantisations.

    Args:
        models: By label, such as "Q4_K_M".
        devices: GPUs and the host.
        base: What is wanted: its context and slots say which rows would do; the rest is kept.
        projector: The vision encoder.
        kv_types: Types for K and V.
        contexts: Tokens; those beyond what the model was trained for are left out.
        slots: Numbers of slots.

    Raises:
        ConfigError: settings that llama.cpp would refuse.
    """
    rows = tuple(_rows(models, devices, base, projector, kv_types, contexts, slots))
    best = _best(rows, models, base)
    richer = _best(
        tuple(_rows(models, _richer(devices), base, projector, kv_types, contexts, slots)),
        models,
        base,
    )
    return Table(
        rows=tuple(replace(row, recommended=row is best) for row in rows),
        next_gib=None if richer is None or _same(richer, best) else richer,
    )


def _rows(
    models: Mapping[str, Model],
    devices: Sequence[Device],
    base: Settings,
    projector: Projector | None,
    kv_types: Sequence[str],
    contexts: Sequence[int],
    slots: Sequence[int],
) -> Iterator[Row]:
    layers = None if any(device.kind == "gpu" for device in devices) else 0
    for (label, model), kv_type in itertools.product(models.items(), kv_types):
        longest = model.layout.trained_context
        for context, count in itertools.product(contexts, slots):
            if context > longest and context != base.context:
                continue
            settings = replace(
                base,
                context=context,
                parallel=count,
                cache_type_k=kv_type,
                cache_type_v=kv_type,
                gpu_layers=layers if base.gpu_layers is None else base.gpu_layers,
            )
            answer = estimate(model, settings, devices, projector)
            total = answer.gpu_total if answer.gpus else answer.host.total
            yield Row(label, kv_type, context, count, total, answer.missing, answer.fits)


def _best(rows: Sequence[Row], models: Mapping[str, Model], base: Settings) -> Row | None:
    """Of what fits: enough context and slots first, then the better weights, then the better cache."""

    def rank(row: Row) -> tuple[int, int, int, int, int]:
        return (
            min(row.context, base.context),
            min(row.slots, base.parallel),
            models[row.label].weight_bytes,
            _KV_RANK.get(row.kv_type, 0),
            row.context - abs(row.slots - base.parallel),
        )

    return max((row for row in rows if row.fits), key=rank, default=None)


def _richer(devices: Sequence[Device]) -> tuple[Device, ...]:
    largest = max(devices, key=lambda device: (device.kind == "gpu", device.free))
    return tuple(
        replace(device, total=device.total + GIB, free=device.free + GIB)
        if device is largest
        else device
        for device in devices
    )


def _same(one: Row, other: Row | None) -> bool:
    names = ("label", "kv_type", "context", "slots")
    return other is not None and all(getattr(one, name) == getattr(other, name) for name in names)
