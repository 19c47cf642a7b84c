"""Figures of a search, and what is said of a cell that has collapsed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps import cli
from nas_apps.core import checkpoint, runs, summary
from nas_apps.core.arch import Draw
from nas_apps.core.config import Recipe
from nas_apps.core.diagnosis import collapsed, figures, read_history
from nas_apps.core.drawing.page import report_page
from nas_apps.core.ending import derived_now
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.logs import read_lines
from nas_apps.core.space import Choice, Dag, Space, cell_choices
from nas_apps.core.variants import VARIANTS
from nas_apps.testing import _equal

OPTIONS = ("none", "skip_connect", "conv")
SPACE: Space = {**cell_choices("normal", Dag(2, 1, keep=2), (OPTIONS,) * 2), "gate": Choice((("on",),))}
CELL = Genotype({"normal.op": (("skip_connect",), ("conv",)), "gate": (("on",),)})
SEARCHING = [name for name, variant in VARIANTS.items() if variant.schedule.searches]


def draw(rows: list[list[float]]) -> Draw:
    return Draw({"normal.op": torch.tensor(rows), "gate": torch.ones(1, 1)}, {})


def test_the_figures_of_two_known_rows() -> None:
    found = figures(SPACE, draw([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]), CELL)
    assert found == {
        "diagnosis/skips/normal.op": 1,
        "diagnosis/entropy/normal.op": pytest.approx(math.log(2) / math.log(3) / 2),
        "diagnosis/margin/normal.op": pytest.approx(0.5),
        "diagnosis/none/normal.op": pytest.approx(0.25),
        "diagnosis/entropy/gate": 0.0,
        "diagnosis/margin/gate": 1.0,
    }


def test_entropy_is_1_when_all_options_are_alike_also_for_weights_that_do_not_compete() -> None:
    for weight in (1 / 3, 0.9):
        found = figures(SPACE, draw([[weight] * 3] * 2), CELL)
        assert found["diagnosis/entropy/normal.op"] == pytest.approx(1)
        assert found["diagnosis/none/normal.op"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("skips", "said"), [(0, False), (3, False), (4, True), (8, True)])
def test_a_cell_with_skips_on_half_of_its_kept_edges_has_collapsed(skips: int, said: bool) -> None:
    dag = Dag(2, 4, keep=2)
    space = cell_choices("normal", dag, (OPTIONS,) * len(dag.edges()))
    options = ["skip_connect"] * skips + ["conv"] * (8 - skips)
    rows = tuple((options.pop(),) if options and i not in (2, 5, 6, 9, 10, 11) else () for i in range(14))
    assert bool(collapsed(space, Genotype({"normal.op": rows}))) == said


def test_edges_that_are_none_are_not_kept() -> None:
    space = cell_choices("cell", Dag(1, 3), (OPTIONS,) * 6)
    rows = (("skip_connect",), ("none",), ("conv",), ("none",), ("none",), ("none",))
    assert "1 of 2 edges" in collapsed(space, Genotype({"cell.op": rows}))["cell.op"]
    assert collapsed(space, Genotype({"cell.op": (("none",),) * 6})) == {}


@pytest.mark.parametrize("variant", SEARCHING)
def test_every_epoch_of_every_search_has_its_figures_in_the_log_and_on_the_page(
    recipe: Callable[..., Recipe], variant: str, tmp_path: Path
) -> None:
    runs.search(recipe(f"variant={variant}", "search.eigenvalue_every=3"), tmp_path / "run")
    history = read_history(tmp_path / "run", 10**9)
    assert [entry["epoch"] for entry in history] == [0, 1, 2, 3]
    for entry in history:
        assert 0 <= entry["diagnosis/entropy/cell.op"] <= 1
        assert 0 <= entry.get("diagnosis/none/cell.op", 0.0) <= 1
        if not VARIANTS[variant].stages or entry["epoch"] == 0:  # a later stage may have left "none" out
            assert ("diagnosis/none/cell.op" in entry) == VARIANTS[variant].none
        cell = Genotype.load(tmp_path / "run" / "genotypes" / f"epoch_{entry['epoch']:03d}.json").kept["cell.op"]
        assert entry["diagnosis/skips/cell.op"] == sum("skip_connect" in row for row in cell)
    every = (0, 2, 3) if VARIANTS[variant].cite[0] == "1909.09656" else (0, 3)
    assert [e["epoch"] for e in history if math.isfinite(e.get("diagnosis/eigenvalue", math.nan))] == list(every)
    page = report_page(tmp_path / "run")
    assert all(f">{chart}<" in page for chart in ("skips", "entropy", "margin", "eigenvalue"))
    assert (">none<" in page) == any("diagnosis/none/cell.op" in entry for entry in history)


@pytest.mark.parametrize("variant", SEARCHING)
def test_a_search_that_is_watched_goes_the_same_way_to_the_bit(
    recipe: Callable[..., Recipe], variant: str, tmp_path: Path
) -> None:
    runs.search(recipe(f"variant={variant}", "variant.stop=never"), tmp_path / "plain")
    runs.search(recipe(f"variant={variant}", "variant.stop=never", "search.eigenvalue_every=1"), tmp_path / "watched")
    one, other = (checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("plain", "watched"))
    assert _equal({**one, "recipe": ""}, {**other, "recipe": ""})  # weights, logits, optimisers, streams, generators
    assert (tmp_path / "plain" / "choices.jsonl").read_bytes() == (tmp_path / "watched" / "choices.jsonl").read_bytes()


def test_the_eigenvalues_of_a_training_are_refused(recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(UserError, match=r"train.eigenvalue_every: a final training has no logits; allowed: search"):
        recipe("train.eigenvalue_every=2")
    with pytest.raises(UserError, match="search.eigenvalue_every: got 0|eigenvalue_every: got 0; allowed: 1 and more"):
        recipe("search.eigenvalue_every=0")


def test_a_search_of_a_loss_without_a_second_derivative_is_watched_by_differences(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_apps.tasks.toy import ToyTask

    found = {}
    for exact in (True, False):
        monkeypatch.setattr(ToyTask, "twice_differentiable", exact)
        runs.search(recipe("search.eigenvalue_every=1", "search.logits.init_std=1"), tmp_path / str(exact))
        found[exact] = [e["diagnosis/eigenvalue"] for e in read_history(tmp_path / str(exact), 10**9)]
    assert found[False] == pytest.approx(found[True], rel=2e-2)
    assert found[False] != found[True]


def test_a_collapsed_cell_is_said_once_in_the_folder_the_summary_the_page_and_by_derive(
    recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    seeds = (recipe("variant=random", f"seed={seed}") for seed in range(50))
    made = next(r for r in seeds if collapses(r))
    nas_apps.search(made, run)
    nas_apps.search(made, run, resume=True)
    lines = read_lines(run / "warnings.jsonl")
    assert len(lines) == 1
    assert "edges of the found cell are skip_connect: the search has collapsed" in lines[0]["message"]
    assert capsys.readouterr().err.count(lines[0]["message"]) == 1
    assert json.loads((run / "summary.json").read_text())["warnings"] == [lines[0]["message"]]
    assert lines[0]["message"] in report_page(run)
    whole = json.loads(summary.combine(tmp_path).read_text())
    assert whole["warnings"] == [f"run: {lines[0]['message']}"]
    cli.derive(run, out=tmp_path / "cell.json")
    assert lines[0]["message"] in capsys.readouterr().err


def collapses(made: Recipe) -> bool:
    from nas_apps.core.arch import Arch

    space = made.task.choices()
    return bool(collapsed(space, derived_now(made, Arch(space, made.variant.relaxations, seed=made.seed), None)))
