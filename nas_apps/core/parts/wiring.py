"""How the candidates of one edge are run and summed.

A wiring builds the module of an edge; that module is called as `edge(x, row, *context)` with the `Row` of weights in
force, and returns one tensor of the shape of x (but for the stride).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.bounds import BELOW_ONE, bounded
from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs, OpTable
from nas_apps.core.progress import Progress, Ramp, value
from nas_apps.core.space import NONE


class Row(NamedTuple):
    """One row of a draw: weights one by one (None: all 1), the options to run, and where in the run this is."""

    weights: tuple[Tensor, ...] | None
    active: tuple[int, ...]
    progress: Progress


class Wiring(Protocol):
    """Builds edges."""

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        """The module of an edge with these candidates."""
        ...


Treat = Callable[[nn.Module, Tensor, Progress], Tensor]


class MixedOp(nn.Module):
    """The weighted sum of the active candidates.

    `none` is not run beside others, since it adds exactly nothing. `treat(op, y, progress)` may change an operation's
    output before it is weighted.
    """

    def __init__(self, candidates: dict[str, nn.Module], treat: Treat | None = None) -> None:
        super().__init__()
        self.ops = nn.ModuleDict(candidates)
        self._names, self._treat = tuple(candidates), treat

    def is_none(self, row: Row) -> bool:
        """Whether nothing is chosen here."""
        return all(self._names[k] == NONE for k in row.active)

    def forward(self, x: Tensor, row: Row, *context: Tensor) -> Tensor:
        total: Tensor | None = None
        for k in row.active:
            if self._names[k] == NONE:
                continue
            op = self.ops[self._names[k]]
            y = op(x, *context)
            if self._treat is not None:
                y = self._treat(op, y, row.progress)
            if row.weights is not None:
                y = row.weights[k] * y
            total = y if total is None else total + y
        if total is not None:
            return total
        zeros: Tensor = self.ops[NONE](x, *context)
        return zeros


@dataclass(frozen=True)
class Full:
    """Every candidate sees all channels (arXiv:1806.09055).

    >>> from nas_apps.core.progress import DONE
    >>> edge = Full().edge(("skip_connect",), {"skip_connect": lambda args: nn.Identity()}, OpArgs(channels=4))
    >>> edge(torch.ones(1, 4), Row(None, (0,), DONE))
    tensor([[1., 1., 1., 1.]])
    """

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        return MixedOp({name: ops[name](args) for name in options})


@dataclass(frozen=True)
class Partial:
    """The candidates see the first 1/k of the channels; the others pass by, and a shuffle lets them take turns
    (arXiv:1907.05737, eq. 2, as in the code of the paper: a fixed first block, not a random mask).

    >>> shuffle(torch.arange(8.0)[None], groups=4, axis=1).tolist()
    [[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]]
    """

    k: int = 4

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        if self.k < 1 or args.channels % self.k:
            raise UserError(f"variant.wiring.k: {self.k} does not divide the {args.channels} channels of a cell")
        narrow = replace(args, channels=args.channels // self.k)
        inner = MixedOp({name: ops[name](narrow) for name in options})
        return inner if self.k == 1 else _PartialEdge(inner, self.k, args)


class _PartialEdge(nn.Module):
    def __init__(self, mixed: MixedOp, k: int, args: OpArgs) -> None:
        super().__init__()
        self.mixed, self.k, self.args = mixed, k, args

    def forward(self, x: Tensor, row: Row, *context: Tensor) -> Tensor:
        axis, width = self.args.axis, self.args.channels // self.k
        if self.mixed.is_none(row):  # an edge that is not there passes nothing by
            zeros: Tensor = self.mixed(x, row, *context)
            return zeros
        part, rest = x.narrow(axis, 0, width), x.narrow(axis, width, self.args.channels - width)
        if self.args.stride > 1:  # max pooling whatever the candidates are; ceil, as they do, on odd sizes
            rest = functional.max_pool2d(rest, self.args.stride, ceil_mode=True)
        return shuffle(torch.cat([self.mixed(part, row, *context), rest], axis), groups=self.k, axis=axis)


def shuffle(x: Tensor, *, groups: int, axis: int) -> Tensor:
    """Channels re-ordered so that each group of the result has some of every group of x."""
    axis = axis % x.ndim
    split = x.reshape(*x.shape[:axis], groups, -1, *x.shape[axis + 1 :])
    return split.transpose(axis, axis + 1).reshape(x.shape)


@dataclass(frozen=True)
class DropPath:
    """Each operation's output is dropped, a sample at a time, with probability `rate`; an identity never is, a strided
    skip is (arXiv:1605.07648 as used in arXiv:1806.09055). Only in training mode.

    >>> drop_path(torch.ones(2, 3), 0.0)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """

    rate: float | Ramp = Ramp(0.0, 0.2)

    def __post_init__(self) -> None:
        bounded(self, BELOW_ONE, "rate")

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        def treat(op: nn.Module, y: Tensor, progress: Progress) -> Tensor:
            if not op.training or isinstance(op, nn.Identity):
                return y
            return drop_path(y, value(self.rate, progress))

        return MixedOp({name: ops[name](args) for name in options}, treat)


def drop_path(y: Tensor, rate: float) -> Tensor:
    """Whole samples of y set to zero with probability `rate`, the others scaled by 1 / (1 - rate)."""
    if rate == 0.0:
        return y
    keep = torch.rand(len(y), *[1] * (y.ndim - 1), device=y.device) >= rate
    return y * (keep.to(y.dtype) / (1 - rate))


WIRINGS: dict[str, type[Wiring]] = {"full": Full, "partial": Partial, "drop_path": DropPath}
