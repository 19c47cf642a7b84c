"""Every row of the table of methods: a new row is enrolled by existing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.config import Recipe
from nas_apps.core.ending import derived_now
from nas_apps.core.genotype import Genotype
from nas_apps.core.papers import PAPERS
from nas_apps.core.parts.derive import Threshold
from nas_apps.core.progress import Progress
from nas_apps.core.refusals import search_space
from nas_apps.core.variants import VARIANTS

EVERY = pytest.mark.parametrize("variant", list(VARIANTS))
SEARCHING = pytest.mark.parametrize("variant", [name for name, v in VARIANTS.items() if v.schedule.searches])


@EVERY
def test_it_searches_derives_and_trains(recipe: Callable[..., Recipe], variant: str, tmp_path: Path) -> None:
    made = recipe(f"variant={variant}")
    genotype = nas_apps.search(made, tmp_path / "search")
    assert nas_apps.derive(tmp_path / "search") == genotype
    assert Genotype.load(tmp_path / "search" / "genotype.json") == genotype.validate(made.task.choices())
    summary = nas_apps.train(made, genotype, tmp_path / "train")
    assert summary["metrics"]["accuracy"] == nas_apps.evaluate(tmp_path / "train")["accuracy"]
    written = {path.name for path in (tmp_path / "search").iterdir()}
    assert {"recipe.yaml", "space.json", "summary.json", "genotype.json", "cell.svg"} <= written


@EVERY
def test_a_node_of_its_cell_keeps_two_edges_of_one_operation_each(recipe: Callable[..., Recipe], variant: str) -> None:
    made = recipe(f"variant={variant}")
    for seed in range(5):
        arch = Arch(search_space(made.task, made.variant), made.variant.relaxations, init_std=1.0, seed=seed)
        kept = derived_now(made, arch, None).kept["cell.op"]
        number = [sum(map(bool, kept[:2])), sum(map(bool, kept[2:]))]
        assert max(number) <= 2 if isinstance(made.variant.derive, Threshold) else number == [2, 2]
        assert all(len(row) <= 1 and "none" not in row for row in kept)


@SEARCHING
def test_both_the_weights_and_the_logits_move_and_each_only_in_its_own_step(recipe, learner, variant: str) -> None:  # noqa: ANN001
    made = recipe(f"variant={variant}")
    taught, streams = learner(made)
    moved: list[tuple[bool, bool]] = []
    state = {}

    def look(kind: str) -> Callable[..., None]:
        def before(*_: object) -> None:
            state["w"] = [p.detach().clone() for p in taught.parameters]
            state["a"] = [p.detach().clone() for p in taught.logits]

        def after(*_: object) -> None:
            w = any(not torch.equal(a, b) for a, b in zip(state["w"], taught.parameters, strict=True))
            a = any(not torch.equal(a, b) for a, b in zip(state["a"], taught.logits, strict=True))
            moved.append((w, a))
            assert (w, a) == ((True, False) if kind == "weights" else (False, True))

        optimizer = taught.optimizer if kind == "weights" else taught.logit_optimizer
        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
        return after

    look("weights"), look("logits")
    taught.begin(Progress(4, 10))  # after every warm-up, and before the last rows are decided
    for _ in range(2):
        made.variant.schedule(taught, streams)
    assert (True, False) in moved
    assert (False, True) in moved


@EVERY
def test_the_super_net_under_the_one_hot_draw_of_a_cell_computes_what_the_cell_computes(
    recipe: Callable[..., Recipe], variant: str
) -> None:
    made = recipe(f"variant={variant}")
    space = search_space(made.task, made.variant)
    arch = Arch(space, made.variant.relaxations, init_std=1.0)
    supernet = made.task.build(Mixed(arch, made.variant.wiring), made.search)
    genotype = derived_now(made, arch, None)
    fixed = made.task.build(Fixed(made.task.choices(), genotype, made.variant.wiring), made.search)
    missing, _ = fixed.load_state_dict(supernet.state_dict(), strict=False)
    assert not missing
    batch = torch.randn(7, 2), torch.randint(3, (7,))
    supernet.eval(), fixed.eval()
    with arch.using(one_hot(space, genotype)):
        assert torch.equal(supernet(batch).output, fixed(batch).output)


@EVERY
def test_its_papers_are_known(variant: str) -> None:
    assert VARIANTS[variant].cite
    assert set(VARIANTS[variant].cite) <= set(PAPERS)


def test_the_random_baseline_takes_no_step_and_draws_another_cell_for_another_seed(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    first = nas_apps.search(recipe("variant=random"), tmp_path / "a")
    again = nas_apps.search(recipe("variant=random"), tmp_path / "b")
    other = nas_apps.search(recipe("variant=random", "seed=1"), tmp_path / "c")
    assert first == again
    assert first != other
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["steps"] == 0
