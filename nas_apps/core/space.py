"""What may be chosen.

A `Choice` is a table of decisions; a space is several of them by name; a `Dag` is the topology of a cell, whose edges
are the rows of the choice of the cell's operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

NONE = "none"
"""The option that stands for "nothing here": it computes zero, and no operation is run for it."""

AFTER = "after"
"""Not an option: the name, in a table of operations, of what each node's sum goes through."""

SKIP = "skip_connect"
"""The option that passes its input on: the one that collapsed searches are full of."""


@dataclass(frozen=True)
class Dag:
    """A cell's topology: `inputs` states come in, then each of `nodes` sees all states before it.

    `keep` is the number of edges into each node of a derived cell; with None every edge stays, and "none" is an option
    like the others, as in NAS-Bench-201.

    Edges are numbered node by node, and within a node by source: the order of the rows of `<cell>.op`.

    >>> Dag(inputs=1, nodes=2).edges()
    ((0, 1), (0, 2), (1, 2))
    """

    inputs: int
    nodes: int
    keep: int | None = None

    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of each edge; states 0 .. inputs - 1 are the cell's inputs."""
        return tuple((source, target) for target in self.targets() for source in range(target))

    def targets(self) -> range:
        """The states that the cell computes."""
        return range(self.inputs, self.inputs + self.nodes)

    def into(self, target: int) -> range:
        """The edges that end in `target`: edge `into(target)[j]` comes from state j."""
        first = sum(range(self.inputs, target))
        return range(first, first + target)


@dataclass(frozen=True)
class Choice:
    """A table of decisions: `rows[i]` are the options of decision i. Rows may differ in options, not in their number.

    `kind` says what is decided ("op", "edge", "parent", ...): a relaxation is chosen for each kind. `dag` is there when
    the rows are the edges of a cell. `keep` is how many options of each row a genotype keeps, where the space says so:
    a choice of the kind "parent" has one row, of the states that one node may be computed from, and keeps `keep`.
    `parents` is there when the options are the nodes of a tree: option k extends option `parents[k]`, an earlier one;
    -1 at a root. A choice of the kind "exit" says after which of them a network ends.

    >>> Choice.uniform(("skip_connect", "conv"), rows=3).shape
    (3, 2)
    """

    rows: tuple[tuple[str, ...], ...]
    kind: str = "op"
    dag: Dag | None = None
    keep: int | None = None
    parents: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.rows or not self.rows[0]:
            raise ValueError("a choice needs at least one row and one option")
        if len({len(row) for row in self.rows}) > 1:
            raise ValueError(f"rows of one choice have the same number of options, got {[len(r) for r in self.rows]}")
        for index, row in enumerate(self.rows):
            if len(set(row)) < len(row):
                raise ValueError(f"row {index} names an option twice: {row}")
        if self.keep is not None and not 1 <= self.keep <= len(self.rows[0]):
            raise ValueError(f"keep: 1 to {len(self.rows[0])}, the options of a row, got {self.keep}")
        if self.parents is not None and len(self.parents) != len(self.rows[0]):
            raise ValueError(f"parents: one for each of {len(self.rows[0])} options, got {len(self.parents)}")
        for k, parent in enumerate(self.parents or ()):
            if not -1 <= parent < k:
                raise ValueError(f"parents[{k}]: an option before it, or -1, got {parent}")

    @classmethod
    def uniform(cls, options: tuple[str, ...], rows: int, kind: str = "op") -> Choice:
        """The same options in each of `rows` decisions."""
        return cls((options,) * rows, kind)

    @property
    def shape(self) -> tuple[int, int]:
        """`(R, O)`: decisions and options of each."""
        return len(self.rows), len(self.rows[0])


Space = Mapping[str, Choice]


def cell_choices(name: str, dag: Dag, rows: tuple[tuple[str, ...], ...], *, edges: int = 0) -> dict[str, Choice]:
    """The decisions of a cell called `name`, with `rows[e]` the options of edge e.

    `<name>.op` has a row an edge. With `edges` of 1, each node gets a table of one row, `<name>.edge.<target>`, whose
    options are the states it may be computed from ("0", "1", ...); of 2, the pairs of them ("0+1", ...).
    """
    if len(rows) != len(dag.edges()):
        raise ValueError(f"{name}: {len(rows)} rows for {len(dag.edges())} edges")
    table = {op_choice(name): Choice(rows, dag=dag)}
    if edges:
        sources = {
            target: tuple("+".join(map(str, group)) for group in combinations(range(target), min(edges, target)))
            for target in dag.targets()
        }
        table |= {edge_choice(name, target): Choice((row,), "edge") for target, row in sources.items()}
    return table


def states(option: str) -> tuple[int, ...]:
    """The states that an option of a choice of edges holds.

    >>> states("0+2")
    (0, 2)
    """
    return tuple(map(int, option.split("+")))


def narrowed(space: Space, keep: Callable[[str, int, tuple[str, ...]], tuple[str, ...]]) -> dict[str, Choice]:
    """The space in which row r of the choice `name` has the options `keep(name, r, options)`; of kind "op" alone."""
    return {
        name: replace(c, rows=tuple(keep(name, r, row) for r, row in enumerate(c.rows))) if c.kind == "op" else c
        for name, c in space.items()
    }


def widened(tables: Mapping[str, Tensor], narrow: Space, wide: Space) -> dict[str, Tensor]:
    """Weights `[..., R, O]` of a narrowed space over the options of the wider one: 0 for an option that is gone."""
    found = {}
    for name, choice in wide.items():
        table, at = tables[name], columns(narrow[name], choice).to(tables[name].device)
        zeros = table.new_zeros(*table.shape[:-1], choice.shape[1])
        found[name] = zeros.scatter(-1, at.expand(table.shape), table)
    return found


def columns(narrow: Choice, wide: Choice) -> Tensor:
    """Where the options of a narrower choice are in a wider one, `[R, O]`."""
    pairs = zip(narrow.rows, wide.rows, strict=True)
    return torch.tensor([[options.index(option) for option in row] for row, options in pairs])


def main_cell(space: Space) -> str | None:
    """The choice of operations of the cell that a network is mostly made of: the first there is."""
    return next((name for name, choice in space.items() if choice.dag is not None), None)


def decided(space: Space) -> dict[str, Choice]:
    """The choices a genotype decides: all but those of edges, which follow from the operations that are kept."""
    return {name: choice for name, choice in space.items() if choice.kind != "edge"}


def op_choice(cell: str) -> str:
    """The name of the choice of operations of a cell."""
    return f"{cell}.op"


def edge_choice(cell: str, target: int) -> str:
    """The name of the choice of incoming edges of one node of a cell."""
    return f"{cell}.edge.{target}"
