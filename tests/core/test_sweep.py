"""The plan of a sweep: its trials, what is left of each, and what is refused before anything is written."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from nas_apps.core import runs
from nas_apps.core.errors import UserError
from nas_apps.core.sweep import numbers, plan, refuse
from nas_apps.core.sweep_run import devices, environments

TASKS = ", ".join(sorted(point.name for point in entry_points(group="nas_apps.tasks")))
TOY = ("task=toy", "task.points=48", "search.batch_size=16", "search.epochs=1", "train.epochs=1")


def recipes(folder: Path) -> tuple[str, str]:
    """Two recipes that are folders: the first brings something for gdas."""
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "base.yaml").write_text(f"task: {{name: toy, points: {48 if name == 'one' else 96}}}\n")
    (folder / "one" / "gdas.yaml").write_text("search: {batch_size: 8}\n")
    return str(folder / "one"), str(folder / "two")


def test_a_trial_for_each_recipe_variant_and_seed(tmp_path: Path) -> None:
    one, two = recipes(tmp_path)
    trials = plan(["search.epochs=2"], tmp_path / "s", recipes=(one, two), variants=("darts", "gdas"), seeds=(0, 7))
    assert [trial.name for trial in trials] == [
        f"{recipe}_{variant}_seed{seed}"
        for recipe in ("one", "two")
        for variant in ("darts", "gdas")
        for seed in (0, 7)
    ]
    told = [(t.recipe.task.points, t.recipe.variant_name, t.recipe.seed, t.recipe.search.epochs) for t in trials]  # type: ignore[attr-defined]
    assert told[:4] == [(48, "darts", 0, 2), (48, "darts", 7, 2), (48, "gdas", 0, 2), (48, "gdas", 7, 2)]
    assert told[4] == (96, "darts", 0, 2)
    assert [trial.recipe.search.batch_size for trial in trials] == [64, 64, 8, 8, 64, 64, 64, 64]


def test_without_axes_a_sweep_is_the_one_trial_of_its_recipe(tmp_path: Path) -> None:
    (trial,) = plan([*TOY, "variant=gdas", "seed=3"], tmp_path)
    assert trial.name == "gdas_seed3"
    assert list(trial.left(train=True, table=None)) == ["search", "train"]
    assert list(trial.left(train=False, table=Path("t.csv"))) == ["search", "table"]


def test_overrides_of_a_variants_parts_are_over_every_variant(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("task: toy\nvariant: {name: pc_darts, wiring: {k: 2}}\n")
    sources = [str(tmp_path / "r.yaml"), "variant.schedule.warmup=0.5"]
    darts, pc_darts = plan(sources, tmp_path, variants=("darts", "pc_darts"))
    assert darts.recipe.variant.schedule.warmup == pc_darts.recipe.variant.schedule.warmup == 0.5  # type: ignore[attr-defined]
    assert pc_darts.recipe.variant.wiring.k == 2  # type: ignore[attr-defined]


def test_recipes_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    for name in ("a/base.yaml", "b/base.yaml", "a/x.yaml", "b/x.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"task: {{name: toy, points: {10 + len(list(tmp_path.rglob('*')))}}}\n")

    def names(*paths: str) -> list[str]:
        return [trial.group for trial in plan([], tmp_path / "s", recipes=[str(tmp_path / path) for path in paths])]

    assert names("a/base.yaml", "b/base.yaml") == ["a", "b"]
    assert names("a/x.yaml", "b/x.yaml") == ["a_x", "b_x"]
    assert names("a/x.yaml", "b/base.yaml") == ["x", "b"]


@pytest.mark.parametrize(
    ("sources", "axes", "complaint"),
    [
        (TOY, {"variants": ("darts", "gads")}, "gads: variant: no 'gads'; allowed: "),
        (TOY, {"variants": ("darts", "darts")}, "darts_seed0: the same trial as darts_seed0; allowed: recipes"),
        (TOY, {"seeds": (1, 1)}, "darts_seed1: the same trial as darts_seed1"),
        ((*TOY, "variant=gdas"), {"variants": ("darts",)}, "variant: got 'gdas' among the overrides and 'darts' in"),
        ((*TOY, "seed=1"), {"seeds": (0,)}, "seed: got 1 among the overrides and 0 in --seeds; allowed: one of the"),
        (("search.epochs=1",), {}, f"task: not given; allowed: {TASKS}"),
        ((*TOY, "variant.schedule=unrolled"), {"variants": ("darts", "gdas"), "seeds": (0,)}, "gdas_seed0: variant"),
        (TOY, {"recipes": ("no.yaml",)}, "no: no.yaml: no such recipe; allowed"),
        (TOY, {"recipes": ("a.yaml", "a.yaml")}, "--recipe: got a.yaml, a.yaml; allowed: each once"),
        (TOY, {"recipes": (".",)}, "base.yaml: no such recipe; allowed"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_one_line(
    sources: tuple[str, ...], axes: dict[str, tuple[str, ...]], complaint: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        plan(sources, Path("s"), **axes)  # type: ignore[arg-type]
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["x", "", "0", ",", "1,x", "-1", "1.5", "0:3"])
def test_wrong_seeds_are_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--seeds: got .*; allowed: how many"):
        numbers(text)


def test_a_folder_that_is_no_sweeps_or_of_another_is_refused(tmp_path: Path) -> None:
    folder, table = tmp_path / "s", tmp_path / "t.csv"
    table.touch()

    def refusal(*sources: str, table: Path | None = None) -> str:
        with pytest.raises(UserError) as error:
            refuse(plan([*TOY, *sources], folder), folder, table)
        return str(error.value)

    refuse(plan(TOY, folder), folder, table)
    assert not folder.exists()
    folder.write_text("mine")
    assert "s: is a file; allowed: a folder for the sweep" in refusal()
    folder.unlink()
    folder.mkdir()
    for text in ("mine", "{}", '{"format": 3}', "[]"):
        (folder / "results.json").write_text(text)
        assert "s: holds other files and no results.json of a sweep; allowed: a new folder, or a" in refusal()
    (folder / "results.json").write_text(json.dumps({"format": "nas_apps sweep", "table": str(table)}))
    assert f"{tmp_path / 'u.csv'}: no such table" in refusal(table=tmp_path / "u.csv")
    trial = plan(TOY, folder)[0]
    runs.search(trial.recipe, trial.stage("search"))
    assert "holds a run of another recipe: search.epochs is 1 there and 2 here" in refusal("search.epochs=2")
    refuse(plan([*TOY, "seed=1"], folder), folder, None)
    assert list(trial.left(train=True, table=None)) == ["train"]


def test_cells_that_were_looked_up_in_another_table_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    trial = plan(TOY, tmp_path)[0]
    runs.search(trial.recipe, trial.stage("search"))
    path = trial.stage("search") / "summary.json"
    summary = json.loads(path.read_text())
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    (tmp_path / "results.json").write_text(json.dumps({"format": "nas_apps sweep", "table": str(tmp_path / "a.csv")}))
    refuse([trial], tmp_path, tmp_path / "b.csv")  # nothing was found in a.csv
    summary["metrics"]["table/cifar10/test"] = 90.0
    path.write_text(json.dumps(summary))
    refuse([trial], tmp_path, tmp_path / "a.csv")
    assert list(trial.left(train=False, table=tmp_path / "a.csv")) == []
    with pytest.raises(UserError, match=r"looked up in .*a\.csv; allowed: the same table, or another folder"):
        refuse([trial], tmp_path, tmp_path / "b.csv")


def test_a_sweep_is_one_process_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="sweep: one of 2 processes; allowed: one, which starts those of --jobs"):
        refuse(plan(TOY, tmp_path / "s"), tmp_path / "s", None)


def test_processes_share_cores_and_take_devices_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    trials = plan(TOY, tmp_path)
    assert devices(trials) == ["0", "1"]
    assert devices(plan([*TOY, "device=cuda:1"], tmp_path)) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert devices(trials) == ["3", "5"]
    assert environments(["3", "5"], 3) == [{"CUDA_VISIBLE_DEVICES": device} for device in ("3", "5", "3")]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environments([], 3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert environments(["0"], 16) == [{"OMP_NUM_THREADS": "1"}] * 16
