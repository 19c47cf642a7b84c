"""The search spaces of arXiv:2106.02229: sets of operations by name, and the skeleton whose cells they fill.

The operations and their order are the released code's; the names "classic" and "micro" are the paper's as we recall
them, and the code's sets for debugging have names of ours. Its space of recurrent cells is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas_apps.core.bounds import COUNT, bounded
from nas_apps.core.errors import UserError, unknown
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import NONE, SKIP, Choice, Dag, Space, cell_choices, op_choice
from nas_apps.tasks.rl.ops import OPS

Name = Literal["standard", "impala"]

_SETS: dict[str, tuple[str, ...]] = {
    "classic": ("conv_3x3_relu", "dil_conv_3x3_relu", "conv_5x5_relu", "dil_conv_5x5_relu"),
    "micro": ("conv_3x3", "relu", "tanh"),
    "debug_convs": ("conv_3x3", "dil_conv_3x3", "conv_5x5", "dil_conv_5x5"),
    "debug_5x5": ("conv_5x5", "dil_conv_5x5", "dep_sep_conv_5x5"),
    "debug_3x3_relu": ("conv_3x3_relu", "dil_conv_3x3_relu", "dep_conv_3x3_relu"),
    "debug_5x5_relu": ("conv_5x5_relu", "dil_conv_5x5_relu", "dep_sep_conv_5x5_relu"),
}
OP_SETS: dict[str, tuple[str, ...]] = {name: (*ops, SKIP, NONE) for name, ops in _SETS.items()}
"""The options of an edge, by the name of the space."""


@dataclass(frozen=True)
class RLSpace:
    """A search space.

    ops: the options of each edge. skeleton: "standard" begins each stage with a cell that halves the resolution,
    "impala" with a convolution and a pool. nodes: of a cell, which has one input; a derived node keeps two edges.
    distinct: the cells of a stage of the skeleton "impala" are of two kinds, in turn.
    """

    ops: tuple[str, ...]
    skeleton: Name
    nodes: int = 4
    distinct: bool = False

    def __post_init__(self) -> None:
        bounded(self, COUNT, "nodes")
        if self.skeleton not in ("standard", "impala"):
            raise unknown("skeleton", self.skeleton, ("standard", "impala"))
        if self.distinct and self.skeleton != "impala":
            raise UserError(f"distinct: got true; allowed: false with the skeleton {self.skeleton!r}")
        for op in self.ops:
            if op not in OPS:
                raise unknown("space.ops", op, OPS)

    @property
    def dag(self) -> Dag:
        """The topology of its cells."""
        return Dag(inputs=1, nodes=self.nodes, keep=2)

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of its cells."""
        if self.skeleton == "standard":
            return "normal", "reduce"
        return ("normal", "normal2") if self.distinct else ("normal",)

    def choices(self, edges: int = 0) -> Space:
        """What may be chosen; with `edges`, also which edges a node keeps."""
        table: dict[str, Choice] = {}
        for name in self.cells:
            table |= cell_choices(name, self.dag, (self.ops,) * len(self.dag.edges()), edges=edges)
        return table


def space(name: str, skeleton: Name | None = None, nodes: int = 4, *, distinct: bool = False) -> RLSpace:
    """The space of this name; its skeleton is "standard" for classic and "impala" for the others, if not given.

    >>> space("micro").cells
    ('normal',)
    """
    if name not in OP_SETS:
        raise unknown("space", name, OP_SETS)
    return RLSpace(OP_SETS[name], skeleton or ("standard" if name == "classic" else "impala"), nodes, distinct)


PUBLISHED = ("impala",)
"""Cells that have a name. Of the paper's own none are published."""

# relu, conv, relu, conv, and the input added: the edges into nodes 1 to 4, each by its source.
_IMPALA = (("relu",), (), ("conv_3x3",), (), (), ("relu",), (SKIP,), (), (), ("conv_3x3",))


def find(name: str, space: RLSpace) -> Genotype:
    """A cell by its name: "impala" is the residual block of arXiv:1802.01561, of 4 nodes of the operations of "micro".

    In the skeleton "impala" with `output` "last_node" and the channels 16, 32, 32, the network is IMPALA-CNN.
    """
    if name not in PUBLISHED:
        raise unknown("genotype", name, [*PUBLISHED, "<file>.json"])
    found = Genotype({op_choice(cell): _IMPALA for cell in space.cells}, {"name": name, "paper": "arXiv:1802.01561"})
    return found.validate(space.choices(), f"genotype {name!r}, of 4 nodes of the space 'micro'")
