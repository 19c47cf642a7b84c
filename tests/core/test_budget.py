"""Derivation under a cap: any rule, exact costs, and no change where the cap does not bind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from torch import Tensor

import nas_apps
from nas_apps.core import latency
from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.budget import Limit, limit, prices, pull
from nas_apps.core.config import Recipe
from nas_apps.core.ending import derived_now
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.penalty import Cost
from nas_apps.core.phase import Budget
from nas_apps.core.price import Additive, describe
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Dag, Space, cell_choices

CPU = Runtime(torch.device("cpu"))
OPS = ("none", "skip", "small", "large")
DAG = Dag(2, 2, keep=2)
SPACE = cell_choices("c", DAG, (OPS,) * 5)
EDGED = cell_choices("c", DAG, (OPS,) * 5, edges=True)
FORCED = cell_choices("c", DAG, (("small", "large"),) * 5)  # no free option
WHOLE = cell_choices("c", Dag(1, 3), (OPS,) * 6)
COSTS = {"none": 0.0, "skip": 0.0, "small": 3.0, "large": 7.0}


def held(cap: float, space: Space = SPACE, exact: Callable[[Genotype], float] | None = None) -> Limit:
    table = torch.tensor([[COSTS[option] for option in row] for row in space["c.op"].rows], dtype=torch.float64)
    decided = {"c.op": space["c.op"]}
    return Limit(cap, "parameters", Additive(decided, 10.0, {"c.op": table}), exact or (lambda _: 0.0))


def drawn(space: Space, seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: (2 * torch.randn(choice.shape, generator=rng)).softmax(-1) for name, choice in space.items()}


def cost(genotype: Genotype) -> float:
    return 10 + sum(COSTS[option] for row in genotype.kept["c.op"] for option in row)


def all_cells() -> list[Genotype]:
    """Every genotype of `SPACE`."""
    into = [[dict(zip(e, ops, strict=True)) for e in combinations(DAG.into(t), 2) for ops in product(OPS[1:], OPS[1:])]
            for t in DAG.targets()]  # fmt: skip
    return [Genotype({"c.op": tuple(((a | b)[i],) if i in a | b else () for i in range(5))}) for a, b in product(*into)]


def probability(genotype: Genotype, weights: Mapping[str, Tensor]) -> float:
    table = weights["c.op"].double()
    return float(
        torch.stack([table[i, OPS.index(o)] for i, row in enumerate(genotype.kept["c.op"]) for o in row]).prod()
    )


@pytest.mark.parametrize("space", [SPACE, EDGED, WHOLE], ids=["keep_2", "edges", "keep_all"])
def test_a_cap_that_does_not_bind_changes_nothing(space: Space) -> None:
    for seed in range(20):
        weights = drawn(space, seed)
        free = Strongest()(space, weights, torch.Generator())
        assert held(cost(free), space).derive(Strongest(), space, weights, 0) == free


@pytest.mark.parametrize("space", [SPACE, EDGED, WHOLE, FORCED], ids=["keep_2", "edges", "keep_all", "nothing_free"])
def test_any_cap_that_can_be_met_is_met_and_a_lower_one_never_costs_more(space: Space) -> None:
    cheapest = cost(held(0, space)._cheapest(Strongest(), space))
    assert cheapest == (10.0 if space is not FORCED else 10 + 4 * 3.0)
    for seed in range(20):
        weights, ends = drawn(space, seed), []
        for cap in (38.0, 30.0, 25.0, 22.0, 16.0, 10.0):
            found = held(cap, space).derive(Strongest(), space, weights, 0).validate(held(cap, space).price.space)
            assert cost(found) <= max(cap, cheapest)
            ends.append(cost(found))
        assert ends == sorted(ends, reverse=True)


def test_what_is_found_is_the_most_probable_of_all_that_cost_no_more() -> None:
    cells, binding = all_cells(), 0
    assert len(cells) == 9 * 27
    for seed in range(20):
        weights = drawn(SPACE, seed)
        for cap in (28.0, 20.0, 14.0):
            found = held(cap).derive(Strongest(), SPACE, weights, 0)
            best = max((cell for cell in cells if cost(cell) <= cost(found)), key=lambda c: probability(c, weights))
            assert best == found
            binding += found != Strongest()(SPACE, weights, torch.Generator())
    assert binding > 20


def test_logits_that_are_sure_of_a_dear_cell_still_give_a_cheap_one() -> None:
    weights = {"c.op": torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(5, 4)}
    assert cost(held(10.0).derive(Strongest(), SPACE, weights, 0)) == 10


def test_options_that_are_equally_likely_go_to_the_cheapest() -> None:
    space = cell_choices("c", DAG, (("large", "small"),) * 5)
    weights = {"c.op": torch.full((5, 2), 0.5)}
    assert cost(Strongest()(space, weights, torch.Generator())) == 38
    assert cost(held(37.0, space).derive(Strongest(), space, weights, 0)) == 22


def test_costs_of_a_narrower_space_are_those_of_the_options_that_are_left() -> None:
    narrow = cell_choices("c", DAG, (("large", "small"),) * 5)
    weights = {"c.op": torch.tensor([0.9, 0.1]).expand(5, 2)}
    assert cost(held(24.0).derive(Strongest(), narrow, weights, 0)) == 22  # one kind of row: all turn at once


def test_a_random_cell_is_the_first_drawn_that_fits() -> None:
    rng = torch.Generator().manual_seed(5)
    cells = [Random()(SPACE, {}, rng) for _ in range(100)]
    for cap in (38.0, 20.0, 16.0):
        first = next(cell for cell in cells if cost(cell) <= cap)
        assert held(cap).derive(Random(), SPACE, {}, 5) == first
    with pytest.raises(UserError, match="cap: got 9 parameters, and none of 1000 random cells costs so little"):
        held(9.0).derive(Random(), SPACE, {}, 5)


class Device(Additive):
    """Predictions that are half of what is measured."""

    discrete = True


def test_where_costs_are_predictions_what_counts_in_the_end_is_measured_once_for_each_cell() -> None:
    calls: Counter[str] = Counter()

    def measured(genotype: Genotype) -> float:
        calls[genotype.to_json()] += 1
        return 2 * cost(genotype)

    known = held(44.0, exact=measured)
    known = Limit(44.0, "ms", Device(known.price.space, 10.0, known.price.options), measured)
    weights = {"c.op": torch.tensor([0.1, 0.1, 0.2, 0.6]).expand(5, 4) + torch.rand(5, 4) / 100}
    during = known.derive(Strongest(), SPACE, weights, 0)
    assert not calls
    assert cost(during) == 38
    final = known.derive(Strongest(), SPACE, weights, 0, final=True)
    assert 2 * cost(final) <= 44
    known.check(final)
    assert set(calls.values()) == {1}


def test_a_search_ends_under_its_cap_and_says_what_it_costs(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    for variant in ("darts", "pc_darts", "random"):
        made = recipe(f"variant={variant}", "search.budget.of=params", "search.budget.cap=530", "search.epochs=1")
        found = nas_apps.search(made, tmp_path / variant)
        built = describe(made.task, found, made.train)["params"]
        assert built <= 530
        assert nas_apps.derive(tmp_path / variant) == found
        told = json.loads((tmp_path / variant / "summary.json").read_text())["budget"]
        assert told == {"of": "params", "cap": 530, "target": None, "weight": 1.0, "cost": built}


def test_a_cap_binds_what_training_would_build_not_what_is_searched(recipe: Callable[..., Recipe]) -> None:
    small, large = (recipe(f"train.network.cells={cells}") for cells in (1, 2))
    arch = Arch(small.task.choices(), small.variant.relaxations, init_std=1.0, seed=3)
    free = derived_now(small, arch, None)
    cap = describe(small.task, free, small.train)["macs"]
    assert describe(large.task, free, large.train)["macs"] > cap
    kept = {}
    for cells in (1, 2):
        made = recipe(f"train.network.cells={cells}", "search.budget.of=macs", f"search.budget.cap={cap}")
        kept[cells] = derived_now(made, arch, limit(made, CPU))
        assert describe(made.task, kept[cells], made.train)["macs"] <= cap
    assert kept[1] == free
    assert kept[2] != free


def test_a_cap_below_the_cheapest_network_is_refused_before_anything_is_written(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    made = recipe("search.budget.of=params", "search.budget.cap=200")
    cheapest = Genotype({"cell.op": (("skip_connect",),) * 2 + (("skip_connect",),) * 2 + ((),), "gate": (("sine",),)})
    params = describe(made.task, cheapest, made.train)["params"]
    with pytest.raises(UserError) as error:
        nas_apps.search(made, tmp_path / "search")
    assert str(error.value) == (
        f"search.budget.cap: got 200 parameters; allowed: {params} and more, the cheapest network"
    )
    assert not (tmp_path / "search").exists()


def test_a_space_whose_costs_do_not_add_up_is_refused() -> None:
    assert held(30.0, exact=lambda genotype: cost(genotype)).refusal(Strongest(), SPACE) is None
    refusal = held(30.0, exact=lambda genotype: cost(genotype) + 1).refusal(Strongest(), SPACE)
    assert refusal == "search.budget: in this space parameters do not add up over options (11, not 10)"


def test_a_search_with_a_budget_goes_on_for_networks_of_the_same_size_alone(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    settings = ("search.budget.of=params", "search.budget.cap=530", "search.epochs=1")
    nas_apps.search(recipe(*settings), tmp_path / "search")
    nas_apps.search(recipe(*settings, "train.epochs=9"), tmp_path / "search", resume=True)
    with pytest.raises(UserError, match=r"train\.network\.channels is 8 there and 4 here"):
        nas_apps.search(recipe(*settings, "train.network.channels=4"), tmp_path / "search", resume=True)


def test_a_budget_of_latency_needs_a_file_of_this_device(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"search\.latency\.file: not given"):
        recipe("search.budget.of=latency", "search.budget.cap=3", "search.latency.file=null")
    file = tmp_path / "latency.safetensors"
    latency.measure(recipe(), file, cells=12, clock=lambda network, inputs: float(sum(1 for _ in network.modules())))
    settings = ("search.budget.of=latency", f"search.latency.file={file}", "search.epochs=1")
    slow = recipe(*settings, "search.budget.cap=1e6")
    assert nas_apps.search(slow, tmp_path / "a") == nas_apps.derive(tmp_path / "a")
    told = json.loads((tmp_path / "a" / "summary.json").read_text())["budget"]
    file.unlink()  # what the search ended with is settled
    assert nas_apps.derive(tmp_path / "a") == Genotype.load(tmp_path / "a" / "genotype.json")
    latency.measure(recipe(), file, cells=12, clock=lambda network, inputs: float(sum(1 for _ in network.modules())))
    assert told["cap"] == 1e6
    assert 0 < told["cost"] < 1e6
    with pytest.raises(UserError, match=r"search\.budget\.cap: got 1e-06 ms; allowed: .* and more, the cheapest"):
        nas_apps.search(recipe(*settings, "search.budget.cap=1e-6"), tmp_path / "b")


def test_a_target_is_a_hinge_and_prices_are_those_that_are_asked_for(recipe: Callable[..., Recipe]) -> None:
    assert pull(None) == pull(Budget("macs", cap=3.0)) == ()
    assert pull(Budget("macs", target=3.0, weight=2.0)) == (Cost("macs", weight=2.0, target=3.0, form="hinge"),)
    made = recipe()
    space = made.task.choices(edges=1)
    assert prices(made, (), CPU) == {}
    assert list(prices(made, ["macs"], CPU)) == ["macs"]
    genotype = Random()(space, {}, torch.Generator())
    weights = one_hot(space, genotype).weights
    for known in (prices(made, ["params"], CPU), prices(made, ["params"], CPU, space)):
        assert float(known["params"](weights)) == describe(made.task, genotype, made.train)["params"]


def test_budgets_that_mean_nothing_are_refused(recipe: Callable[..., Recipe]) -> None:
    for settings, words in (
        (["search.budget.of=params"], "search.budget.target: not given, and cap neither"),
        (
            ["search.budget.of=time", "search.budget.cap=3"],
            "search.budget.of: got 'time'; allowed: params, macs, latency",
        ),
        (["search.budget.of=macs", "search.budget.cap=0"], "search.budget.cap: got 0.0; allowed: more than 0"),
        (["train.budget.of=macs", "train.budget.cap=3"], "train.budget: what is trained is given"),
        (["train.latency.batch_size=3"], "train.latency: what is trained is given"),
        (
            ["variant=random", "search.budget.of=params", "search.budget.target=9"],
            "'no_search' has no loss that could be drawn to it",
        ),
        (["variant=rome_v1", "search.budget.of=latency", "search.budget.target=9"], "drawn edge by edge"),
    ):
        with pytest.raises(UserError, match=words):
            recipe(*settings)
