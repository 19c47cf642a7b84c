"""Charts of several searches beside one another: dots with mean and spread, dots over costs, bands of curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from nas_apps.core.drawing.picture_curve import BOTTOM, LEFT, RIGHT, TOP, Points, Scale, legend, x_axis, y_axis, y_range
from nas_apps.core.drawing.svg import Pen, document, element, label, line, text_width
from nas_apps.core.spread import Spread

ROW = 28


def dots_svg(title: str, groups: Mapping[str, Sequence[float]], *, pens: Mapping[str, Pen], width: int = 372) -> str:
    """A row for each group: a dot for each of its values, a bar over mean plus and minus sample standard deviation."""
    left = 14 + max((text_width(name, 11) for name in groups), default=0)
    bottom = TOP + ROW * len(groups)
    finite = {name: [value for value in values if math.isfinite(value)] for name, values in groups.items()}
    spreads = {name: found for name, values in finite.items() if (found := Spread.of(values))}
    bars = {n: (s.mean - (s.deviation or 0), s.mean, s.mean + (s.deviation or 0)) for n, s in spreads.items()}
    ends = [value for bar in bars.values() for value in bar]
    x_scale = Scale(
        *_range([*ends, *(value for values in finite.values() for value in values)]), left + 8, width - RIGHT
    )
    parts = []
    for index, (name, values) in enumerate(finite.items()):
        y, ink = TOP + ROW * (index + 0.5), Pen(pens[name].colour)
        parts.append(element("path", role="rule", d=line([(left, y), (x_scale.end, y)])))
        parts.append(label(left - 6, y + 4, name, text_anchor="end"))
        if name in bars:
            low, mean, high = map(x_scale, bars[name])
            parts += [
                _stroke(line([(low, y), (high, y)]), ink, 2.2),
                _stroke(line([(mean, y - 8), (mean, y + 8)]), ink, 2.2),
            ]
        parts += [_dot(x_scale(value), y, ink) for value in values]
    head = label(14, 21, title, size=13, font_weight="600")
    return document(width, bottom + BOTTOM, title, head, *parts, x_axis(x_scale, left, bottom))


def scatter_svg(
    title: str,
    groups: Mapping[str, Points],
    *,
    x_label: str,
    pens: Mapping[str, Pen],
    size: tuple[int, int] = (372, 236),
) -> str:
    """A dot for each (x, y) of each group."""
    scales, frame = _frame(
        title, groups, [point for points in groups.values() for point in points], x_label, pens, size
    )
    dots = [
        _dot(scales[0](x), scales[1](y), pens[name])
        for name, points in groups.items()
        for x, y in points
        if math.isfinite(x) and math.isfinite(y)
    ]
    return document(*size, title, *frame, *dots)


def bands_svg(
    title: str,
    groups: Mapping[str, Sequence[Points]],
    *,
    x_label: str,
    pens: Mapping[str, Pen],
    size: tuple[int, int] = (372, 236),
) -> str:
    """For each group of curves their mean, in a band from the lowest to the highest of them."""
    every = [point for curves in groups.values() for points in curves for point in points]
    (x_scale, y_scale), frame = _frame(title, groups, every, x_label, pens, size)
    bands, means = [], []
    for name, curves in groups.items():
        at: dict[float, list[float]] = {}
        for x, y in sorted(point for points in curves for point in points):
            at.setdefault(x, []).extend([y] if math.isfinite(y) else [])
        rows = [(x_scale(x), ys) for x, ys in at.items() if ys]
        upper, lower = ([(x, y_scale(end(ys))) for x, ys in rows] for end in (max, min))
        middle = [(x, y_scale(fmean(ys))) for x, ys in rows]
        ink = pens[name]
        if len(rows) > 1:
            bands.append(
                element("path", d=line([*upper, *reversed(lower)]) + "Z", fill=ink.colour, fill_opacity="0.16")
            )
            means.append(_stroke(line(middle), ink, 1.8))
        means += [_dot(x, y, ink) for x, y in middle[:1] if len(rows) == 1]
    return document(*size, title, *frame, *bands, *means)


def _frame(
    title: str,
    names: Mapping[str, object],
    points: Points,
    x_label: str,
    pens: Mapping[str, Pen],
    size: tuple[int, int],
) -> tuple[tuple[Scale, Scale], list[str]]:
    """The scales of a chart and what stands around it."""
    width, height = size
    key, key_height = legend(list(names), pens, width)
    bottom = height - BOTTOM
    x_scale = Scale(*_range([x for x, _ in points]), LEFT + 6, width - RIGHT)
    y_scale = Scale(*_range([y for _, y in points]), bottom, TOP + key_height)
    head = label(14, 21, title, size=13, font_weight="600")
    foot = label(width - RIGHT, height - 6, x_label, role="muted", size=10, text_anchor="end")
    return (x_scale, y_scale), [head, key, y_axis(y_scale, LEFT, x_scale.end), x_axis(x_scale, LEFT, bottom), foot]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that leaves out none of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    return y_range([min(finite), max(finite)] if finite else [])


def _dot(x: float, y: float, ink: Pen) -> str:
    return element("circle", cx=x, cy=y, r=3.5, fill=ink.colour, fill_opacity="0.6")


def _stroke(data: str, ink: Pen, width: float) -> str:
    return element("path", d=data, fill="none", stroke=ink.colour, stroke_width=width, stroke_dasharray=ink.dash)
