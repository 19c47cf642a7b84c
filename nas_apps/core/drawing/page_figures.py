"""The figures of the report page: the cells drawn, the curves, the weights of each choice over time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nas_apps.core.drawing.page_stage import Stage, finite
from nas_apps.core.drawing.page_text import title
from nas_apps.core.drawing.picture import cell_svg
from nas_apps.core.drawing.picture_curve import curves_svg
from nas_apps.core.drawing.picture_weights import Matrix, weights_svg
from nas_apps.core.drawing.svg import Pen, escape, option_pens, pen
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import Choice, Space

ONE_HOT = "_one_hot"
CLOCKS = ("step", "epoch")
PLACES = ("train", "valid", "evaluation")
CHART = (372, 236)
MOMENT = re.compile(r"epoch_(\d+)_train")
"""The stage that trains the cell which a search had at the end of an epoch."""


def cell_section(stages: Sequence[Stage]) -> str:
    """Each genotype once, with the stages that have it."""
    found: list[tuple[Genotype, list[str]]] = []
    for stage in stages:
        if stage.genotype is None:
            continue
        names = next((names for genotype, names in found if genotype == stage.genotype), None)
        if names is None:
            found.append((stage.genotype, names := []))
        names.append(stage.name)
    spaces = [stage.space for stage in stages if stage.space is not None]
    parts = []
    for genotype, names in found:
        caption = f"<figcaption>{escape(', '.join(names))}</figcaption>" if len(stages) > 1 else ""
        drawn = next((svg for space in spaces if (svg := _cell(space, genotype))), "")
        parts.append(f'<figure class="wide row">{caption}{drawn}</figure>' if drawn else _listed(genotype, caption))
    return f'<section><h2>Cell</h2><div class="figures">{"".join(parts)}</div></section>' if parts else ""


def _cell(space: Space, genotype: Genotype) -> str:
    try:
        return cell_svg(space, genotype)
    except UserError:
        return ""


def _listed(genotype: Genotype, caption: str) -> str:
    """A genotype without its space, which cannot be drawn."""
    lines = [
        f"{name}[{index}]: {', '.join(row) or '-'}"
        for name, rows in genotype.kept.items()
        for index, row in enumerate(rows)
    ]
    why = '<p class="note">Not drawn: there is no space.json that it belongs to.</p>'
    return f"<div>{caption}{why}<pre>{escape(chr(10).join(lines))}</pre></div>"


def curve_section(stages: Sequence[Stage]) -> str:
    """A chart for each metric of each stage, with one line for each place it was measured in."""
    parts, groups = [], [_series(stage) for stage in stages]
    pens = _pens([place for group in groups for series in group.values() for place in series])
    for stage, group in zip(stages, groups, strict=True):
        if group:
            clock = _clock(stage) or "line"
            charts = [
                f"<figure>{curves_svg(metric, series, x_label=clock, pens=pens, size=CHART)}</figure>"
                for metric, series in group.items()
            ]
            heading = f"<h3>{escape(stage.name)}</h3>" if len(stages) > 1 else ""
            parts.append(f'{heading}<div class="charts">{"".join(charts)}</div>')
    return f"<section><h2>Curves</h2>{''.join(parts)}</section>" if parts else ""


def _clock(stage: Stage) -> str:
    return next((name for name in CLOCKS if any(name in entry for entry in stage.metrics)), "")


def _series(stage: Stage) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The points of each line of each chart."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    clock = _clock(stage)
    for number, entry in enumerate(stage.metrics):
        at = finite(entry.get(clock)) if clock else float(number)
        for key, value in entry.items():
            if key in CLOCKS or isinstance(value, str | bool | list | dict):
                continue
            metric, place = _metric(key)
            groups.setdefault(metric, {}).setdefault(place, []).append((at, finite(value)))
    return {metric: dict(sorted(series.items(), key=_in_order)) for metric, series in groups.items()}


def _in_order(entry: tuple[str, object]) -> int:
    """Places that every task has come first."""
    place = entry[0].partition(",")[0]
    return PLACES.index(place) if place in PLACES else len(PLACES)


def _metric(key: str) -> tuple[str, str]:
    """The chart a metric belongs in and the name of its line; the one-hot network's goes beside the plain one.

    A diagnosis has a line for each choice.
    """
    place, slash, metric = key.partition("/")
    if place == "diagnosis":
        metric, _, place = metric.partition("/")
    place, metric = (place, metric) if slash else ("", key)
    if metric.endswith(ONE_HOT) and metric != ONE_HOT:
        return metric.removesuffix(ONE_HOT), f"{place}, one-hot" if place else "one-hot"
    return metric, place


def _pens(places: Sequence[str]) -> dict[str, Pen]:
    """One colour for each place in all charts; the one-hot network dashed in the colour of its place."""
    plain = list(dict.fromkeys([*PLACES, *(place.removesuffix("one-hot").removesuffix(", ") for place in places)]))
    colours = {place: pen(index) for index, place in enumerate(plain)}
    return {
        place: Pen(colours[place.removesuffix("one-hot").removesuffix(", ")].colour, "5 3")
        if place.endswith("one-hot")
        else colours[place]
        for place in places
    }


def weight_section(stages: Sequence[Stage]) -> str:
    """The weights of each choice over the epochs of each search."""
    parts = []
    for stage in stages:
        if not stage.weights:
            continue
        heading = f"<h3>{escape(stage.name)}</h3>" if len(stages) > 1 else ""
        space = {name: _choice(stage, name, history[0][1]) for name, history in stage.weights.items()}
        pens, kept = option_pens({**(stage.space or {}), **space}), stage.genotype.kept if stage.genotype else {}
        means = [(name, history) for name, history in stage.weights.items() if space[name].dag is not None]
        figures = [f"<figure>{_strengths(name, space[name], history, pens)}</figure>" for name, history in means]
        for name, history in stage.weights.items():
            rows = kept.get(name)
            svg = weights_svg(
                name,
                space[name],
                history,
                pens=pens,
                kept=rows if rows is not None and len(rows) == len(space[name].rows) else None,
            )
            figures.append(f'<figure class="wide">{svg}</figure>')
        parts.append(f'{heading}<div class="figures">{"".join(figures)}</div>')
    return f"<section><h2>Weights of each choice over time</h2>{''.join(parts)}</section>" if parts else ""


def _strengths(name: str, choice: Choice, history: Sequence[tuple[float, Matrix]], pens: Mapping[str, Pen]) -> str:
    """The weight of each option of a cell over time, as a mean over the edges that have it."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for epoch, matrix in history:
        seen: dict[str, list[float]] = {}
        for options, row in zip(choice.rows, matrix, strict=True):
            for option, weight in zip(options, row, strict=True):
                seen.setdefault(option, []).append(weight)
        for option, weights in seen.items():
            lines.setdefault(option, []).append((epoch, sum(weights) / len(weights)))
    return curves_svg(f"{name}, mean over edges", lines, x_label="epoch", pens=pens, size=CHART)


def along_section(stages: Sequence[Stage]) -> str:
    """What the cells derived along a search came to: a chart for each metric over the epoch that a cell is of."""
    moments = [(int(found[1]), stage) for stage in stages if (found := MOMENT.fullmatch(stage.name))]
    metrics = dict.fromkeys(name for _, stage in moments for name in stage.table("metrics"))
    charts = []
    for metric in metrics:
        told = sorted(
            (epoch, finite(s.table("metrics")[metric])) for epoch, s in moments if metric in s.table("metrics")
        )
        if len(told) > 1 and not metric.endswith("_se"):
            chart = curves_svg(title(metric), {"trained from scratch": told}, x_label="epoch", size=CHART)
            charts.append(f"<figure>{chart}</figure>")
    if not charts:
        return ""
    return f'<section><h2>Cells derived along the search</h2><div class="charts">{"".join(charts)}</div></section>'


def _choice(stage: Stage, name: str, weights: Matrix) -> Choice:
    """The choice that weights belong to; one of numbered options when the stage's space does not say."""
    known = (stage.space or {}).get(name)
    widest = max(len(row) for row in weights)
    if known is not None and known.shape == (len(weights), widest) and all(len(row) == widest for row in weights):
        return known
    return Choice.uniform(tuple(f"option {index}" for index in range(widest)), len(weights))
