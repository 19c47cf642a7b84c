"""P-DARTS (arXiv:1904.12760): dropout after skips, and the limit on skips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Strongest
from nas_apps.core.parts.drop import SkipDropout
from nas_apps.core.parts.wiring import Full, Row
from nas_apps.core.progress import Progress
from nas_apps.core.space import NONE, SKIP, Choice, Dag, Space, cell_choices
from nas_apps.core.variants import VARIANTS

OPTIONS = (NONE, "pool", SKIP, "sep", "dil")
DAG = Dag(2, 4, keep=2)
Kept = tuple[tuple[str, ...], ...]


def space_of(*cells: str) -> Space:
    return {name: c for cell in cells for name, c in cell_choices(cell, DAG, (OPTIONS,) * 14).items()}


def derived(table: torch.Tensor, max_skips: int | None) -> Kept:
    return Strongest(max_skips=max_skips)(space_of("c"), {"c.op": table}, torch.Generator()).kept["c.op"]


def skips(kept: Kept) -> int:
    return sum(row == (SKIP,) for row in kept)


@pytest.mark.parametrize(("epoch", "p"), [(0, 0.384), (9, 0.24), (10, 0.4), (24, 0.02432)])
@pytest.mark.parametrize("rate", [0.1, 0.4, 0.7])
def test_the_probability_falls_in_the_epochs_without_logits_and_again_in_those_with(
    rate: float, epoch: int, p: float
) -> None:
    assert SkipDropout(rate).probability(Progress(epoch, 25)) == pytest.approx(p * rate / 0.4, abs=2e-5)


def test_the_second_fall_begins_in_the_epoch_in_which_the_logits_begin() -> None:
    schedule = VARIANTS["p_darts"].schedule
    for epochs in range(1, 200):
        for epoch in range(epochs):
            progress = Progress(epoch, epochs)
            learning = float(progress) >= schedule.warmup
            since = epoch - 0.4 * epochs
            expected = torch.tensor(-0.2 * since).exp().item() if learning else (epochs - epoch - 1) / epochs
            assert SkipDropout(0.4).probability(progress) == pytest.approx(0.4 * expected, rel=1e-5)


@pytest.mark.parametrize("epoch", [0, 10, 20])
def test_elements_of_a_skip_are_dropped_with_that_probability_and_the_mean_is_kept(epoch: int) -> None:
    drop, progress = SkipDropout(0.4), Progress(epoch, 25)
    edge = Full(drop).edge((SKIP,), {SKIP: lambda args: nn.Identity()}, OpArgs(8))
    y = edge(torch.ones(64, 8, 16, 16), Row(None, (0,), progress))
    assert (y == 0).double().mean().item() == pytest.approx(drop.probability(progress), abs=0.006)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    per_map = (y == 0).double().mean((2, 3))
    assert (per_map > 0).double().mean() > 0.99  # elements, not whole samples or maps


def test_the_rates_of_the_three_stages() -> None:
    variant = VARIANTS["p_darts"]
    wirings = [stage.wiring or variant.wiring for stage in variant.stages]
    assert [wiring.drop.rate for wiring in wirings] == [0.1, 0.4, 0.7]
    assert variant.derive.max_skips == 2
    assert variant.schedule.warmup == pytest.approx(10 / 25)


@pytest.mark.parametrize("seed", range(30))
def test_each_round_takes_exactly_one_skip_out_the_weakest_and_leaves_other_nodes(seed: int) -> None:
    table = torch.rand(14, 5, generator=torch.Generator().manual_seed(seed))
    table[:, 2] += 0.5  # of skips there are many
    now = derived(table, None)
    assert skips(now) > 2
    for limit in range(8, -1, -1):
        kept = derived(table, limit)
        assert skips(kept) == min(limit, skips(now))
        for target in DAG.targets():
            rows = list(DAG.into(target))
            before, after = [now[r] for r in rows], [kept[r] for r in rows]
            if (SKIP,) not in before:
                assert after == before
            assert sum(map(bool, after)) == 2
        if skips(kept) < skips(now):
            weakest = min((table[r, 2].item(), r) for r, row in enumerate(now) if row == (SKIP,))[1]
            assert kept[weakest] != (SKIP,)
        now = kept


def test_the_second_best_operation_takes_the_place_or_the_edge_goes_to_another() -> None:
    space = cell_choices("c", Dag(3, 1, keep=2), ((NONE, SKIP, "sep"),) * 3)
    rows = [[0.0, 0.9, 0.1], [0.0, 0.6, 0.55], [0.0, 0.3, 0.5]]
    for first, second, expected in (
        (rows[1], rows[2], ((SKIP,), ("sep",), ())),
        ([0.0, 0.6, 0.4], rows[2], ((SKIP,), (), ("sep",))),
    ):
        weights = {"c.op": torch.tensor([rows[0], first, second])}
        assert Strongest()(space, weights, torch.Generator()).kept["c.op"] == ((SKIP,), (SKIP,), ())
        assert Strongest(max_skips=1)(space, weights, torch.Generator()).kept["c.op"] == expected


def test_only_the_normal_cell_is_limited() -> None:
    space = space_of("normal", "reduce")
    table = torch.zeros(14, 5)
    table[:, 2], table[:, 3] = torch.linspace(0.9, 0.8, 14), 0.1
    kept = Strongest(max_skips=2)(space, {"normal.op": table, "reduce.op": table}, torch.Generator()).kept
    assert (skips(kept["normal.op"]), skips(kept["reduce.op"])) == (2, 8)


def test_rows_that_have_nothing_but_a_skip_keep_it_whatever_the_limit() -> None:
    space = {**cell_choices("c", Dag(2, 1, keep=2), ((NONE, SKIP),) * 2), "d": Choice((("x", "y"),))}
    weights = {"c.op": torch.tensor([[0.1, 0.9], [0.8, 0.2]]), "d": torch.tensor([[0.5, 0.5]])}
    kept = Strongest(max_skips=0)(space, weights, torch.Generator()).kept["c.op"]
    assert kept == ((SKIP,), (SKIP,))


def test_a_limit_that_holds_already_changes_nothing() -> None:
    table = torch.rand(14, 5)
    plain = derived(table, None)
    assert derived(table, skips(plain)) == plain
