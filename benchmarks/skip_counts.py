"""Skip connections of the derived cells over a search, method by method, from the folder of a sweep.

python benchmarks/skip_counts.py runs/s2 --epochs 0,10,20,29
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from nas_apps.core.logs import read_lines

KEY = "diagnosis/skips/"


def counts(search: Path) -> dict[str, dict[int, float]]:
    """Of one search: by cell, the skip connections at the end of each epoch."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for line in read_lines(search / "metrics.jsonl"):
        for name, value in line.items():
            if name.startswith(KEY):
                found[name.removeprefix(KEY)][line["epoch"]] = value
    return found


def main(
    folder: Annotated[Path, typer.Argument(help="The folder of a sweep.")],
    epochs: Annotated[str, typer.Option(help="Epochs that get a column, with commas; counted from 0.")],
) -> None:
    """Print a table: mean, standard deviation and each search, for every method and cell."""
    columns = [int(epoch) for epoch in epochs.split(",")]
    trials = json.loads((folder / "results.json").read_text())["trials"]
    runs: dict[tuple[str, str], list[dict[int, float]]] = defaultdict(list)
    for trial in trials:
        if trial["status"] == "finished":
            for cell, course in counts(folder / trial["name"] / "search").items():
                runs[trial["variant"], cell].append(course)
    rows = [["method", "cell", "searches", *(f"epoch {epoch}" for epoch in columns)], ["---"] * (3 + len(columns))]
    for (variant, cell), courses in runs.items():
        cells = []
        for epoch in columns:
            values = [course[epoch] for course in courses]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread} ({', '.join(f'{v:.0f}' for v in values)})")
        rows.append([variant, cell, str(len(courses)), *cells])
    typer.echo("\n".join(f"| {' | '.join(row)} |" for row in rows))


if __name__ == "__main__":
    typer.run(main)
