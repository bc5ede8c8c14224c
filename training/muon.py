"""The optimiser. Needs torch.

Matrices inside blocks take Muon steps (momentum, orthogonalised by five Newton-Schulz rounds; the
coefficients are Keller Jordan's); everything else takes AdamW. Matrices of one size are orthogonalised
together, which on one thread costs a third of doing it one by one.
"""

# Without torch installed, its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, warn-unused-ignores=False

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon:
    """Muon over matrices, scaled to the size of an AdamW step (0.2 x sqrt of the longer side)."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], momentum: float = 0.95, decay: float = 0.05
    ) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            groups[matrix.shape].append(matrix)
        self.groups = [(group, torch.zeros(len(group), *size)) for size, group in groups.items()]
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step; parameters without a gradient count as having a gradient of zero."""
        for group, average in self.groups:
            gradient = torch.stack(
                [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            )
            average.mul_(self.momentum).add_(gradient)
            update = orthogonal(gradient + self.momentum * average)
            scale = 0.2 * math.sqrt(max(update.shape[-2:]))
            for parameter, change in zip(group, update, strict=True):
                parameter.mul_(1 - rate * self.decay).add_(change, alpha=-rate * scale)


def orthogonal(batch: Tensor) -> Tensor:
    """Every matrix of (N, rows, columns) with its singular values brought near 1."""
    tall = batch.shape[-2] > batch.shape[-1]
    x = batch.mT if tall else batch
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x.mT if tall else x


class Optimiser:
    """Muon and AdamW over the parameters of some modules, with one learning rate."""

    def __init__(self, *modules: nn.Module, decay: float = 0.05) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module in modules:
            for name, parameter in module.named_parameters():
                inside = "blk." in name or name.startswith("mm")
                (matrices if inside and parameter.ndim == 2 else others).append(parameter)  # noqa: PLR2004
        self.parameters = matrices + others
        self.muon = Muon(matrices, decay=decay)
        self.adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, eps=1e-10)

    def step(self, rate: float) -> None:
        """Clip, step at this learning rate, and forget the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.muon.step(rate)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        for parameter in self.parameters:
            parameter.grad = None


def schedule(step: int, steps: int, peak: float, warm: int = 40) -> float:
    """The learning rate of a step: linear up, then down to nothing along a half cosine."""
    if step < warm:
        return peak * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return peak * 0.5 * (1 + math.cos(math.pi * share))
