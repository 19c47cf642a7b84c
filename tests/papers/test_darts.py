"""DARTS (arXiv:1806.09055) against its formulas, computed independently."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Mixed
from nas_apps.core.hypergrad import LookAhead
from nas_apps.core.learner import Learner
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Strongest
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full, Row
from nas_apps.core.phase import Phase
from nas_apps.core.progress import DONE, Progress, Ramp
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Choice, Dag, cell_choices
from nas_apps.core.task import Optimisation, Outcome

CPU = Runtime(torch.device("cpu"))


class Quadratic(nn.Module):
    """The toy of the paper, section 2.3: L_valid = a w - 2 a + 1, L_train = w^2 - 2 a w + a^2."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([-2.0]))
        self.read = arch.reader("a", 0)

    def forward(self, batch: str) -> Outcome:
        a, w = self.read().weights[0], self.w[0]
        loss = a * w - 2 * a + 1 if batch == "valid" else w**2 - 2 * a * w + a**2
        return Outcome(loss, {}, 1)


class Identity:
    """Weights that are the logits themselves."""

    sparse = False

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return logits * 1

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return logits


@pytest.mark.parametrize("difference", [None, 0.01], ids=["exact", "difference"])
@pytest.mark.parametrize(("xi", "expected"), [(0.0, -4.0), (0.1, -2.8), (0.3, -0.4), (0.5, 2.0)])
@pytest.mark.usefixtures("double")
def test_the_toy_of_the_paper_has_the_hypergradient_minus_4_plus_12_xi(
    xi: float, expected: float, difference: float | None
) -> None:
    arch = Arch({"a": Choice((("a",),))}, {"op": Identity()})
    with torch.no_grad():
        arch.logits["a"].fill_(2.0)
    objective = Quadratic(arch)
    sgd = torch.optim.SGD(objective.parameters(), lr=xi)
    learner = Learner(objective, arch, Optimisation(sgd, lambda progress: None), Phase("search", None, None), CPU)
    draw = arch.draw()
    (grad,), _ = LookAhead(difference)(learner, ("train", (draw,)), ("valid", (draw,)))
    assert grad.item() == pytest.approx(expected, abs=1e-9)


class Smooth(nn.Module):
    """A mixed network of smooth operations; its training and validation batches are two tensors."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))
        self.read, self.head = [arch.reader("a", row) for row in range(3)], nn.Linear(5, 3)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        for layer, read in zip(self.layers, self.read, strict=True):
            h, w = layer(x), read().weights
            x = w[0] * torch.tanh(h) + w[1] * torch.sin(h) + w[2] * h
        return Outcome(nn.functional.cross_entropy(self.head(x), y), {}, len(y))


def smooth_learner() -> tuple[Learner, tuple, tuple]:
    arch = Arch({"a": Choice.uniform(("tanh", "sin", "linear"), 3)}, {"op": Softmax()}, init_std=0.5)
    objective = Smooth(arch)
    sgd = torch.optim.SGD(objective.parameters(), lr=0.3, momentum=0.9, weight_decay=3e-2)
    learner = Learner(objective, arch, Optimisation(sgd, lambda progress: None), Phase("search", None, None), CPU)
    batches = [(torch.randn(8, 5), torch.randint(3, (8,))) for _ in range(3)]
    learner.weight_step(batches[2], (arch.draw(),))  # a momentum buffer that is not zero
    draw = arch.draw()
    return learner, (batches[0], (draw,)), (batches[1], (draw,))


def brute_force(learner: Learner, train: tuple, valid: tuple, step: float = 1e-5) -> Tensor:
    """d L_valid(w'(a), a) / d a by central differences of the whole two-step computation."""
    group = learner.optimizer.param_groups[0]
    start = {n: p.detach().clone() for n, p in learner.objective.named_parameters()}
    logits = learner.logits[0]

    def after() -> float:
        draw = learner.arch.draw().leaf(grad=False)
        with torch.enable_grad(), learner.loss(train[0], draw) as outcome:
            grads = torch.autograd.grad(outcome.loss, learner.parameters)
        with torch.no_grad():
            for p, g in zip(learner.parameters, grads, strict=True):
                buffer = learner.optimizer.state[p]["momentum_buffer"]
                p -= group["lr"] * (group["momentum"] * buffer + g + group["weight_decay"] * p)
            with learner.loss(valid[0], draw) as outcome:
                loss = float(outcome.loss)
            for n, p in learner.objective.named_parameters():
                p.copy_(start[n])
        return loss

    result = torch.zeros_like(logits)
    for index in range(logits.numel()):
        sides = []
        for sign in (step, -step):
            with torch.no_grad():
                logits.view(-1)[index] += sign
                sides.append(after())
                logits.view(-1)[index] -= sign
        result.view(-1)[index] = (sides[0] - sides[1]) / (2 * step)
    return result


@pytest.mark.usefixtures("double")
def test_the_exact_look_ahead_equals_brute_force_differences_with_momentum_and_decay() -> None:
    learner, train, valid = smooth_learner()
    (grad,), _ = LookAhead()(learner, train, valid)
    expected = brute_force(learner, train, valid)
    assert torch.allclose(grad, expected, rtol=1e-6, atol=1e-9)
    (first,), _ = learner.arch_gradients(valid[0], (learner.arch.draw(),))
    assert not torch.allclose(first, expected, rtol=1e-2)  # a first-order gradient would not pass


@pytest.mark.usefixtures("double")
def test_the_papers_difference_converges_to_the_exact_term_with_the_square_of_its_radius() -> None:
    learner, train, valid = smooth_learner()
    errors = []
    exact = torch.zeros(0)
    for radius in (None, 1e-1, 1e-2, 1e-3):
        draw = learner.arch.draw()
        (grad,), _ = LookAhead(radius)(learner, (train[0], (draw,)), (valid[0], (draw,)))
        if radius is None:
            exact = grad
            continue
        errors.append(((grad - exact).norm() / exact.norm()).item())
    assert errors[1] < 1e-3
    for larger, smaller in zip(errors, errors[1:], strict=False):
        assert larger / smaller == pytest.approx(100, rel=0.2)


@pytest.mark.parametrize("difference", [None, 0.01], ids=["exact", "difference"])
def test_the_look_ahead_leaves_weights_momentum_and_statistics_as_they_were(difference: float | None) -> None:
    learner, train, valid = smooth_learner()
    learner.objective.add_module("norm", nn.BatchNorm1d(5))
    before = {k: v.clone() for k, v in learner.objective.state_dict().items()}
    momenta = [learner.optimizer.state[p]["momentum_buffer"].clone() for p in learner.parameters]
    LookAhead(difference)(learner, train, valid)
    assert all(torch.equal(v, before[k]) for k, v in learner.objective.state_dict().items())
    after = [learner.optimizer.state[p]["momentum_buffer"] for p in learner.parameters]
    assert all(map(torch.equal, momenta, after))


def test_batch_statistics_do_not_move_in_the_look_ahead_and_move_in_a_weight_step() -> None:
    arch = Arch({"a": Choice((("a", "b"),))}, {"op": Softmax()})

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.read = nn.BatchNorm1d(4), arch.reader("a", 0)

        def forward(self, x: Tensor) -> Outcome:
            w = self.read().weights
            return Outcome(
                (w[0] * self.norm(x) ** 2 + w[1] * self.norm(x)).sum() + self.norm(x).pow(3).sum(), {}, len(x)
            )

    objective = Normed()
    sgd = torch.optim.SGD(objective.parameters(), lr=0.1, momentum=0.9)
    learner = Learner(objective, arch, Optimisation(sgd, lambda progress: None), Phase("search", None, None), CPU)
    draw, x = arch.draw(), torch.randn(6, 4) + 3
    LookAhead()(learner, (x, (draw,)), (x, (draw,)))
    assert objective.norm.running_mean.abs().sum() == 0
    learner.weight_step(x, (draw,))
    assert objective.norm.running_mean.abs().sum() > 0


def test_edges_are_ranked_by_their_softmax_and_not_by_raw_logits() -> None:
    ops = ("none", "skip", "conv")
    logits = torch.tensor([[5.0, 1.0, 0.0], [0.0, 0.5, 0.4], [0.0, 0.2, 0.6]])
    weights = logits.softmax(-1)
    assert weights[:, 1:].amax(-1).tolist() == pytest.approx([0.0179, 0.3982, 0.4506], abs=1e-4)
    space = cell_choices("c", Dag(3, 1, keep=2), (ops,) * 3)
    kept = Strongest()(space, {"c.op": weights}, torch.Generator()).kept["c.op"]
    assert kept == ((), ("skip",), ("conv",))


def test_ties_go_to_the_lower_edge_and_the_lower_option() -> None:
    space = cell_choices("c", Dag(3, 1, keep=2), (("a", "b"),) * 3)
    kept = Strongest()(space, {"c.op": torch.full((3, 2), 0.5)}, torch.Generator()).kept["c.op"]
    assert kept == (("a",), ("a",), ())


def test_mixing_weights_of_0_ln2_ln3_are_a_sixth_two_sixths_and_three_sixths() -> None:
    logits = torch.tensor([[0.0, math.log(2), math.log(3)]])
    weights = Softmax()(logits, DONE, torch.Generator())
    assert weights[0].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    times = {str(k): (lambda args, k=k: _Times(k)) for k in (1, 10, 100)}
    edge = Full().edge(("1", "10", "100"), times, OpArgs(1))
    y = edge(torch.ones(1), Row(weights[0].unbind(), (0, 1, 2), DONE))
    assert y.item() == pytest.approx(1 / 6 + 20 / 6 + 300 / 6)


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_the_weight_rate_follows_the_cosine_of_the_code() -> None:
    rate = Ramp(0.025, 0.001, "cosine")
    assert rate(Progress(0, 50)) == pytest.approx(0.025)
    assert rate(Progress(25, 50)) == pytest.approx(0.013)
    assert rate(Progress(49, 50)) == pytest.approx(0.00102368, abs=1e-8)


def test_logits_start_small_and_the_same_for_the_same_seed() -> None:
    space = {"a": Choice.uniform(("x", "y"), 200)}
    first, again, other = (Arch(space, {"op": Softmax()}, seed=seed).logits["a"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(1e-3, rel=0.15)


def test_the_mixed_fill_reads_nothing_outside_a_draw() -> None:
    arch = Arch(cell_choices("c", Dag(1, 1), (("i",),)), {"op": Softmax()})
    cell = Mixed(arch, Full()).cell("c", Dag(1, 1), {"i": lambda args: nn.Identity()}, OpArgs(1))
    with pytest.raises(RuntimeError, match="no draw"):
        cell(torch.ones(1))
