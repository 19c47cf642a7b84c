"""What an architecture costs before it is built, against what it costs once it is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations, product
from statistics import mean

import pytest
import torch

from nas_apps.core.arch import one_hot
from nas_apps.core.config import Recipe, load
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random
from nas_apps.core.price import Additive, Narrowed, describe, expectation, tables
from nas_apps.core.space import Choice, Dag, Space, cell_choices
from nas_apps.tasks.image.published import PUBLISHED

TOY = ("task=toy", "train.network.cells=3")
SMALL = ("task=image", "train.network.channels=4", "train.network.cells=3", "task.train_images=40")
IMAGE = [f"task.space={name}" for name in ("darts", "darts_no_none", "s1", "s2", "s3", "s4", "nasbench201")]


@cache
def priced(*settings: str) -> tuple[Recipe, dict[str, Additive]]:
    recipe = load([], settings)
    return recipe, tables(recipe.task, recipe.train)


def toy_cells(space: Space) -> Iterator[Genotype]:
    """Every genotype of the toy space."""
    dag, gates = space["cell.op"].dag, space["gate"].rows[0]
    nodes = [
        [dict(zip(edges, ops, strict=True)) for edges in combinations(dag.into(t), 2) for ops in product(OPS, OPS)]
        for t in dag.targets()
    ]
    for picks in product(*nodes):
        kept = {edge: (option,) for pick in picks for edge, option in pick.items()}
        for gate in gates:
            yield Genotype({"cell.op": tuple(kept.get(index, ()) for index in range(5)), "gate": ((gate,),)})


OPS = ("skip_connect", "linear", "tanh")


@pytest.mark.parametrize("settings", [TOY, *((*SMALL, name) for name in IMAGE)], ids=["toy", *IMAGE])
def test_the_sum_over_what_is_kept_is_the_cost_of_the_network_that_is_built(settings: tuple[str, ...]) -> None:
    recipe, prices = priced(*settings)
    space = recipe.task.choices()
    for seed in range(5):
        genotype = Random()(space, {}, torch.Generator().manual_seed(seed))
        weights, built = one_hot(space, genotype).weights, describe(recipe.task, genotype, recipe.train)
        assert {name: float(price(weights)) for name, price in prices.items()} == {
            "params": built["params"],
            "macs": built["macs"],
        }


def test_a_published_cell_has_its_published_number_of_parameters() -> None:
    size = ("train.network.channels=16", "train.network.cells=8", "task.image_size=32", "task.in_chans=3")
    recipe, prices = priced("task=image", "task.train_images=40", *size)
    for name, params in (("darts_v2", 246_106), ("pc_darts_cifar", 335_738)):
        weights = one_hot(recipe.task.choices(), PUBLISHED[name]).weights
        assert float(prices["params"](weights)) == params


def test_the_reference_is_the_mean_cost_of_all_architectures() -> None:
    recipe, prices = priced(*TOY)
    space = recipe.task.choices()
    cells = [one_hot(space, genotype).weights for genotype in toy_cells(space)]
    assert len(cells) == 486
    for price in prices.values():
        assert price.reference == pytest.approx(mean(float(price(weights)) for weights in cells))


def test_a_stack_of_architectures_is_priced_as_each_is_alone() -> None:
    recipe, prices = priced(*TOY)
    space = recipe.task.choices()
    cells = [one_hot(space, Random()(space, {}, torch.Generator().manual_seed(s))).weights for s in range(4)]
    stacked = {name: torch.stack([cell[name] for cell in cells]) for name in space}
    assert prices["macs"](stacked).tolist() == [float(prices["macs"](cell)) for cell in cells]


def test_a_cell_that_keeps_two_edges_a_node_is_priced_as_eight_edges_and_never_as_none() -> None:
    space = cell_choices("c", Dag(2, 4, keep=2), (("none", "a", "b"),) * 14)
    found = expectation(space, {"c.op": torch.full((14, 3), 1 / 3)})["c.op"]
    assert found.sum() == pytest.approx(8)
    assert torch.equal(found[:, 0], torch.zeros(14))


def test_a_cell_that_keeps_all_edges_is_priced_as_it_stands() -> None:
    space = cell_choices("c", Dag(1, 3), (("none", "a", "b"),) * 6)
    means = torch.rand(6, 3).softmax(-1)
    assert torch.allclose(expectation(space, {"c.op": means})["c.op"], means)


def test_weights_of_a_narrower_space_are_priced_as_what_they_are() -> None:
    wide = {"c": Choice((("none", "a", "b"), ("a", "b", "none")))}
    narrow = {"c": Choice((("none", "b"), ("b", "a")))}
    price = Additive(wide, 5.0, {"c": torch.tensor([[0.0, 1, 2], [10, 20, 0]], dtype=torch.float64)})
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    narrowed = Narrowed(price, narrow)
    assert float(narrowed({"c": weights})) == 5 + 0.75 * 2 + 0.5 * 20 + 0.5 * 10
    assert narrowed.reference == price.reference


def test_pricing_leaves_the_random_numbers_as_they_were() -> None:
    recipe = load([], TOY)
    before = torch.get_rng_state()
    tables(recipe.task, recipe.train)
    describe(recipe.task, next(toy_cells(recipe.task.choices())), recipe.search)
    assert torch.equal(before, torch.get_rng_state())
