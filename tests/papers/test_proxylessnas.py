"""ProxylessNAS (arXiv:1812.00332): the gradient of binary gates, computed without a graph for what is not run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch, Draw
from nas_apps.core.cell import Mixed
from nas_apps.core.errors import UserError
from nas_apps.core.learner import Learner
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.relax import BinaryGate
from nas_apps.core.parts.schedule import TRAIN, VALID
from nas_apps.core.parts.wiring import Full, Partial, Row, shuffle
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.space import Choice
from nas_apps.core.task import Outcome
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.toy import OPS

LOGITS, SLOPES = [0.5, 0.1, -0.3], [0.7, -0.2, 1.1]
LATE = Progress(9, 10)


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.new_full((1,), self.value)


class Sum(nn.Module):
    """The loss is the output of one place, so that dL/dg_k is what option k puts out."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        ops = {str(k): (lambda args, y=y: _Constant(y)) for k, y in enumerate(SLOPES)}
        self.place = Mixed(arch, Full()).mix("a", 0, ops, OpArgs(1))

    def forward(self, batch: Tensor) -> Outcome:
        return Outcome(self.place(batch).sum(), {}, 1)


@pytest.fixture
def gates(teach):  # noqa: ANN001, ANN201
    """A learner of one row with the logits of the specification."""

    def make(paths: int | None) -> Learner:
        arch = Arch({"a": Choice.uniform(("0", "1", "2"), 1)}, {"op": BinaryGate(paths)})
        with torch.no_grad():
            arch.logits["a"].copy_(torch.tensor([LOGITS]))
        return teach(Sum(arch), arch, lr=0.1)

    return make


def pair_of(draw: Draw, name: str = "a", row: int = 0) -> set[int]:
    return {*draw.active[name][row], *draw.probed[name][row]}


@pytest.mark.usefixtures("double")
def test_the_gradient_of_the_logits_goes_through_the_gates_of_all_options(gates) -> None:  # noqa: ANN001
    learner, ran = gates(None), set()
    for cycle in range(20):
        (draw,) = learner.arch.draws(cycle=cycle, learn=True)
        ran.add(draw.active["a"][0])
        assert pair_of(draw) == {0, 1, 2}
        (grad,), _ = learner.arch_gradients(torch.ones(1), (draw,))
        assert grad[0].tolist() == pytest.approx([0.094272, -0.221424, 0.127152], abs=1e-6)
        assert grad.sum().item() == pytest.approx(0, abs=1e-12)
    assert ran == {(0,), (1,), (2,)}  # whichever was run


@pytest.mark.usefixtures("double")
def test_a_step_of_two_paths_leaves_the_probability_of_the_third(gates) -> None:  # noqa: ANN001
    learner, ran = gates(2), set()
    before = learner.arch.logits["a"].softmax(-1)[0].tolist()
    assert before == pytest.approx([0.4717762, 0.3162411, 0.2119827], abs=1e-7)
    for cycle in range(40):
        (draw,) = learner.arch.draws(cycle=cycle, learn=True)
        assert len(pair_of(draw)) == 2
        if pair_of(draw) != {0, 2}:
            continue
        ran.add(draw.active["a"][0])
        with torch.no_grad():
            learner.arch.logits["a"].copy_(torch.tensor([LOGITS]))
        grads, _ = learner.arch_gradients(torch.ones(1), learner.arch.draws(cycle=cycle, learn=True))
        learner.arch_step(grads)
        after = learner.arch.logits["a"].softmax(-1)[0].tolist()
        assert after[1] == pytest.approx(before[1], abs=1e-12)
        assert after == pytest.approx([0.4742710, 0.3162411, 0.2094879], abs=1e-7)
    assert ran == {(0,), (2,)}


@pytest.mark.parametrize("paths", [None, 2])
def test_a_gate_is_open_as_often_as_its_probability_says(paths: int | None) -> None:
    logits = torch.tensor(LOGITS)
    p = logits.softmax(-1).tolist()
    rows, rng = logits.expand(40_000, 3), torch.Generator().manual_seed(1)
    assert BinaryGate(paths)(rows, DONE, rng).mean(0).tolist() == pytest.approx(p, abs=0.008)
    weights, probed = BinaryGate(paths).gates(rows, DONE, rng)
    if paths is None:
        assert weights.mean(0).tolist() == pytest.approx(p, abs=0.008)
        assert probed.all()
        return
    pairs = Counter(tuple(row.nonzero().flatten().tolist()) for row in probed[:10_000])
    for (i, j), count in pairs.items():  # drawn without replacement, and one of them by its share of the two
        law = p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))
        assert count / 10_000 == pytest.approx(law, abs=0.015)
        of_pair = weights[(probed[:, i]) & (probed[:, j])]
        assert of_pair[:, i].mean().item() == pytest.approx(p[i] / (p[i] + p[j]), abs=0.015)


@pytest.mark.parametrize("paths", [None, 2])
def test_a_draw_is_exactly_one_hot_and_differs_between_streams(paths: int | None) -> None:
    arch = Arch({"a": Choice.uniform(("x", "y", "z"), 40)}, {"op": BinaryGate(paths)})
    weight, learn = arch.draws(cycle=4, use=TRAIN)[0], arch.draws(cycle=4, use=VALID, learn=True)[0]
    for draw in (weight, learn):
        assert sorted(draw.weights["a"].unique().tolist()) == [0.0, 1.0]
        assert all(len(active) == 1 for active in draw.active["a"])
    assert weight.active != learn.active
    assert not weight.probed
    assert {len(row) for row in learn.probed["a"]} == {1 if paths else 2}


def counting(learner: Learner) -> Counter[str]:
    """How often each place runs an operation, with a graph or without."""
    runs: Counter[str] = Counter()
    for name, module in learner.objective.named_modules():
        place, _, option = name.rpartition(".ops.")
        if option and "." not in option:
            module.register_forward_hook(
                lambda *_, place=place: runs.update([f"{place} {'graph' if torch.is_grad_enabled() else 'none'}"])
            )
    return runs


def test_in_a_step_of_the_weights_one_operation_runs_in_a_place(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=proxylessnas")
    taught, streams = learner(made)
    taught.begin(LATE)
    runs = counting(taught)
    taught.weight_step(*taught.pull(streams.train, use=TRAIN))
    assert set(runs.values()) == {1}
    assert all(place.endswith("graph") for place in runs)


@pytest.mark.parametrize("paths", [None, 2])
def test_in_a_step_of_the_logits_one_operation_in_a_place_has_a_graph_and_the_others_run_without(
    recipe,  # noqa: ANN001
    learner,  # noqa: ANN001
    paths: int | None,
) -> None:
    made = recipe("variant=proxylessnas", f"variant.relax.paths={'null' if paths is None else paths}")
    taught, streams = learner(made)
    taught.begin(LATE)
    batch, (draw,) = taught.pull(streams.valid, use=VALID, learn=True)
    runs = counting(taught)
    taught.arch_gradients(batch, (draw,))
    names = taught.arch.space["cell.op"].rows
    for cell in range(2):
        for edge, row in enumerate(names):
            place = f"network.cells.{cell}.edges.{edge}"
            probed = draw.probed["cell.op"][edge]
            assert len(probed) == (3 if paths is None else 1)
            assert runs[f"{place} graph"] == 1
            others = sum(row[k] != "none" for k in probed)
            assert runs[f"{place} none"] in ((others,) if cell == 1 else (others, 0))  # 0: no path to the loss


@pytest.mark.parametrize("paths", [None, 2])
@pytest.mark.usefixtures("double")
def test_the_gradient_is_that_of_running_every_option_with_a_graph(recipe, learner, paths: int | None) -> None:  # noqa: ANN001
    made = recipe("variant=proxylessnas", f"variant.relax.paths={'null' if paths is None else paths}")
    taught, _ = learner(made)
    taught.begin(LATE)
    batch = torch.randn(16, 2), torch.randint(3, (16,))
    for cycle in range(5):
        (draw,) = taught.arch.draws(LATE, cycle=cycle, learn=True)
        ours, _ = taught.arch_gradients(batch, (draw,))
        (draw,) = taught.arch.draws(LATE, cycle=cycle, learn=True)
        every = {
            name: tuple(tuple(sorted({*active, *draw.probed[name][row]})) for row, active in enumerate(rows))
            for name, rows in draw.active.items()
        }
        plain, _ = taught.arch_gradients(batch, (replace(draw, active=every, probed={}),))
        for mine, other in zip(ours, plain, strict=True):
            assert other.abs().max() > 1e-6
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
    (alone,) = taught.arch.draws(LATE, cycle=0, learn=True)
    without, _ = taught.arch_gradients(batch, (replace(alone, probed={}),))
    first, _ = taught.arch_gradients(batch, taught.arch.draws(LATE, cycle=0, learn=True))
    assert not torch.allclose(without[0], first[0], rtol=1e-3)  # the gate that is open would not do


class Layers(nn.Module):
    """Places in a row, of options of equal size."""

    def __init__(self, arch: Arch, options: int) -> None:
        super().__init__()
        layer = lambda args: nn.Sequential(nn.Linear(16, 16), nn.Tanh())  # noqa: E731
        fill = Mixed(arch, Full())
        self.places = nn.ModuleList(
            fill.mix("a", row, {str(k): layer for k in range(options)}, OpArgs(16)) for row in range(3)
        )

    def forward(self, x: Tensor) -> Outcome:
        for place in self.places:
            x = place(x)
        return Outcome(x.square().mean(), {}, len(x))


@pytest.mark.parametrize("paths", [None, 2])
def test_what_is_kept_for_the_logits_does_not_grow_with_the_options(teach, search_step, paths: int | None) -> None:  # noqa: ANN001
    held = []
    for options in (2, 3, 8):
        arch = Arch({"a": Choice.uniform(tuple(map(str, range(options))), 3)}, {"op": BinaryGate(paths)})
        learner, x = teach(Layers(arch, options), arch), torch.randn(64, 16)
        saved = search_step.Saved([*learner.parameters, *learner.logits, x])
        (draw,) = arch.draws(cycle=1, learn=True)
        with saved.hooks():
            learner.arch_gradients(x, (draw,))
        held.append(saved.peak)
    maps = 64 * 16 * 4
    assert held[0] > 3 * maps
    assert max(held) - min(held) < maps / 4  # the tables of weights, which have more entries


def test_two_paths_leave_the_probabilities_of_all_others_through_a_step_of_the_search(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=proxylessnas")
    assert made.search.logits.betas == (0.0, 0.999)
    assert made.search.logits.weight_decay == 0
    taught, streams = learner(made)
    taught.begin(LATE)
    for _ in range(3):
        streams.train.load_state_dict({"served": 0})  # a turn of the logits
        (draw,) = taught.arch.draws(LATE, cycle=streams.valid.cycle, use=VALID, learn=True)
        before = taught.arch.logits["cell.op"].softmax(-1).detach()
        made.variant.schedule(taught, streams)
        after = taught.arch.logits["cell.op"].softmax(-1).detach()
        moved = (after - before).abs()
        for row in range(len(before)):
            pair = sorted(pair_of(draw, "cell.op", row))
            others = [k for k in range(4) if k not in pair]
            assert moved[row, others].max() < 1e-6
            assert moved[row, pair].min() > 1e-5


def test_two_paths_are_refused_with_an_adam_that_would_move_the_others(recipe) -> None:  # noqa: ANN001
    for setting in ("search.logits.betas=[0.5,0.999]", "search.logits.weight_decay=0.001"):
        with pytest.raises(UserError, match="'binary_gate' with paths of 2 leaves the other options' probabilities"):
            recipe("variant=proxylessnas", setting)
        recipe("variant=proxylessnas", setting, "variant.relax.paths=null")


def test_the_logits_wait_for_the_warm_up_and_then_step_once_in_five(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=proxylessnas")
    assert made.variant.schedule == VARIANTS["proxylessnas"].schedule
    taught, streams = learner(made)
    order: list[str] = []
    taught.optimizer.register_step_post_hook(lambda *_: order.append("w"))
    taught.logit_optimizer.register_step_post_hook(lambda *_: order.append("a"))
    for epoch, steps, expected in ((0, 5, "wwwww"), (39, 1, "w"), (40, 9, "wwwwwawwww")):
        order.clear()
        taught.begin(Progress(epoch, 160))
        for _ in range(steps):
            made.variant.schedule(taught, streams)
        assert "".join(order) == expected


def test_where_nothing_runs_in_partial_channels_the_others_are_evaluated_in_those_channels() -> None:
    edge, x, slope = Partial(4).edge(("none", "linear"), OPS, OpArgs(8)), torch.randn(3, 8), torch.randn(3, 8)
    weights = torch.tensor([1.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    y = edge(x, Row(weights, (0,), DONE, (1,)))
    assert not y.any()
    (found,) = torch.autograd.grad(y, weights[1], slope)
    with torch.no_grad():
        there = torch.cat([edge.mixed.ops["linear"](x[:, :2]), torch.zeros(3, 6)], 1)
    assert float(found) == pytest.approx(float((shuffle(there, groups=4, axis=1) * slope).sum()), rel=1e-5)
