"""A final training that begins with the weights of its search: with sparsestmax there is nothing left to train."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import nas_apps as package
from nas_apps.core import checkpoint
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.folder import read_recipe
from nas_apps.core.genotype import Genotype
from nas_apps.core.inherit import inherit, take
from nas_apps.core.learners import search_learner, train_learner
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime

CPU = Runtime(torch.device("cpu"))
ONE_NET = ("variant=darts", "variant.edge_set=2", "variant.none=false", "variant.derive.by=edges",
           "search.network.channels=8")  # fmt: skip
SPARSEST = (*ONE_NET, "variant.relax=sparsest_max", "variant.edges=sparsest_max")
SOFT = (*ONE_NET, "variant.relax=softmax", "variant.edges=softmax")


def inherited(made: Recipe, folder: Path, epochs: int = 0) -> Recipe:
    return replace(made, train=replace(made.train, epochs=epochs, inherit=str(folder)))


def says(objective: nn.Module) -> Tensor:
    """What a network says of some points, in evaluation mode."""
    with torch.no_grad():
        found: Tensor = objective.eval().get_submodule("network")(torch.randn(32, 2))
    return found


@pytest.mark.parametrize(("settings", "equal"), [(SPARSEST, True), (SOFT, False)], ids=["sparsest_max", "softmax"])
def test_the_network_is_the_super_net_of_the_last_epoch_to_the_bit_or_far_from_it(
    recipe: Callable[..., Recipe], settings: tuple[str, ...], equal: bool, tmp_path: Path
) -> None:
    made = recipe(*settings)
    genotype = package.search(made, tmp_path / "search")
    summary = package.train(inherited(made, tmp_path / "search"), genotype, tmp_path / "train")
    learner, _ = search_learner(made, CPU)
    learner.load_state_dict(checkpoint.read(tmp_path / "search" / "checkpoint.pt")["learner"])
    fixed, _ = train_learner(made, genotype, CPU)
    fixed.objective.load_state_dict(load_file(tmp_path / "train" / "model.safetensors"))
    torch.manual_seed(1)
    with learner.arch.using(learner.arch.expected(Progress(3, 4))):
        before = says(learner.objective)
    torch.manual_seed(1)
    with fixed.arch.using(fixed.arch.expected()):
        after = says(fixed.objective)
    assert torch.equal(before, after) == equal
    assert equal or (before - after).abs().max() > 0.05
    assert summary["steps"] == 0
    assert summary["metrics"] == package.evaluate(tmp_path / "train")


def test_weights_are_taken_by_name_and_narrower_ones_are_the_first_of_wider_ones() -> None:
    wide, narrow = (
        nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)),
        nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)),
    )
    wide[1].running_mean.normal_()
    taken = take(wide.state_dict(), narrow)
    assert taken == (sum(p.numel() for p in narrow.parameters()), taken.number, None)
    assert torch.equal(narrow[0].weight, wide[0].weight[:3, :4])
    assert torch.equal(narrow[1].running_mean, wide[1].running_mean[:3])
    back = take(narrow.state_dict(), wide)  # from smaller to larger nothing goes but what has no size
    assert (back.number, back.missing) == (0, "0.weight")


def test_what_the_search_had_not_begins_anew_and_is_told(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made = recipe(*SPARSEST, "train.network.cells=3")
    genotype = package.search(made, tmp_path / "search")
    summary = package.train(inherited(made, tmp_path / "search", 1), genotype, tmp_path / "train")
    (told,) = (text for text in summary["warnings"] if "parameters are those of" in text)
    assert "(the first is network.cells.2." in told
    assert not told.startswith("0 of")


def test_a_training_that_is_killed_goes_on_to_the_same_end_without_the_search(
    recipe: Callable[..., Recipe], stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    made = recipe(*SPARSEST, "train.checkpoint_steps=1")
    genotype = package.search(made, tmp_path / "search")
    begun = inherited(made, tmp_path / "search", 2)
    package.train(begun, genotype, tmp_path / "whole")
    with stopping(3):
        package.train(begun, genotype, tmp_path / "killed")
    (tmp_path / "search" / "checkpoint.pt").unlink()
    package.train(begun, genotype, tmp_path / "killed", resume=True)
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    anew = package.train(replace(made, train=replace(made.train, epochs=2)), genotype, tmp_path / "anew")
    assert anew["metrics"] != json.loads((tmp_path / "whole" / "summary.json").read_text())["metrics"]
    with pytest.raises(UserError, match=r"holds a run of another recipe: train.inherit is '.*search' there and None"):
        package.train(
            replace(begun, train=replace(begun.train, inherit=None)), genotype, tmp_path / "killed", resume=True
        )


def test_the_option_of_the_command_line_is_in_the_recipe(
    nas_apps: Callable[..., Any], recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    made = recipe(*SPARSEST)
    package.search(made, tmp_path / "a search")
    args = ["train", "task=toy", "task.points=96", "train.epochs=0", "--genotype", "a search/genotype.json"]
    for extra in ([], ["--resume"]):
        done = nas_apps(*args, "--inherit", "a search", "--run", "t", *extra)
        assert done.returncode == 0, done.stderr
    assert read_recipe(tmp_path / "t").train.inherit == "a search"
    assert len((tmp_path / "t" / "metrics.jsonl").read_text().splitlines()) == 1
    assert nas_apps("report", "t").returncode == 0
    done = nas_apps(*args, "--inherit", "t", "--run", "other")  # a training's weights go over too
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("t", "other"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_folder_that_gives_nothing_is_refused(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made = recipe(*SPARSEST)
    genotype: Genotype = package.search(made, tmp_path / "search")
    with pytest.raises(UserError, match=r"nothing: no recipe.yaml in it; allowed: the folder of a search"):
        package.train(inherited(made, tmp_path / "nothing"), genotype, tmp_path / "train")
    path = tmp_path / "search" / "recipe.yaml"
    path.write_text(path.read_text().replace("name: toy\n  points: 96\n  classes: 3\n  noise: 0.05", "name: image"))
    with pytest.raises(
        UserError, match=r"^train.inherit: .*search holds a run of task image; allowed: one of task toy"
    ):
        package.train(inherited(made, tmp_path / "search"), genotype, tmp_path / "train")
    assert not (tmp_path / "train").exists()


def test_a_super_net_without_a_weight_of_the_network_is_refused(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made = recipe(*SPARSEST)
    genotype = package.search(made, tmp_path / "search")
    state = checkpoint.read(tmp_path / "search" / "checkpoint.pt")
    state["learner"]["objective"] = {f"other.{name}": t for name, t in state["learner"]["objective"].items()}
    torch.save(state, tmp_path / "search" / "checkpoint.pt")
    learner, _ = train_learner(made, genotype, CPU)
    with pytest.raises(
        UserError, match=r"^train.inherit: no weight of this network is in .*search, by name and size; allow"
    ):
        inherit(inherited(made, tmp_path / "search"), learner)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("search.inherit=x", "search.inherit: a search begins anew"),
        ("train.epochs=0", "train.epochs: got 0; allowed: 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(recipe: Callable[..., Recipe], override: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        recipe(override)
    assert recipe("train.epochs=0", "train.inherit=x").train.epochs == 0
