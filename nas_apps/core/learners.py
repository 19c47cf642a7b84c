"""The learners of a recipe's two phases: one engine, filled in two ways."""

from __future__ import annotations

from dataclasses import replace

from nas_apps.core.arch import Arch
from nas_apps.core.budget import prices, pull
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.extras import Extras
from nas_apps.core.genotype import Genotype
from nas_apps.core.hypergrad import refuse_optimizer
from nas_apps.core.learner import Learner
from nas_apps.core.parts.drop import DropPath
from nas_apps.core.parts.penalty import Cost
from nas_apps.core.parts.schedule import Unrolled
from nas_apps.core.parts.wiring import Full, Wiring
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Ramp
from nas_apps.core.refusals import search_space
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix, seed_process
from nas_apps.core.space import Space
from nas_apps.core.task import Streams


def search_learner(
    recipe: Recipe, runtime: Runtime, *, space: Space | None = None, stage: int = 0, rates: int | None = None
) -> tuple[Learner, Streams]:
    """What a search, or a later stage of it in a narrower space, starts with: a super-net, its logits, its batches.

    Args:
        rates: the epochs over which learning rates run, where these are not the phase's.
    """
    variant, phase, seed = recipe.variant, recipe.search, mix(recipe.seed, 5, stage) if stage else recipe.seed
    space = space or search_space(recipe.task, variant)
    arch = Arch(space, variant.relaxations, init_std=phase.logits.init_std, seed=seed).to(runtime.device)
    seed_process(mix(seed, 0))
    objective = recipe.task.build(Mixed(arch, variant.wiring), phase).to(runtime.device)
    _apart(recipe, runtime)
    penalties = (*variant.penalties, *pull(phase.budget))
    priced = prices(recipe, {p.of for p in penalties if isinstance(p, Cost)}, runtime, space)
    extras = Extras(variant.perturb, penalties, variant.distill, priced)
    optimisation = recipe.task.optimisation(objective, replace(phase, epochs=rates or phase.epochs))
    learner = Learner(objective, arch, optimisation, phase, runtime, extras)
    reason = refuse_optimizer(learner.optimizer) if isinstance(variant.schedule, Unrolled) else None
    if reason:
        raise UserError(f"variant.schedule: {reason}")
    halves = variant.schedule.bilevel
    return learner, recipe.task.streams(objective, phase, runtime, seed=seed, halves=halves)


def train_learner(recipe: Recipe, genotype: Genotype, runtime: Runtime) -> tuple[Learner, Streams]:
    """What a final training starts with: the network of a genotype, no logits, and all the batches."""
    phase, arch = recipe.train, Arch({}, {})
    seed_process(mix(recipe.seed, 1))
    fill = Fixed(recipe.task.choices(), genotype, _wiring(phase), lambda: arch.current.progress)
    objective = recipe.task.build(fill, phase).to(runtime.device)
    _apart(recipe, runtime)
    if phase.batch_size % runtime.world:
        raise UserError(
            f"train.batch_size: got {phase.batch_size}; allowed: a multiple of the {runtime.world} processes"
        )
    learner = Learner(objective, arch, recipe.task.optimisation(objective, phase), phase, runtime)
    return learner, recipe.task.streams(objective, phase, runtime, seed=recipe.seed, halves=False)


def _apart(recipe: Recipe, runtime: Runtime) -> None:
    """From here on each rank draws dropout and the like for itself: they hold different items."""
    if runtime.rank:
        seed_process(mix(recipe.seed, 2, runtime.rank))


def _wiring(phase: Phase) -> Wiring:
    rate = phase.drop_path
    return Full(DropPath(rate if isinstance(rate, Ramp) else Ramp(0.0, rate)) if rate else None)
