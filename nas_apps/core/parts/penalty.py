"""What is added to the loss in the steps of the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, distributions

from nas_apps.core.bounds import NOT_NEGATIVE, bounded
from nas_apps.core.parts.noise import concentration
from nas_apps.core.progress import Progress, Ramp, value

Price = Callable[[Mapping[str, Tensor]], Tensor]


class Seen(NamedTuple):
    """What a penalty sees.

    logits, means: of each choice `[R, O]`, the means (expected weights) differentiable in the logits. prices: by what
    is priced, the cost of the network that tables of weights stand for. rng: of the CPU, for penalties that draw.
    """

    logits: Mapping[str, Tensor]
    means: Mapping[str, Tensor]
    progress: Progress
    prices: Mapping[str, Price]
    rng: torch.Generator


class Penalty(Protocol):
    """A scalar of the logits."""

    @property
    def weight(self) -> float | Ramp: ...

    def __call__(self, seen: Seen) -> Tensor:
        """The penalty, of weight 1."""
        ...


@dataclass(frozen=True)
class ZeroOne:
    """Pushes each sigmoid towards 0 or 1: -mean((sigmoid - 1/2)^2) (arXiv:1911.12126, eq. 8)."""

    weight: float | Ramp = 10.0

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "weight")

    def __call__(self, seen: Seen) -> Tensor:
        entries = torch.cat([table.flatten() for table in seen.means.values()])
        return -(entries - 0.5).square().mean()


@dataclass(frozen=True)
class DirichletKL:
    """The divergence of each row's Dirichlet law from the uniform one, on average (arXiv:2006.10355, section 3.2)."""

    weight: float | Ramp = 1e-3

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "weight")

    def __call__(self, seen: Seen) -> Tensor:
        laws = [distributions.Dirichlet(concentration(logits)) for logits in seen.logits.values()]
        flat = [distributions.Dirichlet(torch.ones_like(law.concentration)) for law in laws]
        apart = [distributions.kl_divergence(*pair) for pair in zip(laws, flat, strict=True)]
        return torch.cat(apart).mean()


@dataclass(frozen=True)
class BetaDecay:
    """Keeps the logits of a row small and alike: the mean over rows of logsumexp (arXiv:2203.01665, eq. 9)."""

    weight: float | Ramp = Ramp(0.0, 50.0)

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "weight")

    def __call__(self, seen: Seen) -> Tensor:
        return torch.cat([logits.logsumexp(-1) for logits in seen.logits.values()]).mean()


def total(penalties: tuple[Penalty, ...], seen: Seen) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The weighed sum of penalties, None where all have weight 0; and each by its name, of weight 1."""
    found: dict[str, Tensor] = {}
    whole: Tensor | None = None
    for index, penalty in enumerate(penalties):
        weight = value(penalty.weight, seen.progress)
        if not weight:
            continue
        name = next(name for name, kind in PENALTIES.items() if isinstance(penalty, kind))
        found[f"{name}_{index}" if name in found else name] = y = penalty(seen)
        whole = weight * y if whole is None else whole + weight * y
    return whole, found


PENALTIES: dict[str, type[Penalty]] = {"beta_decay": BetaDecay, "dirichlet_kl": DirichletKL, "zero_one": ZeroOne}
