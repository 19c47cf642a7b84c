"""What a run ends with: the architecture, under its cap, and the summary."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch

from nas_apps.core import files, logs
from nas_apps.core.arch import Arch, Draw
from nas_apps.core.budget import Limit, settled, spent
from nas_apps.core.config import Recipe, task_name
from nas_apps.core.diagnosis import read_history
from nas_apps.core.drawing.picture import cell_svg
from nas_apps.core.folder import device_name, versions
from nas_apps.core.genotype import Genotype
from nas_apps.core.latency import Stopwatch
from nas_apps.core.learner import Learner
from nas_apps.core.parts.penalty import Cost
from nas_apps.core.parts.stop import Verdict
from nas_apps.core.phase import Phase
from nas_apps.core.price import derived, describe
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.core.task import canonical


def derived_now(recipe: Recipe, arch: Arch, limit: Limit | None, *, final: bool = False) -> Genotype:
    """The genotype at this moment; under the cap, if there is one (`final`: as measured, where it is of latency)."""
    rule, seed = recipe.variant.derive, mix(recipe.seed, 3)
    if limit is not None:
        genotype = limit.derive(rule, arch.space, arch.scores(), seed, final=final)
    else:
        genotype = rule(arch.space, arch.scores(), torch.Generator().manual_seed(seed))
    return canonical(recipe.task, genotype).validate(arch.space)


def found(
    folder: Path, recipe: Recipe, arch: Arch, limit: Limit | None, runtime: Runtime, steps: int, verdict: Verdict | None
) -> Genotype:
    """What a search ends with, saying where it comes from: the genotype of now, or of the epoch of a verdict.

    Where that depends on measurements, it is settled once, and read from the folder after.
    """
    there: Genotype | None = runtime.gather(settled(folder, recipe, steps) if runtime.leads else None)[0]
    if there is not None:
        return there
    origin = {"task": task_name(recipe.task), "variant": recipe.variant_name, "seed": recipe.seed, "steps": steps}
    ours = None
    if runtime.leads and verdict is None:
        ours = derived_now(recipe, arch, limit, final=True)
    elif runtime.leads and verdict is not None:
        ours = Genotype.load(folder / "genotypes" / f"epoch_{verdict.epoch:03d}.json")
        lines = read_history(folder, steps)
        origin |= {"epoch": verdict.epoch, "steps": next(e["step"] for e in lines if e["epoch"] == verdict.epoch)}
    if limit is not None and ours is not None:
        limit.check(ours)
    signed: Genotype = runtime.gather(ours and Genotype(ours.kept, origin))[0]
    return signed


def evaluated(recipe: Recipe, learner: Learner, phase: Phase, draws: Mapping[str, Draw]) -> dict[str, float]:
    """The task's figures of a learner's network under some draws, each with the suffix of its draw."""
    figures: dict[str, float] = {}
    objective = learner.evaluated
    for suffix, draw in draws.items():
        with learner.arch.using(draw), learner.runtime.autocast():
            values = recipe.task.evaluate(objective.eval(), phase, learner.runtime)
        figures |= {f"{name}{suffix}": value for name, value in values.items()}
    return figures


def _latency(recipe: Recipe, genotype: Genotype, runtime: Runtime, stage: str) -> dict[str, float]:
    """What a search that paid for latency ends with, as measured here and not as predicted."""
    paid = any(isinstance(penalty, Cost) and penalty.of == "latency" for penalty in recipe.variant.penalties)
    if stage != "search" or not paid:
        return {}
    return {"latency_ms": Stopwatch(recipe.search.latency, runtime)(*derived(recipe.task, genotype, recipe.train))}


def leave(
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
    """Write the genotype, its drawing and the summary of a stage that is over."""
    genotype.save(folder / "genotype.json")
    files.write_text(folder / "cell.svg", cell_svg(recipe.task.choices(), genotype))
    default = f"nas-apps {stage} {shlex.quote(str(folder / 'recipe.yaml'))} --run NEW"
    summary = {
        "stage": stage,
        "task": task_name(recipe.task),
        "variant": str(genotype.meta.get("variant", "given")),
        "seed": recipe.seed,
        "genotype": genotype.kept,
        "metrics": logs.last_figures(folder, genotype.meta["steps"] if verdict else steps),
        "costs": describe(recipe.task, genotype, recipe.train) | _latency(recipe, genotype, runtime, stage),
        "steps": steps,
        "stopped": verdict and verdict._asdict(),
        "warnings": logs.warnings(folder),
        "seconds": {stage: logs.seconds(folder)},
        "device": device_name(runtime.device),
        "versions": versions(),
        **({"budget": spent(recipe, genotype, runtime)} if stage == "search" and recipe.search.budget else {}),
        "command": os.environ.get("NAS_APPS_COMMAND") or command or default,
    }
    files.write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
