"""RAPDARTS (arXiv:1911.05704): a differentiable cost in parameters or multiply-adds, beside the formulas."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from nas_apps.core.config import load
from nas_apps.core.parts.penalty import Cost, Seen, total
from nas_apps.core.price import Additive, Price, expectation, tables
from nas_apps.core.progress import Progress, Ramp
from nas_apps.core.space import Dag, Space, cell_choices

ROW = ("none", "skip", "small", "large")
TABLE = torch.tensor([0.0, 0.0, 3.0, 7.0], dtype=torch.float64)
SECOND = torch.tensor([0.0, 1.0, 1.0, 4.0], dtype=torch.float64)
DARTS = cell_choices("c", Dag(2, 4, keep=2), (ROW,) * 14)
WHOLE = cell_choices("c", Dag(1, 3), (ROW,) * 6)


def price(space: Space, row: Tensor = TABLE, constant: float = 10.0) -> Additive:
    return Additive(space, constant, {"c.op": row.expand(space["c.op"].shape).clone()})


def seen(logits: Mapping[str, Tensor], prices: Mapping[str, Price], epoch: int = 0) -> Seen:
    means = {name: table.softmax(-1) for name, table in logits.items()}
    return Seen(logits, means, Progress(epoch, 10), prices, torch.Generator().manual_seed(0))


def added(penalty: Cost, seen: Seen) -> Tensor:
    """What a penalty adds to the loss."""
    whole, _ = total((penalty,), seen)
    return torch.zeros(()) if whole is None else whole


def gradient(penalty: Cost, logits: Tensor, prices: Mapping[str, Price]) -> Tensor:
    logits = logits.clone().requires_grad_()
    found = added(penalty, seen({"c.op": logits}, prices))
    return torch.autograd.grad(found, logits)[0] if found.requires_grad else torch.zeros_like(logits)


@pytest.mark.usefixtures("double")
def test_the_gradient_of_a_logit_is_its_weight_times_how_much_dearer_it_is_than_the_row() -> None:
    logits, known = torch.randn(6, 4), price(WHOLE)
    p = logits.softmax(-1)
    by_hand = p * (TABLE - (p * TABLE).sum(-1, keepdim=True))
    assert torch.allclose(gradient(Cost("params", 3.0), logits, {"params": known}), 3 * by_hand / known.reference)


@pytest.mark.usefixtures("double")
def test_where_two_edges_are_kept_the_gradient_is_scaled_and_none_has_no_part_in_it() -> None:
    logits, known = torch.randn(14, 4), price(DARTS)
    q = logits[:, 1:].softmax(-1)
    by_hand = 8 / 14 * q * (TABLE[1:] - (q * TABLE[1:]).sum(-1, keepdim=True)) / known.reference
    found = gradient(Cost("params"), logits, {"params": known})
    assert torch.allclose(found[:, 1:], by_hand)
    assert found[:, 0].abs().max() < 1e-12


def test_at_the_start_a_cost_is_its_weight_at_any_size() -> None:
    for cells in (1, 4):
        recipe = load([], ["task=toy", f"train.network.cells={cells}"])
        logits = {n: torch.zeros(c.shape) for n, c in recipe.task.choices().items()}
        known = tables(recipe.task, recipe.train)
        for of in ("params", "macs"):
            assert float(added(Cost(of, 0.7), seen(logits, known))) == pytest.approx(0.7)


def test_a_weight_of_zero_moves_no_logit() -> None:
    found = gradient(Cost("params", 0.0), torch.randn(14, 4), {"params": price(DARTS)})
    assert torch.equal(found, torch.zeros(14, 4))


def test_a_weight_may_grow_over_the_run() -> None:
    penalty, logits = Cost("params", Ramp(0.0, 2.0)), {"c.op": torch.zeros(14, 4)}
    known = {"params": price(DARTS)}
    assert [float(added(penalty, seen(logits, known, epoch))) for epoch in (0, 5)] == pytest.approx([0.0, 1.0])


@pytest.mark.usefixtures("double")
def test_two_resources_add_up_and_each_alone_is_the_other_at_weight_zero() -> None:
    logits, known = torch.randn(14, 4), {"params": price(DARTS), "macs": price(DARTS, SECOND, 2.0)}

    def both(params: float, macs: float) -> Tensor:
        return gradient(Cost("params", params), logits, known) + gradient(Cost("macs", macs), logits, known)

    assert torch.equal(both(1, 0), gradient(Cost("params"), logits, known))
    assert torch.equal(both(0, 1), gradient(Cost("macs"), logits, known))
    assert not torch.allclose(both(1, 0), both(0, 1))
    assert torch.allclose(both(1, 1), both(1, 0) + both(0, 1))


def test_a_hinge_is_silent_at_the_target_and_grows_linearly_above_it() -> None:
    known, logits = price(DARTS), torch.zeros(14, 4)
    cost = known.reference
    for target in (cost, 2 * cost):
        at = Cost("params", target=target, form="hinge")
        assert float(added(at, seen({"c.op": logits}, {"params": known}))) == pytest.approx(0, abs=1e-6)
    half = Cost("params", 3.0, target=cost / 2, form="hinge")
    assert float(added(half, seen({"c.op": logits}, {"params": known}))) == pytest.approx(3.0)
    assert not gradient(Cost("params", target=2 * cost, form="hinge"), torch.randn(14, 4), {"params": known}).any()


def test_the_heavier_the_cost_the_cheaper_what_the_same_loss_ends_with() -> None:
    known, liked = price(DARTS), torch.randn(14, 4) + torch.tensor([-1.0, 0.0, 1.0, 2.0])
    ends = []
    for weight in (0.0, 1.0, 4.0, 16.0, 64.0):
        logits = torch.zeros(14, 4, requires_grad=True)
        adam = torch.optim.Adam([logits], 0.1)
        for _ in range(100):
            cost = added(Cost("params", weight), seen({"c.op": logits}, {"params": known}))
            loss = (logits - liked).square().mean() + cost
            adam.zero_grad()
            loss.backward()
            adam.step()
        ends.append(float(known(expectation(DARTS, {"c.op": logits.detach().softmax(-1)}))))
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] < 0.8 * ends[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "hinge"}, "target: not given"),
        ({"target": 3.0}, "target: got 3.0"),
        ({"weight": -1.0}, "weight: got -1.0"),
        ({"form": "hinge", "target": 0.0}, "target: got 0.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cost("params", **settings)
