"""What a sweep amounts to: the outcome of each trial, and mean and spread over independent searches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_apps.core import files
from nas_apps.core.config import task_name
from nas_apps.core.drawing.sweep_page import Table, sweep_page
from nas_apps.core.spread import Spread
from nas_apps.core.sweep import FORMAT, RESULTS, Trial, table_figures

UNKNOWN = "-"


class Results:
    """The outcomes of a sweep's trials, kept in results.json, table.md and sweep.html.

    Args:
        train: whether what was found is trained; the figures are the search's own otherwise.
        table: the accuracies by cell that every found cell is looked up in.
        command: how the user started this.
    """

    def __init__(
        self, trials: Sequence[Trial], folder: Path, *, train: bool, table: Path | None, command: str | None
    ) -> None:
        self.trials, self.folder, self.train, self.table, self.command = trials, folder, train, table, command
        self.failures: dict[str, str] = {}
        self.outcomes = {trial.name: self._outcome(trial) for trial in trials}

    def end(self, name: str, failure: str | None) -> None:
        """Take up that a trial is over, with why it failed if it did."""
        if failure:
            self.failures[name] = failure
        self.outcomes[name] = self._outcome(next(trial for trial in self.trials if trial.name == name))
        self.write()

    def write(self) -> None:
        """Write the three files."""
        data = {
            "format": FORMAT,
            "command": self.command,
            "table": None if self.table is None else str(self.table.resolve()),
            "trials": list(self.outcomes.values()),
        }
        files.write_text(self.folder / RESULTS, json.dumps(data, indent=1) + "\n")
        files.write_text(self.folder / "table.md", self.text() + "\n")
        files.write_text(self.folder / "sweep.html", sweep_page(self.folder, data, self.tables()))

    def tables(self) -> list[Table]:
        """For each recipe a row for each variant."""
        groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        for outcome in self.outcomes.values():
            groups.setdefault(outcome["recipe"], {}).setdefault(outcome["variant"], []).append(outcome)
        return [_table(name, variants) for name, variants in groups.items()]

    def text(self) -> str:
        """The tables as Markdown, and what failed."""
        parts = []
        for table in self.tables():
            heading = f"## {table.recipe}\n\n" if table.recipe else ""
            parts.append(f"{heading}{_markdown([table.heads, *table.rows])}\n\n{table.note}")
        if self.failures:
            lines = (f"- {name}: {why}" for name, why in self.failures.items())
            parts.append("Failed:\n\n" + "\n".join(lines))
        return "\n\n".join(parts)

    def _outcome(self, trial: Trial) -> dict[str, Any]:
        stages = trial.read()
        left = trial.left(train=self.train, table=self.table)
        failure = self.failures.get(trial.name)
        last = "train" if self.train else "search"
        told = stages.get(last, {})
        return {
            "name": trial.name,
            "status": "failed" if failure else "unfinished" if left else "finished",
            "failure": failure,
            "recipe": trial.group,
            "task": task_name(trial.recipe.task),
            "variant": trial.recipe.variant_name,
            "seed": trial.recipe.seed,
            "stage": last,
            "goal": list(trial.recipe.task.goal),
            "metrics": {**told.get("metrics", {}), **table_figures(stages)},
            "search_metrics": stages.get("search", {}).get("metrics", {}),
            "costs": told.get("costs", {}),
            "seconds": {name: stages[name]["seconds"][name] for name in ("search", "train") if name in stages},
            "warnings": [text for part in stages.values() for text in part.get("warnings", ())],
            "genotype": stages.get("search", {}).get("genotype"),
        }


def _table(recipe: str, variants: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    every = [outcome for outcomes in variants.values() for outcome in outcomes]
    goal = every[0]["goal"][0]
    known = dict.fromkeys(name for o in every for name in o["metrics"] if name.startswith("table/"))
    looked_up = [name for name in known if name.endswith("/test")] or list(known)  # results.json has them all
    costs = [name for name in ("params", "macs") if any(name in o["costs"] for o in every)]
    goals = [name for name in (goal, f"{goal}_one_hot") if name == goal or any(name in o["metrics"] for o in every)]
    heads = ["variant", "searches", *goals, *costs, *(name.removeprefix("table/") for name in looked_up), "search time"]
    rows = []
    for variant, outcomes in variants.items():
        done = [outcome for outcome in outcomes if outcome["status"] == "finished"]
        number = str(len(done)) if len(done) == len(outcomes) else f"{len(done)} of {len(outcomes)}"
        columns = [*((goal, "metrics", name) for name in goals), *((name, "costs", name) for name in costs)]
        columns += [(name, "metrics", name) for name in looked_up] + [("search_seconds", "seconds", "search")]
        spreads = [
            (name, Spread.of([o[where][key] for o in done if o[where].get(key) is not None]))
            for name, where, key in columns
        ]
        rows.append([variant, number, *(found.text(name) if found else UNKNOWN for name, found in spreads)])
    what = {"train": "of the trained networks", "search": "evaluated in the search; nothing was trained"}
    note = (
        f"{goal}: {what[every[0]['stage']]}. Mean \u00b1 sample standard deviation over independent searches, "
        "each with a seed of its own."
    )
    return Table(recipe, goal, heads, rows, note)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * w if column == 0 else "-" * (w - 1) + ":" for column, w in enumerate(widths)]
    lines = (
        " | ".join(
            text.rjust(w) if column else text.ljust(w) for column, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [rows[0], rule, *rows[1:]]
    )
    return "\n".join(f"| {line} |" for line in lines)
