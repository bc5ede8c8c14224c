"""Reads NVIDIA's management library and prints what it says as one line of JSON.

A program of its own, started by `llmctl.host.nvidia`: the library may hang in the driver where not
even a signal reaches it, or crash, and takes nobody along. It imports nothing of llmctl, so that it
runs wherever `pynvml` (nvidia-ml-py) is installed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import PurePosixPath
from typing import Any

# A device without memory of its own (Jetson, GB10) answers NotSupported.
NOT_SUPPORTED = 3
FUNCTION_NOT_FOUND = 13
MIG_ENABLED = 1


def read(nvml: Any) -> dict[str, Any]:
    """All that the library says, in JSON's types; never raises the library's errors.

    Args:
        nvml: The module `pynvml`.

    Returns:
        error (code and words with which the library refused to start, or None), driver, cuda, gpus,
        problems. A GPU's total and free are None when unknown; without_memory says that it has none.
    """
    library = Library(nvml)
    found: dict[str, Any] = {
        "error": None,
        "driver": None,
        "cuda": None,
        "gpus": [],
        "problems": [],
    }
    try:
        nvml.nvmlInit()
    except library.errors as error:
        found["error"] = [getattr(error, "value", 0), str(error)]
        return found
    try:
        found["driver"] = library.ask("nvmlSystemGetDriverVersion")
        found["cuda"] = _cuda(library.ask("nvmlSystemGetCudaDriverVersion_v2"))
        for index in range(library.ask("nvmlDeviceGetCount") or 0):
            found["gpus"] += _device(library, index)
    finally:
        library.ask("nvmlShutdown")
    found["problems"] = library.problems
    return found


class Library:
    """The library's functions, with their errors as sentences.

    Attributes:
        errors: What the functions raise.
        problems: What went wrong, a sentence each.
        fault: Code of the last error, 0 after a success.
        reason: Words of the last error.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        # Drivers can hand out names that are no UTF-8.
        self.errors = (nvml.NVMLError, nvml.NVMLLibraryMismatchError, UnicodeError)
        self.problems: list[str] = []
        self.fault = 0
        self.reason = ""

    def ask(self, name: str, *arguments: Any) -> Any:
        """What a function returns, None when it refuses."""
        self.fault = 0
        try:
            return getattr(self._nvml, name)(*arguments)
        except self.errors as error:
            self.fault = getattr(error, "value", -1)
            self.reason = str(error)
            return None

    def constant(self, name: str) -> Any:
        """A constant of the module."""
        return getattr(self._nvml, name)


def _device(library: Library, index: int) -> list[dict[str, Any]]:
    """A GPU, or its MIG instances."""
    handle = library.ask("nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        library.problems.append(f"NVIDIA GPU {index}: {library.reason}; see `nvidia-smi`")
        return []
    gpu = {
        "index": index,
        "name": library.ask("nvmlDeviceGetName", handle) or "NVIDIA GPU",
        "uuid": library.ask("nvmlDeviceGetUUID", handle),
        "compute_capability": _capability(library, handle),
    }
    mode = library.ask("nvmlDeviceGetMigMode", handle)
    if mode and mode[0] == MIG_ENABLED:
        return _instances(library, handle, gpu)
    return [gpu | _memory(library, handle, gpu["name"]) | _processes(library, handle, gpu["name"])]


def _instances(library: Library, parent: Any, gpu: dict[str, Any]) -> list[dict[str, Any]]:
    """The MIG instances of a GPU; nothing can run on the whole of it."""
    found = []
    for number in range(library.ask("nvmlDeviceGetMaxMigDeviceCount", parent) or 0):
        handle = library.ask("nvmlDeviceGetMigDeviceHandleByIndex", parent, number)
        if handle is None:
            continue  # the numbers have gaps
        name = library.ask("nvmlDeviceGetName", handle) or gpu["name"]
        own = {
            "name": name if "MIG" in name else f"{name} MIG {number}",
            "uuid": library.ask("nvmlDeviceGetUUID", handle),
        }
        memory = _memory(library, handle, own["name"])
        found.append(gpu | own | memory | _processes(library, handle, own["name"]))
    if not found:
        library.problems.append(
            f"{gpu['name']}: MIG is on and has no instance: nothing can run there"
            " (`nvidia-smi mig -lgip` lists the profiles, `sudo nvidia-smi -mig 0` turns it off)"
        )
    return found


def _memory(library: Library, handle: Any, name: str) -> dict[str, Any]:
    """Bytes: total, free, and what the driver keeps for itself where it says so."""
    told = library.ask("nvmlDeviceGetMemoryInfo", handle, library.constant("nvmlMemory_v2"))
    if told is None:  # drivers before 510, and some kinds of vGPU
        told = library.ask("nvmlDeviceGetMemoryInfo", handle)
    if told is not None and told.total:
        total, free, reserved = int(told.total), int(told.free), int(getattr(told, "reserved", 0))
        return {"total": total, "free": free, "reserved": reserved, "without_memory": False}
    without = told is not None or library.fault == NOT_SUPPORTED
    if not without:
        library.problems.append(
            f"{name}: its memory is unknown: {library.reason}; see `nvidia-smi`,"
            ' or say it: --gpu "NAME:24GiB"'
        )
    return {"total": None, "free": None, "reserved": 0, "without_memory": without}


def _processes(library: Library, handle: Any, name: str) -> dict[str, Any]:
    """Who holds memory, for computing, drawing, or both; largest first."""
    held: dict[int, int | None] = {}
    answered = False
    for kind in ("Compute", "Graphics"):
        told = library.ask(f"nvmlDeviceGet{kind}RunningProcesses_v3", handle)
        if library.fault == FUNCTION_NOT_FOUND:  # drivers before 510
            told = library.ask(f"nvmlDeviceGet{kind}RunningProcesses_v2", handle)
        answered = answered or told is not None
        for process in told or ():
            # One that computes and draws is in both lists, with the same bytes.
            held[process.pid] = _larger(held.get(process.pid), process.usedGpuMemory)
    if not answered:
        library.problems.append(f"{name}: who holds its memory is not told: {library.reason}")
    order = sorted(held, key=lambda pid: (-(held[pid] or 0), pid))
    return {
        "processes": [
            {"pid": pid, "name": _process_name(library, pid), "bytes": held[pid]} for pid in order
        ]
    }


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _process_name(library: Library, pid: int) -> str:
    """A program's file name, without its path and arguments."""
    told = library.ask("nvmlSystemGetProcessName", pid) or _comm(pid)
    command = re.split(r"\s+-", told.strip(), maxsplit=1)[0]
    return PurePosixPath(command.replace("\\", "/")).name or "?"


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read(64)
    except OSError:
        return ""


def _capability(library: Library, handle: Any) -> str | None:
    told = library.ask("nvmlDeviceGetCudaComputeCapability", handle)
    return f"{told[0]}.{told[1]}" if told else None


def _cuda(version: int | None) -> str | None:
    """12040 as "12.4"."""
    return f"{version // 1000}.{version % 1000 // 10}" if version else None


def main() -> None:
    """Print the report; a missing `pynvml` is a part of it."""
    try:
        import pynvml
    except ImportError as error:
        print(json.dumps({"error": [-1, str(error)]}))  # noqa: T201
        return
    sys.stdout.write("\n" + json.dumps(read(pynvml)) + "\n")


if __name__ == "__main__":
    main()
