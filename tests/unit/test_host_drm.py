"""AMD's and Intel's GPUs, read from a made-up /sys and /proc as their kernel drivers write them."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import pytest

from llmctl import host
from llmctl.host import probing

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.core.gpus import Gpu

GIB = 1 << 30
MIB = 1 << 20
AMD, INTEL = "0x1002", "0x8086"
AMDGPU_IDS = """\
# List of AMDGPU IDs
1.0.0
744C,	C8,	AMD Radeon RX 7900 XTX
744C,	CC,	AMD Radeon RX 7900 XT
15BF,	1,	AMD Radeon 780M
"""
PCI_IDS = """\
1002  Advanced Micro Devices, Inc. [AMD/ATI]
	7480  Navi 33 [Radeon RX 7600]
		1002 7480  A subsystem
8086  Intel Corporation
	56a0  DG2 [Arc A770]
	7d55  Meteor Lake-P [Intel Arc Graphics]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", f"MemTotal: {32 * MIB} kB\nMemAvailable: {20 * MIB} kB\n")
    write(tmp_path / "usr/share/libdrm/amdgpu.ids", AMDGPU_IDS)
    write(tmp_path / "usr/share/misc/pci.ids", PCI_IDS)
    return tmp_path


def write(path: Path, text: str | bytes = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def card(root: Path, number: int, bus: str, **files: str | int | bytes) -> Path:
    """A GPU as /sys shows it; a name's "__" is a "/"."""
    place = root / f"sys/class/drm/card{number}"
    write(place / "device/uevent", f"DRIVER=x\nPCI_SLOT_NAME={bus}\n")
    for name, told in files.items():
        path = place / "device" / name.replace("__", "/")
        write(path, told if isinstance(told, bytes) else f"{told}\n")
    return place


def amd(root: Path, number: int = 0, bus: str = "0000:03:00.0", **files: str | int | bytes) -> Path:
    usual: dict[str, str | int | bytes] = {
        "vendor": AMD,
        "device": "0x744c",
        "revision": "0xc8",
        "mem_info_vram_total": 24560 * MIB,
        "mem_info_vram_used": 2 * GIB,
        "mem_info_gtt_total": 16 * GIB,
        "mem_info_gtt_used": 10 * MIB,
        "gpu_metrics": metrics(1),
    }
    return card(root, number, bus, **{**usual, **files})


def metrics(version: int) -> bytes:
    return bytes([120, 0, version, 3]) + bytes(116)


def only(root: Path) -> Gpu:
    (gpu,) = host.hardware(root).gpus
    return gpu


# --- AMD -------------------------------------------------------------------------------------


def test_an_amd_card(root: Path) -> None:
    amd(root)
    found = host.hardware(root)
    (gpu,) = found.gpus
    assert (gpu.kind, gpu.name, gpu.index) == ("amd", "AMD Radeon RX 7900 XTX", 0)
    assert (gpu.total, gpu.free) == (24560 * MIB, 24560 * MIB - 2 * GIB)
    assert not gpu.shared
    assert (found.unified, found.driver, found.problems) == (False, None, ())
    assert gpu.unseen == 2 * GIB


def test_the_sockets_of_a_card_are_no_cards(root: Path) -> None:
    amd(root)
    write(root / "sys/class/drm/card0-HDMI-A-1/device/vendor", AMD)
    write(root / "sys/class/drm/renderD128/device/vendor", AMD)
    write(root / "sys/class/drm/card7/device/vendor", "0x1a03")  # a server's own display
    assert len(host.hardware(root).gpus) == 1


def test_cards_in_the_order_of_the_bus(root: Path) -> None:
    amd(root, 0, "0000:0a:00.0", revision="0xcc")
    amd(root, 1, "0000:03:00.0")
    assert [(gpu.index, gpu.name) for gpu in host.hardware(root).gpus] == [
        (0, "AMD Radeon RX 7900 XTX"),
        (1, "AMD Radeon RX 7900 XT"),
    ]


def test_a_server_card_names_itself(root: Path) -> None:
    amd(root, product_name="AMD Instinct MI210")
    assert only(root).name == "AMD Instinct MI210"


def test_names_from_the_pci_list_and_without_any(root: Path) -> None:
    amd(root, device="0x7480", revision="0xcf")
    assert only(root).name == "AMD Radeon RX 7600"
    (root / "usr/share/misc/pci.ids").unlink()
    assert only(root).name == "AMD GPU"


def test_an_apu_and_the_ram_are_one_budget(root: Path) -> None:
    amd(
        root,
        device="0x15bf",
        revision="0x01",
        mem_info_vram_total=4 * GIB,
        mem_info_vram_used=GIB,
        mem_info_gtt_used=0,
        gpu_metrics=metrics(2),
    )
    found = host.hardware(root)
    (gpu,) = found.gpus
    assert (gpu.name, gpu.shared, found.unified) == ("AMD Radeon 780M", True, True)
    assert (gpu.total, gpu.free) == (20 * GIB, 19 * GIB)


def test_an_apu_can_take_no_more_than_the_ram_has(root: Path) -> None:
    write(root / "proc/meminfo", f"MemTotal: {32 * MIB} kB\nMemAvailable: {2 * MIB} kB\n")
    amd(root, mem_info_vram_total=GIB, mem_info_vram_used=GIB, gpu_metrics=metrics(3))
    assert only(root).free == 2 * GIB


@pytest.mark.parametrize(
    ("vram", "shared"), [(512 * MIB, True), (2 * GIB, True), (8 * GIB, False), (20 * GIB, False)]
)
def test_without_metrics_a_small_carve_out_is_an_apu(root: Path, vram: int, shared: bool) -> None:
    place = amd(root, mem_info_vram_total=vram, mem_info_vram_used=0)
    (place / "device/gpu_metrics").unlink()
    assert only(root).shared is shared


def test_a_card_under_another_driver_is_named_with_a_way_out(root: Path) -> None:
    card(root, 0, "0000:03:00.0", vendor=AMD, device="0x744c", revision="0xc8")
    found = host.hardware(root)
    assert [(gpu.total, gpu.free) for gpu in found.gpus] == [(0, None)]
    assert "--gpu" in found.problems[0]


@pytest.mark.parametrize(
    "told", [b"", b"\xff\x00\xfe", b"-1", b"9" * 5000, b"9" * 19, b"1e9", b"0x10"]
)
def test_nonsense_from_a_driver(root: Path, told: bytes) -> None:
    amd(root, mem_info_vram_total=told, mem_info_vram_used=told, mem_info_gtt_total=told)
    found = host.hardware(root)
    assert [(gpu.total, gpu.free) for gpu in found.gpus] == [(0, None)]
    assert len(found.problems) == 1


def test_more_used_than_there_is(root: Path) -> None:
    amd(root, mem_info_vram_used=99 * GIB)
    assert only(root).free == 0


def test_a_name_cannot_steer_the_terminal(root: Path) -> None:
    amd(root, product_name="\x1b[2Jevil")
    assert "\x1b" not in only(root).name


# --- Intel -----------------------------------------------------------------------------------


def test_intels_own_gpu_is_the_ram(root: Path) -> None:
    card(root, 0, "0000:00:02.0", vendor=INTEL, device="0x7d55")
    found = host.hardware(root)
    (gpu,) = found.gpus
    assert (gpu.kind, gpu.name) == ("intel", "Intel Arc Graphics")
    assert (gpu.shared, found.unified) == (True, True)
    assert (gpu.total, gpu.free) == (32 * GIB, 20 * GIB)


@pytest.mark.parametrize("place", ["", "device", "gt/gt0"])
def test_intels_cards_memory_from_i915(root: Path, place: str) -> None:
    device = card(root, 0, "0000:03:00.0", vendor=INTEL, device="0x56a0")
    write(device / place / "lmem_total_bytes", f"{16 * GIB}\n")
    write(device / place / "lmem_avail_bytes", "0\n")
    gpu = only(root)
    assert (gpu.name, gpu.total, gpu.free, gpu.shared) == ("Intel Arc A770", 16 * GIB, 0, False)


def test_intels_cards_memory_from_xe(root: Path) -> None:
    tiles = {f"tile{n}__physical_vram_size_bytes": 24 * GIB for n in (0, 1)}
    card(root, 0, "0000:03:00.0", vendor=INTEL, device="0x0bd5", **tiles)
    found = host.hardware(root)
    assert [(gpu.total, gpu.free) for gpu in found.gpus] == [(48 * GIB, None)]
    assert "free" in found.problems[0]


def test_intels_card_known_by_its_number(root: Path) -> None:
    card(root, 0, "0000:03:00.0", vendor=INTEL, device="0xe20b")
    gpu = only(root)
    assert (gpu.name, gpu.total, gpu.free, gpu.shared) == ("Arc B580", 11604 * MIB, None, False)


def test_intels_card_nobody_knows(root: Path) -> None:
    card(root, 0, "0000:03:00.0", vendor=INTEL, device="0x56a0")
    found = host.hardware(root)
    assert [(gpu.total, gpu.shared) for gpu in found.gpus] == [(0, False)]
    assert "--gpu" in found.problems[0]


def test_a_card_beside_the_processors_own_gpu_is_not_unified(root: Path) -> None:
    card(root, 0, "0000:00:02.0", vendor=INTEL, device="0x7d55")
    amd(root, 1)
    found = host.hardware(root)
    assert [(gpu.kind, gpu.shared) for gpu in found.gpus] == [("amd", False), ("intel", True)]
    assert not found.unified


# --- who holds memory ------------------------------------------------------------------------

NEW = """\
pos:	0
drm-driver:	amdgpu
drm-client-id:	{client}
drm-pdev:	0000:03:00.0
drm-total-vram:	999999 KiB
drm-resident-vram:	{size} KiB
drm-memory-vram:	{size} KiB
drm-resident-gtt:	77 KiB
"""
OLD = "drm-client-id:\t{client}\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t{size} KiB\n"
XE = "drm-client-id:\t{client}\ndrm-pdev:\t0000:03:00.0\ndrm-resident-vram0:\t{size} MiB\n"


def opened(root: Path, pid: int, name: str, descriptor: int, told: str) -> None:
    place = root / f"proc/{pid}"
    write(place / "comm", name + "\n")
    write(place / f"fdinfo/{descriptor}", told)
    (place / "fd").mkdir(exist_ok=True)
    (place / f"fd/{descriptor}").symlink_to("/dev/dri/renderD128")


def held(root: Path) -> list[tuple[int, str, int | None]]:
    return [(one.pid, one.name, one.bytes) for one in only(root).processes]


def test_who_holds_memory_largest_first(root: Path) -> None:
    amd(root)
    opened(root, 10, "small", 3, OLD.format(client=1, size=1024))
    opened(root, 20, "llama-server", 3, NEW.format(client=2, size=4 * MIB))
    opened(root, 20, "llama-server", 4, NEW.format(client=3, size=1 * MIB))
    opened(root, 20, "llama-server", 5, NEW.format(client=3, size=1 * MIB))  # the same client again
    opened(root, 30, "idle", 3, NEW.format(client=4, size=0))
    opened(root, 40, "elsewhere", 3, NEW.format(client=5, size=5).replace(":03:", ":04:"))
    assert held(root) == [(20, "llama-server", 5 * GIB), (10, "small", MIB)]


def test_who_holds_memory_of_intels_card(root: Path) -> None:
    card(root, 0, "0000:03:00.0", vendor=INTEL, device="0xe20b")
    opened(root, 10, "ollama", 3, XE.format(client=1, size=512))
    assert held(root) == [(10, "ollama", 512 * MIB)]


@pytest.mark.parametrize(
    "told",
    [
        "",
        "drm-pdev:\t0000:03:00.0\n",
        "drm-pdev:\t0000:03:00.0\ndrm-resident-vram:\tmany KiB\n",
        "drm-pdev:\t0000:03:00.0\ndrm-resident-vram:\t5 parsecs\n",
        "drm-pdev:\t0000:03:00.0\ndrm-resident-vram:\t" + "9" * 5000 + " KiB\n",
        "drm-pdev:\t0000:03:00.0\ndrm-resident-vram:\t1 2 3\n",
        "drm-client-id:\t1\ndrm-resident-vram:\t5 KiB\n",
        "\udcff\x00",
    ],
)
def test_nonsense_about_who_holds_memory(root: Path, told: str) -> None:
    amd(root)
    opened(root, 10, "x", 3, "")
    (root / "proc/10/fdinfo/3").write_bytes(told.encode(errors="surrogateescape"))
    assert held(root) == []
    assert host.hardware(root).problems == ()


def test_processes_that_may_not_be_read_are_passed_over(root: Path) -> None:
    amd(root)
    opened(root, 10, "mine", 3, OLD.format(client=1, size=1024))
    write(root / "proc/11/comm", "gone")
    (root / "proc/12").mkdir()
    (root / "proc/self").mkdir()
    assert held(root) == [(10, "mine", MIB)]


def test_a_driver_that_hangs_costs_the_deadline_and_no_more(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = amd(root)
    stuck = place / "device/mem_info_vram_used"
    stuck.unlink()
    os.mkfifo(stuck)  # a read from it waits until somebody writes
    monkeypatch.setattr(probing, "PROBE_DEADLINE_S", 0.2)
    try:
        found = host.hardware(root)
    finally:
        os.close(os.open(stuck, os.O_WRONLY))  # lets the thread go
    assert found.gpus == ()
    assert found.memory.total == 32 * GIB
    assert any("no answer within 0.2 s" in problem for problem in found.problems)


# --- Apple -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "ram", "share"),
    [("arm64", 16, 16 * GIB * 2 // 3), ("arm64", 64, 48 * GIB), ("x86_64", 16, None)],
)
def test_apple_silicon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, ram: int, share: int | None
) -> None:
    kib = ram * MIB
    write(tmp_path / "proc/meminfo", f"MemTotal: {kib} kB\nMemAvailable: {kib} kB\n")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    found = host.hardware(tmp_path)
    assert [gpu.total for gpu in found.gpus] == ([] if share is None else [share])
    assert found.unified is (share is not None)
    assert len(found.problems) == (0 if share is None else 1)
