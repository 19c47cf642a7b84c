"""The cells of NAS-Bench-101 (arXiv:1902.09635) as graphs: what of a genotype is one, and by which name it is known.

State 0 of a cell is its input, 1 to n are its nodes, n + 1 is its output. `Parents` says from which states each node
and the output are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import op_choice
from nas_apps.tasks.image.spaces import ImageSpace, parent_choice

Parents = Mapping[int, tuple[int, ...]]

LABELS = {"input": -1, "conv3x3-bn-relu": 0, "conv1x1-bn-relu": 1, "maxpool3x3": 2, "output": -2}
"""The numbers that NAS-Bench-101's fingerprints are made with."""


def reached(parents: Parents) -> dict[int, tuple[int, ...]]:
    """What the output, the last state, is computed from: the other nodes are loose ends.

    >>> reached({1: (0,), 2: (0, 1), 3: (0, 1)})
    {1: (0,), 3: (0, 1)}
    """
    found, waiting = set(), {max(parents)}
    while waiting:
        target = waiting.pop()
        found.add(target)
        waiting |= {source for source in parents[target] if source} - found
    return {target: parents[target] for target in sorted(found)}


def widths(parents: Parents, channels: int) -> dict[int, int]:
    """The channels of each node, for an output of `channels`; `parents` has no loose ends.

    The nodes that the output is made of share its channels, the first of them having one more where they do not divide
    evenly. Any other node is as wide as the widest that it feeds (arXiv:1902.09635's code).

    >>> widths({1: (0,), 2: (1,), 3: (0, 1, 2)}, 9)
    {1: 5, 2: 4}
    """
    output = max(parents)
    last = sorted(source for source in parents[output] if source)
    if channels < len(last):
        raise UserError(f"network.channels: got {channels}; allowed: {len(last)} and more, one a node of the output")
    found = {node: channels // len(last) + (place < channels % len(last)) for place, node in enumerate(last)}
    for node in sorted(parents.keys() - {output} - found.keys(), reverse=True):
        found[node] = max(found[child] for child, sources in parents.items() if node in sources)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Graph:
    """A cell without loose ends, as NAS-Bench-101 writes it: `matrix[i][j]` is 1 where j is computed from i.

    ops: "input", the operation of each node, "output".
    """

    matrix: tuple[tuple[int, ...], ...]
    ops: tuple[str, ...]

    def fingerprint(self) -> str:
        """The name that isomorphic graphs share and by which a table knows them.

        It begins with degrees and labels, and each round hashes a vertex with its neighbours. A few different graphs
        share one; the benchmark takes them for the same.
        """
        states = range(len(self.ops))
        into = [[i for i in states if self.matrix[i][j]] for j in states]
        out_of = [[j for j in states if self.matrix[i][j]] for i in states]
        names = [_md5(str((len(out_of[v]), len(into[v]), LABELS[self.ops[v]]))) for v in states]
        for _ in states:
            around = [["".join(sorted(names[w] for w in side[v])) for side in (into, out_of)] for v in states]
            names = [_md5(f"{before}|{after}|{name}") for (before, after), name in zip(around, names, strict=True)]
        return _md5(str(sorted(names)))


def graph(parents: Parents, ops: Mapping[int, str]) -> Graph:
    """The graph of a cell given what its states are computed from, and the operation of each node.

    NAS-Bench-101 drops loose ends before it names a graph. The dummy node that brings cells of NAS-Bench-1Shot1's
    spaces 1 and 2 to seven vertices in the code of arXiv:2001.10422 is one, so there is no need to add it.
    """
    kept = reached(parents)
    states = [0, *kept]
    matrix = tuple(tuple(int(source in kept.get(target, ())) for target in states) for source in states)
    return Graph(matrix, ("input", *(ops[node] for node in states[1:-1]), "output"))


def graph_of(space: ImageSpace, genotype: Genotype) -> Graph:
    """The graph of a point of a space of NAS-Bench-1Shot1."""
    kept = genotype.validate(space.choices()).kept
    parents = {}
    for target in range(1, len(space.in_degrees) + 1):
        name = parent_choice("cell", target)
        parents[target] = tuple(sorted(map(int, kept[name][0]))) if name in kept else tuple(range(target))
    rows = kept[op_choice("cell")]
    for index, row in enumerate(rows):
        if len(row) != 1:
            raise UserError(f"genotype: cell.op[{index}] keeps {row}; a cell of NAS-Bench-101 has one operation a node")
    return graph(parents, {node: row[0] for node, row in enumerate(rows, 1)})


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
