"""What is added to the loss in the steps of the logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, distributions

from nas_apps.core.arch import one_hot
from nas_apps.core.bounds import NOT_NEGATIVE, POSITIVE, bounded
from nas_apps.core.parts.derive import Strongest
from nas_apps.core.parts.noise import concentration, gumbel
from nas_apps.core.price import Price, expectation, odds
from nas_apps.core.progress import Progress, Ramp, value
from nas_apps.core.space import Space, decided


class Seen(NamedTuple):
    """What a penalty sees.

    logits: of each choice that a genotype decides and that is relaxed as operations are, `[R, O]`. means: the expected
    weights of each choice, edges' too, differentiable in the logits. prices: by what is priced, the cost of the network
    that tables of weights stand for. rng: of the CPU, for penalties that draw. exits: the logits `[R, O]` of each
    choice whose options are the nodes of a tree, and the option that each one extends.
    """

    logits: Mapping[str, Tensor]
    means: Mapping[str, Tensor]
    progress: Progress
    prices: Mapping[str, Price]
    rng: torch.Generator
    exits: Mapping[str, tuple[Tensor, tuple[int, ...]]] = {}


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
        entries = torch.cat([seen.means[name].flatten() for name in seen.logits])
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
class Cost:
    """The expected cost of the network that the final training would build (arXiv:1911.05704; latency as predicted by
    a regressor, arXiv:2001.06392). A reconstruction: the papers' own normalisation and form are not known to us.

    linear: C / C0, where C0 is the cost of the mean architecture of the space, so that one weight suits all
    sizes and units. hinge: max(0, C - target) / target, with the target in parameters, multiply-adds or ms.

    A cost that adds up is that of the odds of each option. A predicted latency, true of derived cells alone, is the
    mean over `cells` architectures drawn from the odds, with the odds' gradient (straight-through); with 0 cells, it
    is that of the odds themselves on the edges that are strongest at present.

    >>> Cost("macs", form="hinge")
    Traceback (most recent call last):
    ValueError: target: not given; allowed, with form 'hinge': more than 0
    """

    of: Literal["params", "macs", "latency"] = "params"
    weight: float | Ramp = 1.0
    target: float | None = None
    form: Literal["linear", "hinge"] = "linear"
    cells: int = 20

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "weight", "cells")
        bounded(self, POSITIVE, "target")
        if self.form == "hinge" and self.target is None:
            raise ValueError("target: not given; allowed, with form 'hinge': more than 0")
        if self.form == "linear" and self.target is not None:
            raise ValueError(f"target: got {self.target}; allowed, with form 'linear': nothing")

    def __call__(self, seen: Seen) -> Tensor:
        price = seen.prices[self.of]
        cost = self._predicted(price, seen) if price.discrete else price(expectation(price.space, seen.means))
        if self.target is None:
            return cost / price.reference
        return (cost - self.target).clamp_min(0) / self.target

    def _predicted(self, price: Price, seen: Seen) -> Tensor:
        if not self.cells:
            there = _strongest(price.space, {name: table.detach() for name, table in seen.means.items()})
            soft = {n: odds(c, seen.means[n]) * there[n].sum(-1, keepdim=True) for n, c in decided(price.space).items()}
            return price(soft)
        return price(draw_cells(price.space, seen.means, self.cells, seen.rng)).mean()


@dataclass(frozen=True)
class Order:
    """In a tree of exits, prefers those that come before others (arXiv:2101.06658, after code of its authors; the
    paper's own equation is not known to us). 0 where a space has no such tree.

    hinge: the sum over all exits of max(0, logit - the logit of the exit it extends), by which each path is in order.
    telescoped: the sum over complete paths of the same differences without the bound, as in that code: what is between
    a root and a leaf cancels, so it only pulls roots up and leaves down. none: 0.
    """

    form: Literal["hinge", "telescoped", "none"] = "hinge"
    weight: float | Ramp = 1e-5

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "weight")

    def __call__(self, seen: Seen) -> Tensor:
        if self.form == "none" or not seen.exits:
            return torch.zeros(())
        found = []
        for logits, parents in seen.exits.values():
            if self.form == "hinge":
                pairs = [(child, parent) for child, parent in enumerate(parents) if parent >= 0]
            else:
                pairs = [(leaf, _root(leaf, parents)) for leaf in range(len(parents)) if leaf not in parents]
            above = logits[:, [pair[0] for pair in pairs]] - logits[:, [pair[1] for pair in pairs]]
            found.append(above.relu().sum() if self.form == "hinge" else above.sum())
        return torch.stack(found).sum()


def _root(option: int, parents: tuple[int, ...]) -> int:
    while parents[option] >= 0:
        option = parents[option]
    return option


def draw_cells(space: Space, means: Mapping[str, Tensor], number: int, rng: torch.Generator) -> dict[str, Tensor]:
    """The one-hot weights `[number, R, O]` of architectures drawn from their odds, with the gradient of the odds in the
    rows that each keeps.

    An option is drawn by its odds; a node keeps the edges drawn without replacement by the weight that is not "none".
    Both are the arg max of one Gumbel noise an option: what the noise makes strongest is derived.
    """
    here = {name: table.detach().cpu() for name, table in means.items()}
    logs = {name: here[name].log() for name in decided(space)}
    noisy = [{name: (table + gumbel(table, rng)).exp() for name, table in logs.items()} for _ in range(number)]
    cells, found = [_strongest(space, {**here, **tables}) for tables in noisy], {}
    for name, choice in decided(space).items():
        soft, kept = odds(choice, means[name]), torch.stack([cell[name] for cell in cells]).to(means[name])
        found[name] = kept + kept.sum(-1, keepdim=True) * (soft - soft.detach())
    return found


def _strongest(space: Space, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    genotype = Strongest()(space, weights, torch.Generator())
    return dict(one_hot(decided(space), genotype, like=next(iter(weights.values()))).weights)


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


PENALTIES: dict[str, type[Penalty]] = {
    "cost": Cost,
    "dirichlet_kl": DirichletKL,
    "order": Order,
    "zero_one": ZeroOne,
}
