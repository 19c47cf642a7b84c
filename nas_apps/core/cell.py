"""Cells, and the two ways to fill the open places of a skeleton.

`Mixed` fills them with all candidates under the draw in force, `Fixed` with what a genotype keeps. Both build the same
modules under the same names, so what is trained is what was searched, and weights carry over by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.delayed import Delayed
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs, OpTable
from nas_apps.core.parts.wiring import Full, MixedOp, Row, Wiring
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.space import AFTER, NONE, Dag, Space, edge_choice, op_choice

Read = Callable[[], Row]


class Fill(Protocol):
    """How a skeleton's open places are filled."""

    def cell(self, name: str, dag: Dag, ops: OpTable, args: OpArgs) -> Cell:
        """A cell whose edges are the rows of the choice `<name>.op`."""
        ...

    def mix(self, name: str, row: int, ops: OpTable, args: OpArgs) -> nn.Module:
        """One place for an operation, decided by one row of the choice `name`; called as `place(x, *context)`."""
        ...

    def options(self, name: str, row: int) -> tuple[int, ...]:
        """The options of one row that can be in force, by number: what a skeleton that decides itself has to build."""
        ...

    def weights(self, name: str, row: int) -> Read:
        """A function that returns the row in force, for what a skeleton decides itself."""
        ...

    def delayed(self) -> Delayed:
        """The logits as they were, for a network that lags behind another."""
        ...


class Cell(nn.Module):
    """A directed acyclic graph of edges; a node is the sum of the edges into it, or what `after` makes of the sum.

    Called as `cell(*inputs, context=(...))`; returns the states of its nodes, of equal shape, as a list: how they
    become one output is the skeleton's affair. `context` (a mask, say) reaches every operation untouched. The stride of
    a cell acts on the edges from its inputs alone.
    """

    def __init__(
        self,
        dag: Dag,
        edges: dict[int, tuple[nn.Module, Read]],
        nodes: dict[int, Read],
        *,
        empty: nn.Module | None,
        after: nn.Module | None,
    ) -> None:
        super().__init__()
        self.dag, self.empty, self.after = dag, empty, after
        self.edges = nn.ModuleDict({str(index): edge for index, (edge, _) in edges.items()})
        self._rows = {index: read for index, (_, read) in edges.items()}
        self._nodes = nodes

    def forward(self, *inputs: Tensor, context: tuple[Tensor, ...] = ()) -> list[Tensor]:
        states = list(inputs)
        for target in self.dag.targets():
            y = self._node(target, states, context)
            states.append(y if self.after is None else self.after(y, *context))
        return states[self.dag.inputs :]

    def _node(self, target: int, states: list[Tensor], context: tuple[Tensor, ...]) -> Tensor:
        node = self._nodes[target]() if target in self._nodes else Row(None, tuple(range(target)), DONE)
        total: Tensor | None = None
        for source in node.active:
            index = self.dag.into(target)[source]
            row = self._rows[index]() if index in self._rows else None
            if row is None or not row.active:
                continue
            edge, weight = self.edges[str(index)], None if node.weights is None else node.weights[source]
            if weight is not None and isinstance(edge, MixedOp):  # one product a map, and not two
                row, weight = row.times(weight), None
            y = edge(states[source], row, *context)
            if weight is not None:
                y = weight * y
            total = y if total is None else total + y
        if total is not None:
            return total
        if self.empty is None:
            raise RuntimeError(f"node {target} has no input, and the operations of this space have no {NONE!r}")
        zeros: Tensor = self.empty(states[0], *context)
        return zeros


class _Place(nn.Module):
    def __init__(self, edge: nn.Module, read: Read) -> None:
        super().__init__()
        self.edge, self._read = edge, read

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        y: Tensor = self.edge(x, self._read(), *context)
        return y


class Mixed:
    """Every candidate is there, and runs when the draw in force says so."""

    def __init__(self, arch: Arch, wiring: Wiring) -> None:
        self._arch, self._wiring = arch, wiring

    def cell(self, name: str, dag: Dag, ops: OpTable, args: OpArgs) -> Cell:
        rows = self._arch.space[op_choice(name)].rows
        edges = {
            index: (
                self._wiring.edge(rows[index], ops, _at(source, dag, args)),
                self._arch.reader(op_choice(name), index),
            )
            for index, (source, _) in enumerate(dag.edges())
        }
        choices = {target: edge_choice(name, target) for target in dag.targets()}
        nodes = {target: self._arch.sources(c) for target, c in choices.items() if c in self._arch.space}
        return Cell(dag, edges, nodes, empty=_built(NONE, ops, args), after=_built(AFTER, ops, args))

    def mix(self, name: str, row: int, ops: OpTable, args: OpArgs) -> nn.Module:
        return _Place(self._wiring.edge(self._arch.space[name].rows[row], ops, args), self._arch.reader(name, row))

    def options(self, name: str, row: int) -> tuple[int, ...]:
        return tuple(range(len(self._arch.space[name].rows[row])))

    def weights(self, name: str, row: int) -> Read:
        return self._arch.reader(name, row)

    def delayed(self) -> Delayed:
        return Delayed(self._arch)


class Fixed:
    """What a genotype keeps is there and nothing else.

    Args:
        progress: where the run stands, for a wiring that asks; a finished run without one.
    """

    def __init__(
        self,
        space: Space,
        genotype: Genotype,
        wiring: Wiring | None = None,
        progress: Callable[[], Progress] = lambda: DONE,
    ) -> None:
        self._space, self._kept = space, genotype.validate(space).kept
        self._wiring, self._progress = wiring or Full(), progress

    def cell(self, name: str, dag: Dag, ops: OpTable, args: OpArgs) -> Cell:
        kept = self._kept[op_choice(name)]
        edges = {
            index: (self._wiring.edge(kept[index], ops, _at(source, dag, args)), self._reader(len(kept[index])))
            for index, (source, _) in enumerate(dag.edges())
            if kept[index] and kept[index] != (NONE,)
        }
        return Cell(dag, edges, {}, empty=_built(NONE, ops, args), after=_built(AFTER, ops, args))

    def mix(self, name: str, row: int, ops: OpTable, args: OpArgs) -> nn.Module:
        kept = self._kept[name][row]
        if not kept:
            raise UserError(
                f"genotype: {name}[{row}]: keeps nothing; allowed: {', '.join(self._space[name].rows[row])}"
            )
        return _Place(self._wiring.edge(kept, ops, args), self._reader(len(kept)))

    def options(self, name: str, row: int) -> tuple[int, ...]:
        options, kept = self._space[name].rows[row], self._kept[name][row]
        return tuple(k for k, option in enumerate(options) if option in kept)

    def weights(self, name: str, row: int) -> Read:
        active = self.options(name, row)
        return lambda: Row(None, active, self._progress())

    def delayed(self) -> Delayed:
        return Delayed()

    def _reader(self, number: int) -> Read:
        active = tuple(range(number))
        return lambda: Row(None, active, self._progress())


def _at(source: int, dag: Dag, args: OpArgs) -> OpArgs:
    return args if source < dag.inputs else replace(args, stride=1)


def _built(name: str, ops: OpTable, args: OpArgs) -> nn.Module | None:
    return ops[name](args) if name in ops else None
