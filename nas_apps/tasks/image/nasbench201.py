"""The skeleton of NAS-Bench-201 networks (arXiv:2001.00326): three stages of cells, residual blocks between them."""

from __future__ import annotations

from torch import Tensor, nn

from nas_apps.core.cell import Cell, Fill
from nas_apps.core.op import OpArgs
from nas_apps.tasks.image.ops import relu_conv_norm
from nas_apps.tasks.image.skeleton import Feature, Network, Skeleton, Stem, refuse_extras
from nas_apps.tasks.image.spaces import ImageSpace


def nasbench201_skeleton(space: ImageSpace, fill: Fill, settings: Network, *, in_chans: int) -> Skeleton:
    """The modules of a NAS-Bench-201 network, `settings.cells` cells in each stage."""
    refuse_extras(settings, space.skeleton)
    channels = settings.channels
    stem = nn.Sequential(nn.Conv2d(in_chans, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
    cells: list[nn.Module] = []
    features = []
    for stage in range(3):
        if stage:
            cells.append(ResidualBlock(channels, 2 * channels))
            channels *= 2
        args = OpArgs(channels, affine=settings.affine is not False)
        cells += [LastNode(fill.cell("cell", space.dag, space.ops, args)) for _ in range(settings.cells)]
        features.append(Feature(len(cells) - 1, channels, 2**stage))
    return Skeleton(Stem(stem), cells, nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()), features)


class LastNode(nn.Module):
    """A cell of one input whose output is its last node."""

    def __init__(self, inner: Cell) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        nodes: list[Tensor] = self.inner(last)
        return nodes[-1]


class ResidualBlock(nn.Module):
    """Half the resolution, with a shortcut. Its norms have weights in a super-net too, as in the benchmark's code."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            relu_conv_norm(inputs, outputs, kernel=3, stride=2), relu_conv_norm(outputs, outputs, kernel=3)
        )
        # Rounds up on odd sizes, as the convolutions do.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        total: Tensor = self.main(last) + self.shortcut(last)
        return total
