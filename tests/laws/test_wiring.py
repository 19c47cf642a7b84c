"""The laws of wirings: every part in the table is held to them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_apps.core.op import OpArgs
from nas_apps.core.parts.wiring import WIRINGS, DropPath, Full, Partial, Row, Wiring, drop_path
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


@pytest.mark.parametrize("wiring", [Partial(1), DropPath(0.0)], ids=["partial_1", "drop_path_0"])
def test_at_its_neutral_setting_it_is_the_full_wiring(wiring: Wiring) -> None:
    full, other = (w.edge(tuple(OPS), OPS, OpArgs(8)) for w in (Full(), wiring))
    x = torch.randn(2, 8, 4, 4)
    other.load_state_dict(full.state_dict())
    assert torch.equal(full(x, ROW), other(x, ROW))


def test_drop_path_drops_whole_samples_at_its_rate_and_keeps_the_mean() -> None:
    y = drop_path(torch.ones(20_000, 3), 0.3)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (y == y[:, :1]).all()
    assert (y[:, 0] == 0).double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert y.mean().item() == pytest.approx(1, abs=0.015)


def test_drop_path_spares_identities_and_follows_progress_in_training_alone() -> None:
    edge = DropPath(Ramp(0.0, 1.0 - 1e-9)).edge(("skip_connect", "conv"), OPS, OpArgs(4))
    x, late = torch.ones(64, 4, 2, 2), Progress(999, 1000)
    assert torch.equal(edge(x, Row(None, (0,), late)), x)
    dropped = edge(x, Row(None, (1,), late)).flatten(1).abs().sum(1)
    assert (dropped == 0).double().mean() > 0.9
    assert (edge(x, Row(None, (1,), Progress(0, 1000))).flatten(1).abs().sum(1) > 0).all()
    assert (edge.eval()(x, Row(None, (1,), late)).flatten(1).abs().sum(1) > 0).all()
