"""AMD's and Intel's GPUs, from what their kernel drivers show in /sys/class/drm."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.cards import intel_card
from llmctl.core.gpus import Gpu
from llmctl.core.hostfacts import AMD, INTEL
from llmctl.core.sizes import GIB
from llmctl.host.pci_names import pci_name
from llmctl.host.probing import memory_size, printable, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmctl.core.gpus import Memory

SAY_IT = '--gpu "NAME:16GiB" says what it has'
# An APU's share set aside by the firmware, where the driver does not say what kind of chip it is.
CARVE_OUT = 2 * GIB
# The format of gpu_metrics (amdgpu): 1 for cards, 2 and 3 for APUs.
APU_METRICS = {2, 3}
# Where Intel's drivers have shown a card's own memory: i915 as shipped for data centres, and xe.
INTEL_TOTAL = ("lmem_total_bytes", "device/lmem_total_bytes", "gt/gt0/lmem_total_bytes")
INTEL_FREE = ("lmem_avail_bytes", "device/lmem_avail_bytes", "gt/gt0/lmem_avail_bytes")
INTEL_TILES = "device/tile*/physical_vram_size_bytes"
INTEGRATED_INTEL = "0000:00:02.0"  # Intel's own GPU is always there on the bus


@dataclass(frozen=True)
class _Card:
    """A GPU with the driver's files.

    Attributes:
        place: Its directory, /sys/class/drm/card0.
        vendor: PCI vendor, "0x1002".
        bus: Its address on the PCI bus, "0000:03:00.0", "" where it is on none.
    """

    place: Path
    vendor: str
    bus: str

    def size(self, name: str) -> int | None:
        """Bytes of memory that the driver tells."""
        return memory_size(self.place / name)


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        gpus: GPUs without their processes, each after its address on the PCI bus.
        problems: What could not be found out.
    """

    gpus: tuple[tuple[str, Gpu], ...] = ()
    problems: tuple[str, ...] = ()


def drm_gpus(root: Path, ram: Memory) -> Found:
    """AMD's GPUs, then Intel's, each in the order of the bus."""
    cards = sorted(_cards(root), key=lambda card: card.bus)
    problems: list[str] = []
    found: list[tuple[str, Gpu]] = []
    for vendor, look in ((AMD, _amd), (INTEL, _intel)):
        ours = [card for card in cards if card.vendor == vendor]
        for index, card in enumerate(ours):
            found.append((card.bus, look(root, card, index, ram, problems)))
    return Found(tuple(found), tuple(problems))


def _cards(root: Path) -> Iterator[_Card]:
    for place in (root / "sys/class/drm").glob("card*"):
        vendor = text(place / "device/vendor")
        # card0-HDMI-A-1 is a socket of card0.
        if vendor in {AMD, INTEL} and re.fullmatch(r"card\d+", place.name):
            yield _Card(place, vendor, _bus(place))


def _bus(place: Path) -> str:
    """From uevent's PCI_SLOT_NAME, else from where the link "device" leads."""
    told = re.search(r"^PCI_SLOT_NAME=(\S+)$", text(place / "device/uevent") or "", re.MULTILINE)
    name = told[1] if told else (place / "device").resolve().name
    return name if re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", name) else ""


# --- AMD -------------------------------------------------------------------------------------


def _amd(
    root: Path,
    card: _Card,
    index: int,
    ram: Memory,
    problems: list[str],
) -> Gpu:
    name = printable(text(card.place / "device/product_name") or _name(root, card, "AMD GPU"))
    total = card.size("device/mem_info_vram_total")
    used = card.size("device/mem_info_vram_used")
    shared = _is_apu(card, total)
    free = None if total is None or used is None else max(0, total - used)
    if shared:
        # ROCm and Vulkan take the carve-out and, beyond it, RAM through the GTT.
        gtt = card.size("device/mem_info_gtt_total") or 0
        left = max(0, gtt - (card.size("device/mem_info_gtt_used") or 0))
        free = min(left, ram.available) + (free or 0)
        total = (total or 0) + gtt
    elif not total:
        problems.append(f"{name}: its driver is not amdgpu or tells no memory; {SAY_IT}")
    return Gpu(
        kind="amd",
        name=name,
        index=index,
        uuid=None,
        total=total or 0,
        free=free if total else None,
        shared=shared,
        compute_capability=None,
    )


def _is_apu(card: _Card, vram: int | None) -> bool:
    """Whether the chip shares the host's RAM, by the format of its metrics, else by its carve-out."""
    try:
        with (card.place / "device/gpu_metrics").open("rb") as file:
            header = file.read(4)  # size of the table (2 bytes), format, revision
    except OSError:
        header = b""
    if len(header) == 4:  # noqa: PLR2004
        return header[2] in APU_METRICS
    gtt = card.size("device/mem_info_gtt_total")
    return vram is not None and gtt is not None and vram <= CARVE_OUT and vram < gtt


# --- Intel -----------------------------------------------------------------------------------


def _intel(
    root: Path,
    card: _Card,
    index: int,
    ram: Memory,
    problems: list[str],
) -> Gpu:
    known = intel_card(text(card.place / "device/device") or "")
    name = printable(_name(root, card, known.name if known else "Intel GPU"))
    own = _first(card, INTEL_TOTAL) or _tiles(card)
    shared = not own and known is None and card.bus in {INTEGRATED_INTEL, ""}
    total = ram.usable if shared else own or (known.total if known else 0)
    left = ram.available if shared else _first(card, INTEL_FREE)
    if not total:
        problems.append(f"{name}: its driver does not tell its memory; {SAY_IT}")
    elif left is None:
        problems.append(f"{name}: its driver does not tell what of its memory is free")
    return Gpu(
        kind="intel",
        name=name,
        index=index,
        uuid=None,
        total=total,
        free=min(left, total) if total and left is not None else None,
        shared=shared,
        compute_capability=None,
    )


def _first(card: _Card, names: tuple[str, ...]) -> int | None:
    told = (card.size(name) for name in names)
    return next((value for value in told if value is not None), None)


def _tiles(card: _Card) -> int | None:
    told = [memory_size(place) or 0 for place in card.place.glob(INTEL_TILES)]
    return sum(told) or None


def _name(root: Path, card: _Card, otherwise: str) -> str:
    device = card.place / "device"
    numbers = (text(device / "device") or "", text(device / "revision") or "")
    return pci_name(root, card.vendor, *numbers) or otherwise
