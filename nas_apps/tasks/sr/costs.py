"""What an up-sampler costs: parameters and multiply-adds of the network that some odds promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nas_apps.core.price import expectation
from nas_apps.core.space import Space
from nas_apps.tasks.sr.network import up_factor
from nas_apps.tasks.sr.ops import cost_of
from nas_apps.tasks.sr.spaces import EXIT, OP, WIDTH, SRSpace

_RGB = 3


@dataclass(frozen=True)
class TreePrice:
    """The expected cost of the network whose exit, operations and widths are drawn from independent odds; exact, and at
    one-hot weights the network's own.

    constant: of the stem and, from a map of any exit, the tail. ups: of each node that is an up layer, 0 for others.
    pixels: how often the weights of each node's cells count, 1 for parameters.
    """

    of: SRSpace
    constant: float
    ups: tuple[float, ...]
    pixels: tuple[float, ...]

    discrete = False

    @cached_property
    def space(self) -> Space:
        return self.of.choices()

    @property
    def reference(self) -> float:
        uniform = {name: torch.ones(choice.shape, dtype=torch.float64) for name, choice in self.space.items()}
        return float(self(expectation(self.space, uniform)))

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        odds = weights[EXIT][..., 0, :].double()
        reach, owners, pixels, ups = (table.to(odds.device) for table in self._tables)
        reached = odds @ reach  # [..., N]: how likely a node is part of the network
        cells = torch.einsum("...c,nc->...n", self._cells(weights), owners)
        return self.constant + (reached * (ups + pixels * cells)).sum(-1)

    def _cells(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The expected weights of each cell, `[..., cells]`."""
        space, ops = self.of, weights[OP].double()
        ops = _of_cells(ops, space.ops_per_cell)  # [..., cells, K, O]
        whole = torch.zeros_like(self._costs[0, 0], device=ops.device)  # [W + 1]: the last is that of all channels
        whole[-1] = 1
        whole = whole.expand(*ops.shape[:-2], 1, -1)
        inner = ops.new_ones(*ops.shape[:-2], space.ops_per_cell - 1, len(space.width_options))  # of one width
        if space.has_widths:
            inner = _of_cells(weights[WIDTH].double(), space.ops_per_cell - 1)  # [..., cells, K - 1, W]
        inner = torch.cat([inner, torch.zeros_like(inner[..., :1])], -1)
        widths = torch.cat([whole, inner, whole], -2)  # [..., cells, K + 1, W + 1]
        costs = self._costs.to(ops.device)
        return torch.einsum("...ko,...ki,...kj,oij->...", ops, widths[..., :-1, :], widths[..., 1:, :], costs)

    @cached_property
    def _costs(self) -> Tensor:
        """Of each operation, by the widths in and out: `[O, W + 1, W + 1]`."""
        sizes = (*self.of.width_options, self.of.channels)
        costs = [[[cost_of(op, i, j) for j in sizes] for i in sizes] for op in self.of.ops]
        return torch.tensor(costs, dtype=torch.float64)

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which nodes `[X, N]` an exit needs, which cells `[N, cells]` a node has, `pixels` and `ups` `[N]`."""
        tree = self.of.tree
        reach = torch.zeros(len(tree.exits), len(tree.nodes), dtype=torch.float64)
        owners = torch.zeros(len(tree.nodes), tree.num_cells, dtype=torch.float64)
        for k, end in enumerate(tree.exits):
            reach[k, list(tree.path(end))] = 1
        for n, node in enumerate(tree.nodes):
            owners[n, list(node.cells)] = 1
        return reach, owners, reach.new_tensor(self.pixels), reach.new_tensor(self.ups)


def prices(space: SRSpace, scale: int, size: tuple[int, int]) -> dict[str, TreePrice]:
    """The prices `params` and `macs` of a space's networks, for one image of `size`, (H, W), to be enlarged."""
    tree, channels, pixels = space.tree, space.channels, size[0] * size[1]
    factor = up_factor(tree, scale)
    grown = tuple(float(factor ** (2 * node.path.count("u"))) for node in tree.nodes)  # pixels of a map to the image's
    up, is_up = 9 * channels**2, [not node.cells for node in tree.nodes]
    outputs = _RGB * (scale**2 if tree.variant == "B" else 1)
    stem, tail = 9 * _RGB * channels, 9 * channels * outputs
    at_end = grown[tree.exits[0]]  # the same for all exits
    return {
        "params": TreePrice(
            space,
            stem + channels + tail + outputs,
            tuple(float((up + channels) * u) for u in is_up),
            (1.0,) * len(grown),
        ),
        "macs": TreePrice(
            space,
            pixels * (stem + at_end * tail),
            tuple(pixels * g * up * u for g, u in zip(grown, is_up, strict=True)),
            tuple(pixels * g for g in grown),
        ),
    }


def _of_cells(table: Tensor, rows: int) -> Tensor:
    return table.reshape(*table.shape[:-2], -1, rows, table.shape[-1])
