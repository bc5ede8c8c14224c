"""`llmctl host`, as somebody calls it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmctl import host as edge
from llmctl.cli.host import human
from llmctl.cli.main import run
from llmctl.core.gpus import Gpu, GpuProcess, Hardware, Memory
from tests.unit.test_startup import imported

GIB = 1 << 30
CARD = Gpu(
    kind="nvidia",
    name="NVIDIA GeForce RTX 4090",
    index=0,
    uuid="GPU-1",
    total=24 * GIB,
    free=20 * GIB,
    shared=False,
    compute_capability="8.9",
    processes=(GpuProcess(412, "ollama", 2 * GIB), GpuProcess(9, "dwm.exe", None)),
    reserved=GIB // 2,
)
BOX = Hardware(
    gpus=(CARD,),
    memory=Memory(total=64 * GIB, available=50 * GIB, limit=16 * GIB),
    physical_cores=8,
    logical_cores=16,
    driver="550.54.14",
    cuda="12.4",
    unified=False,
    problems=("X: broken; do Y",),
    cpu_quota=8.5,
)


@pytest.fixture(autouse=True)
def box(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The machine is BOX; whether its GPUs were looked for."""
    looked: list[bool] = []

    def hardware(*, gpus: bool = True) -> Hardware:
        looked.append(gpus)
        return BOX

    monkeypatch.setattr(edge, "hardware", hardware)
    for name in ("LLMCTL_HOST_GPU", "LLMCTL_HOST_RAM", "LLMCTL_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    return looked


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["host", "--output", "json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_human(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["gpu", "memory", "free", "compute", "held", "by"]
    for part in ("RTX 4090", "24.0 GiB", "20.0 GiB", "8.9", "ollama (pid 412) 2.0 GiB"):
        assert part in lines[1]
    assert "dwm.exe (pid 9), driver 512 MiB, not visible from here 1.5 GiB" in lines[1]
    assert lines[3:] == [
        "ram     64.0 GiB, 50.0 GiB available; the cgroup allows 16.0 GiB",
        "cores   8 physical, 16 logical; the cgroup allows 8.5 CPUs",
        "driver  NVIDIA 550.54.14, CUDA up to 12.4",
        "",
        "problem: X: broken; do Y",
    ]


def test_json_is_whole_numbers_of_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    document = told(capsys)
    (gpu,) = document["gpus"]
    assert (gpu["total"], gpu["free"], gpu["reserved"]) == (24 * GIB, 20 * GIB, GIB // 2)
    assert gpu["processes"][0] == {"pid": 412, "name": "ollama", "bytes": 2 * GIB}
    assert document["memory"] == {"total": 64 * GIB, "available": 50 * GIB, "limit": 16 * GIB}
    assert (document["physical_cores"], document["driver"]) == (8, "550.54.14")
    assert document["problems"] == ["X: broken; do Y"]


def test_quiet_is_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "-o", "quiet"]) == 0
    assert capsys.readouterr().out == "NVIDIA GeForce RTX 4090\n"


def test_another_machine(capsys: pytest.CaptureFixture[str], box: list[bool]) -> None:
    document = told(capsys, "--gpu", "24GiB,rtx3060", "--ram", "32GiB")
    assert [gpu["total"] for gpu in document["gpus"]] == [24 * GIB, 12 * GIB]
    assert document["memory"] == {"total": 32 * GIB, "available": 32 * GIB, "limit": None}
    assert box == [False]  # a stuck driver cannot hold up what does not need it


def test_the_environment_and_that_a_flag_wins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, box: list[bool]
) -> None:
    monkeypatch.setenv("LLMCTL_HOST_GPU", "rtx3060")
    monkeypatch.setenv("LLMCTL_HOST_RAM", "8GiB")
    document = told(capsys)
    assert [gpu["name"] for gpu in document["gpus"]] == ["RTX 3060"]
    assert document["memory"]["total"] == 8 * GIB
    document = told(capsys, "--gpu", "auto", "--ram", "auto")
    assert [gpu["name"] for gpu in document["gpus"]] == [CARD.name]
    assert document["memory"]["total"] == 64 * GIB
    assert box == [False, True]


@pytest.mark.parametrize(
    ("arguments", "variable", "message", "hint"),
    [
        (["--gpu", "rtx4095"], {}, '--gpu: no GPU is known by the name "rtx4095"', "RTX 4090"),
        (["--ram", "lots"], {}, '--ram: "lots" is no size', "24GiB"),
        ([], {"LLMCTL_HOST_RAM": "lots"}, 'LLMCTL_HOST_RAM: "lots" is no size', "24GiB"),
        ([], {"LLMCTL_HOST_GPU": "lots"}, "LLMCTL_HOST_GPU: no GPU", "RTX"),
    ],
)
def test_what_cannot_be_imagined(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variable: dict[str, str],
    message: str,
    hint: str,
) -> None:
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    assert run(["host", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert hint in error


def test_no_gpu_and_one_budget() -> None:
    nothing = Hardware((), BOX.memory, 2, 4, None, None, unified=False, problems=())
    assert human(nothing).splitlines()[0] == "gpu     none found"
    shared = Gpu("intel", "Iris", 0, None, 0, None, shared=True, compute_capability=None)
    one = human(Hardware((shared,), BOX.memory, 2, 4, None, None, unified=True, problems=()))
    assert "? of RAM" in one
    assert "one budget" in one
    assert "driver" not in one


def test_nothing_heavy_is_imported_for_its_help_nor_nvml_ever() -> None:
    assert imported("host", "--help") & {"pynvml", "rich", "psutil", "docker"} == set()
    assert "pynvml" not in imported("host", "--output", "quiet")
