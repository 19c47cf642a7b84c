"""The page of a sweep: its tables, and every search in charts; it needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas_apps.core.drawing.page_html import cell, html_page, table
from nas_apps.core.drawing.page_stage import finite
from nas_apps.core.drawing.page_text import figure, seconds, title
from nas_apps.core.drawing.picture_spread import bands_svg, dots_svg, scatter_svg
from nas_apps.core.drawing.svg import Pen, escape, pen
from nas_apps.core.logs import read_lines

Outcome = Mapping[str, Any]


class Table(NamedTuple):
    """One recipe's: a row of text for each variant."""

    recipe: str
    goal: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def sweep_page(folder: Path, results: Mapping[str, Any], tables: Sequence[Table]) -> str:
    """The HTML of a sweep, from what its results.json holds and the logs of its searches in `folder`."""
    outcomes: list[Outcome] = results["trials"]
    pens = {name: pen(index) for index, name in enumerate(dict.fromkeys(o["variant"] for o in outcomes))}
    heading = f"Sweep: {', '.join(dict.fromkeys(o['task'] for o in outcomes))}"
    done = sum(o["status"] == "finished" for o in outcomes)
    facts = f"folder {folder.resolve().name} | {done} of {len(outcomes)} trials finished"
    body = [f'<header><h1>{escape(heading)}</h1><p class="note">{escape(facts)}</p></header>']
    for part in tables:
        mine = [o for o in outcomes if o["recipe"] == part.recipe and o["status"] == "finished"]
        rows = [(row[0], [cell(text) for text in row[1:]]) for row in part.rows]
        body.append(
            f"<section><h2>{escape(part.recipe or 'Variants')}</h2>{table(part.heads, rows)}"
            f'<p class="note">{escape(part.note)}</p>{_charts(folder, mine, part.goal, pens)}</section>'
        )
    body += [_failures(outcomes), _trials(outcomes), _command(results.get("command"))]
    return html_page(heading, body)


def _charts(folder: Path, outcomes: Sequence[Outcome], goal: str, pens: Mapping[str, Pen]) -> str:
    """The goal by variant, over parameters, and on held-out data along the searches: those there is something of."""
    values: dict[str, list[float]] = {}
    costs: dict[str, list[tuple[float, float]]] = {}
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    for o in outcomes:
        name, value = o["variant"], finite(o["metrics"].get(goal))
        lines = read_lines(folder / o["name"] / "search" / "metrics.jsonl")
        curve = [(float(at["epoch"] + 1), finite(at[key])) for at in lines if (key := f"evaluation/{goal}") in at]
        if curve:
            curves.setdefault(name, []).append(curve)
        if value == value:
            values.setdefault(name, []).append(value)
            costs.setdefault(name, []).append((finite(o["costs"].get("params")), value))
    words = title(goal)
    charts = [dots_svg(f"{words}, a dot for each search", values, pens=pens)] if values else []
    charts += [scatter_svg(f"{words} over parameters", costs, x_label="parameters", pens=pens)] if costs else []
    charts += [bands_svg(f"{words}, evaluated in the search", curves, x_label="epoch", pens=pens)] if curves else []
    figures = "".join(f"<figure>{chart}</figure>" for chart in charts)
    key = "Bar: mean and sample standard deviation. Band: lowest to highest of the searches, around their mean."
    return f'<div class="charts">{figures}</div><p class="note">{key}</p>' if charts else ""


def _failures(outcomes: Sequence[Outcome]) -> str:
    lines = [
        f'<p class="note fault">{escape(o["name"])}: {escape(o["failure"])}</p>' for o in outcomes if o.get("failure")
    ]
    return f"<section><h2>Failed</h2>{''.join(lines)}</section>" if lines else ""


def _trials(outcomes: Sequence[Outcome]) -> str:
    """Every trial in a row."""
    metrics = list(
        dict.fromkeys([*(o["goal"][0] for o in outcomes), *(name for o in outcomes for name in o["metrics"])])
    )
    costs = [name for name in ("params", "macs") if any(name in o["costs"] for o in outcomes)]
    stages = [name for name in ("search", "train") if any(name in o["seconds"] for o in outcomes)]
    heads = [
        "Trial",
        "Status",
        *(title(name) for name in [*metrics, *costs]),
        *(f"{title(name)} time" for name in stages),
    ]
    rows = []
    for o in outcomes:
        told = [_text(name, o["metrics"].get(name)) for name in metrics] + [_text(n, o["costs"].get(n)) for n in costs]
        told += [seconds(o["seconds"][name]) if name in o["seconds"] else "" for name in stages]
        rows.append((o["name"], [cell(text) for text in (o["status"], *told)]))
    return f"<section><h2>Trials</h2>{table(heads, rows)}</section>"


def _text(name: str, value: Any) -> str:
    return "" if value is None else figure(name, value)


def _command(command: Any) -> str:
    if not command:
        return ""
    return f'<section><h2>Reproduce</h2><pre class="all"><code>{escape(command)}</code></pre></section>'
