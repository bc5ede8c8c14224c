"""NVIDIA's GPUs: from NVML where it answers, else what the driver's files say."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.cards import find_card
from llmctl.core.gpus import Gpu, GpuProcess
from llmctl.host.devices import nvidia_driver
from llmctl.host.probing import LARGEST_MEMORY, in_time, printable, text

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from llmctl.core.gpus import Memory

READER = Path(__file__).with_name("nvml_reader.py")
# Where the library lies besides the linker's path: WSL2 and NixOS.
LIBRARY_PLACES = ("usr/lib/wsl/lib", "run/opengl-driver/lib")
LIBRARY = "libnvidia-ml.so.1"
SAY_IT = '--gpu "NAME:24GiB" says what it has'
UNKNOWN = "?"

# What to do about the error codes with which NVML refuses to start.
REMEDIES = {
    -1: "the Python package nvidia-ml-py is missing: pip install nvidia-ml-py",
    4: "this user may not use the GPU: check the group of /dev/nvidia0 and /dev/nvidiactl",
    9: "NVIDIA's driver is not loaded: sudo modprobe nvidia, and see `dmesg`",
    12: f"{LIBRARY} is not installed; it comes with the driver's user-space packages"
    " (libnvidia-compute, nvidia-driver-cuda-libs), and into a container with --gpus all",
    15: "a GPU has fallen off the bus: restart this machine, and see `dmesg`",
    18: "the driver was updated while the old one is loaded: restart this machine",
}
# Given up but not dead yet: a process stuck in the driver dies when the driver lets it. Kept, so that
# nobody waits for them.
_abandoned: list[subprocess.Popen[str]] = []


@dataclass(frozen=True)
class Nvidia:
    """NVIDIA's part of `Hardware`."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None


def look(root: Path, ram: Memory, problems: list[str], deadline_s: float) -> Nvidia:
    """NVIDIA's GPUs, driver and CUDA version; nothing is started without a trace of NVIDIA."""
    driver = in_time("NVIDIA's driver", lambda: nvidia_driver(root), None, problems)
    traced = in_time("NVIDIA's devices", lambda: _traced(root), False, problems)  # noqa: FBT003
    if driver is None and not traced:
        none: tuple[str, ...] = ()
        unused = in_time("the PCI bus", lambda: _without_driver(root), none, problems)
        problems += [
            f"{one}: an NVIDIA GPU, and NVIDIA's driver is not loaded: install it, then: nvidia-smi"
            for one in unused
        ]
        return Nvidia()
    told = _ask(root, problems, deadline_s)
    gpus: tuple[Gpu, ...] = ()
    if told is None:
        gpus = in_time("NVIDIA's files", lambda: tuple(_from_files(root)), gpus, problems)
        problems += [_unknown(gpu) for gpu in gpus]
        return Nvidia(gpus, driver if driver != "unknown" else None)
    problems += told.get("problems", [])
    gpus = tuple(_gpu(one, ram, problems) for one in told["gpus"])
    return Nvidia(gpus, told["driver"] or driver, told["cuda"])


def _traced(root: Path) -> bool:
    """Whether the driver may be there although its /proc file is not: WSL2, Jetson."""
    places = ("dev/nvidiactl", "dev/nvmap", f"usr/lib/wsl/lib/{LIBRARY}")
    return any((root / place).exists() for place in places)


# --- NVML ------------------------------------------------------------------------------------


def _ask(root: Path, problems: list[str], deadline_s: float) -> dict[str, Any] | None:
    """The reader's report, None when there is none; then the reason is in `problems`."""
    try:
        output, status = _run_reader(root, deadline_s)
    except OSError as error:
        problems.append(f"NVML could not be asked: {error}")
        return None
    if status is None:
        problems.append(
            f"NVML gave no answer within {deadline_s:g} s; the driver or a GPU may be stuck: see"
            " whether `nvidia-smi` answers, and `dmesg`"
        )
        return None
    report = _report(output)
    if report is None:
        how = f"died of signal {-status}" if status < 0 else f"ended with code {status}"
        problems.append(
            f"NVML could not be read: its reader {how}: see whether `nvidia-smi` answers"
        )
        return None
    if report["error"]:
        code, words = report["error"]
        problems.append(f"NVML: {REMEDIES.get(code, f'{words}: see `nvidia-smi`')}")
        return None
    return report


def _report(output: str) -> dict[str, Any] | None:
    """The last line, in case the library prints something itself; None when it is no report."""
    try:
        report = json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        return None
    return report if isinstance(report, dict) and "error" in report else None


def _run_reader(root: Path, deadline_s: float) -> tuple[str, int | None]:
    """What the reader printed and its exit code, None when it was still running at the deadline."""
    import subprocess

    # -P: the directory we are called from may hold anybody's modules.
    reader = subprocess.Popen(
        [sys.executable, "-P", str(READER)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=_environment(root),
    )
    try:
        output, _ = reader.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        reader.kill()
        _abandon(reader)
        return "", None
    return output, reader.returncode


def _abandon(reader: subprocess.Popen[str]) -> None:
    import subprocess

    try:
        reader.communicate(timeout=0.5)
    except subprocess.TimeoutExpired:
        _abandoned.append(reader)


def _environment(root: Path) -> dict[str, str]:
    """Ours, with the places of the library that the linker does not know behind the user's own."""
    places = [str(root / place) for place in LIBRARY_PLACES if (root / place / LIBRARY).exists()]
    theirs = os.environ.get("LD_LIBRARY_PATH")
    path = ":".join([*([theirs] if theirs else []), *places])
    return {**os.environ, **({"LD_LIBRARY_PATH": path} if path else {})}


def _gpu(told: dict[str, Any], ram: Memory, problems: list[str]) -> Gpu:
    """A GPU from the reader's report."""
    name = printable(told["name"])
    total, free, reserved = told["total"], told["free"], told["reserved"]
    if total is not None and not 0 < total <= LARGEST_MEMORY:
        problems.append(f"{name}: the driver says {total} bytes of memory; {SAY_IT}")
        total = free = None
    # Only chips on Arm share the host's memory; elsewhere "not supported" means not told.
    shared = bool(told["without_memory"]) and _on_arm()
    if told["without_memory"] and not shared:
        problems.append(f"{name}: the driver does not tell its memory; {SAY_IT}")
    if shared:
        total, free = ram.usable, ram.available
    elif total is not None:
        free = max(0, min(free, total))
        reserved = max(0, min(reserved, total - free))
    return Gpu(
        kind="nvidia",
        name=name,
        index=told["index"],
        uuid=told["uuid"],
        total=total or 0,
        free=free,
        shared=shared,
        compute_capability=told["compute_capability"],
        processes=tuple(
            GpuProcess(one["pid"], printable(one["name"]), one["bytes"])
            for one in told["processes"]
        ),
        reserved=0 if shared or total is None else reserved,
    )


def _on_arm() -> bool:
    return platform.machine() in {"aarch64", "arm64"}


# --- without NVML ----------------------------------------------------------------------------


def _from_files(root: Path) -> Iterator[Gpu]:
    """GPUs that the driver lists in /proc, or as /dev/nvidia0 and so on, with what is sold as such."""
    places = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    told = [text(place) or "" for place in places]
    if not told:
        devices = [p for p in (root / "dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
        told = [""] * len(devices)
    for index, information in enumerate(told):
        name = printable(_field(information, "Model") or "NVIDIA GPU")
        uuid = _field(information, "GPU UUID")
        card = find_card(name)
        yield Gpu(
            kind="nvidia",
            name=name,
            index=index,
            uuid=None if uuid is None or UNKNOWN in uuid else printable(uuid),
            total=card.total if card else 0,
            free=None,
            shared=False,
            compute_capability=card.compute_capability if card else None,
        )


def _field(information: str, name: str) -> str | None:
    """A line of /proc/driver/nvidia/gpus/*/information, such as "Model:   NVIDIA L4"."""
    found = re.search(rf"^{name}:\s*(\S.*)$", information, re.MULTILINE)
    return found[1].strip() if found else None


def _unknown(gpu: Gpu) -> str:
    if gpu.total:
        return (
            f"{gpu.name}: without NVML, its memory is what such a card is sold with,"
            " and what is free of it is unknown"
        )
    return f"{gpu.name}: without NVML, its memory is unknown; {SAY_IT}"


def _without_driver(root: Path) -> tuple[str, ...]:
    """NVIDIA GPUs on the PCI bus that no VM was given."""
    found = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if text(device / "vendor") != "0x10de" or not (text(device / "class") or "").startswith(
            "0x03"
        ):
            continue
        driver = device / "driver"
        if not driver.exists() or driver.resolve().name != "vfio-pci":
            found.append(device.name)
    return tuple(found)
