"""The report of a run: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas_apps.core.drawing.page_figures import along_section, cell_section, curve_section, weight_section
from nas_apps.core.drawing.page_html import cell, html_page, table
from nas_apps.core.drawing.page_stage import Stage, read_stages
from nas_apps.core.drawing.page_text import figure, higher_is_better, seconds, short, title
from nas_apps.core.drawing.svg import escape

Value = Callable[[str, object], str]


def report_page(folder: Path) -> str:
    """The HTML of a run folder: of a stage, or of a folder that holds several, whatever is there of their files.

    Equal files give an equal page. What is absent or torn is said on the page and never an error.
    """
    stages = read_stages(folder)
    main = _main(stages)
    heading = " / ".join(word for word in (_told(stages, "task"), _told(stages, "variant")) if word)
    heading = heading or folder.resolve().name
    body = [
        _header(heading, _told(stages, "seed"), folder.resolve().name, stages),
        _headline(stages, main),
        _warnings(stages),
        _comparison(stages),
        cell_section(stages),
        along_section(stages),
        curve_section(stages),
        weight_section(stages),
        _by_stage("Cost of the network", stages, "costs", _both),
        _by_stage("Budget", stages, "budget", _as_told),
        _commands(stages),
        _recipes(stages),
        _by_stage("Versions", stages, "versions", _as_told),
        _absences(stages),
    ]
    return html_page(heading, body)


def _main(stages: Sequence[Stage]) -> Stage | None:
    """The stage whose figures are the run's: the final training if there is one."""
    told = [stage for stage in stages if stage.summary]
    trained = [stage for stage in told if not stage.searched]
    return next(iter([*trained, *told, *stages]), None)


def _told(stages: Sequence[Stage], key: str) -> str:
    """What the first stage that has a word on it says."""
    return next((word for stage in stages if (word := stage.told(key))), "")


def _header(heading: str, seed: str, name: str, stages: Sequence[Stage]) -> str:
    facts = [f"seed {seed}"] if seed else []
    facts += [f"folder {name}"]
    facts += [f"stages: {', '.join(stage.name for stage in stages)}"] if len(stages) > 1 else []
    empty = "" if stages else '<p class="fault">Nothing of a run was found in this folder.</p>'
    return f'<header><h1>{escape(heading)}</h1><p class="note">{escape(" | ".join(facts))}</p>{empty}</header>'


def _headline(stages: Sequence[Stage], main: Stage | None) -> str:
    """The figures to remember: final metrics, costs, time per stage, device."""
    if main is None:
        return ""
    metrics, costs = main.table("metrics"), main.table("costs")
    tiles = [("", title(key), short(key, metrics[key])) for key in _metrics([main])]
    tiles[:1] = [("lead", *tile[1:]) for tile in tiles[:1]]
    tiles += [("", title(key), short(key, costs[key])) for key in ("params", "macs") if key in costs]
    times: dict[str, object] = {}
    for stage in [main, *stages]:
        times = {**stage.table("seconds"), **times}
    tiles += [("", f"{title(key)} time", _time(key, value)) for key, value in sorted(times.items(), key=_in_order)]
    device = _told([main, *stages], "device")
    tiles += [("words", "Device", device)] if device else []
    cells = "".join(
        f'<div class="{kind}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for kind, name, value in tiles
    )
    source = f'<p class="note">Metrics and costs of {escape(main.name)}.</p>' if len(stages) > 1 and tiles else ""
    return f'<section aria-label="headline"><dl class="tiles">{cells}</dl>{source}</section>' if tiles else ""


def _warnings(stages: Sequence[Stage]) -> str:
    """What was said of the stages while they ran."""
    told = [(stage, stage.summary.get("warnings")) for stage in stages]
    lines = [
        f"{stage.name}: {text}" if len(stages) > 1 else str(text)
        for stage, texts in told
        if isinstance(texts, list)
        for text in texts
    ]
    parts = "".join(f'<p class="fault">{escape(line)}</p>' for line in lines)
    return f"<section><h2>Warnings</h2>{parts}</section>" if parts else ""


def _in_order(entry: tuple[str, object]) -> tuple[int, str]:
    order = ("search", "derive", "train", "evaluate")
    return (order.index(entry[0]) if entry[0] in order else len(order), entry[0])


def _time(_: str, value: object) -> str:
    return seconds(float(value)) if isinstance(value, int | float) and abs(value) < 1e12 else str(value)


def _comparison(stages: Sequence[Stage]) -> str:
    """Stages side by side; the best of the trained ones is marked where a metric's name says which way is better."""
    told = [stage for stage in stages if stage.table("metrics") or stage.table("costs")]
    if len(told) < 2:
        return ""
    metrics, costs = _metrics(told), [key for key in ("params", "macs") if key in _keys(told, "costs")]
    heads = [title(key) for key in [*metrics, *costs]] + ["Time"]
    best = {key: _best(key, [stage for stage in told if not stage.searched]) for key in metrics}
    rows = []
    for stage in told:
        cells = [cell(figure(key, stage.table("metrics").get(key, "")), best=stage in best[key]) for key in metrics]
        cells += [cell(figure(key, stage.table("costs").get(key, ""))) for key in costs]
        times = [value for value in stage.table("seconds").values() if isinstance(value, int | float)]
        cells.append(cell(_time("", sum(times)) if times else ""))
        rows.append((stage.name, cells))
    return f"<section><h2>Comparison</h2>{table(['Stage', *heads], rows)}</section>"


def _best(key: str, stages: Sequence[Stage]) -> list[Stage]:
    up = higher_is_better(key)
    values = {index: stage.table("metrics").get(key) for index, stage in enumerate(stages)}
    figures = {index: value for index, value in values.items() if isinstance(value, int | float) and value == value}
    if up is None or len(figures) < 2:
        return []
    top, least = (max, min)[not up](figures.values()), (min, max)[not up](figures.values())
    if top == least:
        return []
    return [stages[index] for index, value in figures.items() if value == top]


def _by_stage(heading: str, stages: Sequence[Stage], key: str, text: Value) -> str:
    """A table of a summary: a column for each stage, or one for all when they agree."""
    told = [stage for stage in stages if stage.table(key)]
    names = _keys(told, key)
    if not names:
        return ""
    same = all(stage.table(key) == told[0].table(key) for stage in told)
    shown = told[:1] if same else told
    rows = [
        (
            title(name) if key == "costs" else name,
            [cell(text(name, stage.table(key)[name]) if name in stage.table(key) else "") for stage in shown],
        )
        for name in names
    ]
    heads = ["", *(stage.name for stage in shown)] if not same else []
    return f"<section><h2>{heading}</h2>{table(heads, rows, fit=True)}</section>"


def _both(name: str, value: object) -> str:
    """A cost in full, and rounded where that is shorter."""
    full, rounded = figure(name, value), short(name, value)
    return full if full == rounded else f"{full} ({rounded})"


def _as_told(_: str, value: object) -> str:
    return str(value)


def _keys(stages: Sequence[Stage], key: str) -> list[str]:
    return list(dict.fromkeys(name for stage in stages for name in stage.table(key)))


def _metrics(stages: Sequence[Stage]) -> list[str]:
    """The names of metrics, losses last: they are seldom what a run is judged by."""
    return sorted(_keys(stages, "metrics"), key=lambda name: name.startswith("loss"))


def _commands(stages: Sequence[Stage]) -> str:
    parts = [
        f'{_names(names)}<pre class="all"><code>{escape(command)}</code></pre>'
        for command, names in _grouped(stages, lambda stage: stage.summary.get("command")).items()
    ]
    return f"<section><h2>Reproduce</h2>{''.join(parts)}</section>" if parts else ""


def _recipes(stages: Sequence[Stage]) -> str:
    parts = [
        f"<details><summary>recipe.yaml{escape(_of(names))}</summary><pre><code>{escape(text)}</code></pre></details>"
        for text, names in _grouped(stages, lambda stage: stage.recipe).items()
    ]
    return f"<section><h2>Resolved recipe</h2>{''.join(parts)}</section>" if parts else ""


def _grouped(stages: Sequence[Stage], text: Callable[[Stage], Any]) -> dict[str, list[str]]:
    """The names of stages by the text that they share; no names at all for a lone stage."""
    groups: dict[str, list[str]] = {}
    for stage in stages:
        value = text(stage)
        if isinstance(value, str) and value.strip():
            groups.setdefault(value.rstrip("\n"), []).extend([stage.name] if len(stages) > 1 else [])
    return groups


def _names(names: Sequence[str]) -> str:
    return f"<h3>{escape(', '.join(names))}</h3>" if names else ""


def _of(names: Sequence[str]) -> str:
    return f" of {', '.join(names)}" if names else ""


def _absences(stages: Sequence[Stage]) -> str:
    """What the page could not show, and why."""
    parts = []
    for stage in stages:
        who = f"{stage.name}: " if len(stages) > 1 else ""
        parts += [f'<p class="note fault">{escape(who + fault)}</p>' for fault in stage.faults]
        if stage.missing:
            parts.append(f'<p class="note">{escape(who)}not there: {escape(", ".join(stage.missing))}</p>')
    return f"<section><h2>Files</h2>{''.join(parts)}</section>" if parts else ""
