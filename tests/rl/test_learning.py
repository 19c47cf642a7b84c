"""The learning proof of docs/benchmarks.md. Half an hour on one core: pytest -m slow tests/rl/test_learning.py"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import nas_apps

RANDOM = 1.49  # the return of a player that does not look, easy starpilot
STUDY = str(Path(__file__).parents[2] / "benchmarks" / "studies" / "starpilot.yaml")


def returns(folder: Path, seed: int, *overrides: str) -> tuple[float, float]:
    """The super-net's mean return at the end of a search, and its standard error."""
    nas_apps.search(nas_apps.recipe(STUDY, "variant=rl_darts", f"seed={seed}", *overrides), folder)
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    return metrics["return"], metrics["return_se"]


@pytest.mark.slow
@pytest.mark.parametrize("still", [False, True])
def test_a_search_plays_starpilot_better_than_chance_and_without_steps_does_not(still: bool, tmp_path: Path) -> None:
    pytest.importorskip("procgen")
    given = ("search.weights.lr=0", "search.logits.lr=0", "search.epochs=1") if still else ()
    found = [returns(tmp_path / str(seed), seed, *given) for seed in range(3)]
    mean = sum(value for value, _ in found) / len(found)
    error = math.sqrt(sum(se**2 for _, se in found)) / len(found)
    assert (mean - RANDOM > 3 * error) != still, found
