"""Start-up: `llmctl --version` and `--help` against `hf` and `ramalama`, medians in one run.

    python benchmarks/startup.py [--peers DIR]

DIR is a virtual environment with the peers (`pip install huggingface-hub ramalama`); by default the
environment of this Python, where `hf` is always there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run; its output is thrown away."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def medians(commands: dict[str, list[str]]) -> dict[str, float]:
    """Median seconds of each; the runs alternate, so a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command)  # compiles .pyc files and fills the page cache
    for _ in range(RUNS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Print a Markdown table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path(sys.executable).parent.parent)
    peers = parser.parse_args().peers / "bin"
    ours = str(Path(sys.executable).parent / "llmctl")
    commands = {
        "llmctl --version": [ours, "--version"],
        "llmctl --help": [ours, "--help"],
        "hf version": [str(peers / "hf"), "version"],
        "hf --help": [str(peers / "hf"), "--help"],
    }
    if (peers / "ramalama").exists():
        commands["ramalama version"] = [str(peers / "ramalama"), "version"]
        commands["ramalama --help"] = [str(peers / "ramalama"), "--help"]
    found = medians(commands)
    print("| command | median ms | llmctl / it |\n| --- | --- | --- |")
    for name, value in found.items():
        ours_name = "llmctl --help" if "help" in name else "llmctl --version"
        ratio = "" if name.startswith("llmctl") else f"{found[ours_name] / value:.2f}"
        print(f"| `{name}` | {1000 * value:.0f} | {ratio} |")


if __name__ == "__main__":
    main()
