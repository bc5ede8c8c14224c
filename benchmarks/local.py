"""The process engine: `up` to a proven answer, `ask`, `down`, and what the idle stack holds.

    python benchmarks/local.py

Needs the extra `local`; the stack is demo/llmctl.yaml (the canary model) in a temporary directory.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from llmctl.core.picture import Colour, Shape, draw

ROOT = Path(__file__).parents[1]
RUNS = 5
OURS = str(Path(sys.executable).parent / "llmctl")


def timed(stack: Path, *arguments: str) -> tuple[float, str]:
    """Seconds and stdout of one command."""
    began = time.perf_counter()
    done = subprocess.run([OURS, *arguments], cwd=stack, check=True, capture_output=True, text=True)
    return time.perf_counter() - began, done.stdout


def idle_memory(stack: Path) -> dict[str, float]:
    """Resident MiB by service, supervisors included."""
    found = {}
    for state in (stack / ".llmctl" / "processes").glob("*/state.json"):
        recorded = json.loads(state.read_text(encoding="utf-8"))
        for who in ("child", "supervisor"):
            resident = psutil.Process(int(recorded[who]["pid"])).memory_info().rss
            found[f"{state.parent.name} {who}"] = resident / 2**20
    return found


def main() -> None:
    """Print medians."""
    with tempfile.TemporaryDirectory() as scratch:
        stack = Path(scratch)
        shutil.copy(ROOT / "demo" / "llmctl.yaml", stack)
        (stack / "picture.png").write_bytes(draw(Shape.STAR, Colour.BLUE))
        ups, asks, downs = [], [], []
        memory: dict[str, float] = {}
        try:
            for _ in range(RUNS):
                ups.append(timed(stack, "up", "-o", "quiet")[0])
                for _ in range(RUNS):
                    seconds, answer = timed(
                        stack, "ask", "picture.png", "What is this?", "-o", "json"
                    )
                    asks.append(seconds - json.loads(answer)["total_ms"] / 1000)
                memory = idle_memory(stack)
                downs.append(timed(stack, "down", "-o", "quiet")[0])
        finally:
            subprocess.run([OURS, "down"], cwd=stack, check=False, capture_output=True)
    print(f"up to a proven answer, median of {RUNS}: {statistics.median(ups):.1f} s")
    print(
        f"ask beyond the model's own time, median of {len(asks)}: {statistics.median(asks):.2f} s"
    )
    print(f"down, median of {RUNS}: {statistics.median(downs):.1f} s")
    print(f"idle: {sum(memory.values()):.0f} MiB")
    for name, size in sorted(memory.items()):
        print(f"  {name}: {size:.0f} MiB")


if __name__ == "__main__":
    main()
