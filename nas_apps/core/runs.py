"""A search, a final training and their parts, each as one call: what the verbs of the command line do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nas_apps.core import checkpoint, files, logs
from nas_apps.core.arch import Arch
from nas_apps.core.budget import limit, settled
from nas_apps.core.checkpoint import checkpoints_of
from nas_apps.core.config import Recipe, task_name
from nas_apps.core.diagnosis import collapsed, frozen, read_history
from nas_apps.core.ending import evaluated, found, leave
from nas_apps.core.errors import UserError
from nas_apps.core.folder import check, claim, hold, read_recipe
from nas_apps.core.genotype import Genotype
from nas_apps.core.inherit import inherit
from nas_apps.core.learners import train_learner
from nas_apps.core.likeness import resized_like
from nas_apps.core.loop import run
from nas_apps.core.parts.schedule import WeightsOnly
from nas_apps.core.price import derived
from nas_apps.core.refusals import search_space
from nas_apps.core.report import Report
from nas_apps.core.runtime import Runtime, start
from nas_apps.core.searching import Searching, stage_of
from nas_apps.core.task import Loads
from nas_apps.core.watch import adaptive, ask


def search(recipe: Recipe, folder: str | Path, *, resume: bool = False, command: str | None = None) -> Genotype:
    """Search an architecture, and leave genotype.json, its drawing, the logs and summary.json in `folder`.

    Args:
        resume: go on with what is in the folder; without it the folder must be new.
        command: how the user started this, for the report.
    """
    folder = Path(folder)
    with start(recipe.device, recipe.precision) as runtime, ExitStack() as held:
        check(folder, recipe, "search", runtime, resume=resume)
        cap = limit(recipe, runtime)
        searching = Searching.begin(folder, recipe, runtime, cap)
        held.enter_context(hold(folder, runtime))
        space = search_space(recipe.task, recipe.variant)
        if runtime.leads:
            claim(folder, recipe, space)
            for about, message in frozen(space, recipe.variant.relaxations).items():
                logs.warn(folder, 0, about, message)
        steps, verdict = searching.finish()
        genotype = found(folder, recipe, searching.learner.arch, cap, runtime, steps, verdict)
        if runtime.leads:
            why = "" if cap is None else f" (under a cap of {cap.cap:g} {cap.unit}, which may leave nothing else)"
            for about, message in collapsed(space, genotype).items():
                logs.warn(folder, steps, about, message + why)
            leave(folder, recipe, genotype, runtime, stage="search", steps=steps, verdict=verdict, command=command)
        runtime.wait()
        return genotype


def train(
    recipe: Recipe, genotype: Genotype, folder: str | Path, *, resume: bool = False, command: str | None = None
) -> dict[str, Any]:
    """Build a genotype's network, train it, from scratch or from a search's weights, and evaluate it; the summary that
    this leaves in `folder`."""
    folder = Path(folder)
    space = recipe.task.choices()
    genotype.validate(space)
    with start(recipe.device, recipe.precision) as runtime, ExitStack() as held:
        check(folder, recipe, "train", runtime, resume=resume)
        _same_genotype(folder, genotype)
        learner, streams = train_learner(recipe, genotype, runtime)
        begun = (folder / "checkpoint.pt").exists()
        told = inherit(recipe, learner) if recipe.train.inherit and not begun else None

        def evaluate() -> dict[str, float]:
            return evaluated(recipe, learner, recipe.train, {"": learner.arch.expected()})

        held.enter_context(hold(folder, runtime))
        if runtime.leads:
            claim(folder, recipe, space)
            genotype.save(folder / "genotype.json")
            if told:
                logs.warn(folder, 0, "inherit", told)
        report = Report(folder, runtime, log_steps=recipe.train.log_steps, derive=None, goal=recipe.task.goal[0])
        checkpoints = checkpoints_of(folder, recipe, learner, streams)
        try:
            steps, _ = run(learner, WeightsOnly(), streams, report, checkpoints, evaluate=evaluate)
            if not steps and not begun:
                _look(folder, runtime, evaluate())
                checkpoints.save(learner, streams, steps, last=True)
        finally:
            report.end()
        if runtime.leads:
            with learner.arch.using(learner.arch.expected()):
                recipe.task.export(learner.evaluated, genotype, recipe.train, folder)
            leave(folder, recipe, genotype, runtime, stage="train", steps=steps, command=command)
        runtime.wait()
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def derive(folder: str | Path) -> Genotype:
    """The genotype of a search as it stands, finished or not, from its checkpoint."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    _, space = stage_of(folder, recipe)
    arch = Arch(space, recipe.variant.relaxations, seed=recipe.seed)
    steps, stop, verdict = 0, recipe.variant.stop, None
    if recipe.search.epochs:
        state = checkpoint.read(folder / "checkpoint.pt", stage="search")
        arch.load_state_dict(state["learner"]["arch"])
        steps = int(state["step"])
        if not adaptive(stop):
            verdict = ask(stop, read_history(folder, steps), arch.space, recipe.search.epochs)
    there = settled(folder, recipe, steps)
    if there is not None:
        return there
    with start(recipe.device, recipe.precision) as runtime:
        return found(folder, recipe, arch, limit(recipe, runtime), runtime, steps, verdict)


def evaluate(folder: str | Path) -> dict[str, float]:
    """Figures of a trained run folder's network, computed anew from its checkpoint."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    genotype = Genotype.load(folder / "genotype.json")
    with start(recipe.device, recipe.precision) as runtime:
        state = checkpoint.read(folder / "checkpoint.pt", stage="train")
        learner, _ = train_learner(recipe, genotype, runtime)
        learner.load_state_dict(state["learner"])
        return evaluated(recipe, learner, recipe.train, {"": learner.arch.expected()})


def load(folder: str | Path) -> Any:
    """The trained network of a run folder, as the users of its domain have it, on the CPU."""
    task = read_recipe(Path(folder)).task
    if not isinstance(task, Loads):
        raise UserError(f"{folder}: of the task {task_name(task)!r}, which loads no networks; allowed: one that does")
    return task.load(Path(folder))


def look_up(folder: str | Path, table: str | Path) -> dict[str, float]:
    """What a table of known results says of a run folder's genotype; kept in its summary too."""
    folder = Path(folder)
    recipe, genotype = read_recipe(folder), Genotype.load(folder / "genotype.json")
    figures = recipe.task.look_up(genotype, Path(table))
    path = folder / "summary.json"
    if path.exists():
        summary = json.loads(files.read_text(path, "a summary"))
        summary["metrics"] |= {f"table/{name}": value for name, value in figures.items()}
        files.write_text(path, json.dumps(summary, indent=1) + "\n")
    return figures


def find_genotype(name: str, recipe: Recipe) -> Genotype:
    """The genotype in a file, or the published one of this name, checked against the recipe's space."""
    genotype = Genotype.load(Path(name)) if Path(name).exists() else recipe.task.find(name)
    return genotype.validate(recipe.task.choices(), name)


def as_large(recipe: Recipe, genotype: Genotype, folder: str | Path) -> Recipe:
    """The recipe with a final network of this genotype about as large as the one trained in a run folder."""
    other = read_recipe(Path(folder))
    network, _ = derived(other.task, Genotype.load(Path(folder) / "genotype.json"), other.train)
    return resized_like(recipe, genotype, sum(p.numel() for p in network.parameters()))


def _look(folder: Path, runtime: Runtime, figures: Mapping[str, float]) -> None:
    """Log the figures of a network that takes no step."""
    line = {"epoch": 0, **{f"evaluation/{name}": value for name, value in figures.items()}}
    if runtime.leads:
        logs.add_line(folder / "metrics.jsonl", 0, line)


def _same_genotype(folder: Path, genotype: Genotype) -> None:
    path = folder / "genotype.json"
    if path.exists() and Genotype.load(path) != genotype:
        raise UserError(f"{folder}: trains another genotype; allowed: the same genotype, or another folder")
