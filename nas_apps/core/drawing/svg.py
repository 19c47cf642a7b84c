"""SVG as text: elements, the roles that things play in a drawing, and the colours of options.

Roles are written out as attributes, so that a file looks right in any viewer, and also as classes, so that a page can
dress the same drawing for the dark: a style sheet wins over attributes.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from nas_apps.core.space import NONE, SKIP, Space

SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"

ROLES: dict[str, dict[str, str | float]] = {
    "paper": {"fill": "#ffffff"},
    "ink": {"fill": "#1f2733"},
    "muted": {"fill": "#687385"},
    "rule": {"fill": "none", "stroke": "#e1e5eb"},
    "axis": {"fill": "none", "stroke": "#a9b2bf"},
    "wire": {"fill": "none", "stroke": "#7d8899", "stroke_width": 1.4},
    "gather": {"fill": "none", "stroke": "#b9c1cd", "stroke_width": 1.2},
    "tip": {"fill": "#7d8899"},
    "gather-tip": {"fill": "#b9c1cd"},
    "state": {"fill": "#f1f4f8", "stroke": "#5d6a7e", "stroke_width": 1.3},
    "terminal": {"fill": "#e3e9f2", "stroke": "#5d6a7e", "stroke_width": 1.3},
}
PALETTE = ("#3b7ddd", "#e07b1a", "#2e9e5b", "#9160d8", "#1597a5", "#a3703c", "#d4589f", "#8a9a1c")
DASHES = ("", "5 3", "1.5 2.5", "7 2 1.5 2")
FIXED = {NONE: "#8b93a1", SKIP: "#d94a4a"}

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Pen(NamedTuple):
    """How an option is drawn, the same in every figure."""

    colour: str
    dash: str = ""


def pen(index: int) -> Pen:
    """The pen of the series or option number `index`."""
    return Pen(PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)])


def option_pens(space: Space) -> dict[str, Pen]:
    """A pen for each option of a space: the first that no other option of its choices has.

    "none" is grey and the skip connection red wherever they stand.
    """
    pens = {option: Pen(colour) for option, colour in FIXED.items()}
    tables = [dict.fromkeys(option for row in choice.rows for option in row) for choice in space.values()]
    for option in dict.fromkeys(option for table in tables for option in table):
        beside = {pens[other] for table in tables if option in table for other in table if other in pens}
        free = (pen(index) for index in range(len(beside)) if pen(index) not in beside)
        pens.setdefault(option, next(free, pen(len(beside))))
    return pens


def escape(text: str) -> str:
    """Text that is safe in an element or an attribute of SVG and HTML."""
    return html.escape(_NOT_XML.sub("\ufffd", text))


def number(value: float) -> str:
    """A coordinate with at most one decimal.

    >>> number(3.0), number(2.25001)
    ('3', '2.3')
    """
    return f"{round(value * 10 + 1e-9) / 10:.1f}".removesuffix(".0").replace("-0.0", "0")


def element(name: str, *children: str, role: str = "", **attributes: str | float) -> str:
    """One element around children that are markup already; `stroke_width=2` gives `stroke-width="2"`."""
    written = {**ROLES.get(role, {}), **attributes}
    if role:
        written["class"] = role
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value) if isinstance(value, str) else number(value)}"'
        for key, value in written.items()
        if value != ""
    )
    return f"<{name}{pairs}>{''.join(children)}</{name}>" if children else f"<{name}{pairs}/>"


def label(x: float, y: float, text: str, *, role: str = "ink", size: float = 11, **attributes: str | float) -> str:
    """A line of text whose baseline starts at (x, y)."""
    return element("text", escape(text), role=role, x=x, y=y, font_size=size, **attributes)


def legend_entry(x: float, y: float, text: str, ink: Pen) -> str:
    """A stroke of the pen and what it stands for, starting at x on the baseline y."""
    stroke = element(
        "path",
        d=f"M{number(x)},{number(y - 4)}h16",
        fill="none",
        stroke=ink.colour,
        stroke_width=2.2,
        stroke_dasharray=ink.dash,
    )
    return stroke + label(x + 21, y, text)


def line(points: list[tuple[float, float]]) -> str:
    """The path data of straight lines through points."""
    return "M" + "L".join(f"{number(x)},{number(y)}" for x, y in points)


def text_width(text: str, size: float, *, mono: bool = False) -> float:
    """An upper estimate of the width of a line of text: no font is at hand."""
    return len(text) * size * (0.615 if mono else 0.59)


def document(width: float, height: float, title: str, *children: str) -> str:
    """A whole drawing on its own paper."""
    paper = element("rect", role="paper", width=width, height=height, rx=6)
    return (
        element(
            "svg",
            element("title", escape(title)),
            paper,
            *children,
            xmlns="http://www.w3.org/2000/svg",
            role="",
            viewBox=f"0 0 {number(width)} {number(height)}",
            width=width,
            height=height,
            font_family=SANS,
        )
        + "\n"
    )
