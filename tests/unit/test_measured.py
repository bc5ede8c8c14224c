"""Plan and measurement side by side: llama.cpp's own log lines in, differences out."""

from __future__ import annotations

import pytest

from llmctl.core.measured import Line, compare, excess, last_load, ratio

MIB = 1 << 20
# As b11549 prints them on two GPUs; the first load failed and was tried again.
LOG = """\
0.00.1 I srv    load_model: loading model '/models/m.gguf'
0.00.2 I load_tensors:        CUDA0 model buffer size =  9999.00 MiB
0.00.3 E llama_init_from_model: failed to initialize the context
0.01.0 I srv    load_model: loading model '/models/m.gguf'
0.01.1 I load_tensors:   CPU_Mapped model buffer size =   100.00 MiB
0.01.1 I load_tensors:        CUDA0 model buffer size =  1000.00 MiB
0.01.1 I load_tensors:        CUDA1 model buffer size =   500.50 MiB
0.01.2 I llama_context:  CUDA_Host  output buffer size =     0.49 MiB
0.01.2 I llama_kv_cache:      CUDA0 KV buffer size =   256.00 MiB
0.01.3 I sched_reserve:      CUDA0 compute buffer size =   110.00 MiB
0.01.3 I sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB
""".splitlines()
PLAN = {
    "RTX 3060": {"weights": 1000 * MIB, "kv_cache": 256 * MIB, "compute": 100 * MIB, "state": 0},
    "RTX 3050": {"weights": 500 * MIB, "kv_cache": 0, "compute": 0, "state": 0},
    "RAM": {"weights": 100 * MIB, "output": MIB // 2, "compute": 20 * MIB, "kv_cache": 0},
}


def test_only_the_last_load_counts() -> None:
    lines = last_load(LOG)
    assert len(lines) == 8
    assert not any("9999" in line for line in lines)
    assert last_load(["no such line"]) == ["no such line"]


def test_devices_go_by_their_number_and_ram_is_one() -> None:
    found = {(line.device, line.term): line for line in compare(PLAN, last_load(LOG))}
    assert found["RTX 3060", "compute"] == Line("RTX 3060", "compute", 100 * MIB, 110 * MIB)
    assert found["RTX 3050", "weights"].measured == 500 * MIB + MIB // 2
    assert found["RAM", "weights"] == Line("RAM", "weights", 100 * MIB, 100 * MIB)
    assert found["RAM", "compute"].measured == 20 * MIB
    assert ("RTX 3060", "state") not in found


def test_ratio_and_what_was_missing() -> None:
    lines = compare(PLAN, last_load(LOG))
    planned = sum(line.planned for line in lines)
    measured = sum(line.measured for line in lines)
    assert ratio(lines) == pytest.approx(measured / planned)
    assert excess(lines) == {"RTX 3060": 10 * MIB, "RTX 3050": MIB // 2}


def test_an_engine_that_says_nothing() -> None:
    assert compare(PLAN, ["hello"]) == ()
    assert ratio(()) is None
    assert excess(()) == {}
