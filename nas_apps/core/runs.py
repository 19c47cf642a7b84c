"""A search, a final training and their parts, each as one call: what the verbs of the command line do."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from nas_apps.core import checkpoint, files
from nas_apps.core.arch import Arch, Draw, one_hot
from nas_apps.core.budget import Limit, limit, measured, settled, spent
from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.config import Recipe, task_name
from nas_apps.core.drawing.picture import cell_svg
from nas_apps.core.errors import UserError
from nas_apps.core.folder import check, claim, device_name, hold, read_recipe, relevant, versions
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner, train_learner
from nas_apps.core.loop import run
from nas_apps.core.parts.schedule import WeightsOnly
from nas_apps.core.phase import Phase
from nas_apps.core.price import describe
from nas_apps.core.report import Report, last_figures, seconds
from nas_apps.core.runtime import Runtime, start
from nas_apps.core.seeds import mix
from nas_apps.core.task import Streams

SAMPLE = 2  # the use of draws that are only looked at


def search(recipe: Recipe, folder: str | Path, *, resume: bool = False, command: str | None = None) -> Genotype:
    """Search an architecture, and leave genotype.json, its drawing, the logs and summary.json in `folder`.

    Args:
        resume: go on with what is in the folder; without it the folder must be new.
        command: how the user started this, for the report.
    """
    folder = Path(folder)
    with start(recipe.device, recipe.precision) as runtime, ExitStack() as held:
        check(folder, recipe, "search", runtime, resume=resume)
        held_to = limit(recipe, runtime)
        learner, streams = search_learner(recipe, runtime)
        space = learner.arch.space

        def genotype() -> Genotype:
            return _derive(recipe, learner.arch, held_to)

        def evaluate() -> dict[str, float]:
            arch, progress = learner.arch, learner.progress
            sampled = recipe.variant.relax.sparse
            draws = {
                "": arch.draw(progress, cycle=progress.epoch, use=SAMPLE) if sampled else arch.expected(progress),
                "_one_hot": one_hot(space, genotype(), like=learner.logits[0]),
            }
            return _evaluate(recipe, learner, recipe.search, draws)

        held.enter_context(hold(folder, runtime))
        if runtime.leads:
            claim(folder, recipe, space)
        figures = _run(folder, recipe, learner, streams, evaluate, genotype)
        steps = int(figures["step"])
        there = runtime.gather(settled(folder, recipe, steps) if runtime.leads else None)[0]
        found = there or _final(recipe, learner.arch, held_to, runtime, steps)
        if runtime.leads:
            _leave(folder, recipe, found, runtime, stage="search", figures=figures, command=command)
        runtime.wait()
        return found


def train(
    recipe: Recipe, genotype: Genotype, folder: str | Path, *, resume: bool = False, command: str | None = None
) -> dict[str, Any]:
    """Stack a genotype's cells, train the network from scratch, evaluate it; the summary that it leaves in `folder`."""
    folder = Path(folder)
    space = recipe.task.choices(edges=False)
    genotype.validate(space)
    with start(recipe.device, recipe.precision) as runtime, ExitStack() as held:
        check(folder, recipe, "train", runtime, resume=resume)
        _same_genotype(folder, genotype)
        learner, streams = train_learner(recipe, genotype, runtime)

        def evaluate() -> dict[str, float]:
            return _evaluate(recipe, learner, recipe.train, {"": learner.arch.expected()})

        held.enter_context(hold(folder, runtime))
        if runtime.leads:
            claim(folder, recipe, space)
            genotype.save(folder / "genotype.json")
        figures = _run(folder, recipe, learner, streams, evaluate, None)
        if runtime.leads:
            recipe.task.export(learner.evaluated, genotype, recipe.train, folder)
            _leave(folder, recipe, genotype, runtime, stage="train", figures=figures, command=command)
        runtime.wait()
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def derive(folder: str | Path) -> Genotype:
    """The genotype of a search as it stands, finished or not, from its checkpoint."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    arch = Arch(
        recipe.task.choices(edges=recipe.variant.edges is not None), recipe.variant.relaxations, seed=recipe.seed
    )
    steps = 0
    if recipe.search.epochs:
        state = checkpoint.read(folder / "checkpoint.pt", stage="search")
        arch.load_state_dict(state["learner"]["arch"])
        steps = int(state["step"])
    there = settled(folder, recipe, steps)
    if there is not None:
        return there
    with start(recipe.device if measured(recipe) else "cpu", recipe.precision) as runtime:
        return _final(recipe, arch, limit(recipe, runtime), runtime, steps)


def evaluate(folder: str | Path) -> dict[str, float]:
    """Figures of a trained run folder's network, computed anew from its checkpoint."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    genotype = Genotype.load(folder / "genotype.json")
    with start(recipe.device, recipe.precision) as runtime:
        state = checkpoint.read(folder / "checkpoint.pt", stage="train")
        learner, _ = train_learner(recipe, genotype, runtime)
        learner.load_state_dict(state["learner"])
        return _evaluate(recipe, learner, recipe.train, {"": learner.arch.expected()})


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
    return genotype.validate(recipe.task.choices(edges=False), name)


def _run(
    folder: Path,
    recipe: Recipe,
    learner: Learner,
    streams: Streams,
    evaluate: Callable[[], dict[str, float]],
    genotype: Callable[[], Genotype] | None,
) -> dict[str, float]:
    """Run a phase to its end; the figures of its last evaluation, and the steps it took."""
    phase = learner.phase
    epoch_steps = phase.epoch_steps or streams.epoch
    report = Report(folder, learner.runtime, log_steps=phase.log_steps, derive=genotype, goal=recipe.task.goal[0])
    identity = json.dumps(relevant(recipe, phase.name), sort_keys=True)
    checkpoints = Checkpoints(
        folder / "checkpoint.pt", identity, phase.checkpoint_steps or epoch_steps, learner.runtime
    )
    schedule = recipe.variant.schedule if phase.name == "search" else WeightsOnly()
    try:
        run(learner, schedule, streams, report=report, checkpoints=checkpoints, evaluate=evaluate)
    finally:
        report.end()
    return {**last_figures(folder), "step": phase.epochs * epoch_steps}


def _evaluate(recipe: Recipe, learner: Learner, phase: Phase, draws: Mapping[str, Draw]) -> dict[str, float]:
    figures: dict[str, float] = {}
    objective = learner.evaluated
    for suffix, draw in draws.items():
        with learner.arch.using(draw), learner.runtime.autocast():
            found = recipe.task.evaluate(objective.eval(), phase, learner.runtime)
        figures |= {f"{name}{suffix}": value for name, value in found.items()}
    return figures


def _derive(recipe: Recipe, arch: Arch, held_to: Limit | None = None, *, final: bool = False) -> Genotype:
    rule, seed = recipe.variant.derive, mix(recipe.seed, 3)
    weights = {name: table.cpu() for name, table in arch.expected().weights.items()}
    if held_to is not None:
        return held_to.derive(rule, arch.space, weights, seed, final=final).validate(arch.space)
    return rule(arch.space, weights, torch.Generator().manual_seed(seed)).validate(arch.space)


def _final(recipe: Recipe, arch: Arch, held_to: Limit | None, runtime: Runtime, steps: int) -> Genotype:
    """What a search ends with: found by one rank, since it may depend on measurements."""
    found = _derive(recipe, arch, held_to, final=True) if runtime.leads else None
    if held_to is not None and found is not None:
        held_to.check(found)
    return _signed(runtime.gather(found)[0], recipe, steps)


def _signed(genotype: Genotype, recipe: Recipe, steps: int) -> Genotype:
    """The genotype, saying where it comes from."""
    origin = {"task": task_name(recipe.task), "variant": recipe.variant_name, "seed": recipe.seed, "steps": steps}
    return Genotype(genotype.kept, origin)


def _same_genotype(folder: Path, genotype: Genotype) -> None:
    path = folder / "genotype.json"
    if path.exists() and Genotype.load(path) != genotype:
        raise UserError(f"{folder}: trains another genotype; allowed: the same genotype, or another folder")


def _leave(
    folder: Path,
    recipe: Recipe,
    genotype: Genotype,
    runtime: Runtime,
    *,
    stage: str,
    figures: Mapping[str, float],
    command: str | None,
) -> None:
    phase = recipe.search if stage == "search" else recipe.train
    genotype.save(folder / "genotype.json")
    files.write_text(folder / "cell.svg", cell_svg(recipe.task.choices(edges=False), genotype))
    default = f"nas-apps {stage} {shlex.quote(str(folder / 'recipe.yaml'))} --run NEW"
    summary = {
        "stage": stage,
        "task": task_name(recipe.task),
        "variant": str(genotype.meta.get("variant", "given")),
        "seed": recipe.seed,
        "genotype": genotype.kept,
        "metrics": {name: value for name, value in figures.items() if name != "step"},
        "costs": describe(recipe.task, genotype, phase),
        "steps": figures["step"],
        "seconds": {stage: seconds(folder)},
        "device": device_name(runtime.device),
        "versions": versions(),
        **({"budget": spent(recipe, genotype, runtime)} if stage == "search" and recipe.search.budget else {}),
        "command": os.environ.get("NAS_APPS_COMMAND") or command or default,
    }
    files.write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
