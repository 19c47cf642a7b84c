"""FairDARTS (arXiv:1911.12126): independent weights, a loss that pushes them apart, a threshold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.extras import Extras
from nas_apps.core.parts.derive import Threshold
from nas_apps.core.parts.penalty import Seen, ZeroOne
from nas_apps.core.parts.relax import Sigmoid
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.space import Choice, Dag, cell_choices
from nas_apps.core.variants import VARIANTS

SPACE = cell_choices("c", Dag(3, 1, keep=2), (("a", "b"),) * 3)


def seen(**means: Tensor) -> Seen:
    return Seen(means, means, DONE, {}, torch.Generator())


def test_the_loss_of_three_sigmoids() -> None:
    assert ZeroOne()(seen(a=torch.tensor([[0.5, 0.9, 0.1]]))).item() == pytest.approx(-0.106667, abs=1e-6)


def test_it_is_the_mean_over_all_entries_of_all_tables() -> None:
    parts = {"a": torch.tensor([[0.5, 0.9]]), "b": torch.tensor([[0.1]])}
    assert ZeroOne()(seen(**parts)).item() == pytest.approx(-0.106667, abs=1e-6)


def test_it_is_least_where_every_weight_is_0_or_1_and_0_where_all_are_a_half() -> None:
    assert ZeroOne()(seen(a=torch.tensor([[0.0, 1.0, 1.0]]))).item() == -0.25
    assert ZeroOne()(seen(a=torch.full((2, 3), 0.5))).item() == 0


def test_raising_one_logit_raises_its_weight_and_leaves_the_others() -> None:
    logits = torch.randn(3, 4)
    raised = logits.clone()
    raised[1, 2] += 2
    before, after = (Sigmoid()(x, DONE, torch.Generator()) for x in (logits, raised))
    assert after[1, 2] > before[1, 2]
    changed = before != after
    assert changed.sum() == 1


def test_logits_start_at_0_and_weights_at_a_half_without_none(recipe, learner) -> None:  # noqa: ANN001
    taught, _ = learner(recipe("variant=fair_darts"))
    draw = taught.arch.draw()
    assert all((table == 0.5).all() for table in draw.weights.values())
    assert all("none" not in row for row in taught.arch.space["cell.op"].rows)


def test_the_logits_step_with_the_gradient_of_the_loss_and_ten_times_that_of_the_penalty(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=fair_darts", "search.logits.init_std=0.5")
    taught, streams = learner(made)
    taught.begin(Progress(0, 10))
    grads, _ = taught.arch_gradients(*taught.pull(streams.valid, use=1))
    number = sum(p.numel() for p in taught.logits)
    expected = []
    for p, grad in zip(taught.logits, grads, strict=True):
        s = p.detach().sigmoid()
        expected.append(grad - 10 * 2 * (s - 0.5) * s * (1 - s) / number)
    got: list[Tensor] = []
    taught.logit_optimizer.register_step_pre_hook(lambda *_: got.extend(p.grad.clone() for p in taught.logits))
    stats = taught.arch_step(grads)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert -0.25 < stats["penalty/zero_one"].item() < 0


def test_the_penalty_alone_pushes_each_weight_to_the_side_it_is_on(teach) -> None:  # noqa: ANN001
    arch = Arch({"a": Choice.uniform(("x", "y", "z"), 4)}, {"op": Sigmoid()}, init_std=1.0)
    learner = teach(torch.nn.Module(), arch, Extras(penalties=(ZeroOne(),)), lr=1.0)
    before = arch.logits["a"].detach().sigmoid()
    for _ in range(5):
        learner.arch_step([torch.zeros(4, 3)])
    after = arch.logits["a"].detach().sigmoid()
    assert ((after - 0.5).abs() > (before - 0.5).abs()).all()
    assert ((after > 0.5) == (before > 0.5)).all()


def test_the_weights_do_not_learn_from_the_penalty(searched) -> None:  # noqa: ANN001
    for rate, alike in (("0", True), ("0.05", False)):
        runs = [
            searched(
                "variant=fair_darts", f"search.logits.lr={rate}", "search.logits.init_std=0.5", f"variant.penalties={p}"
            )
            for p in ("[zero_one]", "[]")
        ]
        assert all(map(torch.equal, *runs)) is alike


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([[0.9, 0.2], [0.3, 0.86], [0.84, 0.1]], (("a",), ("b",), ())),
        ([[0.9, 0.2], [0.3, 0.84], [0.5, 0.1]], (("a",), (), ())),
        ([[0.84, 0.2], [0.3, 0.8], [0.5, 0.1]], (("a",), (), ())),
        ([[0.95, 0.96], [0.9, 0.8], [0.99, 0.1]], (("b",), (), ("a",))),
    ],
    ids=["two", "one", "the strongest all the same", "two at most"],
)
def test_a_node_keeps_at_most_two_edges_and_those_over_the_threshold(rows: list, kept: tuple) -> None:
    assert VARIANTS["fair_darts"].derive == Threshold(least=0.85, fewest=1)
    assert Threshold()(SPACE, {"c.op": torch.tensor(rows)}, torch.Generator()).kept["c.op"] == kept


def test_as_in_the_code_of_the_paper_a_node_may_keep_nothing() -> None:
    weights = {"c.op": torch.full((3, 2), 0.5)}
    assert Threshold(fewest=0)(SPACE, weights, torch.Generator()).kept["c.op"] == ((), (), ())
    at = {"c.op": torch.tensor([[0.85, 0.1], [0.849, 0.1], [0.0, 0.0]], dtype=torch.float64)}
    assert Threshold(fewest=0)(SPACE, at, torch.Generator()).kept["c.op"] == (("a",), (), ())


def test_the_settings_of_its_code() -> None:
    variant = VARIANTS["fair_darts"]
    assert variant.penalties == (ZeroOne(10.0),)
    assert dict(variant.logits) == {"lr": 3e-3, "betas": [0.9, 0.999], "init_std": 0.0}
