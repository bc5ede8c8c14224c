"""What tells this machine's GPUs and RAM from others, without asking a driver."""

from __future__ import annotations

import os
from pathlib import Path

from llmctl.host.devices import nvidia_driver
from llmctl.host.probing import in_time, text


def identity(root: Path = Path("/")) -> tuple[str, ...]:
    """Words that change when a GPU or the RAM is changed, and not with what is in use.

    It is read with every `up`, so nothing is started and no GPU is woken: NVIDIA's slots and models
    from /proc, PCI numbers and amount of memory of the others from /sys.
    """
    found: list[str] = []
    unsaid: list[str] = []  # `hardware` says them
    none: list[str] = []
    found += in_time("GPUs", lambda: _nvidia(root), none, unsaid)
    found += in_time("GPUs", lambda: _drm(root), none, unsaid)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (*found, f"ram {pages}")


def _nvidia(root: Path) -> list[str]:
    found = [f"nvidia {nvidia_driver(root)}"]
    places = root / "proc/driver/nvidia/gpus"
    for place in sorted(places.iterdir()) if places.is_dir() else ():
        lines = (text(place / "information") or "").splitlines()
        # The UUID below is not told before the GPU was used.
        model = next((line for line in lines if line.startswith("Model:")), "")
        found.append(f"{place.name} {' '.join(model.split())}")
    return found


def _drm(root: Path) -> list[str]:
    drm = root / "sys/class/drm"
    cards = sorted(drm.glob("renderD*")) if drm.is_dir() else []
    return [
        " ".join(
            text(card / "device" / name) or "-"
            for name in ("vendor", "device", "mem_info_vram_total")
        )
        for card in cards
    ]
