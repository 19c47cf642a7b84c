"""Methods against random cells of the same space and training: independent searches, mean and spread.

    python benchmarks/compare.py recipes/image_cifar10.sh --variants pc_darts,darts --seeds 0,1,2 \
        --out runs/compare -- --data PATH --smoke

Runs the recipe for every method and seed (one that is finished is not run again), then prints one table.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from nas_apps.core.summary import stages

ROOT = Path(__file__).parent.parent


def main(
    recipe: Path,
    arguments: Annotated[list[str] | None, typer.Argument(help="What the recipe is called with.")] = None,
    variants: str = "pc_darts,darts",
    seeds: str = "0,1,2",
    out: Path = Path("runs/compare"),
    metric: str = "accuracy",
) -> None:
    """Run and compare."""
    results: dict[str, list[dict]] = {}
    for variant in variants.split(","):
        for seed in seeds.split(","):
            folder = (out / f"{variant}_{seed}").resolve()
            command = [
                "sh",
                str(recipe),
                "--variant",
                variant,
                "--seed",
                seed,
                "--run",
                str(folder),
                *(arguments or []),
            ]
            if not (folder / "report.html").exists():
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            found = stages(folder)
            results.setdefault(variant, []).append(found["train"])
            results.setdefault(f"random, beside {variant}", []).append(found["random_train"])
            typer.echo(
                f"{variant} seed {seed}: {metric} {found['train']['metrics'][metric]:.4f}, "
                f"random {found['random_train']['metrics'][metric]:.4f}",
                err=True,
            )
    typer.echo(f"| cell | {metric}: mean ± sd over searches | each | params, mean | seconds of training, mean |")
    typer.echo("|---|---|---|---|---|")
    for name, runs in results.items():
        typer.echo(row(name, runs, metric))
    (out / "results.json").write_text(json.dumps(results, indent=1))


def row(name: str, runs: list[dict], metric: str) -> str:
    """A line of the table."""
    values = [run["metrics"][metric] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    each = ", ".join(f"{value:.4f}" for value in values)
    params = statistics.mean(run["costs"]["params"] for run in runs)
    seconds = statistics.mean(run["seconds"]["train"] for run in runs)
    return f"| {name} | {statistics.mean(values):.4f} ± {spread:.4f} | {each} | {params:,.0f} | {seconds:.0f} |"


if __name__ == "__main__":
    typer.run(main)
