"""A stand-in for NVIDIA's container runtime hook, so that GPU requests can be proven without a GPU.

dockerd registers the "nvidia" device driver when it finds ``nvidia-container-runtime-hook`` on its
PATH at start, and makes it a prestart hook of each container that asks for GPUs. The stand-in
records what was asked, refuses devices it does not know with the words of NVIDIA's own tool, and
puts an ``nvidia-smi`` into the container.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

HOOK_NAME = "nvidia-container-runtime-hook"
# Two small cards, written to gpus.json beside the hook. Tests ask for them by index or UUID.
GPUS = (
    {
        "uuid": "GPU-11111111-aaaa-4bbb-8ccc-000000000001",
        "name": "Stand-in RTX 3060",
        "memory_mib": 12288,
    },
    {
        "uuid": "GPU-22222222-aaaa-4bbb-8ccc-000000000002",
        "name": "Stand-in RTX 4090",
        "memory_mib": 24564,
    },
)


@dataclass(frozen=True)
class GpuRequest:
    """What one container start asked of the hook; ``None`` where the variable was absent."""

    container: str
    visible_devices: str | None
    driver_capabilities: str | None


@dataclass(frozen=True)
class GpuShim:
    """The hook's files in ``directory``, which goes first on the daemon's PATH."""

    directory: Path

    @property
    def hook(self) -> Path:
        """The executable that dockerd looks for."""
        return self.directory / HOOK_NAME

    @property
    def requests_file(self) -> Path:
        """One JSON object a line, one line for each container start."""
        return self.directory / "requests.jsonl"

    def install(self) -> None:
        """Write the hook and the list of known GPUs."""
        self.directory.mkdir(parents=True, exist_ok=True)
        source = (Path(__file__).parent / "hook.py").read_text(encoding="utf-8")
        # runc runs the hook with dockerd's environment: name the interpreter, PATH may lack it.
        self.hook.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
        self.hook.chmod(0o755)
        shutil.copyfile(Path(__file__).parent / "nvidia-smi.sh", self.directory / "nvidia-smi.sh")
        (self.directory / "gpus.json").write_text(json.dumps(GPUS), encoding="utf-8")

    def requests(self) -> list[GpuRequest]:
        """All requests so far, oldest first; also those that were refused."""
        if not self.requests_file.exists():
            return []
        return [
            GpuRequest(**json.loads(line)) for line in self.requests_file.read_text().splitlines()
        ]
