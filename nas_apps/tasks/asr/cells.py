"""A block of a speech encoder: from `[B, T, d]` to the same shape, called as `block(x, mask, pos_emb)`."""

from __future__ import annotations

from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from nas_apps.core.cell import Cell
from nas_apps.core.op import Zero
from nas_apps.tasks.asr.ops import LayerNorm

Output = Literal["last", "mean"]


class GraphCell(nn.Module):
    """A cell and a norm of its last node, or of the mean of its nodes.

    Where the last node is the output, operations that do not lead there are taken out: they would be trained by nobody,
    which training on several devices does not forgive. In a super-net all of them lead there.
    """

    def __init__(self, inner: Cell, width: int, output: Output) -> None:
        super().__init__()
        self.inner, self.norm, self.output = inner, LayerNorm(width), output
        for edge in _loose(inner) if output == "last" else ():
            inner.edges[edge] = Zero()

    def forward(self, x: Tensor, mask: Tensor, pos_emb: Tensor) -> Tensor:
        states: list[Tensor] = self.inner(x, context=(mask, pos_emb))
        y = states[-1] if self.output == "last" else reduce(torch.add, states)  # a norm makes no more of their mean
        normed: Tensor = self.norm(y)
        return normed


class ModuleCell(nn.Module):
    """Modules one after the other, and a norm."""

    def __init__(self, places: list[nn.Module], width: int) -> None:
        super().__init__()
        self.places, self.norm = nn.ModuleList(places), LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor, pos_emb: Tensor) -> Tensor:
        for place in self.places:
            x = place(x, mask, pos_emb)
        normed: Tensor = self.norm(x)
        return normed


def _loose(cell: Cell) -> list[str]:
    """The edges of a cell from which no path leads to its last node."""
    *_, last = cell.dag.targets()
    leading, loose = {last}, []
    for target in reversed(cell.dag.targets()):
        for source, index in enumerate(cell.dag.into(target)):
            if str(index) not in cell.edges:
                continue
            if target in leading:
                leading.add(source)
            else:
                loose.append(str(index))
    return loose
