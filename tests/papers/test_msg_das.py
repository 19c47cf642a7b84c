"""MSG-DAS (arXiv:2107.04324), a reconstruction: the laws of its sub-graphs, its teacher, its blocks, its memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Mixed
from nas_apps.core.errors import UserError
from nas_apps.core.extras import Extras
from nas_apps.core.learner import Learner
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.distill import Distill
from nas_apps.core.parts.drop import DropBlock, drop_block
from nas_apps.core.parts.noise import gumbel
from nas_apps.core.parts.relax import GumbelRanks
from nas_apps.core.parts.wiring import Full, Row
from nas_apps.core.progress import DONE, Progress, Ramp
from nas_apps.core.space import Choice
from nas_apps.core.task import Outcome

P = [0.4, 0.3, 0.2, 0.1]
LAYERS, WIDTH = 3, 16


def ranks(k: int, draws: int = 40_000, *, permuted: bool = False) -> Tensor:
    """Many draws of k sub-graphs on one row, `[k, draws, O]`."""
    logits = torch.tensor(P).log() - 2
    return GumbelRanks(k, permuted=permuted)(logits.expand(draws, 4), DONE, torch.Generator().manual_seed(1))


def test_no_two_sub_graphs_share_an_option_and_as_many_as_options_have_all() -> None:
    logits = torch.randn(200, 5)
    for k in range(1, 6):
        weights = GumbelRanks(k)(logits, DONE, torch.Generator())
        assert weights.shape == (k, 200, 5)
        assert (weights.sum(-1) == 1).all()
        assert set(weights.sum(0).unique().tolist()) <= {0.0, 1.0}
    assert (weights.sum(0) == 1).all()


def test_ranks_are_taken_by_the_law_of_plackett_and_luce() -> None:
    first, second, third, fourth = ranks(4).mean(1)
    assert first.tolist() == pytest.approx(P, abs=0.008)
    assert second.tolist() == pytest.approx([0.315873, 0.308333, 0.241270, 0.134524], abs=0.008)
    assert (first + second).tolist() == pytest.approx([0.715873, 0.608333, 0.441270, 0.234524], abs=0.008)
    assert (first + second + third).tolist() == pytest.approx([0.922222, 0.870238, 0.758730, 0.448810], abs=0.008)
    assert (first + second + third + fourth).tolist() == pytest.approx([1.0] * 4)


def test_permuted_sub_graphs_are_alike_and_have_the_same_options_together() -> None:
    weights = ranks(2, permuted=True)
    assert torch.equal(weights.sum(0), ranks(2).sum(0))
    for sub_graph in weights.mean(1):
        assert sub_graph.tolist() == pytest.approx([x / 2 for x in (0.715873, 0.608333, 0.441270, 0.234524)], abs=0.008)


@pytest.mark.usefixtures("double")
def test_the_gradient_of_a_rank_is_that_of_a_softmax_over_the_options_left_and_sums_to_zero() -> None:
    logits, temperature = torch.randn(6, 4, requires_grad=True), 0.7
    weights = GumbelRanks(3, temperature)(logits, DONE, torch.Generator().manual_seed(5))
    scores = (logits.log_softmax(-1) + gumbel(logits, torch.Generator().manual_seed(5))) / temperature
    order = scores.argsort(-1, descending=True)
    for k in range(3):
        ours = torch.autograd.grad((weights[k] * torch.arange(1.0, 5.0)).sum(), logits, retain_graph=True)[0]
        left = scores.gather(-1, order[:, k:]).softmax(-1)[:, 0]  # this rank's option among those that are left
        expected = torch.autograd.grad((left * (order[:, k] + 1.0)).sum(), logits, retain_graph=True)[0]
        assert torch.equal(weights[k].argmax(-1), order[:, k])
        torch.testing.assert_close(ours, expected)
        assert ours.abs().max() > 1e-3
        assert ours.sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize("distill", ["variant.distill=null", "variant.distill.weight=0"])
def test_one_sub_graph_without_blocks_and_teacher_is_gdas_to_the_bit(searched, distill: str) -> None:  # noqa: ANN001
    plain = ("variant=msg_das", "variant.relax.k=1", "variant.wiring.drop=null")
    gdas = searched("variant=gdas", "variant.schedule.weights_first=false")
    assert all(map(torch.equal, searched(*plain, distill), gdas))
    for other in (plain, ("variant=msg_das", plain[2], distill)):  # with the teacher, with two sub-graphs
        assert not all(map(torch.equal, searched(*other), gdas))


def test_more_sub_graphs_than_options_are_refused(recipe, learner) -> None:  # noqa: ANN001
    with pytest.raises(UserError, match=r"variant.relax.k: got 3; allowed: 1 to 2, the options of gate"):
        learner(recipe("variant=msg_das", "variant.relax.k=3"))
    with pytest.raises(ValueError, match=r"relax.k: got 5; allowed: 1 to 4, the options of a row"):
        GumbelRanks(5)(torch.zeros(1, 4), DONE, torch.Generator())


@pytest.mark.parametrize("shape", [(16, 32, 32, 32), (16, 32, 8, 8), (64, 32, 100)], ids=["32x32", "8x8", "1-D"])
def test_at_rate_a_tenth_nine_tenths_of_a_map_are_kept_within_1_percent(shape: tuple[int, ...]) -> None:
    """The formula of the specification leaves overlaps out: at 0.3 about three quarters are kept, not 0.7."""
    y = drop_block(torch.ones(shape), 0.1, 7)
    assert (y != 0).double().mean().item() == pytest.approx(0.9, abs=0.01)
    assert y.mean().item() == pytest.approx(1, abs=1e-5)
    x = torch.rand(shape)
    assert drop_block(x, 0.1, 7).mean().item() == pytest.approx(x.mean().item(), rel=0.01)


def test_blocks_are_dropped_from_skips_in_training_alone_and_less_as_the_search_goes_on() -> None:
    drop = DropBlock()
    assert drop.rate == Ramp(0.3, 0.0)
    ops = {"skip_connect": lambda args: nn.Identity()}
    edge, x = Full(drop).edge(("skip_connect",), ops, OpArgs(8)), torch.rand(32, 8, 16, 16)
    kept = [(edge(x, Row(None, (0,), Progress(epoch, 50))) != 0).double().mean() for epoch in (0, 25, 49)]
    assert kept == sorted(kept)
    assert kept[0] < 0.8
    assert kept[2] > 0.99
    assert torch.equal(edge.eval()(x, Row(None, (0,), Progress(0, 50))), x)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shape", [(8, 5), (4, 7, 5)])
def test_what_a_sub_graph_learns_from_its_teacher_is_the_divergence_of_torch(shape: tuple, temperature: float) -> None:
    student, teacher = torch.randn(shape) * 3, torch.randn(shape) * 3
    ours = Distill(weight=0.5, temperature=temperature)(student, teacher, DONE)
    log_q, p = (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1)
    apart = nn.functional.kl_div(log_q.flatten(0, -2), p.flatten(0, -2), reduction="batchmean")
    assert ours.item() == pytest.approx(0.5 * temperature**2 * apart.item(), rel=1e-5)
    assert Distill()(teacher, teacher, DONE).item() == pytest.approx(0, abs=1e-6)


class Net(nn.Module):
    """Places for operations in a row, of `options` layers of equal size each with a norm, and a classifier."""

    def __init__(self, arch: Arch, options: int, *, norm: bool = False) -> None:
        super().__init__()

        def layer(args: OpArgs) -> nn.Module:
            last = nn.BatchNorm1d(args.channels) if norm else nn.Tanh()
            return nn.Sequential(nn.Linear(args.channels, args.channels), last)

        ops = {str(k): layer for k in range(options)}
        self.places = nn.ModuleList(Mixed(arch, Full()).mix("a", row, ops, OpArgs(WIDTH)) for row in range(LAYERS))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        for place in self.places:
            x = place(x)
        logits = self.head(x)
        return Outcome(nn.functional.cross_entropy(logits, y), {}, len(y), logits)


Made = Callable[..., tuple[Learner, tuple[Tensor, Tensor]]]


@pytest.fixture
def net(teach) -> Made:  # noqa: ANN001
    """A learner of `Net` under k sub-graphs, and a batch."""

    def make(k: int, distill: Distill | None = None, *, options: int = 4, norm: bool = False) -> tuple:
        torch.manual_seed(0)
        space = {"a": Choice.uniform(tuple(map(str, range(options))), LAYERS)}
        arch = Arch(space, {"op": GumbelRanks(k)}, init_std=0.5)
        learner = teach(Net(arch, options, norm=norm), arch, Extras(distill=distill))
        return learner, (torch.randn(64, WIDTH), torch.randint(3, (64,)))

    return make


@pytest.mark.usefixtures("double")
def test_the_weights_learn_the_mean_over_sub_graphs_of_their_loss_and_of_what_the_super_net_says(net: Made) -> None:
    learner, batch = net(2, Distill(weight=0.7, temperature=2.0))
    arch, objective = learner.arch, learner.objective
    draws = arch.draws(cycle=3)
    with torch.no_grad(), arch.using(arch.expected()):
        teacher = (objective(batch).output / 2).softmax(-1)
    losses = []
    for draw in draws:
        with arch.using(draw):
            loss, _, _, logits = objective(batch)
        divergence = nn.functional.kl_div((logits / 2).log_softmax(-1), teacher, reduction="batchmean")
        losses.append(loss + 0.7 * 4 * divergence)
    expected = torch.autograd.grad(sum(losses) / 2, learner.parameters, materialize_grads=True)
    seen: list[Tensor] = []
    learner.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.parameters)
    )
    learner.weight_step(batch, draws)
    for ours, grad in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, grad)


def test_no_gradient_reaches_what_the_teacher_alone_runs(net: Made) -> None:
    learner, batch = net(1, Distill(weight=100.0), options=4)
    (draw,) = learner.arch.draws(cycle=1)
    had: list[bool] = []
    learner.optimizer.register_step_pre_hook(lambda *_: had.extend(p.grad is not None for p in learner.parameters))
    learner.weight_step(batch, (draw,))
    names = [name for name, _ in learner.objective.named_parameters()]
    ran = {f"places.{row}.edge.ops.{k}." for row, active in enumerate(draw.active["a"]) for k in active}
    for name, got in zip(names, had, strict=True):
        assert got == (name.startswith("head") or any(name.startswith(prefix) for prefix in ran))
    assert all(p.grad is None for p in learner.logits)


def test_the_logits_do_not_learn_from_the_teacher(net: Made) -> None:
    grads = []
    for distill in (None, Distill(weight=100.0)):
        learner, batch = net(2, distill)
        grads.append(learner.arch_gradients(batch, learner.arch.draws(cycle=1))[0][0])
    assert torch.equal(*grads)


def test_the_teacher_leaves_running_statistics_as_they_were(net: Made) -> None:
    states = []
    for distill in (None, Distill()):
        learner, batch = net(2, distill, norm=True)
        before = learner.objective.training
        learner.weight_step(batch, learner.arch.draws(cycle=1))
        states.append(dict(learner.objective.named_buffers()))
        assert learner.objective.training is before
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    updates = sum(int(b) for name, b in states[1].items() if name.endswith("num_batches_tracked"))
    assert updates == 2 * LAYERS  # those of the two sub-graphs


@pytest.mark.parametrize("distill", [Distill(weight=0.0), Distill(weight=Ramp(0.0, 1.0))], ids=["0", "0 so far"])
def test_with_weight_0_the_super_net_is_not_asked(net: Made, distill: Distill) -> None:
    learner, batch = net(2, distill)
    calls: list[bool] = []
    learner.objective.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    learner.weight_step(batch, learner.arch.draws(cycle=1))
    assert calls == [True, True]


def test_a_step_holds_one_sub_graph_whatever_the_number_of_them_and_with_a_teacher(net: Made, search_step) -> None:  # noqa: ANN001
    def peak(k: int, distill: Distill | None = None, *, options: int = 4, jointly: int = 1, arch: bool = False) -> int:
        learner, batch = net(k, distill, options=options)
        resident = [*learner.objective.parameters(), *learner.objective.buffers(), *learner.logits]
        draws = learner.arch.draws(cycle=1)
        saved = search_step.Saved([*resident, *batch])
        with saved.hooks():
            if arch:
                learner.arch_gradients(batch, draws)
            else:
                learner.weight_step(batch, draws, jointly=jointly)
        assert saved.held == 0
        return int(saved.peak)

    one, for_logits, maps = peak(1), peak(1, arch=True), LAYERS * 64 * WIDTH * 4
    small = 6 * 64 * 3 * 4  # some tables of the size of what the network says, and the mixing weights
    assert small < maps / 2 < one / 2
    for more in (peak(4), peak(4, options=8), peak(4, Distill()), peak(4, Distill(), options=8)):
        assert one - small < more < one + small
    assert for_logits <= peak(4, arch=True) < for_logits + small
    assert [peak(4, jointly=j) / one for j in (1, 2, 3, 4)] == pytest.approx([1, 2, 3, 4], rel=0.1)


def test_sub_graphs_run_jointly_give_the_gradient_of_those_run_in_turn(net: Made) -> None:
    weights = []
    for jointly in (1, 3):
        learner, batch = net(4, Distill())
        learner.weight_step(batch, learner.arch.draws(cycle=1), jointly=jointly)
        weights.append(list(learner.parameters))
    for in_turn, together in zip(*weights, strict=True):
        torch.testing.assert_close(in_turn, together)
