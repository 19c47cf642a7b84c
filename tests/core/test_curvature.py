"""The dominant eigenvalue against matrices built whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_apps.core import curvature
from nas_apps.core.arch import Arch
from nas_apps.core.config import Recipe
from nas_apps.core.curvature import dominant_eigenvalue, lanczos
from nas_apps.core.learner import Learner
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Choice
from nas_apps.core.task import Optimisation, Outcome, Streams

Make = Callable[[Recipe], tuple[Learner, Streams]]


class Itself:
    """Weights that are the logits."""

    sparse = False

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return logits

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return logits


class Batch:
    """A stream of one batch."""

    cycle = 0

    def __next__(self) -> None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Quadratic(nn.Module):
    """0.5 a'Qa, with norms of running statistics and dropout beside it that add nothing."""

    def __init__(self, arch: Arch, q: Tensor) -> None:
        super().__init__()
        self.arch, self.q, self.norm, self.drop = arch, q, nn.BatchNorm1d(2), nn.Dropout()

    def forward(self, batch: None) -> Outcome:
        a = torch.cat([table.reshape(-1) for table in self.arch.current.weights.values()])
        beside = self.drop(self.norm(torch.arange(6.0, dtype=a.dtype).view(3, 2))).sum()
        return Outcome(0.5 * a @ self.q @ a + 0 * beside, {}, 3)


def quadratic(q: Tensor) -> Learner:
    arch = Arch({"a": Choice.uniform(("x", "y"), 1), "b": Choice.uniform(("x", "y"), 2)}, {"op": Itself()})
    objective = Quadratic(arch, q)
    sgd = torch.optim.SGD(objective.parameters(), lr=0.1)
    phase = Phase("search", None, None)
    return Learner(objective, arch, Optimisation(sgd, lambda progress: None), phase, Runtime(torch.device("cpu")))


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "difference"])
@pytest.mark.usefixtures("double")
def test_a_quadratic_of_3_1_has_the_eigenvalue_3_001_with_the_decay_of_the_logits(exact: bool) -> None:
    q = torch.diag(torch.tensor([3.0, 1, 1, 0.5, -7, 0]))  # the largest, not the one of the largest size
    assert dominant_eigenvalue(quadratic(q), Batch(), exact=exact) == pytest.approx(3.001, abs=1e-6)


def whole_hessian(learner: Learner, batch: Any) -> Tensor:
    """The matrix of the loss of a batch, by autograd over a function of all logits."""
    sizes = [p.numel() for p in learner.logits]

    def loss(flat: Tensor) -> Tensor:
        tables = [part.view_as(p) for part, p in zip(flat.split(sizes), learner.logits, strict=True)]
        arch = learner.arch
        means = [arch.relax[c.kind].mean(t, learner.progress) for t, c in zip(tables, arch.space.values(), strict=True)]
        draw = arch.expected(learner.progress)
        draw.weights.update(zip(arch.space, means, strict=True))
        with arch.using(draw):
            return learner.objective(batch).loss

    return torch.autograd.functional.hessian(loss, torch.cat([p.detach().reshape(-1) for p in learner.logits]))


@pytest.mark.parametrize("variant", ["darts", "pc_darts", "gdas", "single_darts", "variant.relax=sigmoid"])
@pytest.mark.usefixtures("double")
def test_it_is_the_largest_eigenvalue_of_the_whole_matrix_after_few_products(
    recipe: Callable[..., Recipe], learner: Make, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(variant if "=" in variant else f"variant={variant}", "search.logits.init_std=1")
    taught, streams = learner(made)
    for _ in range(3):
        made.variant.schedule(taught, streams)
    matrix = whole_hessian(taught, next(streams.valid))
    streams.valid.load_state_dict({"served": streams.valid.state_dict()["served"] - 1})
    seen: list[int] = []

    def counted(product: Callable[[Tensor], Tensor], like: Tensor) -> float:
        return lanczos(lambda v: (seen.append(1), product(v))[1], like)

    monkeypatch.setattr(curvature, "lanczos", counted)
    expected = torch.linalg.eigvalsh(matrix)[-1].item() + 1e-3
    assert dominant_eigenvalue(taught, streams.valid) == pytest.approx(expected, rel=1e-4)
    assert len(seen) <= min(len(matrix) - 1, 20)
    assert dominant_eigenvalue(taught, streams.valid, exact=False) == pytest.approx(expected, rel=1e-2)


@pytest.mark.usefixtures("double")
def test_the_spectrum_of_a_search_space_takes_a_few_dozen_products() -> None:
    rng = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(224, 224, generator=rng)).Q  # as many logits as the DARTS space has
    values = torch.cat([torch.tensor([0.31, 0.27]), 0.05 * torch.randn(222, generator=rng)])
    products: list[int] = []
    found = lanczos(lambda v: (products.append(1), basis @ (values * (basis.T @ v)))[1], torch.zeros(224))
    assert found == pytest.approx(0.31, abs=1e-4)
    assert len(products) < 40


@pytest.mark.parametrize(("matrix", "expected"), [(torch.zeros(3, 3), 0.0), (torch.eye(3) * -2, -2.0)])
@pytest.mark.usefixtures("double")
def test_a_matrix_with_one_eigenvalue_alone_takes_one_product(matrix: Tensor, expected: float) -> None:
    assert lanczos(lambda v: matrix.to(v) @ v, torch.zeros(3)) == pytest.approx(expected)


def test_a_loss_that_is_not_finite_has_no_eigenvalue() -> None:
    assert np.isnan(lanczos(lambda v: v * float("nan"), torch.zeros(3)))


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "difference"])
def test_nothing_moves_statistics_gradients_generators_mode_or_the_next_batch(
    recipe: Callable[..., Recipe], learner: Make, exact: bool
) -> None:
    taught = quadratic(torch.eye(6))
    taught.objective.eval()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    before = {k: v.clone() for k, v in taught.objective.state_dict().items()}
    dominant_eigenvalue(taught, Batch(), exact=exact)
    assert all(torch.equal(v, before[k]) for k, v in taught.objective.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert not taught.objective.training
    assert all(p.grad is None for p in [*taught.parameters, *taught.logits])
    _, streams = learner(recipe())
    one, other = learner(recipe())[1].valid, streams.valid
    dominant_eigenvalue(learner(recipe())[0], other, exact=exact)
    assert all(torch.equal(a, b) for a, b in zip(next(one), next(other), strict=True))
