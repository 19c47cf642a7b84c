"""The search spaces of the image task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpTable
from nas_apps.core.space import NONE, SKIP, Choice, Dag, Space, cell_choices, op_choice
from nas_apps.tasks.image.ops import DARTS_OPS, NASBENCH101_OPS, NASBENCH201_OPS

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ImageSpace:
    """A search space.

    skeleton: how its cells make a network. dag: of its cells. cells: by name, the options of each edge. ops: how the
    options are built. in_degrees: where operations stand in nodes and not on edges, how many parents each node has, and
    last the output; the rows of `cells` are then of nodes.
    """

    skeleton: Literal["darts", "nasbench201", "nasbench1shot1"]
    dag: Dag
    cells: Mapping[str, Rows]
    ops: OpTable
    in_degrees: tuple[int, ...] = ()

    def choices(self, *, edges: int = 0) -> Space:
        """What may be chosen; with `edges`, also which edges a node keeps."""
        if self.in_degrees:
            return self._node_choices()
        table: dict[str, Choice] = {}
        for name, rows in self.cells.items():
            table |= cell_choices(name, self.dag, rows, edges=edges)
        return table

    def _node_choices(self) -> Space:
        table = {op_choice(name): Choice(rows) for name, rows in self.cells.items()}
        # The output before the nodes, as in the code of arXiv:2001.10422. All candidates kept is nothing to choose.
        targets = [(len(self.in_degrees), self.in_degrees[-1]), *enumerate(self.in_degrees[:-1], 1)]
        for name in self.cells:
            for target, keep in targets:
                if keep < target:
                    row = tuple(map(str, range(target)))
                    table[parent_choice(name, target)] = Choice((row,), "parent", keep=keep)
        return table


def parent_choice(cell: str, target: int) -> str:
    """The name of the choice of the states that a node, or the output, of a cell is computed from."""
    return f"{cell}.parent.{target}"


def space_of(genotype: Genotype, where: str = "genotype") -> ImageSpace:
    """The first space that a genotype is a point of; a UserError that names what does not fit when there is none.

    >>> space_of(Genotype({"cell.op": (("skip_connect",),) * 6})).skeleton
    'nasbench201'
    """
    for space in SPACES.values():
        try:
            genotype.validate(space.choices())
        except UserError:
            continue
        return space
    closest = max(SPACES.values(), key=lambda space: len(space.choices().keys() & genotype.kept.keys()))
    genotype.validate(closest.choices(), where)
    raise AssertionError("a genotype that no space accepts was accepted")


OPS_BY_SHORT_NAME = {
    "none": NONE,
    "noise": "noise",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": SKIP,
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}
"""The short names in which the tables of this task are written."""


def _rows(text: str) -> Rows:
    return tuple(tuple(OPS_BY_SHORT_NAME[op] for op in row.split(",")) for row in text.split())


def _darts(normal: str, reduce: str | None = None) -> ImageSpace:
    """A space of DARTS cells, given the options of each edge, or once for all edges."""
    dag = Dag(inputs=2, nodes=4, keep=2)
    cells = {"normal": _rows(normal), "reduce": _rows(reduce or normal)}
    full = {name: rows * len(dag.edges()) if len(rows) == 1 else rows for name, rows in cells.items()}
    return ImageSpace("darts", dag, full, DARTS_OPS)


def _nasbench1shot1(*in_degrees: int) -> ImageSpace:
    nodes = len(in_degrees) - 1
    ops = {"cell": (tuple(NASBENCH101_OPS),) * nodes}
    return ImageSpace("nasbench1shot1", Dag(1, nodes), ops, NASBENCH101_OPS, in_degrees)


SPACES: dict[str, ImageSpace] = {
    "darts": _darts("none,max,avg,skip,sep3,sep5,dil3,dil5"),  # arXiv:1806.09055, in the order of its code
    "darts_no_none": _darts("max,avg,skip,sep3,sep5,dil3,dil5"),
    "s1": _darts(  # s1 to s4: arXiv:1909.09656
        "skip,dil3 skip,dil5 skip,dil5 skip,sep3 skip,dil3 max,skip skip,sep3 "
        "skip,sep3 skip,dil3 skip,sep3 max,skip skip,dil3 dil3,dil5 dil3,dil5",
        "max,avg max,dil3 max,avg max,avg skip,dil5 max,avg max,sep3 "
        "skip,dil3 skip,dil5 max,avg max,avg skip,dil5 skip,dil5 skip,dil5",
    ),
    "s2": _darts("skip,sep3"),
    "s3": _darts("none,skip,sep3"),
    "s4": _darts("noise,sep3"),
    "nasbench201": ImageSpace("nasbench201", Dag(1, 3), {"cell": (tuple(NASBENCH201_OPS),) * 6}, NASBENCH201_OPS),
    "nasbench1shot1_1": _nasbench1shot1(1, 2, 2, 2, 2),  # arXiv:2001.10422
    "nasbench1shot1_2": _nasbench1shot1(1, 1, 2, 2, 3),
    "nasbench1shot1_3": _nasbench1shot1(1, 1, 1, 2, 2, 2),
}
"""The spaces by name. A DARTS cell is called "normal" or "reduce", that of NAS-Bench-201 (arXiv:2001.00326) and of
NAS-Bench-1Shot1 "cell"."""
