"""How logits become mixing weights.

A relaxation is called as `relax(logits, progress, rng)` with logits `[R, O]`, and returns weights `[R, O]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nas_apps.core.bounds import POSITIVE, bounded
from nas_apps.core.progress import Progress, Ramp, value


class Relaxation(Protocol):
    """`sparse` says that weights can be exactly zero, so that operations can be left out."""

    @property
    def sparse(self) -> bool: ...

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        """Weights `[R, O]` from logits `[R, O]`; noise comes from `rng`, a generator of the CPU."""
        ...

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        """The expected weights `[R, O]`: what is logged, and what an architecture is derived from."""
        ...


@dataclass(frozen=True)
class Softmax:
    """Each row a softmax of its logits (arXiv:1806.09055, eq. 2).

    >>> Softmax()(torch.tensor([[0.0, 0.0]]), Progress(0, 1), torch.Generator())
    tensor([[0.5000, 0.5000]])
    """

    sparse = False

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return logits.softmax(-1)

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return logits.softmax(-1)


@dataclass(frozen=True)
class Sigmoid:
    """Each option on its own, a sigmoid of its logit: options of a row do not compete (arXiv:1911.12126, eq. 4).

    >>> Sigmoid()(torch.tensor([[0.0, 0.0]]), Progress(0, 1), torch.Generator())
    tensor([[0.5000, 0.5000]])
    """

    sparse = False

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return logits.sigmoid()

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return logits.sigmoid()


@dataclass(frozen=True)
class GumbelOneHot:
    """One option a row, drawn from the softmax of its logits; the gradient is that of the soft weight of the option
    that was drawn (arXiv:1910.04465, eq. 3 to 5).

    `temperature` shapes the gradient and never the law of the draw. Unlike the code of the paper for NAS-Bench-201,
    options that were not drawn add nothing to the features, so their logits move only through the shared softmax.

    >>> GumbelOneHot()(torch.zeros(1, 3), Progress(0, 50), torch.Generator().manual_seed(0)).sum()
    tensor(1.)
    """

    temperature: float | Ramp = Ramp(10.0, 0.1, reach="last")

    sparse = True

    def __post_init__(self) -> None:
        bounded(self, POSITIVE, "temperature")

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        soft = ((logits.log_softmax(-1) + gumbel(logits, rng)) / value(self.temperature, progress)).softmax(-1)
        return straight_through(soft, soft.argmax(-1, keepdim=True))

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return logits.softmax(-1)  # the law of the arg max, whatever the temperature


def gumbel(like: Tensor, rng: torch.Generator) -> Tensor:
    """Gumbel(0, 1) noise of the shape of `like`, made on the CPU; finite, as -log of an Exp(1) sample is."""
    noise = torch.empty(like.shape, dtype=torch.float64).exponential_(generator=rng)
    return -noise.clamp_min(1e-30).log().to(like)


def straight_through(soft: Tensor, index: Tensor) -> Tensor:
    """Weights that are exactly 1 at `index` `[R, K]` and 0 elsewhere, with the gradient of `soft` at `index` alone."""
    hard = torch.zeros_like(soft).scatter_(-1, index, 1.0)
    return hard * (1 + (soft - soft.detach()))


RELAXATIONS: dict[str, type[Relaxation]] = {
    "softmax": Softmax,
    "sigmoid": Sigmoid,
    "gumbel_one_hot": GumbelOneHot,
}
