"""The search space of up-samplers, decided at three levels: the exit of a tree, the operations of its cells, and the
widths between them (arXiv:2101.06658)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from nas_apps.core.bounds import COUNT, Bound, bounded
from nas_apps.core.errors import UserError, unknown
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import Choice, Space
from nas_apps.tasks.sr.tree import Tree

EXIT, OP, WIDTH = "net.exit", "cell.op", "cell.width"
"""The names of the choices."""

OPS = ("conv1", "conv3", "residual", "separable")
"""All operations there are, in the order of the published encodings."""

_MULTIPLIER = Bound(lambda number: 0 < number <= 1, "more than 0, up to 1")


@dataclass(frozen=True)
class SRSpace:
    """A search space.

    channels: of every map between cells. ops_per_cell: one after another. ops: the options of each. widths: the options
    of the channels between two operations of a cell, as shares of `channels`.
    """

    tree: Tree = Tree()
    channels: int = 64
    ops_per_cell: int = 5
    ops: tuple[str, ...] = OPS
    widths: tuple[float, ...] = (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)

    def __post_init__(self) -> None:
        bounded(self, COUNT, "channels", "ops_per_cell")
        bounded(self, _MULTIPLIER, "widths")
        if not self.widths or not self.ops:
            raise UserError("ops, widths: got none; allowed: one and more of each")
        for op in self.ops:
            if op not in OPS:
                raise unknown("ops", op, OPS)

    @property
    def width_options(self) -> tuple[int, ...]:
        """The widths in channels: multiples of 8 that are not below 90 % of what was asked for, and at most `channels`.

        >>> SRSpace().width_options, SRSpace(channels=16).width_options
        ((24, 32, 40, 56, 64), (8, 16))
        """
        return tuple(sorted({min(_in_eights(share * self.channels), self.channels) for share in self.widths}))

    @property
    def has_widths(self) -> bool:
        """Whether there is more than one width to choose from."""
        return len(self.width_options) > 1 and self.ops_per_cell > 1

    def choices(self, edges: int = 0) -> Space:
        """What may be chosen. The rows of operations and of widths are in the order of the cells, and within a cell in
        that of its operations, of which the last has no width to choose.

        >>> {name: choice.shape for name, choice in SRSpace().choices().items()}
        {'net.exit': (1, 55), 'cell.op': (175, 4), 'cell.width': (140, 5)}
        """
        nodes, exits, cells = self.tree.nodes, self.tree.exits, self.tree.num_cells
        options = {node: k for k, node in enumerate(exits)}
        parents = tuple(options.get(nodes[node].parent, -1) for node in exits)
        found = {
            EXIT: Choice((tuple(nodes[node].path for node in exits),), "exit", parents=parents),
            OP: Choice.uniform(self.ops, cells * self.ops_per_cell),
        }
        if self.has_widths:
            widths = tuple(map(str, self.width_options))
            found[WIDTH] = Choice.uniform(widths, cells * (self.ops_per_cell - 1), "width")
        return found

    def rows(self, name: str, cell: int) -> range:
        """The rows of the choice `name` that decide a cell.

        >>> SRSpace().rows("cell.width", 1)
        range(4, 8)
        """
        number = self.ops_per_cell - (name == WIDTH)
        return range(cell * number, (cell + 1) * number)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype without what cells decide that are not on the path to the exit it keeps; a UserError where one
        on the path keeps no option or several."""
        kept = genotype.validate(self.choices()).kept
        _one(EXIT, 0, kept[EXIT][0])
        node = self.tree.exits[self.choices()[EXIT].rows[0].index(kept[EXIT][0][0])]
        cells = list(chain.from_iterable(self.tree.nodes[n].cells for n in self.tree.path(node)))
        found = {EXIT: kept[EXIT]}
        for name in kept.keys() - {EXIT}:
            there = {row for cell in cells for row in self.rows(name, cell)}
            for row in sorted(there):
                _one(name, row, kept[name][row])
            found[name] = tuple(options if row in there else () for row, options in enumerate(kept[name]))
        return Genotype({name: found[name] for name in kept}, genotype.meta)


def _one(name: str, row: int, options: tuple[str, ...]) -> None:
    if len(options) != 1:
        raise UserError(f"genotype: {name}[{row}]: keeps {len(options)}; allowed: one option, on the path to its exit")


def _in_eights(width: float) -> int:
    """The nearest multiple of 8, or the next where that is below 90 %; 8 and more."""
    nearest = max(int(width + 4) // 8 * 8, 8)
    return nearest + 8 if nearest < 0.9 * width else nearest
