"""The memory plan: how long it takes, and how far it is off beside two others.

    python benchmarks/fit.py [--without-peers]

Truth are llama.cpp's own numbers in tests/golden/memory: bytes on each GPU. The peers are the
estimators of `gguf-parser` (its Go library, fetched and built here) and
`xllamacpp.estimate_gpu_layers`; both read sparse files that hold the golden headers and are as large as
the true ones.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from llmctl.core.gguf import parse_header
from llmctl.core.memory import GIB, Device, Model, Settings, Wanted, choose, estimate, table

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "memory"
GGUF_PARSER = "github.com/gpustack/gguf-parser-go@v0.28.1"
GO = """
package main

import (
	"encoding/json"
	"os"

	gguf "github.com/gpustack/gguf-parser-go"
)

type run struct {
	Path                             string
	Context, Parallel, Batch, Layers int32
	Quantised, Flash                 bool
	Split                            []float64
}

func main() {
	var runs []run
	if err := json.NewDecoder(os.Stdin).Decode(&runs); err != nil {
		panic(err)
	}
	files := map[string]*gguf.GGUFFile{}
	answers := [][]uint64{}
	for _, r := range runs {
		f := files[r.Path]
		if f == nil {
			var err error
			if f, err = gguf.ParseGGUFFile(r.Path); err != nil {
				panic(err)
			}
			files[r.Path] = f
		}
		o := []gguf.GGUFRunEstimateOption{
			gguf.WithLLaMACppContextSize(r.Context), gguf.WithParallelSize(r.Parallel),
			gguf.WithLLaMACppLogicalBatchSize(r.Batch), gguf.WithLLaMACppPhysicalBatchSize(r.Batch),
			gguf.WithLLaMACppOffloadLayers(uint64(r.Layers)),
		}
		if r.Flash {
			o = append(o, gguf.WithFlashAttention())
		}
		if r.Quantised {
			o = append(o, gguf.WithLLaMACppCacheKeyType(gguf.GGMLTypeQ8_0),
				gguf.WithLLaMACppCacheValueType(gguf.GGMLTypeQ8_0))
		}
		if len(r.Split) > 1 {
			o = append(o, gguf.WithTensorSplitFraction(r.Split))
		}
		e := f.EstimateLLaMACppRun(o...).SummarizeItem(true, 0, 0)
		answer := []uint64{}
		for _, v := range e.VRAMs {
			answer = append(answer, uint64(v.NonUMA))
		}
		answers = append(answers, answer)
	}
	json.NewEncoder(os.Stdout).Encode(answers)
}
"""

Case = dict[str, Any]


def cases() -> list[Case]:
    """The golden cases that have a GPU."""
    every: list[Case] = json.loads((GOLDEN / "cases.json").read_bytes())["cases"]
    return [case for case in every if case["config"]["n_gpu"]]


def truth(case: Case) -> list[int]:
    """Bytes on each GPU."""
    names = [f"FAKE{index}" for index in range(case["config"]["n_gpu"])]
    return [sum(case["buffers"][name]) for name in names]


def group(case: Case) -> str:
    """The line of the table a case belongs to."""
    config = case["config"]
    if config["n_outputs"] == 0:
        return "one GPU, all layers, builds before June 2026"
    if config["n_gpu"] > 1 or config["ngl"] < 999:
        return "some layers, or two GPUs"
    return "one GPU, all layers"


@cache
def content(shape: str) -> bytes:
    """A golden header."""
    return lzma.decompress((GOLDEN / "headers" / f"{shape}.head.xz").read_bytes())


def sparse(directory: Path, shape: str) -> Path:
    """A file with this header and the model's true size, which takes no room."""
    path = directory / f"{shape}.gguf"
    if not path.exists():
        size = json.loads((GOLDEN / "headers" / "sizes.json").read_bytes())[shape]["file_bytes"]
        with path.open("wb") as file:
            file.write(content(shape))
            file.truncate(size)
    return path


def settings(case: Case) -> Settings:
    """A case in our words."""
    config = case["config"]
    ubatch = config.get("n_ubatch", 512)
    kv = config.get("tk", "f16")
    return Settings(
        context=config["n_ctx"],
        parallel=config.get("n_seq", 1),
        batch=ubatch,
        ubatch=ubatch,
        gpu_layers=config["ngl"],
        flash_attention="off" if config.get("fa") == 0 else "auto",
        cache_type_k=kv,
        cache_type_v=kv,
        kv_unified=config.get("unified", True),
        tensor_split=tuple(config["tensor_split"] or ()),
        legacy_logits=config["n_outputs"] == 0,
    )


def devices(gpus: int, gib: int = 96) -> list[Device]:
    """GPUs that make no copies of a quantised cache, as the measured ones, and a host."""
    cards = [Device(f"GPU {i}", "gpu", gib * GIB, gib * GIB, "vulkan") for i in range(gpus)]
    return [*cards, Device("host", "host", 512 * GIB, 512 * GIB, "cpu")]


def llmctl_says(every: list[Case]) -> list[list[int] | None]:
    """Bytes on each GPU, reserves left out."""
    models = {shape: Model.of([parse_header(content(shape))]) for shape in shapes(every)}
    answers = [
        estimate(models[case["shape"]], settings(case), devices(case["config"]["n_gpu"]))
        for case in every
    ]
    return [[memory.engine_total for memory in answer.gpus] for answer in answers]


def shapes(every: Iterable[Case]) -> list[str]:
    """The models among the cases."""
    return list(dict.fromkeys(case["shape"] for case in every))


def gguf_parser_says(every: list[Case], directory: Path) -> list[list[int] | None]:
    """The same by gguf-parser; it knows no whole ubatch of logits to switch off."""
    source = directory / "peer"
    source.mkdir()
    (source / "main.go").write_text(GO)
    (source / "go.mod").write_text("module peer\n\ngo 1.23\n")
    for command in (["go", "get", GGUF_PARSER], ["go", "build", "-o", "peer", "."]):
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    runs = []
    for case in every:
        told = settings(case)
        sums = [sum(told.tensor_split[: i + 1]) for i in range(len(told.tensor_split))]
        runs.append(
            {
                "Path": str(sparse(directory, case["shape"])),
                "Context": told.context,
                "Parallel": told.parallel,
                "Batch": told.batch,
                "Layers": told.gpu_layers,
                "Quantised": told.cache_type_k != "f16",
                "Flash": told.flash_attention != "off",
                "Split": [bound / sums[-1] for bound in sums],
            }
        )
    answer = subprocess.run(
        [source / "peer"], input=json.dumps(runs).encode(), check=True, capture_output=True
    )
    said: list[list[int] | None] = json.loads(answer.stdout)
    return said


def xllamacpp_says(every: list[Case], directory: Path) -> list[list[int] | None]:
    """The same by xllamacpp, where it has an answer: it chooses the layers itself.

    Its reader takes half a minute for a large vocabulary, so each file is read once.
    """
    from gguf import GGUFReader, GGUFValueType
    from xllamacpp import memory

    read = cache(lambda path, _mode="r": GGUFReader(path))
    memory._import_gguf = lambda: (read, GGUFValueType)  # noqa: SLF001
    dump, dumped = memory.dump_metadata_json, {}

    def dump_once(reader: Any, path: str) -> Any:
        if path not in dumped:
            dumped[path] = dump(reader, path)
        return dumped[path]

    memory.dump_metadata_json = dump_once
    said: list[list[int] | None] = []
    for case in every:
        told = settings(case)
        if group(case) == "some layers, or two GPUs":
            said.append(None)
            continue
        answer = memory.estimate_gpu_layers(
            [{"name": "CUDA", "memory_free": 96 * GIB}],
            str(sparse(directory, case["shape"])),
            [],
            context_length=told.context,
            batch_size=told.ubatch,
            num_parallel=told.parallel,
            kv_cache_type=told.cache_type_k,
        )
        said.append([int(answer.vram_size)])
    return said


def errors(every: list[Case], said: list[list[int] | None]) -> dict[str, list[float]]:
    """Signed relative errors of the bytes on all GPUs, by group."""
    found: dict[str, list[float]] = {}
    for case, ours in zip(every, said, strict=True):
        if ours is not None:
            found.setdefault(group(case), []).append(sum(ours) / sum(truth(case)) - 1)
    return found


def compare(*, peers: bool) -> None:
    """Print the table of errors."""
    every = cases()
    says: dict[str, Callable[[Path], list[list[int] | None]]] = {
        "llmctl": lambda _: llmctl_says(every)
    }
    if peers:
        says["gguf-parser 0.28.1"] = lambda directory: gguf_parser_says(every, directory)
        says["xllamacpp"] = lambda directory: xllamacpp_says(every, directory)
    print("| cases | estimator | mean | most over | most under |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        for name, ask in says.items():
            for label, off in errors(every, ask(Path(place))).items():
                mean = statistics.mean(abs(error) for error in off)
                over, under = max(0.0, *off), min(0.0, *off)
                print(
                    f"| {label} ({len(off)}) | {name} | {mean:.2%} | {over:+.1%} | {under:+.1%} |"
                )


def speed(runs: int = 11) -> None:
    """Print how long one plan and the table take on the 70B header."""
    data = content("llama3.3-70b")
    plans, tables, rows = [], [], 0
    for _ in range(runs):
        began = time.perf_counter()
        model = Model.of([parse_header(data)])
        choose(model, devices(2, 24), Wanted(8192))
        plans.append(time.perf_counter() - began)
        began = time.perf_counter()
        four = dict.fromkeys("abcd", model)  # as if in four quantisations
        answer = table(four, devices(2, 24), Settings(8192))
        tables.append(time.perf_counter() - began)
        rows = len(answer.rows)
    print(f"header, plan and choice for 70B on two GPUs: {statistics.median(plans) * 1000:.0f} ms")
    print(f"table of {rows} combinations: {statistics.median(tables) * 1000:.0f} ms")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--without-peers", action="store_true")
    arguments = parser.parse_args()
    speed()
    compare(peers=not arguments.without_peers)


if __name__ == "__main__":
    main()
