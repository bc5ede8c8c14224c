"""GPUs as a container engine needs them: a driver's version, device files and their groups."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmctl.core.hostfacts import RenderNode
from llmctl.host.probing import text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def nvidia_driver(root: Path) -> str | None:
    """The driver's version, from the first line of /proc/driver/nvidia/version.

    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 ..." and, for the open
    module, "... Open Kernel Module for x86_64  560.35.03  Release Build ...".
    """
    told = text(root / "proc/driver/nvidia/version")
    if told is None:
        # Inside a container /proc may be masked while the device is there.
        return "unknown" if (root / "dev/nvidiactl").exists() else None
    version = re.search(r"\b\d{3,4}\.\d{2,3}(?:\.\d{2})?\b", told)
    return version[0] if version else "unknown"


def render_nodes(root: Path) -> Iterator[RenderNode]:
    """GPUs with a render node that exists, in the order of their names."""
    drm = root / "sys/class/drm"
    names = [path.name for path in drm.glob("renderD*")] if drm.is_dir() else []
    for name in sorted(names, key=lambda n: (len(n), n)):
        device = root / "dev/dri" / name
        if device.exists():
            vendor = text(drm / name / "device/vendor") or ""
            yield RenderNode(f"/dev/dri/{name}", vendor, group_of(device))


def group_of(path: Path) -> int | None:
    """The group a device file belongs to; None when it is not there."""
    try:
        return path.stat().st_gid
    except OSError:
        return None
