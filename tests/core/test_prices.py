"""Tasks whose costs do not add up, and tasks whose genotypes have a form of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.budget import limit, prices
from nas_apps.core.config import Recipe
from nas_apps.core.ending import derived_now
from nas_apps.core.genotype import Genotype
from nas_apps.core.latency import random_cells
from nas_apps.core.learners import search_learner
from nas_apps.core.parts.penalty import Cost
from nas_apps.core.phase import Phase
from nas_apps.core.price import Additive, Price, describe, slopes, tables
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Space
from nas_apps.tasks.toy import ToyTask

CPU = Runtime(torch.device("cpu"))


@dataclass(frozen=True)
class Squared:
    """The table's cost for a genotype, and another for anything between."""

    table: Additive

    discrete = False

    @property
    def space(self) -> Space:
        return self.table.space

    @property
    def reference(self) -> float:
        return self.table.reference

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        return self.table({name: table.square() for name, table in weights.items()})


@dataclass(frozen=True)
class Curved(ToyTask):
    """The toy task with formulas of its own; the gate is of no account where the last edge is a skip."""

    def prices(self, phase: Phase) -> Mapping[str, Price]:
        assert phase.name == "train"
        return {name: Squared(table) for name, table in tables(self, phase).items()}

    def canonical(self, genotype: Genotype) -> Genotype:
        nothing = {"gate": ((),)} if genotype.kept["cell.op"][4] == ("skip_connect",) else {}
        return Genotype({**genotype.kept, **nothing}, genotype.meta)


@pytest.fixture
def curved(recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    return lambda *overrides: replace(recipe(*overrides), task=Curved(points=96))


def test_the_formulas_of_a_task_are_what_a_search_pays_by(curved: Callable[..., Recipe]) -> None:
    made = curved("variant=darts", "variant.penalties=[{name: cost, of: params, weight: 1}]")
    found = prices(made, ["params"], CPU)
    assert list(found) == ["params"]
    uniform = {name: torch.full(c.shape, 1 / c.shape[1]) for name, c in made.task.choices().items()}
    assert float(found["params"](uniform)) != float(tables(made.task, made.train)["params"](uniform))
    learner, _ = search_learner(made, CPU)
    _, stats = learner._extras.penalty(learner.arch, Progress(0, 1), 0)
    assert float(stats["penalty/cost"]) < 1  # relative to the table's mean architecture, of which it is not the cost
    assert isinstance(learner._extras.penalties[0], Cost)


def test_a_cap_is_kept_under_a_cost_that_does_not_add_up(curved: Callable[..., Recipe]) -> None:
    made = curved("variant=darts", "search.budget.of=params", "search.budget.cap=700")
    cap = limit(made, CPU)
    costs = []
    for seed in range(5):
        arch = Arch(made.task.choices(), made.variant.relaxations, init_std=1.0, seed=seed)
        costs += [describe(made.task, derived_now(made, arch, given), made.train)["params"] for given in (None, cap)]
    assert max(costs[::2]) > 700
    assert max(costs[1::2]) <= 700


def test_the_slopes_of_a_table_are_the_table(recipe: Callable[..., Recipe]) -> None:
    made = recipe("variant=darts")
    table = tables(made.task, made.train)["params"]
    assert all(torch.equal(slopes(table)[name], options) for name, options in table.options.items())


def test_what_a_search_ends_with_is_as_its_task_writes_it(curved: Callable[..., Recipe]) -> None:
    made = curved("variant=darts", "variant.none=false")
    seen = set()
    for seed in range(12):
        arch = Arch(made.task.choices(), made.variant.relaxations, init_std=1.0, seed=seed)
        kept: Any = derived_now(made, arch, None).kept
        seen.add(kept["gate"] == ((),))
        assert (kept["gate"] == ((),)) == (kept["cell.op"][4] == ("skip_connect",))
    assert seen == {True, False}
    cells = random_cells(made.task.choices(), 30, made.task.canonical)
    assert any(cell.kept["gate"] == ((),) for cell in cells)
