"""Kinds of choices beside operations: where a network ends, in a tree, and widths; and the penalty on the former."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.extras import Extras
from nas_apps.core.learner import gradients
from nas_apps.core.parts.derive import Strongest
from nas_apps.core.parts.penalty import Order, ZeroOne
from nas_apps.core.parts.relax import RELAXATIONS, BinaryGate, GumbelOneHot, GumbelRanks, GumbelTopK, Sigmoid, Softmax
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.sparse import SparsestMax
from nas_apps.core.progress import Progress
from nas_apps.core.space import Choice, Space
from nas_apps.core.variants import Variant

NODES = ("c", "cu", "cuc", "cucc", "cc", "ccu", "ccuc", "ccc", "cccu")  # 3 cells of which 2 are searched, 1 up
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 4, 7)
SPACE: Space = {
    "net.exit": Choice((NODES,), "exit", parents=PARENTS),
    "cell.op": Choice.uniform(("conv1", "conv3", "residual"), 4),
    "cell.width": Choice.uniform(("8", "16"), 3, kind="width"),
}


def arch(variant: Variant, space: Space = SPACE) -> Arch:
    return Arch(space, variant.relaxations, init_std=1.0)


def slopes(order: Order, made: Arch) -> dict[str, Tensor]:
    y, _ = Extras(penalties=(order,)).penalty(made, Progress(0, 1), 0)
    assert y is not None
    return dict(zip(made.logits, gradients(y, list(made.logits.values())), strict=True))


def test_differences_along_complete_paths_cancel_but_for_the_root_and_the_leaves() -> None:
    made = arch(Variant())
    found = slopes(Order("telescoped", weight=1.0), made)
    assert found["net.exit"].tolist() == [[-3.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]]
    assert not found["cell.op"].any()
    z = made.logits["net.exit"][0].detach()
    y, _ = Extras(penalties=(Order("telescoped", weight=0.5),)).penalty(made, Progress(0, 1), 0)
    assert y.item() == pytest.approx(0.5 * float(z[3] + z[6] + z[8] - 3 * z[0]))


def test_the_hinge_is_0_where_no_exit_is_above_the_one_it_extends_and_pulls_apart_those_that_are() -> None:
    made = arch(Variant())
    z = torch.tensor([[0.9, 0.5, 0.4, 0.3, 0.8, 0.8, 0.1, 0.2, 0.0]])
    with torch.no_grad():
        made.logits["net.exit"].copy_(z)
    penalty = Extras(penalties=(Order(weight=2.0),)).penalty
    assert penalty(made, Progress(0, 1), 0)[0].item() == 0
    with torch.no_grad():
        made.logits["net.exit"][0, 6] = 1.0  # over 5, which it extends
    assert penalty(made, Progress(0, 1), 0)[0].item() == pytest.approx(2 * 0.2)
    assert slopes(Order(weight=2.0), made)["net.exit"].nonzero().tolist() == [[0, 5], [0, 6]]


@pytest.mark.parametrize("relax", [Softmax(), Sigmoid(), GumbelTopK(2), SparsestMax()])
def test_enough_of_either_order_ends_with_the_root_and_none_moves_nothing(relax: Relaxation) -> None:
    for form, first in (("hinge", True), ("telescoped", True), ("none", False)):
        made = arch(Variant(relax=relax))
        with torch.no_grad():
            made.logits["net.exit"][0, 6] = 3.0
        order = Order(form, weight=1.0)
        for _ in range(200):
            slope = slopes(order, made)["net.exit"]
            with torch.no_grad():
                made.logits["net.exit"].sub_(slope, alpha=0.05)
        best = Strongest()(made.space, made.scores(), torch.Generator()).kept["net.exit"]
        assert best == ((("c",),) if first else (("ccuc",),))


def test_a_space_without_exits_has_no_order(recipe: Callable[..., Recipe], learner) -> None:  # noqa: ANN001
    taught, _ = learner(recipe("variant=darts", "variant.penalties=[order]"))
    y, stats = taught._extras.penalty(taught.arch, Progress(0, 1), 0)
    assert y.item() == 0
    assert list(stats) == ["penalty/order"]


@pytest.mark.parametrize("name", RELAXATIONS)
def test_exits_and_widths_compete_and_belong_to_one_net_whatever_operations_do(name: str) -> None:
    variant = Variant(relax=RELAXATIONS[name]())
    for draw in arch(variant).draws(Progress(1, 3), learn=True):
        for choice in ("net.exit", "cell.width"):
            assert torch.allclose(draw.weights[choice].sum(-1), torch.ones(SPACE[choice].shape[0]))
            assert choice not in draw.probed
    exits = variant.relaxations["exit"]
    assert variant.relaxations["width"] == exits
    if isinstance(variant.relax, GumbelTopK | GumbelRanks):
        assert exits == GumbelOneHot(variant.relax.temperature)
    elif isinstance(variant.relax, BinaryGate | Sigmoid):
        assert exits == (GumbelOneHot() if isinstance(variant.relax, BinaryGate) else Softmax())
    else:
        assert exits is variant.relax


def test_widths_may_have_a_relaxation_of_their_own() -> None:
    variant = Variant(relax=SparsestMax(), widths=GumbelOneHot(1.0))
    assert variant.relaxations["width"] == GumbelOneHot(1.0)
    draw = arch(variant).draw(Progress(2, 3))
    assert {len(row) for row in draw.active["cell.width"]} == {1}


def test_a_penalty_on_sigmoids_leaves_exits_out() -> None:
    y, _ = Extras(penalties=(ZeroOne(),)).penalty(made := arch(Variant(relax=Sigmoid())), Progress(0, 1), 0)
    found = torch.autograd.grad(y, list(made.logits.values()), materialize_grads=True)
    assert [bool(grad.any()) for grad in found] == [False, True, False]


@pytest.mark.parametrize(
    ("widths", "reason"),
    [("binary_gate", "a convolution has one width"), ("softmax", "^variant.widths: this space decides no widths; ")],
)
def test_widths_that_mean_nothing_are_refused(recipe: Callable[..., Recipe], widths: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        recipe("variant=darts", f"variant.widths={widths}")
