"""A memory plan for people: bars, tables as rows of cells, and sentences. The CLI lays them out."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.core.gpus import Gpu
from llmctl.core.memory import DeviceMemory, Estimate, Settings, Table
from llmctl.core.sizes import memory_text
from llmctl.core.tuning import ALL_LAYERS

BAR = 40  # columns
Row = tuple[str, ...]

# Terms in a bar, the heaviest ink for what cannot be given back.
_INK = (
    ("weights", "█", ("weights",)),
    ("context", "▓", ("kv_cache", "state")),
    ("projector", "◆", ("projector_weights", "projector_compute")),
    ("compute", "▒", ("compute", "output")),
    ("reserve", "░", ("reserve",)),
)
_FREE, _OVER = "·", "!"
LEGEND = "  ".join([*(f"{ink} {word}" for word, ink, _ in _INK), f"{_FREE} left free"])

TERMS = {
    "weights": "weights",
    "kv_cache": "context (KV cache)",
    "state": "recurrent state",
    "compute": "compute buffer",
    "output": "output buffer",
    "projector_weights": "projector",
    "projector_compute": "projector's compute",
    "reserve": "reserve",
}


def bar(memory: DeviceMemory, columns: int = BAR) -> str:
    """What is free on a device as a line of `columns` characters, and what of it is taken."""
    scale = max(memory.device.free, memory.total, 1)
    drawn, taken = "", 0
    for _, ink, names in _INK:
        taken += sum(memory.terms[name].bytes for name in names)
        drawn += ink * (round(columns * taken / scale) - len(drawn))
    room = round(columns * memory.device.free / scale)
    over = drawn[:room] + _OVER * (len(drawn) - room)
    return over if len(drawn) > room else drawn + _FREE * (room - len(drawn))


def bars(estimate: Estimate) -> tuple[Row, ...]:
    """A row a device: its name, its bar, what is taken of what is free."""
    return tuple(
        (
            memory.device.name,
            bar(memory),
            f"{memory_text(memory.total)} of {memory_text(memory.device.free)} free",
            "fits" if memory.fits else f"lacks {memory_text(_lacking(memory))}",
        )
        for memory in estimate.devices
    )


def _lacking(memory: DeviceMemory) -> int:
    return max(memory.total - memory.device.free, 0)


def terms(estimate: Estimate) -> tuple[Row, tuple[Row, ...]]:
    """The head and rows of a table: a term a row, a device a column, and how well it is known."""
    head = ("", *(memory.device.name for memory in estimate.devices), "known")
    rows: list[Row] = []
    for name, words in TERMS.items():
        cells = [memory.terms[name] for memory in estimate.devices]
        if any(cell.bytes for cell in cells):
            known = dict.fromkeys(cell.provenance for cell in cells if cell.bytes)
            rows.append((words, *(_cell(cell.bytes) for cell in cells), ", ".join(known)))
    rows.append(("total", *(_cell(m.total) for m in estimate.devices), ""))
    rows.append(("free now", *(_cell(m.device.free) for m in estimate.devices), ""))
    return head, tuple(rows)


def _cell(size: int) -> str:
    return memory_text(size) if size else "-"


def settings_text(settings: Settings, layers: int | None, threads: int) -> str:
    """The settings on two lines."""
    all_of = f" of {layers}" if layers else ""
    count = ALL_LAYERS if settings.gpu_layers is None else settings.gpu_layers
    slots = f"{settings.parallel} slot{'s' * (settings.parallel != 1)}"
    kv = settings.cache_type_k
    if settings.cache_type_v != kv:
        kv += f"/{settings.cache_type_v}"
    extra = [
        f"tensor split {','.join(f'{share:g}' for share in settings.tensor_split)}"
        if settings.tensor_split
        else "",
        f"pictures up to {settings.image_max_tokens} tokens" if settings.image_max_tokens else "",
        "" if settings.projector_on_gpu else "projector in RAM",
        f"experts of {_blocks(settings.experts_on_cpu)} in RAM" if settings.experts_on_cpu else "",
        "" if settings.kv_unified else "a context for each slot",
        "old logits" if settings.legacy_logits else "",
    ]
    return (
        f"context {settings.context} tokens for {slots}, {count}{all_of} layers on the GPU, KV {kv},"
        f" flash attention {settings.flash_attention}\n"
        + ", ".join(
            [
                f"batch {settings.batch}, ubatch {settings.ubatch}, {threads} threads",
                *filter(None, extra),
            ]
        )
    )


def _blocks(count: int | bool) -> str:  # noqa: FBT001 - as `Settings` has it
    return "all blocks" if count is True else f"{count} blocks"


def pictures_text(estimate: Estimate) -> str | None:
    """What a picture takes of a slot's context, and what it leaves; None without a projector."""
    tokens = estimate.picture_tokens
    if tokens is None:
        return None
    context = slot_context(estimate)
    left = context - tokens
    if left <= 0:
        return f"a picture takes up to {tokens} tokens, more than the context of {context}"
    return f"a picture takes up to {tokens} of {context} tokens and leaves {left} for words"


def slot_context(estimate: Estimate) -> int:
    """Tokens that one conversation can use at most."""
    settings = estimate.settings
    return settings.context if settings.kv_unified else settings.context // settings.parallel


def hidden_text(estimate: Estimate) -> str | None:
    """RAM that grows while serving; None when there is none."""
    parts = [
        f"{name} {memory_text(term.bytes)}"
        for name, term in estimate.host_hidden.items()
        if term.bytes
    ]
    return "RAM besides, while serving: " + ", ".join(parts) if parts else None


def holders_text(gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """Who else holds memory of the GPUs, a line each."""
    lines = []
    for gpu in gpus:
        held = [
            f"{one.name} (pid {one.pid})" + (f" {memory_text(one.bytes)}" if one.bytes else "")
            for one in gpu.processes
        ]
        if gpu.unseen:
            held.append(f"not visible from here {memory_text(gpu.unseen)}")
        if held:
            lines.append(f"{gpu.name}: held by {', '.join(held)}")
    return tuple(lines)


def combinations(found: Table) -> tuple[Row, tuple[Row, ...]]:
    """The head and rows of the table of combinations: a context a column, brackets where it lacks."""
    contexts = sorted({row.context for row in found.rows})
    lines: dict[tuple[str, str, int], dict[int, str]] = {}
    for row in found.rows:
        size = memory_text(row.bytes)
        cell = f"{size} ◀" if row.recommended else size if row.fits else f"({size})"
        lines.setdefault((row.label, row.kv_type, row.slots), {})[row.context] = cell
    head = ("quantisation", "KV", "slots", *(f"{context}" for context in contexts))
    return head, tuple(
        (label, kv, str(slots), *(cells.get(context, "-") for context in contexts))
        for (label, kv, slots), cells in lines.items()
    )
