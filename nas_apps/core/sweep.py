"""A sweep: recipes x variants x seeds. Each combination is a trial with a folder of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from nas_apps.core import config, files, summary
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.folder import LOCK, check
from nas_apps.core.runtime import Runtime

RESULTS, FORMAT = "results.json", "nas_apps sweep"


@dataclass(frozen=True)
class Trial:
    """One search, and what is made of what it finds.

    group: the name of its recipe among several, empty for the only one. sources: the YAML files and overrides that its
    recipe is made of, as every verb takes them.
    """

    group: str
    sources: tuple[str, ...]
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def stage(self, name: str) -> Path:
        """The folder of its search, or of its training."""
        return self.folder / name

    def read(self) -> dict[str, dict[str, Any]]:
        """The summaries of its finished stages, by name."""
        done = any((self.stage(name) / "summary.json").exists() for name in ("search", "train"))
        return summary.stages(self.folder) if done else {}

    def left(self, *, train: bool, table: Path | None) -> dict[str, tuple[str, ...]]:
        """The stages that are not finished, in order, each as arguments of the command line."""
        search, done = str(self.stage("search")), self.read()
        stages = {"search": ("search", *self.sources, "--run", search, "--resume")}
        if train:
            found = str(self.stage("search") / "genotype.json")
            stages["train"] = (
                "train",
                *self.sources,
                "--genotype",
                found,
                "--run",
                str(self.stage("train")),
                "--resume",
            )
        if table is not None and not table_figures(done):
            stages["table"] = ("evaluate", search, "--table", str(table))
        return {name: arguments for name, arguments in stages.items() if name not in done}


def table_figures(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a table of known results said of a trial's genotype."""
    metrics = stages.get("search", {}).get("metrics", {})
    return {name: value for name, value in metrics.items() if name.startswith("table/")}


def plan(
    sources: Sequence[str],
    folder: Path,
    *,
    recipes: Sequence[str] = (),
    variants: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Trial]:
    """The trials of a sweep, each with its recipe loaded and checked.

    A source that is a folder stands for its `base.yaml` and, over that, for the YAML in it that has the name of the
    variant. Without variants, or seeds, that of the recipe is taken.

    Args:
        sources: YAML files and `key=value` overrides, over every recipe.
        recipes: YAML files; none for what `sources` say alone.
    """
    groups: Mapping[str, str | None] = _names(recipes) or {"": None}
    methods: Sequence[str | None] = variants or (None,)
    chances: Sequence[int | None] = seeds or (None,)
    trials = [_trial(sources, folder, *axes) for axes in product(groups.items(), methods, chances)]
    first: dict[str, Trial] = {}
    for trial in trials:
        twin = first.setdefault(repr(trial.recipe), trial)
        if twin is not trial:
            raise UserError(
                f"{trial.name}: the same trial as {twin.name}; allowed: recipes, variants, seeds that differ"
            )
    return trials


def numbers(text: str) -> tuple[int, ...]:
    """Seeds from text: a lone number is how many.

    >>> numbers("3"), numbers("0,7"), numbers("7,")
    ((0, 1, 2), (0, 7), (7,))
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words if word) or not any(words) or words == ["0"]:
        raise UserError(f"--seeds: got {text!r}; allowed: how many (3 is 0,1,2), or seeds with commas (0,7 or 7,)")
    return tuple(range(int(words[0]))) if len(words) == 1 else tuple(int(word) for word in words if word)


def refuse(trials: Sequence[Trial], folder: Path, table: Path | None) -> None:
    """Refuse a folder that is not this sweep's to write into, or a table that is not there."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"sweep: one of {os.environ['WORLD_SIZE']} processes; allowed: one, which starts those of --jobs"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; allowed: a folder for the sweep")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    before = read(folder)
    if found - {LOCK, f".{RESULTS}.new", *(trial.name for trial in trials)} and not before:
        raise UserError(f"{folder}: holds other files and no {RESULTS} of a sweep; allowed: a new folder, or a sweep's")
    if table is not None and not table.exists():
        raise UserError(f"{table}: no such table; allowed: a file of accuracies by cell")
    there = before.get("table")
    if table is not None and there not in (None, str(table.resolve())) and any(table_figures(t.read()) for t in trials):
        raise UserError(f"{folder}: cells were looked up in {there}; allowed: the same table, or another folder")
    here = Runtime(torch.device("cpu"))
    for trial in trials:
        for stage in ("search", "train"):
            check(trial.stage(stage), trial.recipe, stage, here, resume=True)


def read(folder: Path) -> dict[str, Any]:
    """The results of the sweep in a folder, as they were written last; empty when there are none of ours."""
    path = folder / RESULTS
    try:
        data = json.loads(files.read_text(path, "results of a sweep")) if path.exists() else {}
    except json.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) and data.get("format") == FORMAT else {}


def _trial(
    sources: Sequence[str], folder: Path, recipe: tuple[str, str | None], variant: str | None, seed: int | None
) -> Trial:
    group, path = recipe
    paths = [*([path] if path else []), *(source for source in sources if "=" not in source)]
    given = [source for source in sources if "=" in source]
    axes = ([f"variant={variant}"] if variant else []) + ([] if seed is None else [f"seed={seed}"])
    where = "_".join(filter(None, [group, variant, "" if seed is None else f"seed{seed}"]))
    try:
        name = config.load(_opened(paths, None), [*axes, *given]).variant_name
        paths = _opened(paths, name)
        loaded = config.load(paths, [*axes, *given])
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from None
    for key, asked, got in (("variant", variant, loaded.variant_name), ("seed", seed, loaded.seed)):
        if asked is not None and asked != got:
            raise UserError(
                f"{key}: got {got!r} among the overrides and {asked!r} in --{key}s; allowed: one of the two"
            )
    parts = [group, loaded.variant_name, f"seed{loaded.seed}"]
    return Trial(group, (*paths, *axes, *given), loaded, folder / "_".join(filter(None, parts)))


def _opened(paths: Sequence[str], variant: str | None) -> list[str]:
    """Folders among the paths as the files in them that a variant is made of."""
    files: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            files.append(path)
            continue
        brought = Path(path) / f"{variant}.yaml"
        files += [str(Path(path) / "base.yaml"), *([str(brought)] if brought.exists() else [])]
    return files


def _names(recipes: Sequence[str]) -> dict[str, str]:
    """Recipes by as much of the end of their paths as tells them apart; `cifar10/base.yaml` is cifar10's."""
    paths = {path: Path(path).resolve().with_suffix("").parts for path in recipes}
    ends = {path: parts[:-1] if parts[-1] == "base" else parts for path, parts in paths.items()}
    for depth in range(1, 1 + max(map(len, ends.values()), default=0)):
        names = {"_".join(parts[-depth:]): path for path, parts in ends.items()}
        if len(names) == len(recipes):
            return names
    if recipes:
        raise UserError(f"--recipe: got {', '.join(recipes)}; allowed: each once")
    return {}
