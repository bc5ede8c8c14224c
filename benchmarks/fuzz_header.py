"""The header reader on damaged headers: no crash, no hang, no great allocation.

    python benchmarks/fuzz_header.py [--cases 200000] [--seed 1]

Headers of real models, their vocabularies cut down so that a case is fast, are mutated and read as
from a hub. Nothing but a header or a `GgufError` may come out. Memory is Python's own count of a
second pass over every fiftieth case, and the peak of the whole process.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import time
import traceback
import tracemalloc
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from llmctl.core.gguf import GgufError, parse_header
from llmctl.core.language import language_facts
from llmctl.core.projector import is_projector, projector_facts
from llmctl.ops.models.headers import read_header
from tests.unit.test_gguf import mutated
from tests.world.gguf_bytes import language
from tests.world.real_headers import SIZES, header_bytes

TOKENS = 60
TRACED_EACH = 50


def cut_down(data: bytes) -> bytes:
    """The header with at most `TOKENS` items in each of its long arrays."""
    out, at = bytearray(data[:24]), 24
    keys = struct.unpack_from("<Q", data, 16)[0]
    for _ in range(keys):
        start = at
        at += 8 + struct.unpack_from("<Q", data, at)[0]
        kind = struct.unpack_from("<I", data, at)[0]
        at += 4
        if kind != 9:
            at += _length(data, at, kind)
            out += data[start:at]
            continue
        kind, count = struct.unpack_from("<IQ", data, at)
        kept = min(count, TOKENS)
        out += data[start:at] + struct.pack("<IQ", kind, kept)
        at += 12
        for number in range(count):
            length = _length(data, at, kind)
            if number < kept:
                out += data[at : at + length]
            at += length
    return bytes(out + data[at:])


def _length(data: bytes, at: int, kind: int) -> int:
    if kind == 8:
        return 8 + int(struct.unpack_from("<Q", data, at)[0])
    return {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(kind, 4)


def read(data: bytes) -> str:
    """What came of one case, in a word."""
    try:
        header = read_header(lambda start, stop: data[start:stop])
    except GgufError:
        return "refused"
    (projector_facts if is_projector(header) else language_facts)(header)
    return "read"


def main() -> None:
    """Print what came of the cases; exit 1 when anything but a refusal went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)  # noqa: S311 - repeatable
    seeds = [cut_down(header_bytes(name)) for name in SIZES] + [language(vocabulary=1100)]
    for seed in seeds:
        parse_header(seed)
    found: Counter[str] = Counter()
    slowest, peak = 0.0, 0
    began = time.perf_counter()
    for number in range(arguments.cases):
        data = mutated(seeds[number % len(seeds)], rng)
        traced = number % TRACED_EACH == 0
        if traced:
            tracemalloc.start()
        start = time.perf_counter()
        try:
            found[read(data)] += 1
        except Exception:  # noqa: BLE001 - what a crash is
            traceback.print_exc()
            found["crashed"] += 1
        if traced:
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        else:
            slowest = max(slowest, time.perf_counter() - start)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{arguments.cases} cases in {time.perf_counter() - began:.0f} s: {dict(found)}")
    print(f"crashes: {found['crashed']}; slowest case: {1000 * slowest:.0f} ms")
    print(f"memory of a case at most {peak / 2**20:.1f} MiB, of the process {rss / 2**10:.0f} MiB")
    sys.exit(1 if found["crashed"] else 0)


if __name__ == "__main__":
    main()
