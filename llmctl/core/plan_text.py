"""A plan in words, one line an action, with the reasons of a replacement below it."""

from __future__ import annotations

from typing import assert_never

from llmctl.core.plan import (
    Action,
    Change,
    CreateNetwork,
    CreateService,
    CreateVolume,
    FetchModel,
    Plan,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    ReplaceService,
    RunJob,
    StartService,
    WriteFile,
)

SHOWN = 60


def plan_text(plan: Plan) -> str:
    """The whole plan; one sentence when there is nothing to do."""
    if not plan.actions:
        return f"{plan.stack} is up to date"
    lines = []
    for action in plan.actions:
        lines.append(f"{_SIGNS.get(type(action).__name__, '+')} {action_text(action)}")
        if isinstance(action, ReplaceService):
            lines += [f"    {change_text(change)}" for change in action.changes]
    return "\n".join(lines)


_SIGNS = {
    "ReplaceService": "~",
    "StartService": "~",
    "RemoveContainer": "-",
    "RemoveNetwork": "-",
    "RemoveVolume": "-",
}


def action_text(action: Action) -> str:
    """One action in words."""
    match action:
        case FetchModel(model):
            sizes = [size for _, size in model.files]
            known = [size for size in sizes if size is not None]
            size = f" ({sum(known) / 1e9:.1f} GB)" if known and len(known) == len(sizes) else ""
            files = ", ".join(path for path, _ in model.files)
            return f"pull model {model.name} from {model.source}: {files}{size}"
        case WriteFile(path, _, old):
            return f"{'rewrite' if old else 'write'} {path}"
        case PullImage(image):
            return f"pull image {image}"
        case CreateNetwork(network):
            return f"create network {network}"
        case CreateVolume(volume):
            return f"create volume {volume}"
        case RunJob(spec):
            return f"run {spec.service} ({' '.join(spec.command[2:] or spec.command)})"
        case CreateService(spec):
            return f"start {spec.service} ({spec.image})"
        case StartService(spec, state):
            return f"start {spec.service} again (it is {state})"
        case ReplaceService(spec, changes):
            fields = ", ".join(dict.fromkeys(change.field for change in changes))
            return f"replace {spec.service}: {fields} changed"
        case RemoveContainer(_, container):
            return f"remove container {container}"
        case RemoveNetwork(network):
            return f"remove network {network}"
        case RemoveVolume(volume):
            return f"remove volume {volume}"
        case _:
            assert_never(action)


def change_text(change: Change) -> str:
    """One reason: "image: a -> b"."""
    return f"{change.field}: {_short(change.old)} -> {_short(change.new)}"


def _short(text: str) -> str:
    if not text:
        return "(nothing)"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
