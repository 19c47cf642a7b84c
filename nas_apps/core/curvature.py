"""The dominant eigenvalue of the validation loss in the logits (arXiv:1909.09656, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from nas_apps.core.learner import Learner, gradients
from nas_apps.core.seeds import keep_rng
from nas_apps.core.surface import replaced
from nas_apps.core.task import Batch, Stream

RADIUS = 1e-2
"""Of the central difference, in the norm of all logits, for losses without a second derivative."""

TOLERANCE = 1e-4
"""Bound on the error of the eigenvalue, in units of the largest eigenvalue's size."""

Product = Callable[[Tensor], Tensor]


def dominant_eigenvalue(learner: Learner, stream: Stream, *, exact: bool = True) -> float:
    """The largest eigenvalue of d2/da2 [L_valid(w, a) + 0.5 * decay * |a|^2] over all logits a as one vector.

    L_valid is the loss of the batch that `stream` will serve next, in training mode, under the expected weights, in
    full precision. Nothing moves: the batch stays the stream's next one, running statistics, gradients and the state of
    every generator are as before. The mean over ranks is one process' figure. Unlike the code of the paper, which
    builds the matrix row by row, products with a few vectors do (Lanczos).

    Args:
        exact: products by a second backward; otherwise by central differences of gradients.
    """
    arch, objective = learner.arch, learner.objective
    draw, state, training = arch.expected(learner.progress), stream.state_dict(), objective.training
    at = torch.cat([p.detach().reshape(-1) for p in learner.logits])  # [N]
    objective.train()
    with keep_rng():
        with arch.using(draw):
            batch = next(stream)
        with _product(learner, batch, at) if exact else _difference(learner, batch, at) as product:
            largest = lanczos(product, at)
    stream.load_state_dict(state)
    objective.train(training)
    return largest + learner.phase.logits.weight_decay


def lanczos(product: Product, like: Tensor) -> float:
    """The largest eigenvalue of a symmetric matrix, known by its products with vectors of the shape `[N]` of `like`.

    Each new vector is made orthogonal to all before it, twice, so no eigenvalue is found that is not there.
    """
    start = torch.randn(len(like), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = [(start / start.norm()).to(like.device)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        y = product(basis[-1].to(like.dtype)).double()
        diagonal.append(float(y @ basis[-1]))
        vectors = torch.stack(basis)  # [k, N]
        for _ in range(2):
            y = y - vectors.T @ (vectors @ y)
        norm = float(y.norm())
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        small += torch.diag(torch.tensor(beside, dtype=torch.float64), -1)
        if not small.isfinite().all():
            return float("nan")
        values, sides = torch.linalg.eigh(small)  # of the lower triangle
        left = norm * abs(float(sides[-1, -1]))  # bounds the distance to an eigenvalue
        if left <= TOLERANCE * float(values.abs().max()) or len(basis) == len(like):
            return float(values[-1])
        basis.append(y / norm)
        beside.append(norm)


@contextmanager
def _product(learner: Learner, batch: Batch, at: Tensor) -> Iterator[Product]:
    """Products with the second derivative, by a backward through the graph of one gradient."""
    leaf = at.clone().requires_grad_()
    with _slope(learner, batch, leaf, create_graph=True) as (slope, weight):

        def product(v: Tensor) -> Tensor:
            found = gradients((slope * v).sum(), [leaf], again=True)
            learner.runtime.average_(found, weight)
            return found[0]

        yield product


@contextmanager
def _difference(learner: Learner, batch: Batch, at: Tensor) -> Iterator[Product]:
    """Products with the second derivative, by differences of the gradient on both sides."""

    def product(v: Tensor) -> Tensor:
        sides = []
        for step in (RADIUS, -RADIUS):
            leaf = (at + step * v).requires_grad_()
            with keep_rng(), _slope(learner, batch, leaf, create_graph=False) as (slope, weight):  # both drop the same
                sides.append(slope)
        found = [(sides[0] - sides[1]) / (2 * RADIUS)]
        learner.runtime.average_(found, weight)
        return found[0]

    yield product


@contextmanager
def _slope(learner: Learner, batch: Batch, at: Tensor, *, create_graph: bool) -> Iterator[tuple[Tensor, float]]:
    """The gradient `[N]` of a batch's loss with respect to the logits `at` `[N]`, and the number of its items."""
    arch, objective = learner.arch, learner.objective
    parts = torch.split(at, [p.numel() for p in learner.logits])
    logits = {name: part.view_as(p) for (name, p), part in zip(arch.logits.items(), parts, strict=True)}
    weights = {n: arch.relax[c.kind].mean(logits[n], learner.progress) for n, c in arch.space.items()}
    draw = replace(arch.expected(learner.progress), weights=weights)
    constant = {name: p.detach() for name, p in objective.named_parameters()}
    with replaced(objective, constant), arch.using(draw):  # open while products are taken, as checkpointed cells need
        outcome = objective(batch)
        yield gradients(outcome.loss, [at], create_graph=create_graph)[0], outcome.weight
