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

from nas_apps.core import checkpoint, files, logs
from nas_apps.core.arch import Arch, Draw, one_hot
from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.config import Recipe, task_name
from nas_apps.core.diagnosis import collapsed, read_history
from nas_apps.core.drawing.picture import cell_svg
from nas_apps.core.errors import UserError
from nas_apps.core.folder import check, claim, device_name, hold, read_recipe, relevant, versions
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner, train_learner
from nas_apps.core.loop import run
from nas_apps.core.parts.schedule import WeightsOnly
from nas_apps.core.parts.stop import Verdict
from nas_apps.core.phase import Phase
from nas_apps.core.refusals import search_space
from nas_apps.core.report import Report
from nas_apps.core.runtime import Runtime, start
from nas_apps.core.seeds import mix
from nas_apps.core.space import Space
from nas_apps.core.stages import Part, hand_over, narrow, parts_of, rows_of, with_rows
from nas_apps.core.task import Streams
from nas_apps.core.watch import Watch, adaptive, ask

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
        space = search_space(recipe.task, recipe.variant)
        held.enter_context(hold(folder, runtime))
        if runtime.leads:
            claim(folder, recipe, space)
        learner, steps, verdict = _stages(folder, recipe, runtime, space)
        ours = _found(folder, recipe, _derive(recipe, learner.arch), steps, verdict) if runtime.leads else None
        found: Genotype = runtime.gather(ours)[0]
        if runtime.leads:
            for about, message in collapsed(space, found).items():
                logs.warn(folder, steps, about, message)
            _leave(folder, recipe, found, runtime, stage="search", steps=steps, verdict=verdict, command=command)
        runtime.wait()
        return found


def _stages(folder: Path, recipe: Recipe, runtime: Runtime, whole: Space) -> tuple[Learner, int, Verdict | None]:
    """Run the stages of a search, those that are over left out; the last learner, its steps, and what ended it."""
    parts, (first, space) = parts_of(recipe), _stage(folder, whole)
    before: Learner | None = None
    for part in parts[first:]:
        if before is not None:
            space = narrow(before.arch, part.stage.keep)
        learner, streams = search_learner(part.recipe, runtime, space=space, stage=part.index, rates=part.span.whole)
        if before is not None and part.stage.inherit:
            hand_over(before, learner)
        steps, verdict = _search(folder, recipe, learner, streams, part, whole)
        before = learner
    return learner, steps, verdict


def _stage(folder: Path, whole: Space) -> tuple[int, Space]:
    """The stage that a search is in, and its space."""
    if not (folder / "checkpoint.pt").exists():
        return 0, whole
    state = checkpoint.read(folder / "checkpoint.pt", stage="search")
    return state["stage"], with_rows(whole, state["rows"])


def _search(
    folder: Path, recipe: Recipe, learner: Learner, streams: Streams, part: Part, whole: Space
) -> tuple[int, Verdict | None]:
    arch = learner.arch

    def genotype() -> Genotype:
        return _derive(recipe, arch)

    def evaluate() -> dict[str, float]:
        progress = learner.progress
        noisy = any(relax.noisy for relax in recipe.variant.relaxations.values())
        draws = {
            "": arch.draw(progress, cycle=progress.epoch, use=SAMPLE) if noisy else arch.expected(progress),
            "_one_hot": one_hot(arch.space, genotype(), like=learner.logits[0]),
        }
        return _evaluate(recipe, learner, recipe.search, draws)

    report = _report(folder, recipe, learner, derive=genotype, space=whole)
    exact, first = recipe.task.twice_differentiable, part.span.first
    watch = Watch(recipe.variant.stop, learner, streams, report, derive=genotype, exact=exact, first_epoch=first)
    checkpoints = _checkpoints(folder, recipe, learner, streams, stage=part.index, rows=rows_of(arch.space))
    schedule = recipe.variant.schedule
    try:
        return run(
            learner, schedule, streams, report=report, checkpoints=checkpoints, evaluate=evaluate, watch=watch,
            span=part.span,
        )  # fmt: skip
    finally:
        report.end()


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
        report, checkpoints = _report(folder, recipe, learner), _checkpoints(folder, recipe, learner, streams)
        try:
            steps, _ = run(learner, WeightsOnly(), streams, report=report, checkpoints=checkpoints, evaluate=evaluate)
        finally:
            report.end()
        if runtime.leads:
            recipe.task.export(learner.evaluated, genotype, recipe.train, folder)
            _leave(folder, recipe, genotype, runtime, stage="train", steps=steps, command=command)
        runtime.wait()
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def derive(folder: str | Path) -> Genotype:
    """The genotype of a search as it stands, finished or not, from its checkpoint."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    _, space = _stage(folder, search_space(recipe.task, recipe.variant))
    arch = Arch(space, recipe.variant.relaxations, seed=recipe.seed)
    steps, stop, verdict = 0, recipe.variant.stop, None
    if recipe.search.epochs:
        state = checkpoint.read(folder / "checkpoint.pt", stage="search")
        arch.load_state_dict(state["learner"]["arch"])
        steps = int(state["step"])
        if not adaptive(stop):
            verdict = ask(stop, read_history(folder, steps), arch.space, recipe.search.epochs)
    return _found(folder, recipe, _derive(recipe, arch), steps, verdict)


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


def _report(
    folder: Path,
    recipe: Recipe,
    learner: Learner,
    *,
    derive: Callable[[], Genotype] | None = None,
    space: Space | None = None,
) -> Report:
    steps, goal = learner.phase.log_steps, recipe.task.goal[0]
    return Report(folder, learner.runtime, log_steps=steps, derive=derive, goal=goal, space=space)


def _checkpoints(folder: Path, recipe: Recipe, learner: Learner, streams: Streams, **stage: Any) -> Checkpoints:
    phase = learner.phase
    every = phase.checkpoint_steps or phase.epoch_steps or streams.epoch
    identity = json.dumps(relevant(recipe, phase.name), sort_keys=True)
    return Checkpoints(folder / "checkpoint.pt", identity, every, learner.runtime, **stage)


def _evaluate(recipe: Recipe, learner: Learner, phase: Phase, draws: Mapping[str, Draw]) -> dict[str, float]:
    figures: dict[str, float] = {}
    objective = learner.evaluated
    for suffix, draw in draws.items():
        with learner.arch.using(draw), learner.runtime.autocast():
            found = recipe.task.evaluate(objective.eval(), phase, learner.runtime)
        figures |= {f"{name}{suffix}": value for name, value in found.items()}
    return figures


def _derive(recipe: Recipe, arch: Arch) -> Genotype:
    rng = torch.Generator().manual_seed(mix(recipe.seed, 3))
    weights = {name: table.cpu() for name, table in arch.expected().weights.items()}
    return recipe.variant.derive(arch.space, weights, rng).validate(arch.space)


def _found(folder: Path, recipe: Recipe, now: Genotype, steps: int, verdict: Verdict | None) -> Genotype:
    """The genotype that a search ends with, saying where it comes from: that of now, or of the epoch of a verdict."""
    origin = {"task": task_name(recipe.task), "variant": recipe.variant_name, "seed": recipe.seed, "steps": steps}
    if verdict is not None:
        now = Genotype.load(folder / "genotypes" / f"epoch_{verdict.epoch:03d}.json")
        lines = read_history(folder, steps)
        origin |= {"epoch": verdict.epoch, "steps": next(e["step"] for e in lines if e["epoch"] == verdict.epoch)}
    return Genotype(now.kept, origin)


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
    steps: int,
    verdict: Verdict | None = None,
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
        "metrics": logs.last_figures(folder, genotype.meta["steps"] if verdict else steps),
        "costs": recipe.task.describe(genotype, phase),
        "steps": steps,
        "stopped": verdict and verdict._asdict(),
        "warnings": logs.warnings(folder),
        "seconds": {stage: logs.seconds(folder)},
        "device": device_name(runtime.device),
        "versions": versions(),
        "command": os.environ.get("NAS_APPS_COMMAND") or command or default,
    }
    files.write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
