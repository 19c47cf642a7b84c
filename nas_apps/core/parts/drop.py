"""What is dropped at random from an edge, in training mode.

Called as `drop(module, y, progress)` with what made y: an operation, or the whole edge; returns y or part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.bounds import BELOW_ONE, COUNT, NOT_NEGATIVE, SHARE, bounded
from nas_apps.core.progress import Progress, Ramp, value


class Edge(nn.Module):
    """A whole edge: the sum of its operations."""


class Drop(Protocol):
    """Drops from the output of a module; an edge's is that of an `Edge`, a skip's that of an `nn.Identity`."""

    def __call__(self, module: nn.Module, y: Tensor, progress: Progress) -> Tensor: ...


@dataclass(frozen=True)
class DropPath:
    """Each operation's output is dropped, a sample at a time, with probability `rate`; an identity never is, a strided
    skip is (arXiv:1605.07648 as used in arXiv:1806.09055). With `edge`, the sum of an edge's operations is dropped
    instead, as in the searches of arXiv:1909.09656.

    >>> drop_path(torch.ones(2, 3), 0.0)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """

    rate: float | Ramp = Ramp(0.0, 0.2)
    edge: bool = False

    def __post_init__(self) -> None:
        bounded(self, BELOW_ONE, "rate")

    def __call__(self, module: nn.Module, y: Tensor, progress: Progress) -> Tensor:
        if isinstance(module, nn.Identity) or isinstance(module, Edge) != self.edge:
            return y
        return drop_path(y, value(self.rate, progress))


@dataclass(frozen=True)
class SkipDropout:
    """Elements of a skip's output are dropped (arXiv:1904.12760, section 3.3); a strided skip is left alone.

    The probability falls linearly from `rate` towards 0 over the share `warmup` of the run as if that went on to its
    end, starts again at `rate`, and falls by the factor exp(-decay) an epoch (the code of the paper).

    >>> [round(SkipDropout(0.4).probability(Progress(epoch, 25)), 5) for epoch in (0, 9, 10, 24)]
    [0.384, 0.24, 0.4, 0.02432]
    """

    rate: float = 0.1
    warmup: float = 0.4
    decay: float = 0.2

    def __post_init__(self) -> None:
        bounded(self, BELOW_ONE, "rate")
        bounded(self, SHARE, "warmup")
        bounded(self, NOT_NEGATIVE, "decay")

    def probability(self, progress: Progress) -> float:
        """Of dropping an element."""
        since = progress.epoch - self.warmup * progress.epochs
        if since < 0:
            return self.rate * (progress.epochs - progress.epoch - 1) / progress.epochs
        return self.rate * math.exp(-self.decay * since)

    def __call__(self, module: nn.Module, y: Tensor, progress: Progress) -> Tensor:
        rate = self.probability(progress) if isinstance(module, nn.Identity) else 0.0
        return functional.dropout(y, rate) if rate else y


@dataclass(frozen=True)
class DropBlock:
    """Blocks of a skip's map are dropped (DropBlock, arXiv:1810.12890, on identities as arXiv:2107.04324 has it; sizes
    and schedule are our reading). A strided skip is left alone, and so is what has no place to drop a block from.

    rate: the share of a map that is dropped, but for blocks that overlap. size: the side of a block, at most the map's.
    """

    rate: float | Ramp = Ramp(0.3, 0.0)
    size: int = 7

    def __post_init__(self) -> None:
        bounded(self, BELOW_ONE, "rate")
        bounded(self, COUNT, "size")

    def __call__(self, module: nn.Module, y: Tensor, progress: Progress) -> Tensor:
        rate = value(self.rate, progress) if isinstance(module, nn.Identity) else 0.0
        return drop_block(y, rate, self.size) if rate and y.ndim in (3, 4) else y


def drop_path(y: Tensor, rate: float) -> Tensor:
    """Whole samples of y set to zero with probability `rate`, the others scaled by 1 / (1 - rate)."""
    if rate == 0.0:
        return y
    keep = torch.rand(len(y), *[1] * (y.ndim - 1), device=y.device) >= rate
    return y * (keep.to(y.dtype) / (1 - rate))


def drop_block(y: Tensor, rate: float, size: int) -> Tensor:
    """Blocks of y `[B, C, T]` or `[B, C, H, W]` set to zero around centres drawn for each sample and channel, the rest
    scaled to keep the mean; each element goes with a probability of about `rate`."""
    places = y.shape[2:]
    size = min(size, *places)
    size -= 1 - size % 2  # a block has a middle
    centres = [n - size + 1 for n in places]
    gamma = rate / size ** len(places) * math.prod(places) / math.prod(centres)
    hit = (torch.rand(*y.shape[:2], *centres, device=y.device) < gamma).to(y.dtype)
    hit = functional.pad(hit, [size // 2] * (2 * len(places)))
    pool = functional.max_pool2d if len(places) == 2 else functional.max_pool1d
    keep = 1 - pool(hit, size, 1, size // 2)
    return y * keep * (keep.numel() / keep.sum().clamp_min(1))


DROPS: dict[str, type[Drop]] = {"drop_block": DropBlock, "drop_path": DropPath, "skip_dropout": SkipDropout}
