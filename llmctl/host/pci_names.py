"""Names of GPUs by their PCI numbers, from the lists that Linux distributions carry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmctl.core.hostfacts import AMD, INTEL

if TYPE_CHECKING:
    from pathlib import Path

AMD_LIST = "usr/share/libdrm/amdgpu.ids"
PCI_LISTS = ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids")
MAKERS = {AMD: "AMD", INTEL: "Intel"}


def pci_name(root: Path, vendor: str, device: str, revision: str) -> str | None:
    """What a GPU is sold as, such as "AMD Radeon RX 7900 XTX"; None without a list that knows it.

    Args:
        root: Where /usr is looked for.
        vendor: PCI vendor as sysfs spells it, "0x1002".
        device: PCI device, "0x744c".
        revision: Tells AMD's cards of one device number apart, "0xc8".
    """
    hexadecimal = re.compile(r"0x[0-9a-f]{1,8}")
    if not hexadecimal.fullmatch(device):
        return None
    if vendor == AMD and hexadecimal.fullmatch(revision):
        name = _amd_name(root / AMD_LIST, int(device, 16), int(revision, 16))
        if name:
            return name
    names = (_listed(root / place, vendor[2:], device[2:]) for place in PCI_LISTS)
    found = next((name for name in names if name), None)
    if found is None:
        return None
    maker = MAKERS.get(vendor, "")
    return found if found.startswith(maker) else f"{maker} {found}"


def _amd_name(place: Path, device: int, revision: int) -> str | None:
    """libdrm's list: "744C,	C8,	AMD Radeon RX 7900 XTX"."""
    try:
        with place.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                listed = re.match(r"([0-9A-F]+),\s*([0-9A-F]+),\s*(\S.*)", line)
                if listed and (int(listed[1], 16), int(listed[2], 16)) == (device, revision):
                    return listed[3].strip()
    except OSError:
        return None
    return None


def _listed(place: Path, vendor: str, device: str) -> str | None:
    """pci.ids: a vendor's line, below it a tab, the device, and its name."""
    try:
        with place.open(encoding="utf-8", errors="replace") as lines:
            inside = False
            for line in lines:
                if not line.startswith(("\t", "#")):
                    inside = line.startswith(vendor)
                elif inside and line.startswith(f"\t{device}  "):
                    return _marketed(line.partition("  ")[2].strip())
    except OSError:
        return None
    return None


def _marketed(name: str) -> str:
    """The name in brackets is the one on the box: "DG2 [Arc A770]"."""
    inside = re.search(r"\[(.+)\]$", name)
    return inside[1] if inside else name
