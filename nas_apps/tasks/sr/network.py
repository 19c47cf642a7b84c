"""Networks that enlarge images: a tree of cells and up layers, and the exits its maps are read from
(arXiv:2101.06658)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError
from nas_apps.tasks.sr.cells import SRCell, Widths
from nas_apps.tasks.sr.resize import Bicubic
from nas_apps.tasks.sr.spaces import EXIT, SRSpace
from nas_apps.tasks.sr.tree import Tree

SCALES = (2, 3, 4)
_FACTORS = {(2, 1): 2, (3, 1): 3, (4, 2): 2}  # scale and number of ups -> what each up of the variant A enlarges by


@dataclass(frozen=True)
class Network:
    """The settings of a network; its sizes are the space's.

    global_skip: the network adds to the bicubic enlargement. Without, the output is (tanh + 1) / 2, as the paper's.
    """

    global_skip: bool = True


def up_factor(tree: Tree, scale: int) -> int:
    """What each up layer enlarges by; a UserError for a scale that a tree cannot end at.

    >>> up_factor(Tree("A"), 4), up_factor(Tree("B"), 3)
    (2, 1)
    """
    if scale not in SCALES:
        raise UserError(f"scale: got {scale}; allowed: {', '.join(map(str, SCALES))}")
    if tree.variant == "B":
        return 1
    if (scale, tree.ups) not in _FACTORS:
        allowed = "; ".join(f"scale {s} with ups {ups}" for s, ups in _FACTORS)
        raise UserError(f"scale: got {scale} with tree.ups {tree.ups}; allowed, in the variant A: {allowed}")
    return _FACTORS[scale, tree.ups]


class Upscaler(nn.Module):
    """Images `[B, 3, H, W]` in 0 .. 1 to images `[B, 3, scale * H, scale * W]`, not clamped.

    Only what leads to an exit in force is computed. widths: see `Widths`.
    """

    def __init__(self, fill: Fill, space: SRSpace, settings: Network, scale: int) -> None:
        super().__init__()
        factor, channels, self._tree = up_factor(space.tree, scale), space.channels, space.tree
        nodes, exits = self._tree.nodes, self._tree.exits
        there = self._tree.needed(exits[k] for k in fill.options(EXIT, 0))
        if not there:
            raise UserError(f"genotype: {EXIT}[0]: keeps nothing; allowed: {', '.join(nodes[n].path for n in exits)}")
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.cells = nn.ModuleDict({str(cell): SRCell(fill, space, cell) for n in there for cell in nodes[n].cells})
        self.ups = nn.ModuleDict({nodes[n].path: _up(channels, factor) for n in there if not nodes[n].cells})
        shuffled = scale if space.tree.variant == "B" else 1
        conv = nn.Conv2d(channels, 3 * shuffled**2, 3, padding=1)
        # Named after what it makes of a pixel: weights of another scale are not a part of these, nor these of them.
        self.tail = nn.Sequential(OrderedDict({f"x{shuffled}": conv, "shuffle": nn.PixelShuffle(shuffled)}))
        self.bicubic = Bicubic(scale) if settings.global_skip else None
        self.scale, self._read = scale, fill.weights(EXIT, 0)

    def forward(self, x: Tensor, widths: Widths = "sampled") -> Tensor:
        y: Tensor = self.tail(self._features(self.stem(x), widths))
        return (y.tanh() + 1) / 2 if self.bicubic is None else y + self.bicubic(x)

    def _features(self, stem: Tensor, widths: Widths) -> Tensor:
        """The sum over the exits in force."""
        row = self._read()
        weights = {self._tree.exits[k]: None if row.weights is None else row.weights[k] for k in row.active}
        needed = self._tree.needed(weights)
        last = {self._tree.nodes[n].parent: n for n in needed}  # of the nodes that read a map
        maps, total = {-1: stem}, None
        for n in needed:
            node = self._tree.nodes[n]
            y = maps.pop(node.parent) if last[node.parent] == n else maps[node.parent]
            for cell in node.cells:
                y = self.cells[str(cell)](y, widths)
            if not node.cells:
                y = self.ups[node.path](y)
            if n in last:
                maps[n] = y
            if n in weights:
                weight = weights[n]
                part = y if weight is None else weight * y
                total = part if total is None else total + part
        return cast(Tensor, total).to(stem.dtype)


def _up(channels: int, factor: int) -> nn.Module:
    """A plain convolution or, where it enlarges, one after the nearest neighbour and before a leaky ReLU."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    if factor == 1:
        return nn.Sequential(conv)
    return nn.Sequential(nn.Upsample(scale_factor=factor), conv, nn.LeakyReLU(0.2))
