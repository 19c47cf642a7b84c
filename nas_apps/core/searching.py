"""A search, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas_apps.core import checkpoint
from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.budget import Limit
from nas_apps.core.cell import Mixed
from nas_apps.core.checkpoint import checkpoints_of
from nas_apps.core.config import Recipe
from nas_apps.core.ending import derived_now, evaluated
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner
from nas_apps.core.loop import run
from nas_apps.core.parts.stop import Verdict
from nas_apps.core.refusals import search_space
from nas_apps.core.report import Report
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Space
from nas_apps.core.stages import Part, hand_over, narrow, parts_of, rows_of, with_rows
from nas_apps.core.task import Streams
from nas_apps.core.watch import Watch

SAMPLE = 2  # the use of draws that are only looked at


@dataclass
class Searching:
    """A search that is on: the stage it is in, and the learner and batches of that stage."""

    folder: Path
    recipe: Recipe
    runtime: Runtime
    limit: Limit | None
    part: Part
    learner: Learner
    streams: Streams

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe, runtime: Runtime, limit: Limit | None) -> Searching:
        """Build what the search goes on with: its first stage, or that of its checkpoint.

        The super-nets of later stages are built too, and thrown away: one that cannot be is told before anything runs.
        """
        index, space = stage_of(folder, recipe)
        part, *later = parts_of(recipe)[index:]
        for other in later:
            made = other.recipe
            fill = Mixed(Arch(space, made.variant.relaxations), made.variant.wiring)
            made.task.build(fill, made.search)
        return cls(folder, recipe, runtime, limit, part, *_built(part, runtime, space))

    def finish(self) -> tuple[int, Verdict | None]:
        """Run the stages to the end of the last; the steps taken, and what ended the search before its last epoch."""
        done = self._run()
        for part in parts_of(self.recipe)[self.part.index + 1 :]:
            must = None if self.limit is None else self._genotype()  # under the cap, and so in every later stage
            before, space = self.learner, narrow(self.learner.arch, part.stage.keep, must)
            self.part, (self.learner, self.streams) = part, _built(part, self.runtime, space)
            if part.stage.inherit:
                hand_over(before, self.learner)
            done = self._run()
        return done

    def _run(self) -> tuple[int, Verdict | None]:
        recipe, learner, streams, span = self.recipe, self.learner, self.streams, self.part.span
        report = Report(
            self.folder,
            self.runtime,
            log_steps=learner.phase.log_steps,
            derive=self._genotype,
            goal=recipe.task.goal[0],
            space=search_space(recipe.task, recipe.variant),
        )
        exact = recipe.task.twice_differentiable
        stop, first = recipe.variant.stop, span.first
        watch = Watch(stop, learner, streams, report, derive=self._genotype, exact=exact, first_epoch=first)
        rows = rows_of(learner.arch.space)
        checkpoints = checkpoints_of(self.folder, recipe, learner, streams, stage=self.part.index, rows=rows)
        schedule = recipe.variant.schedule
        try:
            return run(learner, schedule, streams, report, checkpoints, evaluate=self._evaluate, watch=watch, span=span)
        finally:
            report.end()

    def _genotype(self) -> Genotype:
        return derived_now(self.recipe, self.learner.arch, self.limit)

    def _evaluate(self) -> dict[str, float]:
        learner, arch, progress = self.learner, self.learner.arch, self.learner.progress
        noisy = any(relax.noisy for relax in self.recipe.variant.relaxations.values())
        draws = {
            "": arch.draw(progress, cycle=progress.epoch, use=SAMPLE) if noisy else arch.expected(progress),
            "_one_hot": one_hot(arch.space, self._genotype(), like=learner.logits[0]),
        }
        return evaluated(self.recipe, learner, self.recipe.search, draws)


def stage_of(folder: Path, recipe: Recipe) -> tuple[int, Space]:
    """The number of the stage that a run folder's search is in, and the space of that stage."""
    whole = search_space(recipe.task, recipe.variant)
    if not (folder / "checkpoint.pt").exists():
        return 0, whole
    state = checkpoint.read(folder / "checkpoint.pt", stage="search")
    return state["stage"], with_rows(whole, state["rows"])


def _built(part: Part, runtime: Runtime, space: Space) -> tuple[Learner, Streams]:
    return search_learner(part.recipe, runtime, space=space, stage=part.index, rates=part.span.whole)
