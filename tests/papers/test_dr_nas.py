"""DrNAS (arXiv:2006.10355): mixing weights drawn from a Dirichlet law, and their gradient."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from nas_apps.core.parts.noise import concentration, dirichlet
from nas_apps.core.parts.penalty import DirichletKL, Seen
from nas_apps.core.parts.relax import Dirichlet
from nas_apps.core.parts.wiring import Partial
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.variants import VARIANTS

LOGITS = [0.5, -0.4, 0.0, -1.2]


def drawn(logits: list[float], draws: int = 40_000) -> torch.Tensor:
    row = torch.tensor(logits)
    return Dirichlet()(row.expand(draws, len(row)), DONE, torch.Generator().manual_seed(1))


def test_the_concentration_is_elu_plus_1() -> None:
    found = concentration(torch.tensor([2.0, 0.0, -1.0]))
    assert found.tolist() == pytest.approx([3.0, 1.0, 0.3678794])


def test_the_mean_draw_is_the_concentration_over_its_sum() -> None:
    c = concentration(torch.tensor(LOGITS))
    assert drawn(LOGITS).mean(0).tolist() == pytest.approx((c / c.sum()).tolist(), abs=0.005)


def test_at_logits_of_0_the_law_is_uniform_and_a_weight_of_eight_has_the_variance_7_over_576() -> None:
    weights = drawn([0.0] * 8)
    assert weights.mean(0).tolist() == pytest.approx([1 / 8] * 8, abs=0.003)
    assert weights.var(0).tolist() == pytest.approx([0.0121528] * 8, rel=0.04)


def test_each_weight_has_the_variance_of_its_law() -> None:
    law = distributions.Dirichlet(concentration(torch.tensor(LOGITS)))
    assert drawn(LOGITS).var(0).tolist() == pytest.approx(law.variance.tolist(), rel=0.03)


@pytest.mark.usefixtures("double")
def test_the_gradient_of_a_sample_is_that_of_torchs_rsample() -> None:
    c, slopes = concentration(torch.randn(200, 5)).requires_grad_(), torch.randn(200, 5)
    torch.manual_seed(0)
    theirs, ours = distributions.Dirichlet(c).rsample(), dirichlet(c, torch.Generator().manual_seed(0))
    assert torch.equal(ours, theirs)
    grads = [torch.autograd.grad((sample * slopes).sum(), c)[0] for sample in (ours, theirs)]
    torch.testing.assert_close(*grads)


@pytest.mark.usefixtures("double")
def test_the_gradient_is_right_on_average() -> None:
    """d E[w] / d c in closed form."""
    c = torch.tensor([0.7, 1.3, 2.0, 0.4])
    many = c.expand(40_000, 4).clone().requires_grad_()
    slopes = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (grads,) = torch.autograd.grad((dirichlet(many, torch.Generator().manual_seed(1)) * slopes).sum(), many)
    expected = (slopes - (c / c.sum() * slopes).sum()) / c.sum()
    assert grads.mean(0).tolist() == pytest.approx(expected.tolist(), abs=0.015)


def test_samples_and_gradients_are_finite_at_extreme_logits() -> None:
    logits = torch.tensor([[-50.0, 0.0, 50.0], [-50.0] * 3, [-9.0] * 3]).repeat(500, 1).requires_grad_()
    weights = Dirichlet()(logits, DONE, torch.Generator())
    (weights * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    assert weights.isfinite().all()
    assert logits.grad.isfinite().all()


def test_the_penalty_is_the_divergence_of_torch_from_the_uniform_law() -> None:
    tables = {"a": torch.randn(3, 4), "b": torch.randn(2, 5)}
    ours = DirichletKL()(Seen(tables, {}, DONE, {}, torch.Generator()))
    rows = [row for table in tables.values() for row in table]
    laws = [distributions.Dirichlet(torch.nn.functional.elu(row) + 1) for row in rows]
    apart = [distributions.kl_divergence(law, distributions.Dirichlet(torch.ones(law.event_shape))) for law in laws]
    assert ours.item() == pytest.approx((sum(apart) / 5).item(), rel=1e-5)
    flat = {"a": torch.zeros(3, 4)}
    assert DirichletKL()(Seen(flat, {}, DONE, {}, torch.Generator())).item() == pytest.approx(0, abs=1e-6)


def test_a_cell_is_derived_from_the_softmax_of_the_logits() -> None:
    logits = torch.tensor([LOGITS])
    assert torch.equal(Dirichlet().mean(logits, DONE), logits.softmax(-1))


def test_weights_and_logits_see_draws_of_their_own(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=dr_nas")
    assert isinstance(made.variant.wiring, Partial)
    taught, streams = learner(made)
    assert all("none" not in row for row in taught.arch.space["cell.op"].rows)
    seen: list[torch.Tensor] = []
    taught.objective.register_forward_pre_hook(lambda *_: seen.append(taught.arch.current.weights["cell.op"].detach()))
    taught.begin(Progress(9, 10))
    made.variant.schedule(taught, streams)
    assert len(seen) == 2
    assert not torch.equal(*seen)
    for weights in seen:
        assert torch.allclose(weights.sum(-1), torch.ones(len(weights)))


def test_logits_start_where_the_law_is_about_uniform() -> None:
    assert VARIANTS["dr_nas"].logits == {"lr": 6e-4}
    c = concentration(1e-3 * torch.randn(100))
    assert c.tolist() == pytest.approx([1.0] * 100, abs=0.005)
