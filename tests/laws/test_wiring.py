"""The laws of wirings: every part in the table is held to them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_apps.core.op import OpArgs
from nas_apps.core.parts.drop import DROPS, Drop, DropBlock, DropPath, SkipDropout, drop_block, drop_path
from nas_apps.core.parts.wiring import WIRINGS, AuxSkip, Full, Partial, Row, Wiring
from nas_apps.core.progress import DONE, Progress, Ramp

OPS = {
    "none": lambda args: _Zeros(args.stride),
    "skip_connect": lambda args: nn.Identity() if args.stride == 1 else nn.MaxPool2d(2, ceil_mode=True),
    "conv": lambda args: nn.Conv2d(args.channels, args.channels, 3, args.stride, 1),
}
ALL = pytest.mark.parametrize("wiring", [kind() for kind in WIRINGS.values()], ids=list(WIRINGS))
ROW = Row(tuple(torch.tensor([0.2, 0.3, 0.5])), (0, 1, 2), DONE)


class _Zeros(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x[..., :: self.stride, :: self.stride])


@ALL
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)], ids=["even", "odd"])
def test_the_shape_is_that_of_the_full_wiring(wiring: Wiring, stride: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 8, *size)
    shapes = {w.edge(tuple(OPS), OPS, OpArgs(8, stride))(x, ROW).shape for w in (wiring, Full())}
    assert len(shapes) == 1


@ALL
def test_only_active_options_run(wiring: Wiring) -> None:
    edge = wiring.edge(tuple(OPS), OPS, OpArgs(8))
    runs = []
    for name, module in edge.named_modules():
        if isinstance(module, nn.Conv2d | nn.Identity):
            module.register_forward_hook(lambda *_, name=name: runs.append(name))
    edge(torch.randn(2, 8, 4, 4), Row(ROW.weights, (1,), DONE))
    assert len(runs) == 1


@ALL
def test_an_edge_on_which_nothing_is_chosen_gives_zeros(wiring: Wiring) -> None:
    edge = wiring.edge(tuple(OPS), OPS, OpArgs(8, 2))
    y = edge(torch.randn(2, 8, 6, 6), Row(ROW.weights, (0,), DONE))
    assert y.shape == (2, 8, 3, 3)
    assert not y.any()


@ALL
def test_none_beside_others_changes_nothing(wiring: Wiring) -> None:
    edge, x = wiring.edge(tuple(OPS), OPS, OpArgs(8)).eval(), torch.randn(2, 8, 4, 4)
    assert torch.equal(edge(x, ROW), edge(x, Row(ROW.weights, (1, 2), DONE)))


@pytest.mark.parametrize("wiring", [Partial(1), AuxSkip(Ramp(0.0, 0.0))], ids=["partial_1", "aux_skip_0"])
def test_at_its_neutral_setting_it_is_the_full_wiring(wiring: Wiring) -> None:
    full, other = (w.edge(tuple(OPS), OPS, OpArgs(8)) for w in (Full(), wiring))
    x = torch.randn(2, 8, 4, 4)
    names = {name.removeprefix("mixed."): name for name in other.state_dict()}
    other.load_state_dict({names[name]: value for name, value in full.state_dict().items()})
    assert torch.equal(full(x, ROW), other(x, ROW))


def test_drop_path_drops_whole_samples_at_its_rate_and_keeps_the_mean() -> None:
    y = drop_path(torch.ones(20_000, 3), 0.3)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (y == y[:, :1]).all()
    assert (y[:, 0] == 0).double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert y.mean().item() == pytest.approx(1, abs=0.015)


def test_drop_path_spares_identities_and_follows_progress_in_training_alone() -> None:
    edge = Full(DropPath(Ramp(0.0, 1.0 - 1e-9))).edge(("skip_connect", "conv"), OPS, OpArgs(4))
    x, late = torch.ones(64, 4, 2, 2), Progress(999, 1000)
    assert torch.equal(edge(x, Row(None, (0,), late)), x)
    dropped = edge(x, Row(None, (1,), late)).flatten(1).abs().sum(1)
    assert (dropped == 0).double().mean() > 0.9
    assert (edge(x, Row(None, (1,), Progress(0, 1000))).flatten(1).abs().sum(1) > 0).all()
    assert (edge.eval()(x, Row(None, (1,), late)).flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("drop", [DropPath(0.0), DropPath(0.0, edge=True), SkipDropout(0.0), DropBlock(0.0)])
def test_at_rate_0_nothing_is_dropped_and_no_random_number_is_drawn(drop: Drop) -> None:
    plain, dropping = (w.edge(tuple(OPS), OPS, OpArgs(8)) for w in (Full(), Full(drop)))
    dropping.load_state_dict(plain.state_dict())
    x, before = torch.randn(2, 8, 9, 9), torch.get_rng_state()
    assert torch.equal(plain(x, ROW), dropping(x, ROW))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("drop", [kind() for kind in DROPS.values()], ids=list(DROPS))
def test_nothing_is_dropped_in_evaluation(drop: Drop) -> None:
    plain, dropping = (w.edge(tuple(OPS), OPS, OpArgs(8)).eval() for w in (Full(), Full(drop)))
    dropping.load_state_dict(plain.state_dict())
    x, row = torch.randn(2, 8, 9, 9), Row(ROW.weights, ROW.active, Progress(1, 2))
    assert torch.equal(plain(x, row), dropping(x, row))


@pytest.mark.parametrize("drop", [SkipDropout(0.5), DropBlock(0.5)], ids=["skip_dropout", "drop_block"])
def test_skips_are_dropped_from_and_convolutions_and_strided_skips_are_not(drop: Drop) -> None:
    x, half = torch.ones(4, 8, 9, 9), Progress(4, 10)
    edge = Full(drop).edge(("skip_connect", "conv"), OPS, OpArgs(8))
    skipped, conv = edge(x, Row(None, (0,), half)), edge(x, Row(None, (1,), half))
    assert (skipped == 0).any()
    assert torch.equal(conv, edge.eval()(x, Row(None, (1,), half)))
    strided = Full(drop).edge(("skip_connect",), OPS, OpArgs(8, 2))
    assert not (strided(x, Row(None, (0,), half)) == 0).any()


def test_drop_path_of_an_edge_drops_the_sum_of_its_operations_skips_included() -> None:
    edge = Full(DropPath(0.5, edge=True)).edge(("skip_connect", "conv"), OPS, OpArgs(4))
    y = edge(torch.ones(400, 4, 2, 2), Row(None, (0, 1), DONE)).flatten(1).abs().sum(1)
    assert (y == 0).double().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("shape", [(16, 16, 32, 32), (64, 16, 200)], ids=["2-D", "1-D"])
def test_drop_block_drops_blocks_at_about_its_rate_and_keeps_the_mean(shape: tuple[int, ...]) -> None:
    y = drop_block(torch.ones(shape), 0.05, 5)
    assert (y != 0).double().mean().item() == pytest.approx(0.95, abs=0.01)
    assert y.mean().item() == pytest.approx(1, abs=1e-5)
    row = (y[0, 0] == 0).reshape(-1, shape[-1]).any(0).int().tolist()
    runs = [len(run) for run in "".join(map(str, row)).split("0") if run]
    assert not runs or min(runs) >= 5


def test_a_block_is_cut_to_the_map_and_to_an_odd_side() -> None:
    assert drop_block(torch.ones(2, 3, 4, 4), 0.3, 7).shape == (2, 3, 4, 4)
    assert drop_block(torch.ones(2, 3, 1), 0.3, 7).shape == (2, 3, 1)


def test_the_auxiliary_skip_fades_and_is_gone_in_the_end() -> None:
    edge, x = AuxSkip().edge(tuple(OPS), OPS, OpArgs(8)), torch.randn(2, 8, 4, 4)
    inner = edge.mixed(x, ROW)
    half = edge(x, Row(ROW.weights, ROW.active, Progress(1, 2)))
    torch.testing.assert_close(half, inner + 0.5 * x)
    assert torch.equal(edge(x, ROW), inner)
