"""A cell of an up-sampler: operations one after another, of widths that are chosen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nas_apps.core.cell import Fill, Read
from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.wiring import Row
from nas_apps.tasks.sr.ops import Sizes, Slim, op_table
from nas_apps.tasks.sr.spaces import OP, WIDTH, SRSpace

Widths = Literal["sampled", "max", "min"]
"""Which widths a super-net runs with: those of the draw in force, or the widest or narrowest of all."""


class Width:
    """The channels between two operations: one number, or what a row of a choice says.

    options: all widths. built: those that can be in force, by number.
    """

    def __init__(self, options: Sizes, built: tuple[int, ...] = (0,), read: Read | None = None) -> None:
        self.sizes, self._options, self._read = tuple(options[k] for k in built), options, read

    def now(self, widths: Widths) -> tuple[int, Tensor | None]:
        """The channels to compute, and what these are to be multiplied by: `[C, 1, 1]`, `[1]`, or None for nothing.

        Of several widths in force the widest is computed, and each channel weighs as much as the widths it is part of.
        """
        if self._read is None or widths != "sampled":
            return min(self.sizes) if widths == "min" else max(self.sizes), None
        row = self._read()
        return max(self._options[k] for k in row.active), None if row.weights is None else self._gate(row, row.weights)

    def _gate(self, row: Row, weights: tuple[Tensor, ...]) -> Tensor:
        order = sorted(row.active, key=lambda k: -self._options[k])
        if len(order) == 1:
            return weights[order[0]]
        total, parts = torch.zeros_like(weights[0]), list[Tensor]()
        for k, below in zip(order, (*(self._options[k] for k in order[1:]), 0), strict=True):
            total = total + weights[k]
            parts.insert(0, total.expand(self._options[k] - below))
        return torch.cat(parts)[:, None, None]


class SRCell(nn.Module):
    """`x + 0.2 * y`, with y what the operations make of x (the residual scaling of arXiv:1809.00219).

    Called as `cell(x, widths)`.
    """

    def __init__(self, fill: Fill, space: SRSpace, cell: int) -> None:
        super().__init__()
        whole = Width((space.channels,))
        rows = space.rows(WIDTH, cell)
        outs = [*(_width(fill, space, row) for row in rows), whole]
        self.places = nn.ModuleList(
            fill.mix(OP, row, op_table(before.sizes, out.sizes, space.channels), OpArgs(space.channels))
            for row, before, out in zip(space.rows(OP, cell), [whole, *outs], outs, strict=False)
        )
        self._channels, self._outs = space.channels, outs
        self._slims = any(len(out.sizes) > 1 for out in outs)

    def forward(self, x: Tensor, widths: Widths = "sampled") -> Tensor:
        y, inputs = x, self._channels
        for place, out in zip(self.places, self._outs, strict=True):
            outputs, gate = out.now(widths)
            y = place(y, Slim(inputs, outputs)) if self._slims else place(y)
            if gate is not None:
                y = (gate * y).to(y.dtype)  # under autocast a weight would make it wider
            inputs = outputs
        # Where operations run in bfloat16, the sums between cells do not: with weights of 1 as without them.
        return torch.add(x.to(torch.promote_types(x.dtype, torch.float32)), y, alpha=0.2)


def _width(fill: Fill, space: SRSpace, row: int) -> Width:
    if not space.has_widths:
        return Width(space.width_options)
    built = fill.options(WIDTH, row)
    if not built:
        raise UserError(f"genotype: {WIDTH}[{row}]: keeps nothing; allowed: {', '.join(map(str, space.width_options))}")
    return Width(space.width_options, built, fill.weights(WIDTH, row))
