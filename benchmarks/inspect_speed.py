"""`llmctl models inspect` of a repository whose model has a vocabulary of 262 144 tokens.

    python benchmarks/inspect_speed.py [--runs 5]

The hub is a process of its own on this machine. Printed: requests and bytes that the model file took
and those of the whole command, seconds of the command with the start of its process, and the time
of the header's parsing against `gguf.GGUFReader` on the same file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gguf

from llmctl.core.gguf import parse_header
from llmctl.ops.models.headers import local_header
from tests.unit.test_gguf import vocabulary
from tests.world.gguf_bytes import projector

REPO = "org/big-vocabulary-GGUF"
WIDTH = 2560
WEIGHTS = 64 << 20  # behind the header; a hole, so that they cost nothing
HUB = """
import json, sys, threading
from pathlib import Path
from tests.world.hub import LocalHub, repos_below
with LocalHub(repos_below(Path(sys.argv[1]))) as hub:
    print(hub.url, flush=True)
    for _ in sys.stdin:
        print(json.dumps([dict(hub.requests), dict(hub.sent)]), flush=True)
        hub.forget()
"""


def write_model(place: Path) -> int:
    """A gemma3-like model with a whole vocabulary; bytes of its header."""
    keys = {"context_length": 131072, "embedding_length": WIDTH, "block_count": 34}
    head = bytearray(vocabulary("llama"))
    for key, value in keys.items():
        name = f"gemma3.{key}".encode()
        # After the first key, which names the architecture.
        at = parse_end(head)
        head[at:at] = struct.pack("<Q", len(name)) + name + struct.pack("<II", 4, value)
    struct.pack_into("<Q", head, 16, struct.unpack_from("<Q", head, 16)[0] + len(keys))
    place.write_bytes(head)
    os.truncate(place, len(head) + WEIGHTS)
    return parse_header(bytes(head)).size


def parse_end(head: bytearray) -> int:
    """Where the first key with its text ends."""
    at = 24 + 8 + struct.unpack_from("<Q", head, 24)[0] + 4
    return int(at + 8 + struct.unpack_from("<Q", head, at)[0])


class Hub:
    """A hub in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._line()

    def taken(self) -> tuple[dict[str, int], dict[str, int]]:
        """Requests and bytes since the last time."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        requests, sent = json.loads(self._line())
        return requests, sent

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """The hub over the repositories below `root`."""
    with subprocess.Popen(
        [sys.executable, "-c", HUB, str(root)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Hub(process)
        process.terminate()


def inspect(hub: Hub, stack: Path) -> tuple[float, Any]:
    """Seconds of the command and what it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "LLMCTL_"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(stack), "LLMCTL_ENGINE": "docker"}
    command = [str(Path(sys.executable).parent / "llmctl"), "models", "inspect", f"hf://{REPO}"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "-C", str(stack), "-o", "json"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return time.perf_counter() - began, json.loads(done.stdout)


def seconds(work: Any) -> float:
    """Wall-clock seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print the numbers beside what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        directory = root / "repos" / REPO
        directory.mkdir(parents=True)
        model = directory / "m-Q8_0.gguf"
        size = write_model(model)
        (directory / "mmproj-F16.gguf").write_bytes(projector(width=WIDTH))
        stack = root / "stack"
        stack.mkdir()
        with serving(root / "repos") as hub:
            inspect(hub, stack)  # the hub hashes its files once
            hub.taken()
            times = []
            for _ in range(runs):
                spent, found = inspect(hub, stack)
                times.append(spent)
                requests, sent = hub.taken()
            assert found["works"], found
            assert found["model"]["vocabulary"] == 262_144
        ours = statistics.median(seconds(lambda: local_header(model)) for _ in range(runs))
        theirs = seconds(lambda: gguf.GGUFReader(model))
    of_model = sum(n for path, n in requests.items() if "mmproj" not in path)
    print(f"header: {size} bytes, 262 144 tokens")
    print(
        f"requests: {of_model} for the model (asked for: 6), {sum(requests.values())} with projector"
    )
    over = (sent[model.name] - size) / 2**20
    print(f"sent of the model: {sent[model.name]} bytes, {over:.2f} MiB over its header (4)")
    print(f"the command, median of {runs}: {statistics.median(times):.2f} s (1.5)")
    print(
        f"parsing: {1000 * ours:.0f} ms, gguf.GGUFReader {theirs:.1f} s: {theirs / ours:.0f} x (10)"
    )


if __name__ == "__main__":
    main()
