"""A search in stages: the space narrows, the network changes, and it is one search all the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core import checkpoint, runs
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner
from nas_apps.core.logs import read_lines
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.space_json import read_space
from nas_apps.core.stages import hand_over, narrow, parts_of, rows_of, with_rows
from nas_apps.core.variants import VARIANTS

CPU = Runtime(torch.device("cpu"))
STAGED = [name for name, variant in VARIANTS.items() if variant.stages]
THREE = "variant.stages=[{}, {keep: 3, deeper: 2}, {keep: 2, wiring: {name: partial, k: 2}}]"
Make = Callable[..., Recipe]


def built(recipe: Recipe, index: int, **settings: object) -> Learner:
    part = parts_of(recipe)[index]
    return search_learner(part.recipe, CPU, stage=index, rates=part.span.whole, **settings)[0]


def test_stages_share_the_epochs_and_have_their_own_wiring_and_depth(recipe: Make) -> None:
    made = recipe(THREE, "search.epochs=10")
    parts = parts_of(made)
    assert [(part.span.first, part.span.last) for part in parts] == [(0, 3), (3, 6), (6, 10)]
    assert [part.recipe.search.epochs for part in parts] == [3, 3, 4]
    assert [part.recipe.search.network.cells for part in parts] == [2, 4, 2]
    assert parts[2].recipe.variant.wiring.k == 2
    (only,) = parts_of(recipe())
    assert (only.span.first, only.span.last, only.recipe) == (0, 4, recipe())


def test_a_method_of_one_stage_is_the_method_without_stages(recipe: Make, tmp_path: Path) -> None:
    runs.search(recipe(), tmp_path / "none")
    runs.search(recipe("variant.stages=[{}]"), tmp_path / "one")
    first, second = (checkpoint.read(tmp_path / name / "checkpoint.pt")["learner"] for name in ("none", "one"))
    assert all(torch.equal(a, b) for a, b in zip(first["arch"].values(), second["arch"].values(), strict=True))
    assert all(torch.equal(a, second["objective"][n]) for n, a in first["objective"].items())


def test_each_row_keeps_its_heaviest_options_and_dropped_sets_nest(recipe: Make) -> None:
    learner = built(recipe(), 0)
    with torch.no_grad():
        learner.arch.logits["cell.op"].copy_(torch.randn(5, 4))
    weights = learner.arch.expected().weights["cell.op"]
    spaces = {number: narrow(learner.arch, number)["cell.op"].rows for number in (4, 3, 2)}
    options = learner.arch.space["cell.op"].rows[0]
    for row, table in enumerate(weights):
        best = [options[k] for k in table.argsort(descending=True)]
        for number, rows in spaces.items():
            assert set(rows[row]) == set(best[:number])
            assert list(rows[row]) == [o for o in options if o in rows[row]]
    assert narrow(learner.arch, None) == narrow(learner.arch, 9) == learner.arch.space
    assert with_rows(learner.arch.space, rows_of(narrow(learner.arch, 2))) == narrow(learner.arch, 2)


def test_what_is_still_there_goes_on_and_what_has_grown_are_copies(recipe: Make) -> None:
    made = recipe(
        "variant.wiring={name: partial, k: 4}", "variant.stages=[{}, {keep: 3, wiring: {name: partial, k: 2}}]"
    )
    old = built(made, 0)
    with torch.no_grad():
        old.arch.logits["cell.op"].copy_(torch.randn(5, 4))
    new = built(made, 1, space=narrow(old.arch, 3))
    hand_over(old, new)
    for row, options in enumerate(new.arch.space["cell.op"].rows):
        before = dict(zip(old.arch.space["cell.op"].rows[row], old.arch.logits["cell.op"][row].tolist(), strict=True))
        assert new.arch.logits["cell.op"][row].tolist() == [before[option] for option in options]
    weights, before = new.objective.state_dict(), old.objective.state_dict()
    assert torch.equal(weights["network.stem.weight"], before["network.stem.weight"])
    grown = [name for name in weights if weights[name].shape != before[name].shape]
    assert grown
    for name in grown:  # 3 of 12 channels, then 6
        assert torch.equal(weights[name][:3, ..., :3] if weights[name].ndim > 1 else weights[name][:3], before[name])
        assert torch.equal(weights[name][3:], weights[name][:3])


def test_rates_begin_anew_in_each_stage_but_where_weights_go_on(recipe: Make) -> None:
    found = {}
    for inherit in (False, True):
        made = recipe(f"variant.stages=[{{}}, {{keep: 3, inherit: {str(inherit).lower()}}}]", "search.epochs=8")
        part = parts_of(made)[1]
        learner = built(made, 1)
        learner.begin(part.span.at(4), part.span.rates(4))
        assert learner.progress == Progress(0, 4)
        found[inherit] = learner.optimizer.param_groups[0]["lr"]
    assert found == {False: pytest.approx(0.1), True: pytest.approx(0.05)}


@pytest.mark.parametrize("variant", STAGED)
def test_a_search_in_stages_is_one_run(recipe: Make, variant: str, tmp_path: Path) -> None:
    made = recipe(f"variant={variant}", "search.epochs=6")
    genotype = nas_apps.search(made, tmp_path / "run")
    assert nas_apps.derive(tmp_path / "run") == genotype
    state = checkpoint.read(tmp_path / "run" / "checkpoint.pt")
    stages = VARIANTS[variant].stages
    assert state["stage"] == len(stages) - 1
    kept = min(stages[-1].keep, 3 if not VARIANTS[variant].none else 4)
    assert {len(row) for row in state["rows"]["cell.op"]} == {kept}
    for row, options in zip(genotype.kept["cell.op"], state["rows"]["cell.op"], strict=True):
        assert set(row) <= set(options)
    lines = read_lines(tmp_path / "run" / "choices.jsonl")
    assert [line["epoch"] for line in lines] == list(range(6))
    (options,) = {len(row) for row in read_space(tmp_path / "run" / "space.json")["cell.op"].rows}
    assert {len(row) for line in lines for row in line["weights"]["cell.op"]} == {options}
    assert (sorted((tmp_path / "run" / "genotypes").iterdir())[-1].name) == "epoch_005.json"
    assert Genotype.load(tmp_path / "run" / "genotypes" / "epoch_005.json") == genotype


@pytest.mark.parametrize("step", [1, 5, 6, 7, 11, 12, 13, 17])
def test_a_search_that_ends_within_or_between_stages_goes_on_as_if_it_had_not(
    recipe: Make, step: int, stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    made = recipe(THREE, "search.epochs=6", "search.epoch_steps=3", "search.checkpoint_steps=1")
    runs.search(made, tmp_path / "whole")
    with stopping(step):
        runs.search(made, tmp_path / "stopped")
    runs.search(made, tmp_path / "stopped", resume=True)
    for name in ("metrics.jsonl", "choices.jsonl", "genotype.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name
    first, second = (
        checkpoint.read(tmp_path / n / "checkpoint.pt")["learner"]["objective"] for n in ("whole", "stopped")
    )
    assert all(torch.equal(a, second[n]) for n, a in first.items())


@pytest.mark.parametrize("perturb", ["random_smoothing", "adversarial", "mean_shift"])
def test_a_perturbation_goes_with_stages(recipe: Make, perturb: str, tmp_path: Path) -> None:
    made = recipe("variant=p_darts", f"variant.perturb={perturb}", "search.epochs=3")
    assert nas_apps.search(made, tmp_path / "run").kept["cell.op"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("variant=p_darts", "search.epochs=2"), "search.epochs: got 2; allowed: 3 and more"),
        (("variant.stages=[{keep: 2}, {}]",), "nothing comes before the first"),
        (("variant.stages=[{inherit: true}, {keep: 2}]",), "nothing comes before the first"),
        (("variant=msg_das", "variant.relax.k=3", "variant.stages=[{}, {keep: 2}]"), "share no option"),
    ],
)
def test_stages_that_mean_nothing_are_refused(recipe: Make, overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        recipe(*overrides)


def test_a_network_has_a_cell_however_small_a_part_of_it_a_stage_is(recipe: Make) -> None:
    assert parts_of(recipe("variant.stages=[{}, {deeper: 0.1}]"))[1].recipe.search.network.cells == 1


def test_a_cap_that_the_whole_space_meets_is_met_after_it_was_narrowed(recipe: Make, tmp_path: Path) -> None:
    staged = ("variant.stages=[{}, {keep: 2}, {keep: 2}]", "search.epochs=3", "search.logits.init_std=2")
    with pytest.raises(UserError, match="allowed: ") as caught:
        nas_apps.search(recipe(*staged, "search.budget={of: params, cap: 1}"), tmp_path / "least")
    least = int(re.search(r"allowed: (\d+) and more", str(caught.value))[1])
    for seed in range(3):
        made = recipe(*staged, f"search.budget={{of: params, cap: {least}}}", f"seed={seed}")
        nas_apps.search(made, tmp_path / f"capped{seed}")
        summary = json.loads((tmp_path / f"capped{seed}" / "summary.json").read_text())
        assert summary["budget"]["cost"] <= least


def test_a_later_stage_that_cannot_be_built_is_told_before_anything_is_written(recipe: Make, tmp_path: Path) -> None:
    made = recipe("variant.stages=[{}, {keep: 2, wiring: {name: partial, k: 5}}]")
    with pytest.raises(UserError, match="5 does not divide the 12 channels"):
        nas_apps.search(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()
