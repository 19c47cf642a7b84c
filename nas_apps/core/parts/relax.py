"""How logits become mixing weights. What all of them answer is in `relaxation`, those with exact zeros in `sparse`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nas_apps.core.bounds import COUNT, POSITIVE, bounded
from nas_apps.core.parts.noise import concentration, dirichlet, gate, gumbel, pick, soft_gumbel, straight_through
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.sparse import Sparsemax, SparsestMax
from nas_apps.core.progress import Progress, Ramp, value


@dataclass(frozen=True)
class Softmax(Relaxation):
    """Each row a softmax of its logits (arXiv:1806.09055, eq. 2).

    >>> Softmax()(torch.tensor([[0.0, 0.0]]), Progress(0, 1), torch.Generator())
    tensor([[0.5000, 0.5000]])
    """

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return logits.softmax(-1)


@dataclass(frozen=True)
class Sigmoid(Relaxation):
    """Each option on its own, a sigmoid of its logit: options of a row do not compete (arXiv:1911.12126, eq. 4).

    >>> Sigmoid().simplex
    False
    """

    simplex = False

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return logits.sigmoid()

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return logits.sigmoid()


@dataclass(frozen=True)
class Dirichlet(Relaxation):
    """A sample of the Dirichlet law of concentration elu(logit) + 1, with its pathwise gradient (arXiv:2006.10355,
    section 3.1). What is derived from is the softmax of the logits, as in the code of the paper.

    >>> Dirichlet()(torch.zeros(1, 3), Progress(0, 1), torch.Generator().manual_seed(0)).sum()
    tensor(1.)
    """

    noisy = True

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return dirichlet(concentration(logits), rng)


@dataclass(frozen=True)
class GumbelSoftmax(Relaxation):
    """A sample of the concrete law: softmax((log p + noise) / temperature), every option run (arXiv:1812.09926, eq. 5).

    >>> GumbelSoftmax()(torch.zeros(1, 3), Progress(0, 1), torch.Generator().manual_seed(0)).sum()
    tensor(1.)
    """

    temperature: float | Ramp = Ramp(1.0, 0.03)

    noisy = True

    def __post_init__(self) -> None:
        bounded(self, POSITIVE, "temperature")

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return soft_gumbel(logits, value(self.temperature, progress), rng)


@dataclass(frozen=True)
class GumbelOneHot(Relaxation):
    """One option a row, drawn from the softmax of its logits; the gradient is that of the soft weight of the option
    that was drawn (arXiv:1910.04465, eq. 3 to 5).

    `temperature` shapes the gradient and never the law of the draw. Unlike the code of the paper for NAS-Bench-201,
    options that were not drawn add nothing to the features, so their logits move only through the shared softmax.

    >>> GumbelOneHot()(torch.zeros(1, 3), Progress(0, 50), torch.Generator().manual_seed(0)).sum()
    tensor(1.)
    """

    temperature: float | Ramp = Ramp(10.0, 0.1, reach="last")

    sparse = noisy = True

    def __post_init__(self) -> None:
        bounded(self, POSITIVE, "temperature")

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        soft = soft_gumbel(logits, value(self.temperature, progress), rng)
        return straight_through(soft, soft.argmax(-1, keepdim=True))


@dataclass(frozen=True)
class GumbelTopK(Relaxation):
    """The k options of a row with the largest log p + noise, each of weight 1, with the gradient of one softmax of all
    (arXiv:2011.11233, eq. 7 and 8; the straight-through form is our reading).

    >>> GumbelTopK()(torch.zeros(1, 3), Progress(0, 50), torch.Generator().manual_seed(0)).sum()
    tensor(2.)
    """

    k: int = 2
    temperature: float | Ramp = Ramp(10.0, 0.1, reach="last")

    sparse = noisy = True
    simplex = False

    def __post_init__(self) -> None:
        bounded(self, COUNT, "k")
        bounded(self, POSITIVE, "temperature")

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        soft = soft_gumbel(logits, value(self.temperature, progress), rng)
        return straight_through(soft, soft.topk(min(self.k, soft.shape[-1]), -1).indices)


@dataclass(frozen=True)
class GumbelRanks(Relaxation):
    """k sub-graphs of one draw, weights `[k, R, O]`: sub-graph i runs the option of each row whose log p + noise is the
    i-th largest, so that no two share an option (arXiv:2107.04324, a reconstruction from its abstract).

    The law is Plackett-Luce's. The soft weight of rank i is a softmax over the options that earlier ranks left. With
    k = 1 this is `GumbelOneHot`. permuted: which rank of a row goes to which sub-graph is drawn too, row by row;
    otherwise sub-graph i has rank i everywhere.

    >>> GumbelRanks(k=3)(torch.zeros(1, 3), Progress(0, 50), torch.Generator().manual_seed(0)).sum(0)
    tensor([[1., 1., 1.]])
    """

    k: int = 2
    temperature: float | Ramp = Ramp(10.0, 0.1, reach="last")
    permuted: bool = False

    sparse = noisy = True

    def __post_init__(self) -> None:
        bounded(self, COUNT, "k")
        bounded(self, POSITIVE, "temperature")

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        if self.k > logits.shape[-1]:
            raise ValueError(f"relax.k: got {self.k}; allowed: 1 to {logits.shape[-1]}, the options of a row")
        scores = (logits.log_softmax(-1) + gumbel(logits, rng)) / value(self.temperature, progress)
        ranks = []
        for _ in range(self.k):
            soft = scores.softmax(-1)
            index = soft.argmax(-1, keepdim=True)
            ranks.append(straight_through(soft, index))
            scores = scores.scatter(-1, index, -torch.inf)
        weights = torch.stack(ranks)
        if not self.permuted:
            return weights
        order = torch.rand(weights.shape[:2], generator=rng).argsort(0).to(weights.device)
        return weights.gather(0, order[..., None].expand_as(weights))


@dataclass(frozen=True)
class BinaryGate(Relaxation):
    """One option a row, drawn from p, the softmax of the logits; the logits' gradient goes through p from the gates of
    all options, of which those that are not run are evaluated in the backward pass, without a graph
    (arXiv:1812.00332, eq. 3 and 4).

    paths: when the logits learn, None for the gates of all options; 2 for those of a pair drawn from p, of which one is
    run; the options outside the pair then keep their probability through the step, for which Adam must have neither
    momentum nor weight decay (`search.logits.betas=[0,0.999]`, `search.logits.weight_decay=0`).

    >>> BinaryGate()(torch.zeros(1, 3), Progress(0, 50), torch.Generator().manual_seed(0)).sum()
    tensor(1.)
    """

    paths: Literal[2] | None = 2

    sparse = noisy = True

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        p = logits.softmax(-1)
        return gate(p, pick(p, 1, rng))

    def gates(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if self.paths is None or logits.shape[-1] <= self.paths:
            return self(logits, progress, rng), torch.ones_like(logits, dtype=torch.bool)
        pair = pick(logits.softmax(-1), self.paths, rng)
        p = logits.gather(-1, pair).softmax(-1)
        weights = torch.zeros_like(logits).scatter(-1, pair, gate(p, pick(p, 1, rng)))
        return weights, torch.zeros_like(logits, dtype=torch.bool).scatter(-1, pair, True)  # noqa: FBT003

    def settle(self, before: Tensor, after: Tensor, progress: Progress) -> None:
        if self.paths is None:
            return
        moved = before != after
        mass = [x.masked_fill(~moved, -torch.inf).logsumexp(-1, keepdim=True) for x in (before, after)]
        shift = torch.where(moved.any(-1, keepdim=True), mass[0] - mass[1], torch.zeros_like(mass[0]))
        after.add_(torch.where(moved, shift, torch.zeros_like(after)))


RELAXATIONS: dict[str, type[Relaxation]] = {
    "binary_gate": BinaryGate,
    "dirichlet": Dirichlet,
    "gumbel_one_hot": GumbelOneHot,
    "gumbel_ranks": GumbelRanks,
    "gumbel_softmax": GumbelSoftmax,
    "gumbel_top_k": GumbelTopK,
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "sparsemax": Sparsemax,
    "sparsest_max": SparsestMax,
}
