"""Line charts of what was logged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from nas_apps.core.drawing.svg import Pen, document, element, label, legend_entry, line, pen, text_width

Points = Sequence[tuple[float, float]]

MOST_POINTS, SMOOTHED = 300, 160
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 34


@dataclass(frozen=True)
class Scale:
    """A straight map from values to pixels; a value beyond its ends is drawn at the end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def curves_svg(
    title: str,
    series: Mapping[str, Points],
    *,
    x_label: str = "step",
    pens: Mapping[str, Pen] | None = None,
    size: tuple[int, int] = (480, 280),
) -> str:
    """A line chart: (x, y) points by the name of their series.

    A point that is not finite leaves a gap. A series of many points is faint under its running mean. A lone high peak
    does not flatten the rest: it is cut off, and its height said in words.
    """
    width, height = size
    pens = pens or {name: pen(index) for index, name in enumerate(series)}
    key, key_height = legend(list(series), pens, width)
    points = [point for values in series.values() for point in values if all(map(math.isfinite, point))]
    plot_top, plot_bottom = TOP + key_height, height - BOTTOM
    ys = [y for _, y in points] or [0.0]
    low, high = y_range(ys if points else [])
    y_scale = Scale(low, high, plot_bottom, plot_top)
    xs = [x for x, _ in points] or [0.0]
    x_scale = Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT + 6, width - RIGHT)
    lines = [_curve(values, pens[name], x_scale, y_scale) for name, values in series.items()]
    head = label(14, 21, title, size=13, font_weight="600")
    foot = label(width - RIGHT, height - 6, x_label, role="muted", size=10, text_anchor="end")
    if not points:
        foot += label(width / 2, (plot_top + plot_bottom) / 2, "no finite value", role="muted", text_anchor="middle")
    notes = ["faint: as logged"] if any(len(values) > SMOOTHED for values in series.values()) else []
    notes += [f"cut off; highest {tick_text(float(format(max(ys), '.3g')))}"] if max(ys) > high else []
    head += label(width - RIGHT, 21, "; ".join(notes), role="muted", size=10, text_anchor="end") if notes else ""
    axes = y_axis(y_scale, LEFT, x_scale.end) + x_axis(x_scale, LEFT, plot_bottom)
    return document(width, height, title, head, key, axes, *lines, foot)


def y_range(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis: round numbers around the values, those of the few far above the rest left out."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    most = ordered[int(0.98 * (len(ordered) - 1))]
    if len(ordered) >= 20 and high - most > 2 * (most - low) > 0:
        high = most
    if high == low:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    step = _step(low, high)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers in a range, at most `most`.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = _step(low, high, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def segments(points: Points, most: int = MOST_POINTS) -> list[list[tuple[float, float]]]:
    """The points in runs without a gap, thinned: of each stretch of a long run its lowest and its highest are kept."""
    stretch = math.ceil(2 * len(points) / most)
    return [_thinned(run, stretch) for run in _runs(points)]


def running_means(points: Points, width: int) -> list[list[tuple[float, float]]]:
    """The means of `width` neighbours along each run, fewer at its ends, a point for every quarter of the width."""
    means = []
    for run in _runs(points):
        sums = [0.0, *accumulate(y for _, y in run)]
        middles = [*range(0, len(run) - 1, max(width // 4, 1)), len(run) - 1]
        reach = [(i, max(i - width // 2, 0), min(i + width // 2 + 1, len(run))) for i in middles]
        means.append([(run[i][0], (sums[last] - sums[first]) / (last - first)) for i, first, last in reach])
    return means


def _runs(points: Points) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((float(x), float(y)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def path(runs: Sequence[Points], x_scale: Scale, y_scale: Scale) -> tuple[str, list[tuple[float, float]]]:
    """The data of a path through all runs, and the points that stand alone."""
    scaled = [[(x_scale(x), y_scale(y)) for x, y in run] for run in runs]
    return "".join(line(run) for run in scaled if len(run) > 1), [run[0] for run in scaled if len(run) == 1]


def _step(low: float, high: float, most: int = 6) -> float:
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _thinned(run: list[tuple[float, float]], stretch: int) -> list[tuple[float, float]]:
    if stretch <= 2:
        return run
    kept = [run[0]]
    for first in range(1, len(run) - 1, stretch):
        part = run[first : min(first + stretch, len(run) - 1)]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return [*kept, run[-1]]


def _curve(points: Points, ink: Pen, x_scale: Scale, y_scale: Scale) -> str:
    data, alone = path(segments(points), x_scale, y_scale)
    dots = [element("circle", cx=x, cy=y, r=2.5, fill=ink.colour) for x, y in alone]
    if len(points) <= SMOOTHED:
        return _stroke(data, ink, 1.6) + "".join(dots)
    means, _ = path(running_means(points, len(points) // 20), x_scale, y_scale)
    return element("g", _stroke(data, Pen(ink.colour), 1), opacity="0.35") + _stroke(means, ink, 1.8) + "".join(dots)


def _stroke(data: str, ink: Pen, width: float) -> str:
    return (
        element(
            "path",
            d=data,
            fill="none",
            stroke=ink.colour,
            stroke_width=width,
            stroke_linejoin="round",
            stroke_dasharray=ink.dash,
        )
        if data
        else ""
    )


def y_axis(y_scale: Scale, left: float, right: float) -> str:
    """Round values up the left side, each with a rule across."""
    parts = []
    for value in ticks(y_scale.low, y_scale.high):
        y = y_scale(value)
        parts.append(element("path", role="rule", d=line([(left, y), (right, y)])))
        parts.append(label(left - 7, y + 3.5, tick_text(value), role="muted", size=10, text_anchor="end"))
    return "".join(parts)


def x_axis(x_scale: Scale, left: float, bottom: float) -> str:
    """Round values along the bottom."""
    parts = []
    for value in ticks(x_scale.low, x_scale.high):
        if value != int(value) and x_scale.high - x_scale.low >= 1:
            continue
        x = x_scale(value)
        parts.append(element("path", role="axis", d=line([(x, bottom), (x, bottom + 4)])))
        parts.append(label(x, bottom + 15, tick_text(value), role="muted", size=10, text_anchor="middle"))
    parts.append(element("path", role="axis", d=line([(left, bottom), (x_scale.end, bottom)])))
    return "".join(parts)


def tick_text(value: float) -> str:
    """A short number for an axis.

    >>> tick_text(0.25), tick_text(20000.0), tick_text(1.5e6)
    ('0.25', '20k', '1.5M')
    """
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.6g}{name}"
    return f"{value:.6g}"


def legend(names: list[str], pens: Mapping[str, Pen], width: float) -> tuple[str, float]:
    """One entry a series, in lines; nothing for a single series that has no name."""
    parts, x, y = [], 14.0, 40.0
    for name in names:
        if len(names) == 1 and not name:
            return "", 0.0
        wide = text_width(name, 11) + 34
        if x > 14 and x + wide > width:
            x, y = 14.0, y + 16
        parts.append(legend_entry(x, y, name, pens[name]))
        x += wide
    return "".join(parts), y - 40 + 18
