"""A second `models pull` of a verified 5 GB pair: what it costs over `llmctl --version`.

    python benchmarks/second_pull.py

The files are as large as the guide's and hold nothing; the lock and the hash cache claim SHA-256s
that no hashing would confirm, and the hub's address is one where nobody listens. So a run that ends
well has neither hashed nor asked.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmctl.core.artifact import Artifact, ModelFile
from llmctl.core.lock import Lock, format_lock
from llmctl.ops.models.disk import HashCache
from llmctl.paths import StackPaths

RUNS = 15
SIZES = {"ggml-model-q4_k.gguf": 4_081_004_224, "mmproj-model-f16.gguf": 624_434_336}


def prepare(root: Path) -> None:
    """A stack directory in which `llava` was pulled, as far as stat and lock can tell."""
    paths = StackPaths.at(root)
    paths.models.mkdir()
    cache = HashCache(paths)
    found = []
    for name, size in SIZES.items():
        with (paths.models / name).open("wb") as file:
            file.truncate(size)
        cache.put(name, "5" * 64, fetched=True)
        found.append(ModelFile(name, size, "5" * 64, name, header={"architecture": "llama"}))
    cache.save()
    artifact = Artifact(
        "llava",
        "llava",
        "mys/ggml_llava-v1.5-7b",
        "c" * 40,
        None,
        "vicuna",
        (found[0],),
        found[1],
    )
    paths.lock_file.write_text(format_lock(Lock({"llava": artifact})), encoding="utf-8")


def seconds(command: list[str], root: Path) -> float:
    """Wall-clock seconds of one run in `root`."""
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=root, env=environment, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Print both medians and their difference."""
    ours = str(Path(sys.executable).parent / "llmctl")
    commands = {
        "llmctl --version": [ours, "--version"],
        "llmctl models pull": [ours, "models", "pull", "llava"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        prepare(root)
        for _ in range(RUNS):
            for name, command in commands.items():
                times[name].append(seconds(command, root))
    version, pull = (statistics.median(found) for found in times.values())
    print(
        f"second pull of a 4.7 GB pair, median of {RUNS}: {1000 * pull:.0f} ms,"
        f" {1000 * (pull - version):.0f} ms over --version"
    )


if __name__ == "__main__":
    main()
