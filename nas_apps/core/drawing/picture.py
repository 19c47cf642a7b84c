"""The picture of a genotype: its cells drawn, its plain decisions in a table under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from nas_apps.core.drawing.picture_layout import OP_HEIGHT, OP_PAD, OP_SIZE, Layout, Place, Wire, cell_layout
from nas_apps.core.drawing.svg import MONO, Pen, document, element, escape, label, number, option_pens, pen, text_width
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import NONE, Dag, Space, decided

MARGIN, TITLE, WIDEST = 24, 30, 1100


def cell_svg(space: Space, genotype: Genotype) -> str:
    """The drawing of each cell of a genotype, and a table of the decisions that belong to no cell.

    A cell's choice does not say how its output is made. With several inputs it is drawn as made of all nodes, with one
    of the last node; `genotype.meta["outputs"] = {"normal": [2, 3]}` names the states of a cell that does otherwise.
    """
    genotype.validate(space)
    pens, groups, height, width = option_pens(space), [], float(MARGIN), 0.0
    for row in _shelves(_cells(space, genotype)):
        x = float(MARGIN)
        for name, layout in row:
            groups.append(_cell(name, layout, pens, (x, height)))
            x += layout.width + 2 * MARGIN
        width = max(width, x - MARGIN)
        height += TITLE + max(layout.height for _, layout in row) + MARGIN
    plain = _plain(space)
    if plain:
        width = max(width, 560.0)
        table, height = _table({name: genotype.kept[name] for name in plain}, pens, height, width)
        groups.append(table)
    return document(width, height, "cells: " + ", ".join(genotype.kept), *groups)


def kept_ops(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The operations that each edge runs: what it keeps but "none"."""
    return [tuple(option for option in row if option != NONE) for row in rows]


def _cells(space: Space, genotype: Genotype) -> list[tuple[str, Layout]]:
    cells = []
    for name, choice in space.items():
        if choice.dag is not None:
            ops, outputs = kept_ops(genotype.kept[name]), _outputs(name, choice.dag, genotype)
            cells.append((name.removesuffix(".op"), cell_layout(choice.dag, ops, outputs)))
    return cells


def _outputs(name: str, dag: Dag, genotype: Genotype) -> list[int]:
    told = genotype.meta.get("outputs")
    states = told.get(name.removesuffix(".op")) if isinstance(told, Mapping) else None
    if isinstance(states, list) and states and all(state in range(dag.inputs + dag.nodes) for state in states):
        return sorted(set(states))
    return list(dag.targets()) if dag.inputs > 1 else [dag.inputs + dag.nodes - 1]


def _plain(space: Space) -> list[str]:
    """The choices to list: those that are no cell's."""
    return [name for name, choice in decided(space).items() if choice.dag is None]


def _shelves(cells: list[tuple[str, Layout]]) -> list[list[tuple[str, Layout]]]:
    """Cells side by side as long as they fit."""
    rows: list[list[tuple[str, Layout]]] = []
    free = 0.0
    for name, layout in cells:
        need = layout.width + 2 * MARGIN
        if not rows or need > free:
            rows.append([])
            free = float(WIDEST)
        rows[-1].append((name, layout))
        free -= need
    return rows


def _cell(name: str, layout: Layout, pens: Mapping[str, Pen], at: tuple[float, float]) -> str:
    parts = [_wire(wire) for wire in sorted(layout.wires, key=lambda wire: wire.kind)]
    parts += [_ops(place, pens) if place.kind == "op" else _state(place) for place in layout.places]
    body = element("g", *parts, transform=f"translate({number(at[0])} {number(at[1] + TITLE)})")
    return label(at[0], at[1] + 6, name, size=15, font_weight="600") + body


def _wire(wire: Wire) -> str:
    (start, edge, y), path = wire.levels[0], ""
    path = f"M{number(start)},{number(y)}H{number(edge)}"
    for (_, x0, y0), (x1, end, y1) in pairwise(wire.levels):
        bend = (x0 + x1) / 2
        path += f"C{number(bend)},{number(y0)} {number(bend)},{number(y1)} {number(x1)},{number(y1)}H{number(end)}"
    tip = element("path", role="tip" if wire.kind == "op" else "gather-tip", d=f"M{number(end)},{number(y1)}l-8,-4v8z")
    return element("path", role="wire" if wire.kind == "op" else "gather", d=path) + tip


def _state(place: Place) -> str:
    box, (x, y) = place.box, place.box.middle
    role, dash = "state" if place.kind == "node" else "terminal", "" if place.fed else "3 3"
    frame = element(
        "rect",
        role=role,
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
        rx=box.height / 2 if place.kind == "node" else 7,
        stroke_dasharray=dash,
    )
    name, _, index = place.texts[0].partition("_")
    under = element("tspan", escape(index), dy=3, font_size=9) if index else ""
    text = element("text", escape(name), under, role="ink", x=x, y=y + 4, font_size=12, text_anchor="middle")
    if place.fed:
        return frame + text
    return frame + text + label(x, box.y - 4, "no input", role="muted", size=9, text_anchor="middle")


def _ops(place: Place, pens: Mapping[str, Pen]) -> str:
    box, half = place.box, OP_HEIGHT / 2
    rows = [
        _pill(option, pens.get(option, pen(0)), (box.x, box.y + index * OP_HEIGHT), box.width)
        for index, option in enumerate(place.texts)
    ]
    seam = element("rect", role="paper", x=box.x + half, y=box.y, width=box.width - 2 * half, height=box.height)
    return seam + "".join(rows)


def _pill(option: str, ink: Pen, at: tuple[float, float], width: float) -> str:
    shape: dict[str, Any] = {"x": at[0], "y": at[1] + 0.5, "width": width, "height": OP_HEIGHT - 1}
    shape["rx"] = (OP_HEIGHT - 1) / 2
    paper = element("rect", role="paper", **shape)
    frame = paper + element(
        "rect", **shape, fill=ink.colour, fill_opacity="0.16", stroke=ink.colour, stroke_dasharray=ink.dash
    )
    text = label(
        at[0] + width / 2, at[1] + OP_HEIGHT / 2 + 4, option, size=OP_SIZE, text_anchor="middle", font_family=MONO
    )
    return frame + text


def _table(
    kept: Mapping[str, Sequence[tuple[str, ...]]], pens: Mapping[str, Pen], top: float, width: float
) -> tuple[str, float]:
    """The plain decisions: the name of the choice, then what each of its rows keeps, in lines; and where it ends."""
    start = MARGIN + 16 + max(text_width(name, 12) for name in kept)
    parts, y = [], top
    for name, rows in kept.items():
        parts.append(element("path", role="rule", d=f"M{MARGIN},{number(y)}H{number(width - MARGIN)}"))
        parts.append(label(MARGIN, y + 22, name, size=12, font_weight="600"))
        x = start
        for index, row in enumerate(rows):
            entry, wide = _entry(str(index) if len(rows) > 1 else "", row or ("(nothing)",), pens)
            if x > start and x + wide > width - MARGIN:
                x, y = start, y + OP_HEIGHT + 8
            parts.append(element("g", entry, transform=f"translate({number(x)} {number(y + 8)})"))
            x += wide + 12
        y += OP_HEIGHT + 16
    return "".join(parts), y + MARGIN / 2


def _entry(index: str, options: tuple[str, ...], pens: Mapping[str, Pen]) -> tuple[str, float]:
    x = text_width(index, 10) + 4 if index else 0.0
    parts = [label(0, 14, index, role="muted", size=10)] if index else []
    for option in options:
        wide = text_width(option, OP_SIZE, mono=True) + 2 * OP_PAD
        parts.append(_pill(option, pens.get(option, Pen("#8b93a1")), (x, 0), wide))
        x += wide + 3
    return "".join(parts), x - 3
