"""The tree of feature maps that an up-sampling network may end at (arXiv:2101.06658).

The paper's equations were not to be had: the tree is that of the released configurations, whose published cells its
numbers agree with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Literal, NamedTuple

from nas_apps.core.bounds import COUNT, NOT_NEGATIVE, bounded
from nas_apps.core.errors import unknown

MOST_NODES = 10_000


class Node(NamedTuple):
    """A feature map.

    path: the layers that lead to it from the stem, "c" for a cell and "u" for an up layer. parent: the node it is
    computed from, -1 for the stem's map. cells: the numbers of the cells that compute it, none where it is an up layer.
    """

    path: str
    parent: int
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    """A root of `cells - searched` cells, from which every order of cells and up layers grows: nodes that different
    orders lead to have weights of their own.

    cells, ups: the most of a path. variant: an up layer of "B" keeps the size, so that each node may be an exit; one of
    "A" enlarges, so that an exit has all ups.

    >>> [node.path for node in Tree(cells=3, ups=1, searched=2).nodes]
    ['c', 'cu', 'cuc', 'cucc', 'cc', 'ccu', 'ccuc', 'ccc', 'cccu']
    """

    variant: Literal["A", "B"] = "B"
    cells: int = 5
    ups: int = 2
    searched: int = 4

    def __post_init__(self) -> None:
        bounded(self, COUNT, "cells")
        bounded(self, NOT_NEGATIVE, "ups", "searched")
        if self.variant not in ("A", "B"):
            raise unknown("tree.variant", self.variant, ("A", "B"))
        if self.searched >= self.cells:
            raise ValueError(f"searched: got {self.searched}; allowed: 0 to {self.cells - 1}, less than cells")
        if self.size > MOST_NODES:
            raise ValueError(f"cells, ups: got a tree of {self.size} nodes; allowed: at most {MOST_NODES}")

    @property
    def size(self) -> int:
        """The number of nodes.

        >>> Tree().size
        55
        """
        return comb(self.searched + self.ups + 2, self.ups + 1) - 1

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, parents first. As in the released code, they are numbered depth first, up layers before cells, but
        a cell gets its number when its parent does."""
        fixed = self.cells - self.searched
        found, cells = list[Node](), fixed
        stack = [Node("c" * fixed, -1, tuple(range(fixed)))]
        while stack:
            node = stack.pop()
            path, number = node.path, len(found)
            found.append(node)
            if path.count("c") < self.cells:
                stack.append(Node(path + "c", number, (cells,)))
                cells += 1
            if path.count("u") < self.ups:
                stack.append(Node(path + "u", number, ()))
        return tuple(found)

    @property
    def num_cells(self) -> int:
        """The number of cells.

        >>> Tree().num_cells
        35
        """
        return sum(len(node.cells) for node in self.nodes)

    @cached_property
    def exits(self) -> tuple[int, ...]:
        """The nodes a network may end at."""
        return tuple(n for n, node in enumerate(self.nodes) if self.variant == "B" or node.path.count("u") == self.ups)

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from the root to `node`.

        >>> Tree().path(36)
        (0, 21, 36)
        """
        parent = self.nodes[node].parent
        return (*self.path(parent), node) if parent >= 0 else (node,)

    def needed(self, exits: Iterable[int]) -> tuple[int, ...]:
        """The nodes that some exits are computed from, and these, parents first."""
        return tuple(sorted({n for node in exits for n in self.path(node)}))
