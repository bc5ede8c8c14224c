"""The memory plan in `up` and `config render`: chosen once, and kept while what it rests on stays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmctl import host as edge
from llmctl.core.artifact import Artifact
from llmctl.core.events import Event, Note
from llmctl.core.gpus import Gpu, Hardware, Memory
from llmctl.core.hostfacts import GpuChoice
from llmctl.core.measured import Line
from llmctl.core.stack import Stack, resolve_stack
from llmctl.core.tuning import Settled
from llmctl.errors import ConfigError
from llmctl.host.identity import identity
from llmctl.ops import models
from llmctl.ops.choosing import Circumstances, keep, kept_settings, settle, step_down
from llmctl.paths import StackPaths
from tests.unit.golden import sparse
from tests.world import gguf_bytes

MIB, GIB = 1 << 20, 1 << 30
MODEL = "models/one/model.gguf"


class Machine:
    """A machine with one GPU, of which the test says how much is free.

    Attributes:
        free: Bytes free on the GPU.
        looks: How often somebody looked.
    """

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self.looks = 0

    def hardware(self, *, gpus: bool = True) -> Hardware:
        self.looks += 1
        card = Gpu("nvidia", "card", 0, "GPU-0", self.total, self.free, False, "8.9")  # noqa: FBT003
        memory = Memory(total=64 * GIB, available=60 * GIB, limit=None)
        return Hardware((card,) if gpus else (), memory, 8, 16, "1", "12", False, ())  # noqa: FBT003


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(8 * GIB)
    monkeypatch.setattr(edge, "hardware", found.hardware)
    return found


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    sparse("llama3.1-8b", tmp_path / MODEL)
    return StackPaths.at(tmp_path)


def stack_of(*entries: dict[str, Any], **keys: Any) -> Stack:
    document = {"models": list(entries or [{"name": "one", "model": MODEL}]), **keys}
    return resolve_stack(document, file="llmctl.yaml", environment={}, flags={}).stack


def no() -> bool:
    return False


def settled(
    paths: StackPaths,
    stack: Stack,
    *,
    kind: Any = "nvidia",
    running: Callable[[], bool] = no,
    events: list[Event] | None = None,
    **more: Any,
) -> dict[str, Settled]:
    """Settle and keep, as `up` does."""
    around = Circumstances(GpuChoice(kind, ""), 8, running, **more)
    artifacts: tuple[Artifact, ...] = tuple(models.resolve(paths, s, None) for s in stack.models)
    heard = [] if events is None else events
    found = settle(paths, stack, artifacts, around, heard.append)
    keep(paths, found, heard.append)
    return found


def test_the_choice_stays_although_the_model_itself_now_fills_the_gpu(
    paths: StackPaths, machine: Machine
) -> None:
    first = settled(paths, stack_of())["one"]
    assert first.settings.gpu_layers == 33
    machine.free -= first.taken["card"]
    again = settled(paths, stack_of())["one"]
    assert again == first
    assert machine.looks == 1  # a no-op `up` asks no driver
    assert not again.fresh


def test_what_is_new_is_told_once(paths: StackPaths, machine: Machine) -> None:
    del machine
    events: list[Event] = []
    settled(paths, stack_of(), events=events)
    settled(paths, stack_of(), events=events)
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.text.startswith("one: ")
    assert "all 33 layers fit on the GPU" in note.text


def test_another_wish_is_planned_with_what_the_own_engine_would_give_back(
    paths: StackPaths, machine: Machine
) -> None:
    first = settled(paths, stack_of())["one"]
    machine.free -= first.taken["card"]
    after = settled(paths, stack_of(context=8192), running=lambda: True)["one"]
    assert (after.settings.context, after.settings.gpu_layers) == (8192, 33)
    # Somebody else holds the memory when the engine does not run.
    fewer = settled(paths, stack_of(context=6144), running=no)["one"]
    assert (fewer.settings.gpu_layers) < 33


@pytest.mark.parametrize(
    "change",
    ["file", "hardware", "wish", "broken"],
)
def test_the_choice_is_made_anew_when_what_it_rests_on_changes(
    paths: StackPaths, machine: Machine, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    settled(paths, stack_of())
    stack = stack_of()
    match change:
        case "file":
            sparse("llama3.2-1b", paths.root / MODEL)
        case "hardware":
            monkeypatch.setattr("llmctl.ops.choosing.identity", lambda: ("another card",))
        case "wish":
            stack = stack_of(cache_type_k="q8_0")
        case "broken":
            paths.fit.write_text("{", encoding="utf-8")
    assert settled(paths, stack)["one"].fresh
    assert machine.looks == 2


def test_what_the_user_fixed_is_respected(paths: StackPaths, machine: Machine) -> None:
    del machine
    fixed = settled(
        paths, stack_of(gpu_layers=7, ubatch=128, cache_type_k="q8_0", ctx_checkpoints=3)
    )
    found = fixed["one"].settings
    assert (found.gpu_layers, found.ubatch, found.cache_type_k) == (7, 128, "q8_0")
    assert found.ctx_checkpoints == 3


def test_what_the_user_fixed_and_cannot_fit_is_refused_until_forced(
    paths: StackPaths, machine: Machine
) -> None:
    machine.total = machine.free = 4 * GIB
    stack = stack_of(gpu_layers=33)
    with pytest.raises(
        ConfigError, match=r"one does not fit: card: 5\.\d GiB needed, 4\.0 GiB free"
    ):
        settled(paths, stack)
    assert kept_settings(paths) == {}
    forced = settled(paths, stack, force=True)["one"]
    assert (forced.fits, forced.forced, forced.settings.gpu_layers) == (False, True, 33)
    # Forced once with just these values: not asked again, and not planned again.
    assert settled(paths, stack)["one"] == forced
    with pytest.raises(ConfigError):
        settled(paths, stack_of(gpu_layers=32))


def test_rendering_tells_what_up_would_refuse(paths: StackPaths, machine: Machine) -> None:
    machine.total = machine.free = 4 * GIB
    events: list[Event] = []
    found = settled(paths, stack_of(gpu_layers=33), strict=False, events=events)
    assert found["one"].settings.gpu_layers == 33
    assert any(isinstance(e, Note) and e.warning and "does not fit" in e.text for e in events)
    with pytest.raises(ConfigError):
        settled(paths, stack_of(gpu_layers=33))


def test_models_share_the_gpu_in_their_order(paths: StackPaths, machine: Machine) -> None:
    machine.total = machine.free = 10 * GIB
    sparse("llama3.1-8b", paths.models / "two" / "model.gguf")
    stack = stack_of(
        {"name": "one", "model": MODEL}, {"name": "two", "model": "models/two/model.gguf"}
    )
    found = settled(paths, stack)
    assert found["one"].settings.gpu_layers == 33
    assert 0 < (found["two"].settings.gpu_layers) < 33
    assert found["one"].taken["card"] + found["two"].taken["card"] <= 10 * GIB
    # The first one's wish decides what the second one gets.
    smaller = dataclasses.replace(stack.models[0], gpu_layers=1)
    again = settled(paths, dataclasses.replace(stack, models=(smaller, stack.models[1])))
    assert again["two"].settings.gpu_layers == 33


def test_without_a_gpu_nothing_is_given_up_for_ram(paths: StackPaths, machine: Machine) -> None:
    del machine
    found = settled(paths, stack_of(context=131072), kind="none")["one"]
    assert (found.settings.gpu_layers, found.settings.context) == (0, 131072)
    assert (found.settings.cache_type_k, found.reasons) == ("f16", ())
    assert (found.fits, found.settings.threads) == (True, 8)


def test_a_model_that_is_not_here_or_cannot_be_read_keeps_the_defaults(
    paths: StackPaths, machine: Machine
) -> None:
    del machine
    assert settled(paths, stack_of({"source": "llava"})) == {}
    odd = gguf_bytes.gguf({"general.architecture": "odd"}, {"x": (32,)})
    (paths.models / "odd.gguf").write_bytes(odd)
    events: list[Event] = []
    stack = stack_of({"name": "odd", "model": "models/odd.gguf"})
    assert settled(paths, stack, events=events) == {}
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.warning
    assert note.text.startswith("odd: no memory plan, so the defaults: ")


def test_where_the_gpus_memory_is_not_known_nothing_is_chosen(
    paths: StackPaths, machine: Machine
) -> None:
    del machine
    events: list[Event] = []
    assert settled(paths, stack_of(), kind="amd", events=events) == {}
    assert "not known here" in str(events)


def test_the_hardware_is_told_apart_by_its_parts(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    bare = identity(tmp_path)
    slot = "proc/driver/nvidia/gpus/0000:01:00.0/information"
    put(slot, "Model: \t\t NVIDIA L4\nGPU UUID: \t GPU-????????\n")
    card = identity(tmp_path)
    put(slot, "Model: \t\t NVIDIA L4\nGPU UUID: \t GPU-12345678\n")
    assert identity(tmp_path) == card != bare
    put(slot, "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-12345678\n")
    assert identity(tmp_path) != card
    put("sys/class/drm/renderD128/device/vendor", "0x1002\n")
    put("sys/class/drm/renderD128/device/mem_info_vram_total", "25753026560\n")
    assert any("25753026560" in word for word in identity(tmp_path))


def test_after_running_out_of_memory_the_next_choice_is_smaller(
    paths: StackPaths, machine: Machine
) -> None:
    machine.total = machine.free = int(6.6 * GIB)
    sparse("llama3.2-1b", paths.models / "two" / "model.gguf")
    stack = stack_of(
        {"name": "one", "model": MODEL}, {"name": "two", "model": "models/two/model.gguf"}
    )
    first = settled(paths, stack)
    assert first["one"].settings.gpu_layers == 33
    assert step_down(paths, "one")
    assert kept_settings(paths).keys() == {"two"}
    machine.free -= first["two"].taken["card"]  # the one that did fit still runs
    after = settled(paths, stack, running=lambda: True)
    assert after["one"].taken["card"] < first["one"].taken["card"] - 200 * MIB
    assert after["two"] == first["two"]
    # Each further time takes a further step.
    assert step_down(paths, "one")
    again = settled(paths, stack, running=lambda: True)
    assert again["one"].taken["card"] < after["one"].taken["card"]


def test_there_is_no_step_down_without_a_gpu_or_a_choice(
    paths: StackPaths, machine: Machine
) -> None:
    assert not step_down(paths, "one")
    settled(paths, stack_of(), kind="none")
    assert not step_down(paths, "one")
    machine.total = machine.free = 4 * GIB
    settled(paths, stack_of(gpu_layers=33), force=True)
    assert not step_down(paths, "one")


def test_what_a_load_took_beyond_the_plan_is_counted_the_next_time(
    paths: StackPaths, machine: Machine
) -> None:
    machine.total = machine.free = 6 * GIB
    first = settled(paths, stack_of())["one"]
    assert first.settings.gpu_layers == 33
    beyond = Line("card", "compute", 0, GIB)
    found = {"lines": [dataclasses.asdict(beyond)], "choice": first.key, "short": {}}
    document = {"version": 1, "measured": {first.subject: found}}
    paths.measured.write_text(json.dumps(document), encoding="utf-8")
    # What runs is what was chosen: a measurement alone changes nothing.
    assert settled(paths, stack_of())["one"] == first
    paths.fit.unlink()
    assert settled(paths, stack_of())["one"].settings.gpu_layers < 33
    # It is of this build of the engine.
    paths.fit.unlink()
    assert settled(paths, stack_of(), build="other")["one"].settings.gpu_layers == 33
