"""The laws of relaxations: every part in the table is held to them."""

from __future__ import annotations

import pytest
import torch

from nas_apps.core.parts.relax import RELAXATIONS
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.progress import Progress

ALL = pytest.mark.parametrize("relax", [kind() for kind in RELAXATIONS.values()], ids=list(RELAXATIONS))
ON_SIMPLEX = {name: kind() for name, kind in RELAXATIONS.items() if kind.simplex}
COMPETING = pytest.mark.parametrize("relax", ON_SIMPLEX.values(), ids=ON_SIMPLEX)
RELATIVE = {name: kind() for name, kind in RELAXATIONS.items() if name not in ("sigmoid", "dirichlet")}
EXACT = (
    "softmax",
    "sigmoid",
    "sparsemax",
    "sparsest_max",
    "gumbel_one_hot",
    "binary_gate",
)  # where `mean` is the expectation of the draws


def weights(relax: Relaxation, logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return relax(logits, Progress(3, 10), torch.Generator().manual_seed(seed))


@ALL
def test_the_shape_is_kept_and_values_are_finite_at_extreme_logits(relax: Relaxation) -> None:
    logits = torch.tensor([[50.0, -50.0, 0.0], [-50.0, -50.0, -50.0]])
    for table in (weights(relax, logits), relax.mean(logits, Progress(3, 10))):
        assert table.shape[-2:] == (2, 3)
        assert table.isfinite().all()


@ALL
def test_weights_lie_in_the_box(relax: Relaxation) -> None:
    table = weights(relax, torch.randn(20, 5) * 3)
    assert ((table >= 0) & (table <= 1)).all()


@COMPETING
def test_rows_sum_to_one(relax: Relaxation) -> None:
    logits = torch.randn(20, 5) * 3
    for table in (weights(relax, logits), relax.mean(logits, Progress(3, 10))):
        assert torch.allclose(table.sum(-1), torch.ones(table.shape[:-1]))


@ALL
def test_the_same_seed_gives_the_same_bits(relax: Relaxation) -> None:
    logits = torch.randn(6, 4)
    assert torch.equal(weights(relax, logits, 5), weights(relax, logits, 5))


@ALL
def test_the_mean_follows_a_permutation_of_the_options(relax: Relaxation) -> None:
    logits, order = torch.randn(6, 4), torch.tensor([2, 0, 3, 1])
    mean = relax.mean(logits, Progress(3, 10))
    assert torch.allclose(relax.mean(logits[:, order], Progress(3, 10)), mean[:, order])


@pytest.mark.parametrize("relax", RELATIVE.values(), ids=RELATIVE)
def test_a_shift_of_a_row_changes_nothing(relax: Relaxation) -> None:
    logits = torch.randn(6, 4)
    shifted = logits + torch.randn(6, 1)
    assert torch.allclose(weights(relax, logits), weights(relax, shifted), atol=1e-6)


@ALL
def test_the_gradient_reaches_every_logit_of_a_row_that_no_rule_leaves_out(relax: Relaxation) -> None:
    logits = (0.05 * torch.randn(6, 4)).requires_grad_()
    table = weights(relax, logits)
    (table * torch.tensor([1.0, 2.0, 4.0, 8.0])).sum().backward()
    left = (table != 0) | (relax.noisy or not relax.sparse)  # a projection gives nothing to what it leaves out
    assert left.sum() > 12
    assert torch.equal((logits.grad != 0).expand_as(left), left)


@ALL
def test_sparse_says_whether_weights_are_exactly_zero(relax: Relaxation) -> None:
    table = weights(relax, torch.randn(50, 4))
    assert bool((table == 0).any()) is relax.sparse
    assert (table != 0).any(-1).all()


@ALL
def test_the_scores_rank_the_options_of_a_row_as_the_logits_do(relax: Relaxation) -> None:
    logits = torch.randn(6, 5)
    scores = relax.scores(logits)
    assert torch.equal(scores.argsort(-1), logits.argsort(-1))
    assert (scores > 0).all()


@pytest.mark.parametrize("relax", [RELAXATIONS[name]() for name in EXACT], ids=EXACT)
def test_the_mean_is_the_expectation_of_the_draws(relax: Relaxation) -> None:
    logits = torch.randn(1, 4)
    drawn = weights(relax, logits.expand(40_000, 4)).mean(0)
    assert torch.allclose(drawn, relax.mean(logits, Progress(3, 10))[0], atol=0.012)
