"""A memory plan as a JSON document: bytes and tokens as whole numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmctl.core.fit_text import slot_context
from llmctl.core.fitting import Fit
from llmctl.core.memory import DeviceMemory, Row, Table

# The less is known, the further right.
_KNOWN = ("exact", "closed form", "margin")


def fit_document(name: str, found: Fit, more: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about a model on a machine; `more` is put at the end."""
    estimate = found.estimate
    devices = [_device(memory) for memory in estimate.devices]
    tokens = estimate.picture_tokens
    return {
        "model": name,
        "fits": estimate.fits,
        "devices": devices,
        "settings": {**dataclasses.asdict(found.settings), "threads": found.threads},
        "effective": dataclasses.asdict(estimate.settings),
        "reasons": [
            {"setting": one.setting, "value": one.value, "reason": one.reason}
            for one in found.decisions
        ],
        "provenance": _worst(devices),
        "layers": estimate.layers,
        "known_architecture": estimate.known_architecture,
        "picture_tokens": tokens,
        "tokens_beside_a_picture": None if tokens is None else slot_context(estimate) - tokens,
        "host_hidden": {name: term.bytes for name, term in estimate.host_hidden.items()},
        **more,
    }


def _device(memory: DeviceMemory) -> dict[str, Any]:
    return {
        "name": memory.device.name,
        "kind": memory.device.kind,
        **{name: term.bytes for name, term in memory.terms.items()},
        "total": memory.total,
        "free": memory.device.free,
        "fits": memory.fits,
        "capacity": memory.device.total,
        "provenance": {name: term.provenance for name, term in memory.terms.items()},
    }


def _worst(devices: list[dict[str, Any]]) -> dict[str, str]:
    """By term, how well it is known where it is known least."""
    found: dict[str, str] = {}
    for device in devices:
        for name, known in device["provenance"].items():
            if device[name]:
                found[name] = max(found.get(name, known), known, key=_KNOWN.index)
            found.setdefault(name, known)
    return found


def table_document(found: Table) -> dict[str, Any]:
    """The table of combinations."""
    return {
        "fits": found.recommended is not None,
        "recommended": _row(found.recommended),
        "next_gib": _row(found.next_gib),
        "rows": [_row(row) for row in found.rows],
    }


def _row(row: Row | None) -> dict[str, Any] | None:
    return None if row is None else dataclasses.asdict(row)
