"""NVIDIA's GPUs: a stand-in for NVML with its real errors, and the driver's files without it.

No NVIDIA GPU is at hand: `Nvml` answers as the library's documentation and its wrapper (nvidia-ml-py)
say.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from llmctl import host
from llmctl.host import nvidia, nvml_reader

GIB = 1 << 30
MIB = 1 << 20
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
NOT_FOUND = pynvml.NVML_ERROR_NOT_FOUND
NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION


@dataclass
class Device:
    """What NVML says of a GPU; a number in the place of an answer is its error code."""

    name: Any = "NVIDIA GeForce RTX 4090"
    uuid: Any = "GPU-1"
    memory_v2: Any = field(default_factory=lambda: memory(24564, 20000, reserved=500))
    memory_v1: Any = NOT_SUPPORTED
    capability: Any = (8, 9)
    mig: Any = NOT_SUPPORTED
    instances: dict[int, Device] = field(default_factory=dict)
    compute: Any = ()
    graphics: Any = ()
    handle: int | None = None


def memory(total: int, free: int, reserved: int | None = None) -> SimpleNamespace:
    told = SimpleNamespace(total=total * MIB, free=free * MIB, used=(total - free) * MIB)
    if reserved is not None:
        told.reserved = reserved * MIB
    return told


def process(pid: int, mib: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * MIB)


@dataclass
class Nvml:
    """The functions of `pynvml` that the reader calls, over `devices`."""

    devices: list[Device] = field(default_factory=list)
    init: Any = None
    driver: Any = "550.54.14"
    cuda: Any = 12040
    names: dict[int, Any] = field(default_factory=dict)
    process_version: str = "v3"
    shut_down: int = 0

    NVMLError = pynvml.NVMLError
    NVMLLibraryMismatchError = pynvml.NVMLLibraryMismatchError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2  # noqa: N815 - its name

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInit": lambda: said(self.init),
            "nvmlShutdown": self._shutdown,
            "nvmlSystemGetDriverVersion": lambda: said(self.driver),
            "nvmlSystemGetCudaDriverVersion_v2": lambda: said(self.cuda),
            "nvmlSystemGetProcessName": lambda pid: said(self.names.get(pid, NOT_FOUND)),
            "nvmlDeviceGetCount": lambda: len(self.devices),
            "nvmlDeviceGetHandleByIndex": self._handle,
            "nvmlDeviceGetName": lambda device: said(device.name),
            "nvmlDeviceGetUUID": lambda device: said(device.uuid),
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetCudaComputeCapability": lambda device: said(device.capability),
            "nvmlDeviceGetMigMode": lambda device: said(device.mig),
            "nvmlDeviceGetMaxMigDeviceCount": lambda _device: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda device, n: said(
                device.instances.get(n, NOT_FOUND)
            ),
        }
        for kind in ("Compute", "Graphics"):
            for version in ("v2", "v3"):
                answers[f"nvmlDeviceGet{kind}RunningProcesses_{version}"] = self._running(
                    kind, version
                )
        return answers[name]

    def _handle(self, index: int) -> Device:
        device = self.devices[index]
        said(device.handle)
        return device

    def _memory(self, device: Device, version: int | None = None) -> Any:
        return said(device.memory_v1 if version is None else device.memory_v2)

    def _running(self, kind: str, version: str) -> Any:
        def call(device: Device) -> Any:
            if version != self.process_version:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            return said(getattr(device, kind.lower()))

        return call

    def _shutdown(self) -> None:
        self.shut_down += 1


def said(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, int) and answer < 1000:
        raise pynvml.NVMLError(answer)
    return answer


def read(*devices: Device, **more: Any) -> dict[str, Any]:
    report = nvml_reader.read(Nvml(list(devices), **more))
    return dict(json.loads(json.dumps(report)))


def test_a_card() -> None:
    nvml = Nvml([Device()])
    report = nvml_reader.read(nvml)
    (gpu,) = report["gpus"]
    assert (report["error"], report["driver"], report["cuda"]) == (None, "550.54.14", "12.4")
    assert gpu["name"] == "NVIDIA GeForce RTX 4090"
    assert (gpu["total"], gpu["free"], gpu["reserved"]) == (24564 * MIB, 20000 * MIB, 500 * MIB)
    assert (gpu["compute_capability"], gpu["uuid"], gpu["index"]) == ("8.9", "GPU-1", 0)
    assert report["problems"] == []
    assert nvml.shut_down == 1


def test_an_old_driver_knows_the_first_memory_structure_only() -> None:
    (gpu,) = read(Device(memory_v2=13, memory_v1=memory(8192, 8000)))["gpus"]
    assert (gpu["total"], gpu["free"], gpu["reserved"]) == (8192 * MIB, 8000 * MIB, 0)


def test_who_holds_memory() -> None:
    device = Device(
        compute=[process(7, 300), process(8, 9000), process(9, None)],
        graphics=[process(7, 300), process(10, 200)],
    )
    names = {
        7: "/usr/bin/blender --background x.blend",
        8: "/usr/local/bin/llama-server",
        10: r"C:\Windows\System32\dwm.exe",
    }
    (gpu,) = read(device, names=names)["gpus"]
    assert [(one["name"], one["bytes"]) for one in gpu["processes"] if one["pid"] != 9] == [
        ("llama-server", 9000 * MIB),
        ("blender", 300 * MIB),
        ("dwm.exe", 200 * MIB),
    ]
    assert [one["bytes"] for one in gpu["processes"] if one["pid"] == 9] == [None]


def test_a_process_that_nvml_cannot_name_is_named_by_the_kernel() -> None:
    (gpu,) = read(Device(compute=[process(os.getpid(), 5), process(2**31, 4)]))["gpus"]
    named = Path(f"/proc/{os.getpid()}/comm").read_text(encoding="utf-8").strip()
    assert [one["name"] for one in gpu["processes"]] == [named, "?"]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_old_and_new_lists_of_processes(version: str) -> None:
    (gpu,) = read(Device(compute=[process(8, 1)]), process_version=version)["gpus"]
    assert [one["pid"] for one in gpu["processes"]] == [8]


def test_a_vgpu_does_not_tell_who_holds_memory() -> None:
    report = read(Device(name="GRID T4-8Q", compute=NOT_SUPPORTED, graphics=NOT_SUPPORTED))
    assert report["gpus"][0]["processes"] == []
    assert report["gpus"][0]["total"]
    assert "Not Supported" in report["problems"][0]


def test_mig_instances_are_gpus() -> None:
    parent = Device(
        name="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        mig=[1, 1],
        memory_v2=NO_PERMISSION,
        instances={
            0: Device(
                name="NVIDIA A100-SXM4-80GB MIG 3g.40gb",
                uuid="MIG-a",
                memory_v2=memory(40192, 40000),
                mig=NOT_SUPPORTED,
                compute=NOT_SUPPORTED,
                graphics=NOT_SUPPORTED,
                capability=pynvml.NVML_ERROR_INVALID_ARGUMENT,
            ),
            2: Device(
                name=NOT_SUPPORTED, uuid="MIG-b", memory_v2=NOT_SUPPORTED, memory_v1=memory(9, 8)
            ),
        },
    )
    report = read(Device(mig=[0, 0]), parent)
    whole, one, other = report["gpus"]
    assert whole["uuid"] == "GPU-1"
    assert (one["uuid"], one["index"], one["compute_capability"]) == ("MIG-a", 1, "8.0")
    assert one["total"] == 40192 * MIB
    assert (other["uuid"], other["name"]) == ("MIG-b", "NVIDIA A100-SXM4-80GB MIG 2")


def test_mig_without_an_instance_is_a_problem_not_a_gpu() -> None:
    report = read(Device(name="NVIDIA H100", mig=[1, 0]))
    assert report["gpus"] == []
    assert "mig" in report["problems"][0]


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    report = read(Device(handle=pynvml.NVML_ERROR_GPU_IS_LOST), Device(uuid="GPU-2"))
    assert [gpu["uuid"] for gpu in report["gpus"]] == ["GPU-2"]
    assert "GPU 0" in report["problems"][0]


def test_every_question_may_be_refused() -> None:
    no = NOT_SUPPORTED
    device = Device(name=no, memory_v2=no, capability=no, compute=no, graphics=no)
    device.uuid = no
    report = read(device, driver=no, cuda=no)
    (gpu,) = report["gpus"]
    assert (gpu["name"], gpu["uuid"], gpu["total"]) == ("NVIDIA GPU", None, None)
    assert gpu["without_memory"] is True
    assert (report["driver"], report["cuda"]) == (None, None)


def test_a_name_that_is_no_text() -> None:
    wrong = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    (gpu,) = read(Device(name=wrong))["gpus"]
    assert gpu["name"] == "NVIDIA GPU"


@pytest.mark.parametrize("code", [4, 9, 12, 15, 18, 999])
def test_a_library_that_does_not_start(code: int) -> None:
    report = read(init=code)
    assert report["error"] == [code, str(pynvml.NVMLError(code))]
    assert report["gpus"] == []


# --- through the reader's process ------------------------------------------------------------

STAND_IN = """
import json, os, sys
class NVMLError(Exception):
    value = {code}
class NVMLLibraryMismatchError(Exception):
    pass
def nvmlInit():
    {init}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    write(root / "proc/driver/nvidia/version", "NVRM version: NVIDIA ... Module  550.54.14  Thu")
    write(root / "proc/meminfo", f"MemTotal: {64 * MIB} kB\nMemAvailable: {50 * MIB} kB\n")
    return root


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str = "pass", code: int = 0
) -> None:
    """Put a `pynvml` of ours before the real one, for the reader's process."""
    write(tmp_path / "path/pynvml.py", STAND_IN.format(init=init, code=code))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))


def answer(monkeypatch: pytest.MonkeyPatch, *devices: Device, **more: Any) -> None:
    """Let the reader's process answer as the stand-in above would."""
    output = "\n" + json.dumps(read(*devices, **more)) + "\n"
    monkeypatch.setattr(nvidia, "_run_reader", lambda _root, _deadline: (output, 0))


def test_nothing_is_started_without_a_trace_of_nvidia(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert host.hardware(tmp_path).problems == ()


def test_a_machine_with_nvidia(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, Device(compute=[process(8, 3000)], name="NVIDIA\x1b[2J L4"))
    found = host.hardware(root)
    (gpu,) = found.gpus
    assert (gpu.kind, gpu.total, gpu.free) == ("nvidia", 24564 * MIB, 20000 * MIB)
    assert (gpu.processes[0].pid, gpu.processes[0].bytes) == (8, 3000 * MIB)
    assert gpu.unseen == (24564 - 20000 - 500 - 3000) * MIB
    assert "\x1b" not in gpu.name
    assert (found.driver, found.cuda, found.unified) == ("550.54.14", "12.4", False)
    assert found.problems == ()


@pytest.mark.parametrize("told", [NOT_SUPPORTED, memory(0, 0)])
def test_nvidia_without_memory_of_its_own_shares_the_ram(
    root: Path, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    answer(monkeypatch, Device(name="NVIDIA GB10", memory_v2=told, capability=(12, 1)))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    found = host.hardware(root)
    (gpu,) = found.gpus
    assert (gpu.shared, found.unified) == (True, True)
    assert (gpu.total, gpu.free) == (64 * GIB, 50 * GIB)


def test_on_a_pc_not_supported_means_not_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, Device(memory_v2=NOT_SUPPORTED))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    found = host.hardware(root)
    assert [(gpu.total, gpu.free, gpu.shared) for gpu in found.gpus] == [(0, None, False)]
    assert "--gpu" in found.problems[0]


def test_memory_that_no_gpu_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, Device(memory_v2=SimpleNamespace(total=2**64 - 1, free=2**64 - 1)))
    found = host.hardware(root)
    assert [(gpu.total, gpu.free) for gpu in found.gpus] == [(0, None)]
    assert str(2**64 - 1) in found.problems[0]


def test_a_library_that_hangs_costs_the_deadline_and_leaves_nobody_behind(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path, monkeypatch, "import time; time.sleep(600)")
    found = host.hardware(root, nvml_deadline_s=0.3)
    assert found.gpus == ()
    assert found.driver == "550.54.14"
    assert "no answer within 0.3 s" in found.problems[0]
    assert nvidia._abandoned == []


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("os.kill(os.getpid(), 11)", "died of signal 11"),
        ("raise RuntimeError", "ended with code 1"),
        ("os._exit(3)", "ended with code 3"),
        ("sys.stdout.write('[1]'); sys.stdout.flush(); os._exit(0)", "ended with code 0"),
        ("print('{}', flush=True); os._exit(0)", "ended with code 0"),
        ("os.write(1, bytes(range(256))); os._exit(0)", "ended with code 0"),
    ],
)
def test_a_library_that_breaks(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str, said: str
) -> None:
    library(tmp_path, monkeypatch, init)
    found = host.hardware(root)
    assert found.gpus == ()
    assert said in found.problems[0]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (4, "group of /dev/nvidia0"),
        (9, "modprobe nvidia"),
        (12, "libnvidia-ml.so.1 is not installed"),
        (18, "restart this machine"),
        (999, "nvidia-smi"),
    ],
)
def test_a_library_that_refuses(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    library(tmp_path, monkeypatch, "raise NVMLError('said so')", code)
    assert remedy in host.hardware(root).problems[0]


def test_what_the_library_prints_is_not_taken_for_the_report(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = "print('NVML: warning'); raise NVMLError('x')"
    library(tmp_path, monkeypatch, init, 9)
    assert "modprobe" in host.hardware(root).problems[0]


def test_the_real_wrapper_on_this_machine(root: Path) -> None:
    """With a GPU it is found; without the library that is what is said."""
    found = host.hardware(root)
    assert found.gpus or "libnvidia-ml.so.1" in found.problems[0] or "NVML" in found.problems[0]


def test_no_wrapper(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "path/pynvml.py", "raise ImportError('no')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    assert "pip install nvidia-ml-py" in host.hardware(root).problems[0]


def test_a_reader_that_cannot_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert "could not be asked" in host.hardware(root).problems[0]


def test_modules_of_the_current_directory_are_not_taken(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here/json.py", "raise SystemExit(77)")
    monkeypatch.chdir(tmp_path / "here")
    assert "77" not in host.hardware(root).problems[0]


def test_the_library_of_wsl_is_on_the_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    assert nvidia._environment(root)["LD_LIBRARY_PATH"] == "/mine"
    write(root / "usr/lib/wsl/lib/libnvidia-ml.so.1")
    assert nvidia._environment(root)["LD_LIBRARY_PATH"] == f"/mine:{root}/usr/lib/wsl/lib"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert nvidia._environment(root)["LD_LIBRARY_PATH"] == f"{root}/usr/lib/wsl/lib"


@pytest.mark.parametrize(
    "place", ["dev/nvidiactl", "dev/nvmap", "usr/lib/wsl/lib/libnvidia-ml.so.1"]
)
def test_traces_besides_the_drivers_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    write(tmp_path / place)
    answer(monkeypatch, Device())
    assert len(host.hardware(tmp_path).gpus) == 1


# --- without NVML ----------------------------------------------------------------------------

INFORMATION = """\
Model: \t\t {model}
IRQ:   \t\t 152
GPU UUID: \t {uuid}
Video BIOS: \t ??.??.??.??.??
"""


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path, monkeypatch, "raise NVMLError('x')", 12)


@pytest.mark.usefixtures("silent")
def test_the_drivers_files_name_the_cards(root: Path) -> None:
    gpus = root / "proc/driver/nvidia/gpus"
    told = {
        "0000:01:00.0": ("NVIDIA GeForce RTX 3060", "GPU-12"),
        "0000:02:00.0": ("NVIDIA Something New", "GPU-????????-????"),
    }
    for bus, (model, uuid) in told.items():
        write(gpus / bus / "information", INFORMATION.format(model=model, uuid=uuid))
    found = host.hardware(root)
    known, unknown = found.gpus
    assert (known.name, known.uuid, known.total) == (
        "NVIDIA GeForce RTX 3060",
        "GPU-12",
        12288 * MIB,
    )
    assert (known.free, known.compute_capability) == (None, "8.6")
    assert (unknown.uuid, unknown.total, unknown.free, unknown.index) == (None, 0, None, 1)
    assert found.driver == "550.54.14"
    assert "libnvidia-ml.so.1" in found.problems[0]
    assert "what is free" in found.problems[1]
    assert "--gpu" in found.problems[2]


@pytest.mark.usefixtures("silent")
def test_device_files_are_counted_where_proc_is_masked(root: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        write(root / "dev" / name)
    assert [gpu.name for gpu in host.hardware(root).gpus] == ["NVIDIA GPU", "NVIDIA GPU"]


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("told", [b"", b"\xff\x00", b"Model:\n", b"Model: " + b"x" * (2 << 20)])
def test_nonsense_in_the_drivers_files(root: Path, told: bytes) -> None:
    place = root / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    write(place)
    place.write_bytes(told)
    (gpu,) = host.hardware(root).gpus
    assert (gpu.total, gpu.free) == (0, None)


def pci(root: Path, bus: str, driver: str | None, kind: str = "0x030000") -> None:
    place = root / "sys/bus/pci/devices" / bus
    write(place / "vendor", "0x10de\n")
    write(place / "class", kind + "\n")
    if driver:
        target = root / "sys/bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (place / "driver").symlink_to(target)


def test_a_gpu_without_nvidias_driver_is_said(tmp_path: Path) -> None:
    pci(tmp_path, "0000:01:00.0", "nouveau")
    pci(tmp_path, "0000:01:00.1", None, kind="0x040300")  # its sound
    pci(tmp_path, "0000:02:00.0", None)
    pci(tmp_path, "0000:03:00.0", "vfio-pci")  # given to a virtual machine
    found = host.hardware(tmp_path)
    assert found.gpus == ()
    assert [problem.partition(": ")[0] for problem in found.problems] == [
        "0000:01:00.0",
        "0000:02:00.0",
    ]
