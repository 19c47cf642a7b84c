"""GDAS (arXiv:1910.04465) against the vectors of its formulas."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Mixed
from nas_apps.core.config import Recipe
from nas_apps.core.op import OpArgs
from nas_apps.core.parts import noise
from nas_apps.core.parts.derive import Strongest
from nas_apps.core.parts.relax import GumbelOneHot
from nas_apps.core.parts.wiring import Full, Row
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.space import Choice, Dag, cell_choices

LOGITS, NOISE, TAU = [0.2, -0.1, 0.4], [0.3, 1.2, -0.5], 2.0


def fixed_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "gumbel", lambda like, rng: torch.tensor([NOISE], dtype=like.dtype))


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.new_full((), self.value)


def test_the_gradient_is_that_of_the_selected_weight_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_noise(monkeypatch)
    logits = torch.tensor([LOGITS], requires_grad=True)
    weights = GumbelOneHot(TAU)(logits, DONE, torch.Generator())
    assert weights.tolist() == [[0.0, 1.0, 0.0]]
    ops = {str(k): (lambda args, k=k: _Constant(k)) for k in (1, 2, 3)}
    out = Full().edge(("1", "2", "3"), ops, OpArgs(1))(torch.ones(()), Row(weights[0].unbind(), (1,), DONE))
    out.backward()
    assert out.item() == 2
    assert logits.grad[0].tolist() == pytest.approx([-0.141313, 0.246000, -0.104687], abs=1e-6)


def test_the_look_alikes_of_the_spec_have_other_gradients() -> None:
    """The code for NAS-Bench-201 adds the bare weights of unselected ops; a full straight-through runs them all."""
    for bare, expected in ((True, [-0.070656, 0.123000, -0.052343]), (False, [-0.148210, 0.018313, 0.129898])):
        logits = torch.tensor(LOGITS, requires_grad=True)
        soft = ((logits.log_softmax(-1) + torch.tensor(NOISE)) / TAU).softmax(-1)
        assert soft.tolist() == pytest.approx([0.32355, 0.43675, 0.23969], abs=1e-5)
        h = torch.tensor([0.0, 1.0, 0.0]) + soft - soft.detach()
        out = 2 * h[1] + h[0] + h[2] if bare else (h * torch.tensor([1.0, 2.0, 3.0])).sum()
        out.backward()
        assert out.item() == pytest.approx(2)
        assert logits.grad.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_options_are_drawn_by_the_softmax_of_their_logits_whatever_the_temperature(temperature: float) -> None:
    draws, logits = 40_000, torch.tensor(LOGITS)
    weights = GumbelOneHot(temperature)(logits.expand(draws, 3), DONE, torch.Generator().manual_seed(1))
    counts, p = weights.sum(0), logits.softmax(-1)
    chi_square = ((counts - draws * p) ** 2 / (draws * p)).sum().item()
    assert chi_square < 13.8  # the 0.999 quantile for two degrees of freedom


def test_for_fixed_noise_the_selected_option_does_not_depend_on_the_temperature() -> None:
    logits = torch.randn(50, 6)
    picks = [GumbelOneHot(t)(logits, DONE, torch.Generator().manual_seed(3)).argmax(-1) for t in (0.1, 1.0, 10.0)]
    assert torch.equal(picks[0], picks[1])
    assert torch.equal(picks[0], picks[2])


def test_the_temperature_falls_linearly_from_10_and_reaches_a_tenth_in_the_last_epoch() -> None:
    temperature = GumbelOneHot().temperature
    assert temperature(Progress(0, 250)) == 10
    assert temperature(Progress(100, 250)) == pytest.approx(10 - 9.9 * 100 / 249)
    assert temperature(Progress(249, 250)) == pytest.approx(0.1)


def test_one_operation_an_edge_runs_and_the_others_get_no_gradient() -> None:
    dag, names = Dag(2, 4, keep=2), ("a", "b", "c")
    space = cell_choices("c", dag, (names,) * 14)
    arch = Arch(space, {"op": GumbelOneHot()})
    runs: Counter[str] = Counter()

    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            runs["all"] += 1
            return super().forward(x)

    cell = Mixed(arch, Full()).cell("c", dag, {name: lambda args: Counted(4, 4) for name in names}, OpArgs(4))
    draw = arch.draw(cycle=5)
    with arch.using(draw):
        sum(node.sum() for node in cell(torch.randn(2, 4), torch.randn(2, 4))).backward()
    assert runs["all"] == len(dag.edges())
    for index, active in enumerate(draw.active["c.op"]):
        for k, name in enumerate(names):
            grad = cell.edges[str(index)].ops[name].weight.grad
            assert (grad is not None) == (k in active)


def test_the_two_streams_of_a_step_see_independent_draws_and_a_replay_sees_the_same() -> None:
    arch = Arch({"a": Choice.uniform(("x", "y", "z"), 40)}, {"op": GumbelOneHot()})
    train, again, valid, later = (arch.draw(cycle=c, use=u).active for c, u in ((7, 0), (7, 0), (7, 1), (8, 0)))
    assert train == again
    assert train != valid
    assert train != later


def test_weights_step_before_the_architecture(recipe, learner) -> None:  # noqa: ANN001
    made: Recipe = recipe("variant=gdas")
    assert made.variant.schedule.weights_first
    taught, streams = learner(made)
    order: list[str] = []
    taught.optimizer.register_step_post_hook(lambda *_: order.append("weights"))
    taught.logit_optimizer.register_step_post_hook(lambda *_: order.append("logits"))
    made.variant.schedule(taught, streams)
    assert order == ["weights", "logits"]


def test_its_own_read_out_may_keep_two_operations_of_one_edge() -> None:
    space = cell_choices("c", Dag(3, 1, keep=2), (("none", "a", "b"),) * 3)
    weights = {"c.op": torch.tensor([[0.0, 0.5, 0.4], [0.5, 0.3, 0.2], [0.6, 0.2, 0.2]])}
    ours = Strongest()(space, weights, torch.Generator()).kept["c.op"]
    theirs = Strongest(distinct=False)(space, weights, torch.Generator()).kept["c.op"]
    assert ours == (("a",), ("a",), ())
    assert theirs == (("a", "b"), (), ())
