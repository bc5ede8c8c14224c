"""What the host offers, and which GPU follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmctl.errors import ConfigError

GpuKind = Literal["none", "nvidia", "amd", "intel", "vulkan"]

# PCI vendor numbers as /sys/class/drm/*/device/vendor spells them.
AMD = "0x1002"
INTEL = "0x8086"
NVIDIA = "0x10de"

INSTALL_TOOLKIT = (
    "install nvidia-container-toolkit, then: sudo systemctl restart docker\n"
    "or run on the CPU, knowingly: llmctl up --gpu none"
)


@dataclass(frozen=True)
class RenderNode:
    """A GPU that a container can be given, /dev/dri/renderD128 and so on.

    Attributes:
        path: The device file.
        vendor: PCI vendor, such as "0x1002"; "" for a GPU that is not on PCI.
        group: The group that may use it, None when it cannot be read.
    """

    path: str
    vendor: str
    group: int | None


@dataclass(frozen=True)
class HostFacts:
    """The machine llmctl runs on, as far as it can be read without starting anything.

    Attributes:
        machine: "amd64", "arm64", or what the kernel calls it.
        physical_cores: Cores this process may use, without SMT siblings, at least 1.
        nvidia_driver: Version of NVIDIA's kernel driver, "unknown" when it is loaded but does not
            say; None without it.
        kfd_group: Group of /dev/kfd, which ROCm needs besides the render node; None without it.
        render_nodes: GPUs with a render node, in the order of their names.
    """

    machine: str
    physical_cores: int
    nvidia_driver: str | None = None
    kfd_group: int | None = None
    render_nodes: tuple[RenderNode, ...] = ()

    def nodes_of(self, vendor: str) -> tuple[RenderNode, ...]:
        """The render nodes of one PCI vendor."""
        return tuple(node for node in self.render_nodes if node.vendor == vendor)


@dataclass(frozen=True)
class GpuChoice:
    """The GPU the engine gets, and why in a few words."""

    kind: GpuKind
    reason: str


def choose_gpu(asked: str, facts: HostFacts, *, engine_has_nvidia: bool | None) -> GpuChoice:
    """What `--gpu` means on this host; it never falls back to the CPU in silence.

    Args:
        asked: auto, none, nvidia, amd, intel or vulkan.
        facts: The host.
        engine_has_nvidia: Whether the container engine can pass NVIDIA GPUs, None when it does not
            say. Where it says yes, an NVIDIA GPU asked for by name is not looked for here: the
            engine may run on another machine.

    Raises:
        ConfigError: what was asked for is not there, or is there and the engine cannot pass it.
    """
    match asked:
        case "none":
            return GpuChoice("none", "asked for")
        case "auto":
            return _automatic(facts, engine_has_nvidia=engine_has_nvidia)
        case "nvidia":
            missing = _missing_nvidia(facts, engine_has_nvidia=engine_has_nvidia)
        case "amd":
            missing = _missing_amd(facts)
        case "intel":
            missing = _missing_intel(facts)
        case "vulkan":
            missing = "" if facts.render_nodes else "no render node under /dev/dri"
        case _:
            raise ConfigError(
                f'gpu: unknown kind "{asked}"',
                hint="one of auto, none, nvidia, amd, intel, vulkan",
            )
    if missing:
        raise ConfigError(f"--gpu {asked}: {missing}", hint=_way_out(asked, facts))
    return GpuChoice(asked, "asked for")


def _automatic(facts: HostFacts, *, engine_has_nvidia: bool | None) -> GpuChoice:
    if facts.nvidia_driver is not None:
        if engine_has_nvidia is False:
            raise ConfigError(
                f"this host has an NVIDIA GPU (driver {facts.nvidia_driver}), but the container"
                " engine cannot pass it to a container",
                hint=INSTALL_TOOLKIT,
            )
        return GpuChoice("nvidia", f"NVIDIA driver {facts.nvidia_driver}")
    if not _missing_amd(facts):
        return GpuChoice("amd", f"AMD GPU at {facts.nodes_of(AMD)[0].path}")
    if not _missing_intel(facts):
        return GpuChoice("intel", f"Intel GPU at {facts.nodes_of(INTEL)[0].path}")
    if facts.nodes_of(NVIDIA):
        raise ConfigError(
            "this host has an NVIDIA GPU, but NVIDIA's driver is not loaded",
            hint="install NVIDIA's driver, then: nvidia-smi\n"
            "or run on the CPU, knowingly: llmctl up --gpu none",
        )
    if facts.nodes_of(AMD):
        return GpuChoice("none", f"{_missing_amd(facts)}; `--gpu vulkan` may use it")
    if facts.nodes_of(INTEL):
        return GpuChoice("none", f"{_missing_intel(facts)}; `--gpu vulkan` may use it")
    return GpuChoice("none", "no GPU found")


def _missing_nvidia(facts: HostFacts, *, engine_has_nvidia: bool | None) -> str:
    if engine_has_nvidia:
        return ""
    if facts.nvidia_driver is None:
        return "NVIDIA's driver is not loaded on this host"
    if engine_has_nvidia is False:
        return "the container engine cannot pass NVIDIA GPUs to a container"
    return ""


def _missing_amd(facts: HostFacts) -> str:
    if facts.machine != "amd64":
        return f"LocalAI has no ROCm image for {facts.machine}"
    if not facts.nodes_of(AMD):
        return "no AMD GPU with a render node under /dev/dri"
    if facts.kfd_group is None:
        return "the AMD GPU cannot compute: /dev/kfd is missing"
    return ""


def _missing_intel(facts: HostFacts) -> str:
    if facts.machine != "amd64":
        return f"LocalAI has no Intel image for {facts.machine}"
    if not facts.nodes_of(INTEL):
        return "no Intel GPU with a render node under /dev/dri"
    return ""


def _way_out(asked: str, facts: HostFacts) -> str:
    if asked == "nvidia" and facts.nvidia_driver is not None:
        return INSTALL_TOOLKIT
    look = "nvidia-smi" if asked == "nvidia" else "ls -l /dev/kfd /dev/dri"
    return f"{look}   # does the host see it?\nor: llmctl up --gpu auto"
