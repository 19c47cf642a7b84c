"""PC-DARTS (arXiv:1907.05737) against its formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch, Draw
from nas_apps.core.cell import Mixed
from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Strongest
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full, Partial, Row, shuffle
from nas_apps.core.progress import DONE
from nas_apps.core.space import Dag, cell_choices


class _Zeros(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x[..., :: self.stride, :: self.stride]


OPS = {"zeros": lambda args: _Zeros(args.stride), "conv": lambda args: nn.Conv2d(args.channels, args.channels, 1)}


def test_the_shuffle_of_eight_channels_by_four() -> None:
    assert shuffle(torch.arange(8)[None], groups=4, axis=1).tolist() == [[0, 2, 4, 6, 1, 3, 5, 7]]


@pytest.mark.parametrize("axis", [1, -1, 2])
def test_the_shuffle_works_on_any_axis(axis: int) -> None:
    x = torch.randn(3, 8, 8)
    expected = x.index_select(axis, torch.tensor([0, 2, 4, 6, 1, 3, 5, 7]))
    assert torch.equal(shuffle(x, groups=4, axis=axis), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_channels_that_are_not_mixed_pass_by_unchanged(stride: int) -> None:
    edge = Partial(4).edge(("zeros",), OPS, OpArgs(8, stride))
    x = torch.randn(2, 8, 6, 6)
    y = edge(x, Row((torch.ones(()),), (0,), DONE))
    passed = x[:, 2:] if stride == 1 else nn.functional.max_pool2d(x[:, 2:], 2)
    expected = torch.cat([torch.zeros_like(passed[:, :2]), passed], 1)[:, [0, 2, 4, 6, 1, 3, 5, 7]]
    assert torch.equal(y, expected)


def test_the_bypass_follows_the_operations_on_odd_sizes() -> None:
    edge = Partial(4).edge(("zeros",), OPS, OpArgs(8, 2))
    assert edge(torch.randn(2, 8, 7, 5), Row(None, (0,), DONE)).shape == (2, 8, 4, 3)


def test_the_gradient_of_the_bypass_does_not_depend_on_the_weights() -> None:
    edge = Partial(4).edge(("zeros", "conv"), OPS, OpArgs(8))
    grads = []
    for weights in ((0.2, 0.8), (0.9, 0.1)):
        x = torch.ones(1, 8, 4, 4, requires_grad=True)
        edge(x, Row(tuple(map(torch.tensor, weights)), (0, 1), DONE)).square().sum().backward()
        grads.append(x.grad)
    assert torch.equal(grads[0][:, 2:], grads[1][:, 2:])
    assert not torch.equal(grads[0][:, :2], grads[1][:, :2])


def test_with_k_1_and_uniform_edges_a_node_is_that_of_darts_over_its_number_of_edges() -> None:
    dag = Dag(2, 2, keep=2)
    space = cell_choices("c", dag, (("zeros", "conv"),) * 5, edges=True)
    arch = Arch(space, {"op": Softmax(), "edge": Softmax()})
    with torch.no_grad():
        for target in dag.targets():
            arch.logits[f"c.edge.{target}"].zero_()
    partial = Mixed(arch, Partial(1)).cell("c", dag, OPS, OpArgs(4))
    plain_space = cell_choices("c", dag, (("zeros", "conv"),) * 5)
    plain_arch = Arch(plain_space, {"op": Softmax()})
    plain = Mixed(plain_arch, Full()).cell("c", dag, OPS, OpArgs(4))
    plain.load_state_dict(partial.state_dict())
    inputs = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    draw = arch.draw()
    with arch.using(draw), plain_arch.using(Draw({"c.op": draw.weights["c.op"]}, {"c.op": draw.active["c.op"]})):
        ours, darts = partial(*inputs), plain(*inputs)
    assert torch.allclose(ours[0], darts[0] / 2, atol=1e-6)


def test_the_edge_softmax_is_taken_within_each_node() -> None:
    space = cell_choices("c", Dag(2, 4, keep=2), (("zeros", "conv"),) * 14, edges=True)
    arch = Arch(space, {"op": Softmax(), "edge": Softmax()}, init_std=1.0)
    weights = arch.draw().weights
    assert [weights[f"c.edge.{t}"].shape[1] for t in (2, 3, 4, 5)] == [2, 3, 4, 5]
    assert all(weights[f"c.edge.{t}"].sum().item() == pytest.approx(1) for t in (2, 3, 4, 5))


def test_edges_are_ranked_by_the_product_of_both_weights() -> None:
    space = cell_choices("c", Dag(3, 1, keep=2), (("none", "a", "b"),) * 3, edges=True)
    weights = {
        "c.op": torch.tensor([[0.1, 0.6, 0.3], [0.1, 0.4, 0.5], [0.4, 0.3, 0.3]]),
        "c.edge.3": torch.tensor([[0.1, 0.3, 0.6]]),
    }
    assert Strongest()(space, weights, torch.Generator()).kept["c.op"] == ((), ("b",), ("a",))
    del weights["c.edge.3"]
    assert Strongest()(space, weights, torch.Generator()).kept["c.op"] == (("a",), ("b",), ())


def test_the_logits_wait_for_the_first_15_of_50_epochs(recipe, learner) -> None:  # noqa: ANN001
    from nas_apps.core.progress import Progress

    made = recipe("variant=pc_darts")
    taught, streams = learner(made)
    for epoch, moves in ((0, False), (14, False), (15, True)):
        before = [p.detach().clone() for p in taught.logits]
        taught.begin(Progress(epoch, 50))
        made.variant.schedule(taught, streams)
        assert all(torch.equal(a, b) for a, b in zip(before, taught.logits, strict=True)) is not moves


def test_a_width_that_k_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="variant.wiring.k: 4 does not divide the 6 channels"):
        Partial(4).edge(("zeros",), OPS, OpArgs(6))
