"""A network as large as another, by its width."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nas_apps as package
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.folder import read_recipe
from nas_apps.core.likeness import resized_like
from nas_apps.core.parts.derive import Random
from nas_apps.core.price import describe


def test_the_nearest_width_is_found(recipe: Callable[..., Recipe]) -> None:
    made = recipe("train.network.channels=12")
    genotype = Random()(made.task.choices(), {}, torch.Generator().manual_seed(1))

    def size(channels: int) -> float:
        phase = replace(made.train, network=replace(made.train.network, channels=channels))
        return describe(made.task, genotype, phase)["params"]

    for channels in (12, 31, 90):
        assert resized_like(made, genotype, int(size(channels))).train.network.channels == channels
        between = int(size(channels) * 0.6 + size(channels + 1) * 0.4)
        assert resized_like(made, genotype, between).train.network.channels == channels
    with pytest.raises(
        UserError, match=r"^train.network: 999,999,999 parameters are asked for, and [\d,]+ are the nearest"
    ):
        resized_like(made, genotype, 999_999_999)


def test_a_training_as_large_as_another_says_so_in_its_recipe_and_goes_on(
    recipe: Callable[..., Recipe], nas_apps: Callable[..., Any], tmp_path: Path
) -> None:
    made = recipe("train.network.channels=20", "train.epochs=1")
    for seed in (0, 1):
        Random()(made.task.choices(), {}, torch.Generator().manual_seed(seed)).save(tmp_path / f"{seed}.json")
    large = package.train(made, package.Genotype.load(tmp_path / "0.json"), tmp_path / "large")
    args = ["train", "task=toy", "task.points=96", "train.epochs=1", "train.batch_size=16", "--genotype", "1.json"]
    args += ["--like", "large", "--run", "small"]
    for extra in ([], ["--resume"]):
        done = nas_apps(*args, *extra)
        assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "small" / "summary.json").read_text())
    assert summary["costs"]["params"] == pytest.approx(large["costs"]["params"], rel=0.1)
    assert read_recipe(tmp_path / "small").train.network.channels not in (8, 20)
