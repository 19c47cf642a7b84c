"""How the candidates of one edge are run and summed.

A wiring builds the module of an edge; that module is called as `edge(x, row, *context)` with the `Row` of weights in
force, and returns one tensor of the shape of x (but for the stride).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.bounds import NOT_NEGATIVE, bounded
from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs, OpTable
from nas_apps.core.parts.drop import Drop, DropBlock, Edge
from nas_apps.core.parts.probe import probe
from nas_apps.core.progress import Progress, Ramp, value
from nas_apps.core.space import NONE, SKIP


class Row(NamedTuple):
    """One row of a draw: weights one by one (None: all 1), the options to run, where in the run this is, and the
    options that are not run and whose weights get a gradient all the same."""

    weights: tuple[Tensor, ...] | None
    active: tuple[int, ...]
    progress: Progress
    probed: tuple[int, ...] = ()

    def times(self, weight: Tensor) -> Row:
        """This row with every weight times another."""
        options = (*self.active, *self.probed)
        weights = {k: weight if self.weights is None else weight * self.weights[k] for k in options}
        return self._replace(weights=tuple(weights.get(k, weight) for k in range(max(options) + 1)))


class Wiring(Protocol):
    """Builds edges. `drop`: what is dropped from them at random in training mode."""

    @property
    def drop(self) -> Drop | None: ...

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        """The module of an edge with these candidates."""
        ...


class MixedOp(Edge):
    """The weighted sum of the active candidates.

    `none` is not run beside others, since it adds exactly nothing. `drop` may drop from an operation's output before it
    is weighted, and from the sum.
    """

    def __init__(self, candidates: dict[str, nn.Module], drop: Drop | None = None) -> None:
        super().__init__()
        self.ops = nn.ModuleDict(candidates)
        self._names, self._drop = tuple(candidates), drop

    def is_none(self, row: Row) -> bool:
        """Whether nothing is chosen here."""
        return all(self._names[k] == NONE for k in row.active)

    def forward(self, x: Tensor, row: Row, *context: Tensor) -> Tensor:
        total: Tensor | None = None
        for k in row.active:
            if self._names[k] == NONE:
                continue
            y = self._run(k, x, row, context)
            if row.weights is not None:
                y = row.weights[k] * y
            total = y if total is None else total + y
        if total is None:
            total = self.ops[NONE](x, *context)
        if row.probed and row.weights is not None:
            weights = {k: row.weights[k] for k in row.probed if self._names[k] != NONE}
            total = probe(total, weights, lambda k, x: self._run(k, x, row, context), x)
        return self._dropped(self, total, row.progress)

    def _run(self, k: int, x: Tensor, row: Row, context: tuple[Tensor, ...]) -> Tensor:
        op = self.ops[self._names[k]]
        return self._dropped(op, op(x, *context), row.progress)

    def _dropped(self, module: nn.Module, y: Tensor, progress: Progress) -> Tensor:
        return y if self._drop is None or not self.training else self._drop(module, y, progress)


@dataclass(frozen=True)
class Full:
    """Every candidate sees all channels (arXiv:1806.09055).

    >>> from nas_apps.core.progress import DONE
    >>> edge = Full().edge(("skip_connect",), {"skip_connect": lambda args: nn.Identity()}, OpArgs(channels=4))
    >>> edge(torch.ones(1, 4), Row(None, (0,), DONE))
    tensor([[1., 1., 1., 1.]])
    """

    drop: Drop | None = None

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        return _mixed(options, ops, args, self.drop)


@dataclass(frozen=True)
class Partial:
    """The candidates see the first 1/k of the channels; the others pass by, and a shuffle lets them take turns
    (arXiv:1907.05737, eq. 2, as in the code of the paper: a fixed first block, not a random mask).

    >>> shuffle(torch.arange(8.0)[None], groups=4, axis=1).tolist()
    [[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]]
    """

    k: int = 4
    drop: Drop | None = None

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        if self.k < 1 or args.channels % self.k:
            raise UserError(f"variant.wiring.k: {self.k} does not divide the {args.channels} channels of a cell")
        narrow = replace(args, channels=args.channels // self.k)
        inner = _mixed(options, ops, narrow, self.drop)
        return inner if self.k == 1 else _PartialEdge(inner, self.k, args)


class _PartialEdge(nn.Module):
    def __init__(self, mixed: MixedOp, k: int, args: OpArgs) -> None:
        super().__init__()
        self.mixed, self.k, self.args = mixed, k, args

    def forward(self, x: Tensor, row: Row, *context: Tensor) -> Tensor:
        axis, width = self.args.axis, self.args.channels // self.k
        part, rest = x.narrow(axis, 0, width), x.narrow(axis, width, self.args.channels - width)
        if self.args.stride > 1:  # max pooling whatever the candidates are; ceil, as they do, on odd sizes
            rest = functional.max_pool2d(rest, self.args.stride, ceil_mode=True)
        if self.mixed.is_none(row):  # an edge that is not there passes nothing by
            rest = torch.zeros_like(rest)
        return shuffle(torch.cat([self.mixed(part, row, *context), rest], axis), groups=self.k, axis=axis)


def shuffle(x: Tensor, *, groups: int, axis: int) -> Tensor:
    """Channels re-ordered so that each group of the result has some of every group of x."""
    axis = axis % x.ndim
    split = x.reshape(*x.shape[:axis], groups, -1, *x.shape[axis + 1 :])
    return split.transpose(axis, axis + 1).reshape(x.shape)


@dataclass(frozen=True)
class AuxSkip:
    """Beside the candidates, a skip that is no candidate, of weight `rate`, which ends at 0 (arXiv:2009.01027, eq. 4);
    where an operation can be a skip.

    >>> AuxSkip().rate(Progress(25, 50))
    0.5
    """

    rate: Ramp = Ramp(1.0, 0.0)
    drop: Drop | None = None

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "rate")
        if self.rate.end:
            raise ValueError(f"rate.end: got {self.rate.end}; allowed: 0, since the derived network has no such skip")

    def edge(self, options: tuple[str, ...], ops: OpTable, args: OpArgs) -> nn.Module:
        mixed = _mixed(options, ops, args, self.drop)
        return _AuxSkipEdge(mixed, ops[SKIP](args), self.rate) if SKIP in ops else mixed


class _AuxSkipEdge(nn.Module):
    def __init__(self, mixed: MixedOp, skip: nn.Module, rate: Ramp) -> None:
        super().__init__()
        self.mixed, self.skip, self._rate = mixed, skip, rate

    def forward(self, x: Tensor, row: Row, *context: Tensor) -> Tensor:
        y: Tensor = self.mixed(x, row, *context)
        rate = value(self._rate, row.progress)
        return y + rate * self.skip(x, *context) if rate else y


def _mixed(options: tuple[str, ...], ops: OpTable, args: OpArgs, drop: Drop | None) -> MixedOp:
    if isinstance(drop, DropBlock) and args.axis != 1:
        raise UserError(
            "variant.wiring.drop: 'drop_block' drops blocks of maps, channels first, and here they come last; "
            "allowed here: null, skip_dropout"
        )
    return MixedOp({name: ops[name](args) for name in options}, drop)


WIRINGS: dict[str, type[Wiring]] = {"aux_skip": AuxSkip, "full": Full, "partial": Partial}
