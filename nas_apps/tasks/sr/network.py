"""Networks that enlarge images: a tree of cells and up layers, and the exits its maps are read from
(arXiv:2101.06658)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError
from nas_apps.tasks.sr.cells import SRCell, Widths
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
        self.tail = nn.Sequential(nn.Conv2d(channels, 3 * shuffled**2, 3, padding=1), nn.PixelShuffle(shuffled))
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
        return cast(Tensor, total)


class Bicubic(nn.Module):
    """Bicubic enlargement by a whole number (Keys, a = -0.5; the border repeats), as MATLAB's without its rounding.

    One fixed convolution, which every exporter knows; torch's own has a = -0.75.
    """

    taps: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        offsets = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5  # of new pixels from an old one
        lines = _keys(offsets[:, None] - torch.arange(-2, 3))  # [s, 5]
        taps = torch.einsum("iy,jx->ijyx", lines, lines).reshape(-1, 1, 5, 5)
        self.scale = scale
        self.register_buffer("taps", taps.repeat(3, 1, 1, 1).float(), persistent=False)  # [3 * s * s, 1, 5, 5]

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        mixed = torch.amp.autocast_mode.is_autocast_available(device) and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if mixed else nullcontext():  # 8 bits are not enough for an image
            padded = functional.pad(x.to(self.taps), (2, 2, 2, 2), mode="replicate")
            return functional.pixel_shuffle(functional.conv2d(padded, self.taps, groups=3), self.scale)


def _keys(distance: Tensor) -> Tensor:
    d = distance.abs()
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def _up(channels: int, factor: int) -> nn.Module:
    """A plain convolution or, where it enlarges, one after the nearest neighbour and before a leaky ReLU."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    if factor == 1:
        return nn.Sequential(conv)
    return nn.Sequential(nn.Upsample(scale_factor=factor), conv, nn.LeakyReLU(0.2))
