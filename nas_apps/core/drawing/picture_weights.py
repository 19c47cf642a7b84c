"""The weights of a choice over time: a small chart for each row, all on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas_apps.core.drawing.picture_curve import Scale, path, segments, tick_text, y_range
from nas_apps.core.drawing.svg import Pen, document, element, label, legend_entry, line, number, pen, text_width
from nas_apps.core.space import Choice, Dag

Matrix = Sequence[Sequence[float]]

WIDE, HIGH, ACROSS = 106, 72, 8
HEAD, PAD, NARROWEST = 30, 14, 360
ARROW = "\u2192"


@dataclass(frozen=True)
class _Sheet:
    """What the panels of one choice share."""

    choice: Choice
    history: Sequence[tuple[float, Matrix]]
    kept: Sequence[tuple[str, ...]] | None
    pens: Mapping[str, Pen]
    x: Scale
    y: Scale


def weights_svg(
    name: str,
    choice: Choice,
    history: Sequence[tuple[float, Matrix]],
    *,
    pens: Mapping[str, Pen],
    kept: Sequence[tuple[str, ...]] | None = None,
) -> str:
    """A panel for each row of a choice with a line for each option.

    Edges of a cell stand in a grid: a line of panels for each node, a column for each state it may come from.

    Args:
        history: epoch and weights, [R, O], of each epoch.
        kept: the options of the genotype, drawn bold; a row that keeps nothing is faint.
    """
    epochs = [epoch for epoch, _ in history] or [0.0]
    top = y_range([0.0, *(w for _, matrix in history for row in matrix for w in row if math.isfinite(w))])[1]
    x_scale = Scale(min(epochs), max(max(epochs), min(epochs) + 1), 1, WIDE - 13)
    sheet = _Sheet(choice, history, kept, pens, x_scale, Scale(0.0, top, HIGH - 20, 2))
    spots = _spots(choice)
    columns, lines = max(column for column, _ in spots) + 1, max(line for _, line in spots) + 1
    options = list(dict.fromkeys(option for row in choice.rows for option in row))
    width = max(columns * WIDE + 2 * PAD, NARROWEST)
    legend, start = _legend(options, pens, spots, width)
    panels = [
        element(
            "g",
            _panel(sheet, row),
            transform=f"translate({PAD + column * WIDE} {number(start + at * HIGH)})",
            opacity="0.45" if kept is not None and not kept[row] else "",
        )
        for row, (column, at) in enumerate(spots)
    ]
    says = f"epoch {tick_text(min(epochs))} to {tick_text(max(epochs))}, weight 0 to {tick_text(top)}"
    says += "; bold: kept" if kept is not None else ""
    head = label(PAD, 21, name, size=13, font_weight="600")
    head += label(PAD + text_width(name, 13) + 16, 21, says, role="muted", size=10)
    return document(width, max(start + lines * HIGH, HEAD) + 4, f"weights of {name}", head, legend, *panels)


def row_name(choice: Choice, row: int) -> str:
    """What a row decides: the two states of an edge, or its number."""
    if choice.dag is None:
        return str(row) if len(choice.rows) > 1 else ""
    source, target = choice.dag.edges()[row]
    return f"{_state(choice.dag, source)} {ARROW} {target - choice.dag.inputs}"


def _state(dag: Dag, state: int) -> str:
    if state >= dag.inputs:
        return str(state - dag.inputs)
    return "input" if dag.inputs == 1 else f"c_k-{dag.inputs - state}" if dag.inputs == 2 else f"input {state}"


def _spots(choice: Choice) -> list[tuple[int, int]]:
    """(column, line) of each row's panel."""
    if choice.dag is not None and choice.dag.inputs + choice.dag.nodes <= ACROSS + 1:
        return [(source, target - choice.dag.inputs) for source, target in choice.dag.edges()]
    return [(row % ACROSS, row // ACROSS) for row in range(len(choice.rows))]


def _legend(
    options: Sequence[str], pens: Mapping[str, Pen], spots: Sequence[tuple[int, int]], width: float
) -> tuple[str, float]:
    """The legend, and where the panels start: in the empty corner beside the first lines if it fits, else above."""
    entry = max(text_width(option, 11) for option in options) + 32
    high = math.ceil((16 * len(options) + 4) / HIGH)
    beside = PAD + (1 + max(column for column, at in spots if at < high)) * WIDE + 8.0
    across, x0, y0, start = 1, beside, HEAD + 14.0, HEAD + 6.0
    if beside + entry > width or high > spots[-1][1] + 1:
        across, x0 = max(int((width - 2 * PAD) / entry), 1), float(PAD)
        start = HEAD + 16.0 * math.ceil(len(options) / across) + 12
    parts = []
    for index, option in enumerate(options):
        x, y = x0 + index % across * entry, y0 + index // across * 16
        parts.append(legend_entry(x, y, option, pens.get(option, pen(index))))
    return "".join(parts), start


def _panel(sheet: _Sheet, row: int) -> str:
    kept = sheet.kept[row] if sheet.kept is not None else ()
    base = sheet.y.start
    frame = element("path", role="rule", d=line([(0, 0), (0, base), (sheet.x.end + 1, base)]))
    lines: list[str] = []
    bold: list[str] = []
    for index, option in enumerate(sheet.choice.rows[row]):
        data, alone = path(segments([(epoch, m[row][index]) for epoch, m in sheet.history], WIDE), sheet.x, sheet.y)
        ink, thick = sheet.pens.get(option, pen(index)), option in kept
        stroke = (
            element(
                "path",
                d=data,
                fill="none",
                stroke=ink.colour,
                stroke_width=2.2 if thick else 1.1,
                stroke_linejoin="round",
                stroke_dasharray=ink.dash,
            )
            if data
            else ""
        )
        dots = [element("circle", cx=x, cy=y, r=3 if thick else 1.8, fill=ink.colour) for x, y in alone]
        (bold if thick else lines).append(stroke + "".join(dots))
    return frame + "".join(lines + bold) + label(0, base + 12, row_name(sheet.choice, row), role="muted", size=10)
