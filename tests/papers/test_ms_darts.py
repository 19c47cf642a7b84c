"""MS-DARTS (arXiv:2108.09996) against the vectors of the code that presents itself as the paper's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from nas_apps.core.parts.noise import uniform
from nas_apps.core.parts.perturb import MeanShift
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.variants import VARIANTS

TABLE = [[0.5, 0.3, 0.2]]
NEAR = [[[0.7, 0.3, 0.1]], [[0.4, 0.2, 0.4]], [[0.5, 0.45, 0.05]]]
LOSSES, EQUAL = [1.0, 2.0, 1.5], [1.0, 1.0, 1.0]


class Linear:
    """The loss <c, table>; it remembers where it was asked."""

    def __init__(self, *c: float) -> None:
        self.c, self.seen = torch.tensor([c]), list[Tensor]()

    def loss(self, tables: Mapping[str, Tensor]) -> float:
        self.seen.append(tables["a"])
        return float((self.c * tables["a"]).sum())

    def slopes(self, tables: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raise AssertionError("the loss was differentiated")


def shifted(losses: list[float], **settings: object) -> Tensor:
    return MeanShift(**settings).shift(torch.tensor(TABLE), torch.tensor(NEAR), losses)[0]


def shares(losses: list[float], **settings: object) -> list[float]:
    """What each neighbour counts in the result of ours, which is a mean of them."""
    return torch.linalg.solve(torch.tensor(NEAR)[:, 0].T, shifted(losses, **settings)).tolist()


@pytest.mark.parametrize(
    ("losses", "settings", "expected"),
    [
        (LOSSES, {}, [0.4872, 0.2958, 0.2358]),
        (EQUAL, {"bandwidth": 1e6}, [0.5333, 0.3167, 0.1833]),
        (LOSSES, {"towards": "fit"}, [0.5833, 0.3275, 0.1400]),
    ],
    ids=["loss", "plain mean", "fit"],
)
def test_a_shift_among_three_neighbours(
    losses: list[float], settings: dict[str, object], expected: list[float]
) -> None:
    assert shifted(losses, **settings).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("double")
def test_neighbours_count_by_the_softmax_of_their_losses_and_a_gaussian_of_their_distance() -> None:
    assert shares(LOSSES, bandwidth=1e6) == pytest.approx([0.1863, 0.5065, 0.3072], abs=1e-4)
    kernels = [0.3928, 0.3872, 0.3901]  # whose factor 1 / (h sqrt(2 pi)) cancels
    assert shares(EQUAL) == pytest.approx([k / sum(kernels) for k in kernels], abs=1e-4)
    both = [0.1863 * 0.3928, 0.5065 * 0.3872, 0.3072 * 0.3901]
    assert shares(LOSSES) == pytest.approx([x / sum(both) for x in both], abs=2e-4)


def test_a_narrow_kernel_leaves_the_nearest_neighbour_and_no_nan() -> None:
    near = torch.tensor(NEAR)
    moved = MeanShift(bandwidth=1e-4).shift(torch.tensor(TABLE), near, EQUAL)
    assert torch.equal(moved, near[0])  # on the simplex its row is 0.636, 0.273, 0.091


def test_the_result_is_not_put_back_on_the_simplex() -> None:
    assert shifted(LOSSES).sum().item() == pytest.approx(1.0188, abs=2e-4)


@pytest.mark.parametrize("seed", range(5))
def test_one_neighbour_and_one_step_is_that_neighbour_exactly_and_not_clipped(seed: int) -> None:
    start, surface = {"a": torch.tensor([[0.9, 0.1, 0.0]])}, Linear(1.0, 2.0, 3.0)
    part = MeanShift(epsilon=0.2, samples=1, steps=1)
    found = part(start, surface, DONE, torch.Generator().manual_seed(seed))["a"]
    near = start["a"] + uniform(start["a"], 0.2, torch.Generator().manual_seed(seed))
    assert torch.equal(found, near)
    (asked,) = surface.seen
    assert not torch.equal(asked, near)  # the loss is that of the row on the simplex
    assert asked.sum().item() == pytest.approx(1)
    assert (asked >= 0).all()


def test_losses_are_of_rows_on_the_simplex_for_every_neighbour_of_every_step() -> None:
    surface = Linear(1.0, 2.0, 3.0)
    MeanShift(epsilon=0.2, samples=5, steps=3)({"a": torch.tensor([[0.9, 0.1, 0.0]])}, surface, DONE, torch.Generator())
    asked = torch.cat(surface.seen)
    assert len(asked) == 5 * 3
    assert (asked >= 0).all()
    assert torch.allclose(asked.sum(-1), torch.ones(len(asked)))
    assert len(asked.unique(dim=0)) == len(asked)


def test_all_tables_move_at_once_and_each_by_a_kernel_of_its_own() -> None:
    start = {"a": torch.tensor([[0.5, 0.5]]), "b": torch.tensor([[0.2, 0.8], [0.6, 0.4]])}
    surface = Linear(1.0, 2.0)
    found = MeanShift(epsilon=0.1, samples=4, steps=1)(start, surface, DONE, torch.Generator().manual_seed(1))
    assert len(surface.seen) == 4  # a loss a neighbour, not one a table
    assert {name: table.shape for name, table in found.items()} == {n: t.shape for n, t in start.items()}
    assert all(not torch.equal(found[name], start[name]) for name in start)


@pytest.mark.parametrize(("towards", "sign"), [("loss", 1), ("fit", -1)])
def test_on_average_it_moves_towards_loss_or_away_from_it(towards: str, sign: int) -> None:
    start, surface = {"a": torch.full((1, 3), 1 / 3)}, Linear(30.0, 0.0, -30.0)
    part = MeanShift(epsilon=0.1, samples=5, steps=2, towards=towards)
    rise = [
        surface.loss(part(start, surface, DONE, torch.Generator().manual_seed(s))) - surface.loss(start)
        for s in range(50)
    ]
    assert sign * sum(rise) / len(rise) > 1


@pytest.mark.parametrize(("epoch", "epsilon"), [(0, 0.025), (20, 0.1375), (39, 0.2444)])
def test_epsilon_grows_from_a_tenth_of_its_end(epoch: int, epsilon: float) -> None:
    assert VARIANTS["ms_darts"].perturb.epsilon(Progress(epoch, 40)) == pytest.approx(epsilon, abs=1e-4)


def test_the_settings_of_the_code_are_the_defaults() -> None:
    part = VARIANTS["ms_darts"].perturb
    assert (part.samples, part.steps, part.bandwidth, part.towards) == (3, 2, 1.0, "loss")
    assert VARIANTS["ms_darts"].none


def test_the_logits_wait_for_the_first_5_of_40_epochs(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=ms_darts")
    taught, streams = learner(made)
    for epoch, moves in ((0, False), (4, False), (5, True)):
        before = [p.detach().clone() for p in taught.logits]
        taught.begin(Progress(epoch, 40))
        made.variant.schedule(taught, streams)
        assert all(torch.equal(a, b) for a, b in zip(before, taught.logits, strict=True)) is not moves


def test_with_epsilon_0_the_search_is_that_of_darts_to_the_bit(searched) -> None:  # noqa: ANN001
    ours = searched("variant=ms_darts", "variant.perturb.epsilon=0")
    assert all(map(torch.equal, ours, searched("variant=darts", "variant.schedule.warmup=0.125")))
    assert not any(map(torch.equal, ours, searched("variant=ms_darts")))


def test_no_gradient_goes_through_the_shift(recipe, learner) -> None:  # noqa: ANN001
    taught, streams = learner(recipe("variant=ms_darts"))
    taught.begin(Progress(9, 10))
    seen: list[Tensor] = []
    taught.objective.register_forward_pre_hook(lambda *_: seen.append(taught.arch.current.weights["cell.op"]))
    before = [p.detach().clone() for p in taught.logits]
    taught.weight_step(*taught.pull(streams.train, use=0))
    assert len(seen) == 3 * 2 + 1
    assert not any(weights.requires_grad for weights in seen)
    assert not torch.equal(seen[-1], taught.arch.expected().weights["cell.op"])
    assert all(p.grad is None for p in taught.logits)
    assert all(map(torch.equal, before, taught.logits))


def test_its_look_at_the_loss_is_in_evaluation_mode_on_the_batch_of_the_step(recipe, learner) -> None:  # noqa: ANN001
    taught, streams = learner(recipe("variant=ms_darts"))
    taught.begin(Progress(9, 10))
    batch, draws = taught.pull(streams.train, use=0)
    seen: list[tuple[bool, bool]] = []
    taught.objective.register_forward_pre_hook(lambda m, args: seen.append((m.training, args[0] is batch)))
    taught.weight_step(batch, draws)
    assert seen == [(False, True)] * 6 + [(True, True)]
