"""Of a repository's quantisations, the best that fits a memory budget; headers alone are read."""

from __future__ import annotations

from llmctl.core.artifact import UNQUANTISED, Artifact, RepoFile, canonical, quantisation, variants
from llmctl.core.memory import Device, Model, Projector, Settings, estimate
from llmctl.core.memory.estimate import LEAST_RESERVE, RESERVE_SHARE
from llmctl.core.reference import is_reference, parse_reference
from llmctl.core.sizes import memory_text
from llmctl.core.stack import ModelSpec
from llmctl.errors import ConfigError, UsageError
from llmctl.hub.base import Hub
from llmctl.ops.models.headers import remote_header
from llmctl.ops.models.sources import candidates

_EMPTY = 1 << 50  # bytes of a device on which everything fits


def best_within(spec: ModelSpec, hub: Hub, budget: int) -> Artifact:
    """The best quantisation whose model, cache, buffers and projector fit `budget` bytes of one GPU.

    The headers of one quantisation are read; what the others take besides their weights is the
    same, and their weights follow from the sizes of their files.

    Raises:
        UsageError: the model is not a repository, so there is nothing to choose.
        ConfigError: none fits; it says what the smallest takes.
        HubError: the hub does not answer.
    """
    source = spec.source or ""
    if spec.model is not None or not is_reference(source):
        raise UsageError(
            f"--memory chooses among a repository's quantisations; {spec.name} is one already",
            hint=f"llmctl fit {spec.name}   # whether it fits, and with which settings",
        )
    reference = parse_reference(source)
    info = hub.describe(reference.repo, reference.revision)
    usual = candidates(spec.name, source, info)[0]
    share, besides = _on_a_gpu(usual, hub, spec)
    besides += max(LEAST_RESERVE, int(RESERVE_SHARE * budget))
    sizes = {group[0].path: _size(group) for group in variants(info)}
    totals = {path: int(share * size) + besides for path, size in sizes.items() if size}
    quantised = {p: t for p, t in totals.items() if not _is_unquantised(p)} or totals
    fitting = [path for path, total in quantised.items() if total <= budget]
    if not fitting:
        path, total = min(quantised.items(), key=lambda item: item[1])
        raise ConfigError(
            f"{source}: nothing of it fits {memory_text(budget)}: the smallest, {path}, takes about"
            f" {memory_text(total)}",
            hint="a smaller context (`context:` in llmctl.yaml), or a part of it on the CPU:\n"
            f"llmctl fit {source}",
        )
    best = max(fitting, key=lambda path: quantised[path])
    return candidates(spec.name, source, info, best)[0]


def _on_a_gpu(artifact: Artifact, hub: Hub, spec: ModelSpec) -> tuple[float, int]:
    """(share of the model's files, bytes besides them) that lies on a GPU when all layers do."""
    repo, commit = artifact.repo or "", artifact.commit or ""
    headers = [remote_header(hub, repo, commit, file.remote or "") for file in artifact.model]
    eyes = artifact.projector
    projector = Projector.of(remote_header(hub, repo, commit, eyes.remote or "")) if eyes else None
    devices = (
        Device("the budget", "gpu", _EMPTY, _EMPTY, "cuda"),
        Device("RAM", "host", _EMPTY, _EMPTY, "cpu"),
    )
    settings = Settings(context=spec.context, parallel=spec.parallel)
    gpu = estimate(Model.of(headers), settings, devices, projector).gpus[0]
    share = gpu.weights.bytes / sum(header.file_size for header in headers)
    return share, gpu.engine_total - gpu.weights.bytes


def _size(group: tuple[RepoFile, ...]) -> int:
    return sum(file.size or 0 for file in group)


def _is_unquantised(path: str) -> bool:
    return canonical(quantisation(path) or "") in UNQUANTISED
