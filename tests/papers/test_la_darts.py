"""LA-DARTS (arXiv:2001.06392): a predicted latency in the loss of the logits."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch
from torch import Tensor

from nas_apps.core.arch import one_hot
from nas_apps.core.latency import fit
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.penalty import Cost, Seen, draw_cells
from nas_apps.core.predictor import Predictor
from nas_apps.core.price import odds
from nas_apps.core.progress import Progress
from nas_apps.core.space import Dag, cell_choices

SPACE = cell_choices("c", Dag(2, 4, keep=2), (("none", "skip", "conv"),) * 14)
NODES = [(0, 2), (2, 5), (5, 9), (9, 14)]  # the edges into each node


@cache
def predictor() -> Predictor:
    """Of a device on which a convolution takes 2 ms and a skip none."""
    cells = [Random()(SPACE, {}, torch.Generator().manual_seed(seed)) for seed in range(100)]
    return fit(SPACE, cells, [2.0 * sum(row == ("conv",) for row in cell.kept["c.op"]) for cell in cells]).predictor


def seen(logits: Tensor, seed: int = 0) -> Seen:
    means = {"c.op": logits.softmax(-1)}
    return Seen({"c.op": logits}, means, Progress(0, 1), {"latency": predictor()}, torch.Generator().manual_seed(seed))


def draw(logits: Tensor, seed: int) -> Tensor:
    return draw_cells(SPACE, {"c.op": logits.softmax(-1)}, 1, torch.Generator().manual_seed(seed))["c.op"][0]


def test_the_predictor_sees_cells_as_they_are_derived() -> None:
    for seed in range(20):
        table = draw(3 * torch.randn(14, 3), seed)
        assert set(table.flatten().tolist()) == {0.0, 1.0}
        assert not table[:, 0].any()
        assert [int(table[first:last].sum()) for first, last in NODES] == [2, 2, 2, 2]


def test_options_and_edges_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.zeros(14, 3)
    logits[:, 2] = 1.0
    logits[2, 0] = 4.0  # an edge that is mostly "none"
    draws, counts, edges = 3000, Counter(), Counter()
    for seed in range(draws):
        table = draw(logits, seed)
        counts.update(table.argmax(-1)[table.sum(-1) > 0].tolist())
        edges.update(index for index in (2, 3, 4) if table[index].any())
    assert counts[2] / sum(counts.values()) == pytest.approx(float(logits[0, 1:].softmax(-1)[1]), abs=0.01)
    real = 1 - logits.softmax(-1)[2:5, 0]
    a, b, c = (real / real.sum()).tolist()
    left_out = b * c / (1 - b) + c * b / (1 - c)  # Plackett and Luce: the two others are drawn first
    assert 1 - edges[2] / draws == pytest.approx(left_out, abs=0.03)
    assert a < b


def test_the_gradient_is_that_of_the_odds_of_the_rows_that_are_kept() -> None:
    logits = torch.randn(14, 3, requires_grad=True)
    table, weights = draw(logits, 0), torch.randn(14, 3)
    found = torch.autograd.grad((table * weights).sum(), logits)[0]
    kept = table.detach().sum(-1, keepdim=True)
    soft = odds(SPACE["c.op"], logits.softmax(-1))
    by_hand = torch.autograd.grad((kept * soft * weights).sum(), logits)[0]
    assert torch.allclose(found, by_hand, atol=1e-6)
    assert found.abs().sum() > 0


def test_the_cost_is_the_mean_of_what_the_drawn_cells_are_predicted() -> None:
    logits, rng = torch.randn(14, 3), torch.Generator().manual_seed(7)
    cells = [draw_cells(SPACE, {"c.op": logits.softmax(-1)}, 1, rng) for _ in range(5)]
    expected = sum(float(predictor()(cell)) for cell in cells) / 5 / predictor().reference
    assert float(Cost("latency", cells=5)(seen(logits, 7))) == pytest.approx(expected, rel=1e-5)


def test_without_drawn_cells_the_odds_on_the_strongest_edges_are_priced() -> None:
    logits = torch.randn(14, 3)
    kept = one_hot(SPACE, Strongest()(SPACE, {"c.op": logits.softmax(-1)}, torch.Generator())).weights["c.op"]
    soft = odds(SPACE["c.op"], logits.softmax(-1)) * kept.sum(-1, keepdim=True)
    expected = float(predictor()({"c.op": soft})) / predictor().reference
    assert float(Cost("latency", cells=0)(seen(logits))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cells", [20, 0])
def test_the_heavier_the_cost_the_faster_the_cell_that_is_found(cells: int) -> None:
    before = {name: tensor.clone() for name, tensor in predictor().state_dict().items()}
    liked = torch.randn(14, 3) + torch.tensor([-1.0, 0.0, 0.7])
    found = []
    for weight in (0.0, 0.3, 1.0, 30.0):
        logits = torch.zeros(14, 3, requires_grad=True)
        adam = torch.optim.Adam([logits], 0.1)
        for step in range(60):
            loss = (logits - liked).square().sum() / 4 + weight * Cost("latency", cells=cells)(seen(logits, step))
            adam.zero_grad()
            loss.backward()
            adam.step()
        kept = Strongest()(SPACE, {"c.op": logits.detach().softmax(-1)}, torch.Generator()).kept["c.op"]
        found.append(2 * kept.count(("conv",)))
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in predictor().state_dict().items())


def test_equal_random_numbers_give_an_equal_cost() -> None:
    logits = torch.randn(14, 3)
    assert torch.equal(Cost("latency")(seen(logits, 1)), Cost("latency")(seen(logits, 1)))
    assert not torch.equal(Cost("latency")(seen(logits, 1)), Cost("latency")(seen(logits, 2)))
