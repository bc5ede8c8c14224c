"""A model file from a hub on this machine: llmctl, `hf download`, and curl with sha256sum.

    python benchmarks/pull.py [--mib 1024] [--runs 5] [--slow-mib 512] [--directory DIR]

The hub serves from a process of its own. Each way ends with a verified file: `hf` does not check
what it brings, the others do, and llmctl also syncs it to disk. The ways take turns, so that a busy
moment of the machine meets all of them. The second half limits each connection to 20 MB/s.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

REPO = "org/big"
NAME = "big.gguf"
LIMIT = 20e6
BIN = Path(sys.executable).parent
LLMCTL = """
import sys
from pathlib import Path
from llmctl.hub.huggingface import HuggingFaceHub
hub = HuggingFaceHub(token=False)
info = hub.describe("org/big", None)
file = next(file for file in info.files if file.path == "big.gguf")
sha256 = hub.download("org/big", info.commit, file, Path(sys.argv[1]), lambda *_: None)
assert sha256 == file.sha256
"""


def write_file(path: Path, mib: int) -> str:
    """A file of random bytes; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source, digest = random.Random(1), hashlib.sha256()  # noqa: S311 - nothing secret
    with path.open("wb") as file:
        for _ in range(mib):
            block = source.randbytes(1 << 20)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@contextmanager
def hub(root: Path, rate: float | None) -> Iterator[str]:
    """The hub's address while it serves `root`."""
    limit = ["--rate", str(rate)] if rate else []
    with subprocess.Popen(
        [sys.executable, "-m", "tests.world.hub", "--root", str(root), *limit],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().strip().removeprefix("HF_ENDPOINT=")
        finally:
            server.terminate()


def ways(endpoint: str, place: Path) -> Mapping[str, list[str]]:
    """Command by name; each leaves the file somewhere below `place`."""
    url = f"{endpoint}/{REPO}/resolve/main/{NAME}"
    return {
        "llmctl": [sys.executable, "-c", LLMCTL, str(place / NAME)],
        "hf": [str(BIN / "hf"), "download", REPO, NAME, "--local-dir", str(place)],
        "curl + sha256sum": [
            "sh",
            "-c",
            f"curl -sfL -o {place}/{NAME} {url} && sha256sum {place}/*",
        ],
        "curl": ["curl", "-sfL", "-o", str(place / NAME), url],
    }


def run(command: list[str], endpoint: str) -> tuple[float, float]:
    """Seconds, and the largest resident set of any process in it, in MiB."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    # Linux counts in KiB, macOS in bytes.
    return time.perf_counter() - began, usage.ru_maxrss / (
        1 if sys.platform == "linux" else 1024
    ) / 1024


def measure(scratch: Path, mib: int, runs: int, rate: float | None, names: tuple[str, ...]) -> None:
    """Print seconds, throughput and memory of each way, and llmctl's ratio to it."""
    sha256 = write_file(scratch / "hub" / REPO / NAME, mib)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, list[float]] = {name: [] for name in names}
    with hub(scratch / "hub", rate) as endpoint:
        for number in range(-1, runs):  # the first round warms the caches and does not count
            for name in names:
                place = scratch / "here"
                place.mkdir()
                took, resident = run(ways(endpoint, place)[name], endpoint)
                with (place / NAME).open("rb") as file:
                    assert hashlib.file_digest(file, "sha256").hexdigest() == sha256, name
                shutil.rmtree(place)
                if number >= 0:
                    seconds[name].append(took)
                    memory[name].append(resident)
    limited = f", each connection limited to {rate / 1e6:.0f} MB/s" if rate else ""
    print(f"{mib} MiB over loopback{limited}, median of {runs}:")
    ours = statistics.median(seconds["llmctl"])
    for name in names:
        took = statistics.median(seconds[name])
        ratio = "" if name == "llmctl" else f", llmctl {took / ours:.2f} times as fast"
        print(
            f"  {name}: {took:.2f} s ({min(seconds[name]):.2f} to {max(seconds[name]):.2f}),"
            f" {mib / took:.0f} MiB/s, {max(memory[name]):.0f} MiB resident{ratio}"
        )


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--slow-mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        scratch = Path(name)
        measure(scratch, arguments.mib, arguments.runs, None, ("llmctl", "hf", "curl + sha256sum"))
        if arguments.slow_mib:
            measure(scratch, arguments.slow_mib, min(3, arguments.runs), LIMIT, ("llmctl", "curl"))


if __name__ == "__main__":
    main()
