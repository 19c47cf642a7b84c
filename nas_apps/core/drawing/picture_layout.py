"""Where the things of a cell's picture stand: boxes and wires, nothing drawn yet.

States stand in columns by the longest way to them, with a column for the operations between any two; a wire that passes
a column has its own place there. So no wire runs over a box, and no box over another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from nas_apps.core.drawing.picture_order import level, straighten, untangle
from nas_apps.core.drawing.svg import text_width
from nas_apps.core.space import Dag

Kind = Literal["input", "node", "output", "op", "pass"]

OP_SIZE, OP_HEIGHT, OP_PAD = 11, 20, 8
NODE, TERMINAL_HEIGHT, GAP = 30, 30, 12
PASS_HEIGHT = 4


@dataclass(frozen=True)
class Box:
    """A rectangle; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True)
class Place:
    """Something drawn: a state with its name, or the operations of an edge one above the other."""

    kind: Kind
    texts: tuple[str, ...]
    box: Box
    fed: bool = True


@dataclass(frozen=True)
class Wire:
    """The way from one state to another: (x from, x to, y) of each level stretch, joined by curves."""

    kind: Literal["op", "gather"]
    levels: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Layout:
    """A cell's picture before it is drawn."""

    width: float
    height: float
    places: tuple[Place, ...]
    wires: tuple[Wire, ...]


@dataclass
class _Sketch:
    """Items by number, and the chains of items that wires follow."""

    dag: Dag
    ranks: dict[int, int]
    items: list[tuple[int, Kind, tuple[str, ...]]] = field(default_factory=list)  # column, kind, texts
    chains: list[list[int]] = field(default_factory=list)

    def add(self, column: int, kind: Kind, *texts: str) -> int:
        """A new item's number."""
        self.items.append((column, kind, texts))
        return len(self.items) - 1

    def chain(self, source: int, target: int, ops: tuple[str, ...]) -> None:
        """A wire between two states, by way of its operations if it has any."""
        first, last = self.items[source][0] + 1, self.items[target][0]
        busy = [sum(len(texts) for at, kind, texts in self.items if at == c and kind == "op") for c in range(last)]
        own = min(range(last - 1, first - 1, -2), key=busy.__getitem__) if ops else -1
        between = [self.add(c, "op", *ops) if c == own else self.add(c, "pass") for c in range(first, last)]
        self.chains.append([source, *between, target])


def cell_layout(dag: Dag, rows: Sequence[tuple[str, ...]], outputs: Sequence[int]) -> Layout:
    """The layout of a cell.

    Args:
        rows: the operations on each edge of `dag`; an edge with none is not there.
        outputs: the states that the cell's output is made of.
    """
    sketch = _sketch(dag, rows, outputs)
    links = [link for chain in sketch.chains for link in pairwise(chain)]
    columns: list[list[int]] = [[] for _ in range(1 + max(column for column, _, _ in sketch.items))]
    for index, (column, _, _) in enumerate(sketch.items):
        columns[column].append(index)
    sizes = [_size(kind, texts) for _, kind, texts in sketch.items]
    room = {index: height + GAP for index, (_, height) in enumerate(sizes)}
    columns = untangle(columns, links)
    heights = straighten(columns, {link: _stiffness(sketch, link) for link in links}, room)
    for _ in range(2):
        level(sketch.chains, columns, room, heights)
    top = min(heights[index] - height / 2 for index, (_, height) in enumerate(sizes))
    bottom = max(heights[index] + height / 2 for index, (_, height) in enumerate(sizes))
    lefts, rights = _verticals(columns, sizes, (bottom - top) / 10)
    centre = [(lefts[column] + rights[column]) / 2 for column, _, _ in sketch.items]
    boxes = [
        Box(centre[index] - width / 2, heights[index] - height / 2 - top, width, height)
        for index, (width, height) in enumerate(sizes)
    ]
    return Layout(rights[-1], bottom - top, _places(sketch, boxes), _wires(sketch, boxes, lefts, rights))


def _ranks(dag: Dag, rows: Sequence[tuple[str, ...]]) -> dict[int, int]:
    ranks = dict.fromkeys(range(dag.inputs), 0)
    for target in dag.targets():
        sources = [source for source, edge in enumerate(dag.into(target)) if rows[edge]]
        ranks[target] = 1 + max((ranks[source] for source in sources), default=0)
    return ranks


def _sketch(dag: Dag, rows: Sequence[tuple[str, ...]], outputs: Sequence[int]) -> _Sketch:
    sketch = _Sketch(dag, _ranks(dag, rows))
    for state, rank in sketch.ranks.items():
        if state < dag.inputs:
            sketch.add(2 * rank, "input", _input_name(dag, state))
        else:
            sketch.add(2 * rank, "node", str(state - dag.inputs))
    output = sketch.add(2 * max(sketch.ranks.values()) + 1, "output", "output")
    for (source, target), ops in zip(dag.edges(), rows, strict=True):
        if ops:
            sketch.chain(source, target, ops)
    for state in outputs:
        sketch.chain(state, output, ())
    taken = sorted({column for column, _, _ in sketch.items})
    sketch.items = [(taken.index(column), kind, texts) for column, kind, texts in sketch.items]
    return sketch


def _input_name(dag: Dag, state: int) -> str:
    if dag.inputs == 1:
        return "input"
    return f"c_k-{dag.inputs - state}" if dag.inputs == 2 else f"input {state}"


def _size(kind: Kind, texts: tuple[str, ...]) -> tuple[float, float]:
    if kind == "op":
        return max(text_width(text, OP_SIZE, mono=True) for text in texts) + 2 * OP_PAD, OP_HEIGHT * len(texts)
    if kind == "pass":
        return 0, PASS_HEIGHT
    return (NODE, NODE) if kind == "node" else (text_width(texts[0], 12) + 16, TERMINAL_HEIGHT)


def _stiffness(sketch: _Sketch, link: tuple[int, int]) -> float:
    """How much a link should be level: most between two stretches of a wire, least at a state, where it may bend."""
    states = sum(sketch.items[index][1] not in ("op", "pass") for index in link)
    return (8.0, 1.0, 1.0)[states]


def _verticals(
    columns: list[list[int]], sizes: list[tuple[float, float]], slack: float
) -> tuple[list[float], list[float]]:
    """Where each column starts and ends; the space between two is wider in a high picture, for gentle curves."""
    lefts, rights, x = [], [], 0.0
    for column in columns:
        lefts.append(x)
        rights.append(x + max(sizes[index][0] for index in column))
        x = rights[-1] + 22 + min(slack, 26)
    return lefts, rights


def _places(sketch: _Sketch, boxes: list[Box]) -> tuple[Place, ...]:
    fed = {chain[-1] for chain in sketch.chains}
    return tuple(
        Place(kind, texts, boxes[index], kind != "node" or index in fed)
        for index, (_, kind, texts) in enumerate(sketch.items)
        if kind != "pass"
    )


def _wires(sketch: _Sketch, boxes: list[Box], lefts: list[float], rights: list[float]) -> tuple[Wire, ...]:
    wires = []
    for chain in sketch.chains:
        first, last = boxes[chain[0]], boxes[chain[-1]]
        levels = [(first.x + first.width, rights[sketch.items[chain[0]][0]], first.middle[1])]
        for index in chain[1:-1]:
            column = sketch.items[index][0]
            levels.append((lefts[column], rights[column], boxes[index].middle[1]))
        levels.append((lefts[sketch.items[chain[-1]][0]], last.x, last.middle[1]))
        gathers = sketch.items[chain[-1]][1] == "output"
        wires.append(Wire("gather" if gathers else "op", tuple(levels)))
    return tuple(wires)
