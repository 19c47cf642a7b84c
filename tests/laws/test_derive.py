"""The laws of derivation rules."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch

from nas_apps.core.arch import one_hot
from nas_apps.core.parts.derive import RULES, Random, Rule, Strongest, Threshold
from nas_apps.core.space import NONE, Choice, Dag, cell_choices

KEPT = {**cell_choices("c", Dag(2, 4, keep=2), (("none", "a", "b"),) * 14), "d": Choice((("x", "y"),))}
WHOLE = cell_choices("c", Dag(1, 3), (("none", "a", "b"),) * 6)
EDGED = cell_choices("c", Dag(2, 4, keep=2), (("none", "a", "b"),) * 14, edges=True)
PARENTS = {**WHOLE, "p": Choice((("0", "1", "2", "3"),), "parent", keep=2)}
SPACES = pytest.mark.parametrize("space", [KEPT, WHOLE, EDGED, PARENTS], ids=["keep_2", "keep_all", "edges", "parents"])
EVERY = {name: kind() for name, kind in RULES.items()} | {"threshold": Threshold(least=0.0)}
ALL = pytest.mark.parametrize("rule", EVERY.values(), ids=EVERY)


@ALL
@SPACES
def test_the_result_is_of_the_space(rule: Rule, space: dict) -> None:
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        weights = {name: torch.rand(choice.shape, generator=rng) for name, choice in space.items()}
        genotype = rule(space, weights, rng).validate(space)
        dag = space["c.op"].dag
        for target in dag.targets():
            kept = [genotype.kept["c.op"][index] for index in dag.into(target)]
            assert sum(map(bool, kept)) == (dag.keep or target)
            assert dag.keep is None or all(NONE not in row for row in kept)


@SPACES
def test_the_cell_of_a_cells_own_one_hot_draw_is_the_cell(space: dict) -> None:
    for seed in range(20):
        genotype = Random()(space, {}, torch.Generator().manual_seed(seed))
        weights = one_hot(space, genotype).weights
        assert Strongest()(space, weights, torch.Generator()) == genotype


def test_a_random_cell_takes_every_edge_and_option_as_often() -> None:
    edges, options, draws = Counter(), Counter(), 3000
    for seed in range(draws):
        rows = Random()(KEPT, {}, torch.Generator().manual_seed(seed)).kept["c.op"]
        edges.update(index for index, row in enumerate(rows) if row)
        options.update(option for row in rows for option in row)
    dag = KEPT["c.op"].dag
    for target in dag.targets():
        for index in dag.into(target):
            assert edges[index] / draws == pytest.approx(2 / target, abs=0.04)
    assert options["a"] / sum(options.values()) == pytest.approx(0.5, abs=0.02)


def test_a_random_cell_takes_every_pair_of_parents_as_often() -> None:
    draws = 3000
    pairs = Counter(Random()(PARENTS, {}, torch.Generator().manual_seed(seed)).kept["p"][0] for seed in range(draws))
    assert set(pairs) == set(combinations("0123", 2))
    assert all(count / draws == pytest.approx(1 / 6, abs=0.03) for count in pairs.values())


def test_the_heaviest_parents_are_kept_in_the_order_of_the_row() -> None:
    space = {"p": PARENTS["p"]}
    for weights, kept in (([0.1, 0.4, 0.2, 0.3], ("1", "3")), ([0.2, 0.2, 0.2, 0.4], ("0", "3"))):
        assert Strongest()(space, {"p": torch.tensor([weights])}, torch.Generator()).kept["p"] == (kept,)


def test_the_order_of_the_options_does_not_matter() -> None:
    turned = {**cell_choices("c", Dag(2, 4, keep=2), (("b", "none", "a"),) * 14), "d": Choice((("y", "x"),))}
    weights = {name: torch.rand(choice.shape) for name, choice in KEPT.items()}
    moved = {"c.op": weights["c.op"][:, [2, 0, 1]], "d": weights["d"][:, [1, 0]]}
    assert Strongest()(KEPT, weights, torch.Generator()) == Strongest()(turned, moved, torch.Generator())
