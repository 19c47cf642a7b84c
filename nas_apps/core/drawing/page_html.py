"""What every page of ours is made of: its frame, and tables."""

from __future__ import annotations

from collections.abc import Sequence

from nas_apps.core.drawing.page_style import STYLE
from nas_apps.core.drawing.svg import escape

NOTHING = "\u2013"
MARK = '<meta name="generator" content="nas_apps">'
"""By which a page that is there already is known for one of ours."""


def html_page(heading: str, body: Sequence[str]) -> str:
    """A page that needs nothing but itself, of sections that are markup already; empty ones are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'{MARK}\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def cell(text: str, *, best: bool = False) -> str:
    """A cell of a table."""
    kind = ' class="best"' if best else "" if text else ' class="no"'
    return f"<td{kind}>{escape(text or NOTHING)}</td>"


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, fit: bool = False) -> str:
    """A table: its heads, and rows of a name and cells; as narrow as it can be when it is to `fit`."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    lines = "".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows)
    head = f"<thead><tr>{top}</tr></thead>" if heads else ""
    return f'<div class="scroll{" fit" if fit else ""}"><table>{head}<tbody>{lines}</tbody></table></div>'
