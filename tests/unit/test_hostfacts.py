"""Which GPU the engine gets, on every kind of host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.hostfacts import AMD, INTEL, NVIDIA, HostFacts, RenderNode, choose_gpu
from llmctl.errors import ConfigError

BARE = HostFacts(machine="amd64", physical_cores=4)


def node(vendor: str, number: int = 128) -> RenderNode:
    return RenderNode(f"/dev/dri/renderD{number}", vendor, 109)


WITH_NVIDIA = replace(BARE, nvidia_driver="550.54.14", render_nodes=(node(NVIDIA),))
WITH_AMD = replace(BARE, kfd_group=110, render_nodes=(node(AMD),))
WITH_INTEL = replace(BARE, render_nodes=(node(INTEL),))
NOUVEAU = replace(BARE, render_nodes=(node(NVIDIA),))
AMD_WITHOUT_KFD = replace(BARE, render_nodes=(node(AMD),))
ALL = replace(
    BARE,
    nvidia_driver="550.54.14",
    kfd_group=110,
    render_nodes=(node(INTEL), node(AMD, 129), node(NVIDIA, 130)),
)


@pytest.mark.parametrize(
    ("asked", "facts", "engine_has_nvidia", "kind"),
    [
        ("auto", BARE, None, "none"),
        ("auto", WITH_NVIDIA, True, "nvidia"),
        ("auto", WITH_NVIDIA, None, "nvidia"),
        ("auto", WITH_AMD, False, "amd"),
        ("auto", WITH_INTEL, False, "intel"),
        ("auto", ALL, True, "nvidia"),
        ("auto", replace(ALL, nvidia_driver=None), None, "amd"),
        ("auto", AMD_WITHOUT_KFD, None, "none"),
        ("auto", replace(WITH_AMD, machine="arm64"), None, "none"),
        ("auto", replace(WITH_NVIDIA, machine="arm64"), None, "nvidia"),
        # An engine with NVIDIA support does not make a GPU: auto looks at the host.
        ("auto", BARE, True, "none"),
        ("none", ALL, True, "none"),
        ("nvidia", WITH_NVIDIA, None, "nvidia"),
        # The engine may be on another machine; it says that it can.
        ("nvidia", BARE, True, "nvidia"),
        ("amd", WITH_AMD, None, "amd"),
        ("intel", ALL, None, "intel"),
        ("vulkan", WITH_AMD, None, "vulkan"),
        ("vulkan", replace(WITH_AMD, machine="arm64"), None, "vulkan"),
    ],
)
def test_choice(asked: str, facts: HostFacts, engine_has_nvidia: bool | None, kind: str) -> None:
    choice = choose_gpu(asked, facts, engine_has_nvidia=engine_has_nvidia)
    assert choice.kind == kind
    assert choice.reason


@pytest.mark.parametrize(
    ("asked", "facts", "engine_has_nvidia", "message", "hint"),
    [
        ("auto", WITH_NVIDIA, False, "engine cannot pass", "nvidia-container-toolkit"),
        ("auto", NOUVEAU, None, "driver is not loaded", "--gpu none"),
        ("nvidia", WITH_NVIDIA, False, "engine cannot pass", "--gpu none"),
        ("nvidia", BARE, None, "driver is not loaded", "nvidia-smi"),
        ("nvidia", BARE, False, "driver is not loaded", "nvidia-smi"),
        ("amd", BARE, None, "no AMD GPU", "/dev/kfd"),
        ("amd", AMD_WITHOUT_KFD, None, "/dev/kfd is missing", "/dev/kfd"),
        ("amd", replace(WITH_AMD, machine="arm64"), None, "no ROCm image for arm64", "--gpu"),
        ("intel", WITH_AMD, None, "no Intel GPU", "/dev/dri"),
        ("vulkan", BARE, None, "no render node", "/dev/dri"),
        ("cuda", ALL, True, 'unknown kind "cuda"', "nvidia"),
    ],
)
def test_refusal(
    asked: str,
    facts: HostFacts,
    engine_has_nvidia: bool | None,
    message: str,
    hint: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_gpu(asked, facts, engine_has_nvidia=engine_has_nvidia)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_gpu_that_auto_leaves_out_is_said() -> None:
    """Nothing runs on the CPU in silence: the reason names the GPU and the way to use it."""
    choice = choose_gpu("auto", AMD_WITHOUT_KFD, engine_has_nvidia=None)
    assert "AMD GPU" in choice.reason
    assert "--gpu vulkan" in choice.reason
