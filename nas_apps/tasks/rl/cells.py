"""A cell of the networks that act: from one map to one map."""

from __future__ import annotations

from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from nas_apps.core.cell import Cell

Output = Literal["concat", "sum", "average", "weighted_sum", "last_node"]


class RLCell(nn.Module):
    """A cell with a 1x1 convolution before it where the width changes, and what makes one map of its nodes.

    "concat" ends with a 1x1 convolution. The weights of "weighted_sum" are the cell's own: a softmax, at first uniform.
    The code of arXiv:2106.02229 shares them among the cells of a kind and keeps them as constants in the final network,
    where ours learn anew, since a genotype holds options only.
    """

    def __init__(self, inner: Cell, inputs: int, channels: int, output: Output) -> None:
        super().__init__()
        nodes = inner.dag.nodes
        self.match = nn.Conv2d(inputs, channels, 1) if inputs != channels else nn.Identity()
        self.inner, self.output = inner, output
        self.join = nn.Conv2d(nodes * channels, channels, 1) if output == "concat" else nn.Identity()
        self.weight = nn.Parameter(torch.zeros(nodes)) if output == "weighted_sum" else None

    def forward(self, x: Tensor) -> Tensor:
        states: list[Tensor] = self.inner(self.match(x))
        if self.output == "last_node":
            return states[-1]
        if self.output == "concat":
            joined: Tensor = self.join(torch.cat(states, 1))
            return joined
        if self.weight is not None:
            states = [w * state for w, state in zip(self.weight.softmax(0).chunk(len(states)), states, strict=True)]
        total: Tensor = reduce(torch.add, states)
        return total / len(states) if self.output == "average" else total
