"""SmoothDARTS (arXiv:2002.05283): RS and ADV against the vectors of its code, and what an attack may not touch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.extras import Extras
from nas_apps.core.learner import Learner
from nas_apps.core.parts.perturb import Adversarial, Perturbation, RandomSmoothing, Surface, clip_rows
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.space import Choice
from nas_apps.core.task import Outcome
from nas_apps.core.variants import VARIANTS

BOTH = pytest.mark.parametrize("perturb", [RandomSmoothing(0.2), Adversarial(0.2)], ids=["rs", "adv"])
ROWS = pytest.mark.parametrize("variant", ["sdarts_rs", "sdarts_adv"])


class Linear:
    """The loss <c, table>; it counts who asks."""

    def __init__(self, slopes: list[float]) -> None:
        self.c, self.losses, self.gradients = torch.tensor([slopes]), 0, 0

    def loss(self, tables: Mapping[str, Tensor]) -> float:
        self.losses += 1
        return float((self.c * tables["a"]).sum())

    def slopes(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.gradients += 1
        return {"a": self.c}


class Peak(Linear):
    """The loss is highest where it starts, and its slopes lead away."""

    def loss(self, tables: Mapping[str, Tensor]) -> float:
        return -float((tables["a"] - 0.25).square().sum())


class Wave(Linear):
    """A loss of many hills."""

    def loss(self, tables: Mapping[str, Tensor]) -> float:
        return float((20 * self.c * tables["a"]).sin().sum())

    def slopes(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"a": 20 * self.c * (20 * self.c * tables["a"]).cos()}


class Net(nn.Module):
    """A norm that sees the batch and not the mixing weights, two mixed operations, and a random number a forward."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.norm, self.layer, self.head = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.read, self.calls = arch.reader("a", 0), list[tuple[bool, list[float]]]()

    def forward(self, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        w = self.read().weights
        self.calls.append((self.training, [v.item() for v in w]))
        torch.rand(3)
        x = self.norm(x)
        x = w[0] * self.layer(x).tanh() + w[1] * x + w[2] * x.sin()
        return Outcome(nn.functional.cross_entropy(self.head(x), y), {}, len(y))


@pytest.fixture
def net(teach):  # noqa: ANN001, ANN201
    """A learner of `Net`, and a batch."""

    def make(perturb: Perturbation | None) -> tuple[Learner, tuple[Tensor, Tensor]]:
        torch.manual_seed(0)
        arch = Arch({"a": Choice.uniform(("tanh", "skip", "sin"), 1)}, {"op": Softmax()}, init_std=0.5)
        return teach(Net(arch), arch, Extras(perturb)), (torch.randn(8, 4) + 3, torch.randint(3, (8,)))

    return make


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.8, -0.1, 0.15], [0.842105, 0.0, 0.157895]),
        ([-0.1, -0.2], [1.0, 0.0]),
        ([1.3, 0.2, -0.05], [0.833333, 0.166667, 0.0]),
    ],
)
def test_rows_are_clipped_as_in_the_code_of_the_paper(row: list[float], expected: list[float]) -> None:
    assert clip_rows(torch.tensor([row]))[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_an_attack_on_a_linear_loss_overshoots_the_ball_as_in_the_code_of_the_paper() -> None:
    start, surface = {"a": torch.full((1, 4), 0.25)}, Linear([1.0, 2.0, -1.0, 0.5])
    found = Adversarial(0.1, steps=7, random_start=False)(start, surface, DONE, torch.Generator())
    assert found["a"][0].tolist() == pytest.approx([0.287848, 0.287848, 0.136457, 0.287848], abs=1e-6)
    assert surface.loss(start) == pytest.approx(0.625)
    assert surface.loss(found) == pytest.approx(0.871011, abs=1e-6)
    assert (found["a"] - start["a"]).abs().max().item() == pytest.approx(0.11354, abs=1e-5)
    assert surface.gradients == 7


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", [Linear, Peak, Wave])
def test_an_attack_never_lowers_the_loss(kind: type[Linear], seed: int) -> None:
    surface = kind([1.0, -2.0, 3.0, 0.5])
    start = {"a": clip_rows(torch.rand(1, 4, generator=torch.Generator().manual_seed(seed)))}
    found = Adversarial(0.1)(start, surface, DONE, torch.Generator().manual_seed(seed))
    assert surface.loss(found) >= surface.loss(start)


def test_what_does_not_raise_the_loss_is_not_used() -> None:
    start = {"a": torch.full((1, 4), 0.25)}
    found = Adversarial(0.1)(start, Peak([1.0, -2.0, 3.0, 0.5]), DONE, torch.Generator())
    assert torch.equal(found["a"], start["a"])


def test_an_attack_starts_at_a_random_place_of_the_ball() -> None:
    start = {"a": torch.full((1, 4), 0.25)}
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    first, again, other = (Adversarial(0.1, steps=1)(start, Linear([0.0] * 4), DONE, rng)["a"] for rng in seeds)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    still = Adversarial(0.1, steps=1, random_start=False)(start, Linear([0.0] * 4), DONE, seeds[0])["a"]
    assert torch.equal(still, start["a"])


def test_random_smoothing_stays_on_the_simplex_and_near_its_rows_on_average() -> None:
    rows = torch.tensor([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
    drawn = torch.stack(
        [
            RandomSmoothing(0.1)({"a": rows}, Linear([]), DONE, torch.Generator().manual_seed(s))["a"]
            for s in range(2000)
        ]
    )
    assert (drawn >= 0).all()
    assert torch.allclose(drawn.sum(-1), torch.ones(2000, 2))
    assert (drawn.mean(0) - rows).abs().max() < 0.1
    assert (drawn[:, 0].mean(0) - rows[0]).abs().max() < 0.01  # away from the border the mean hardly moves
    spread = drawn[:, 0].std(0)
    assert (spread > 0.03).all()  # 0.0577 before the rows are divided by their sum
    assert (spread < 0.0577).all()


def test_random_smoothing_does_not_look_at_the_loss() -> None:
    surface = Linear([1.0, 2.0])
    RandomSmoothing(0.1)({"a": torch.full((1, 2), 0.5)}, surface, DONE, torch.Generator())
    assert (surface.losses, surface.gradients) == (0, 0)


@pytest.mark.parametrize(("epoch", "epsilon"), [(0, 0.03), (25, 0.165), (49, 0.2946)])
@ROWS
def test_epsilon_grows_with_the_epochs(variant: str, epoch: int, epsilon: float) -> None:
    assert VARIANTS[variant].perturb.epsilon(Progress(epoch, 50)) == pytest.approx(epsilon)


@ROWS
def test_with_epsilon_0_the_search_is_that_of_darts_to_the_bit(searched, variant: str) -> None:  # noqa: ANN001
    ours = searched(f"variant={variant}", "variant.none=true", "variant.perturb.epsilon=0")
    assert all(map(torch.equal, ours, searched("variant=darts")))
    moved = searched(f"variant={variant}", "variant.none=true")
    assert not any(map(torch.equal, ours, moved))


@ROWS
def test_its_space_has_no_none(recipe, learner, variant: str) -> None:  # noqa: ANN001
    arch = learner(recipe(f"variant={variant}"))[0].arch
    assert all("none" not in row for row in arch.space["cell.op"].rows)


@ROWS
def test_the_logits_learn_at_the_mixing_weights_and_the_weights_beside_them(recipe, learner, variant: str) -> None:  # noqa: ANN001
    made = recipe(f"variant={variant}")
    taught, streams = learner(made)
    seen: list[tuple[bool, Tensor, Tensor]] = []

    def look(module: nn.Module, _: object) -> None:
        now, softmax = taught.arch.current.weights["cell.op"], taught.arch.expected().weights["cell.op"]
        seen.append((module.training, now.detach().clone(), softmax))

    taught.objective.register_forward_pre_hook(look)
    taught.begin(Progress(9, 10))
    made.variant.schedule(taught, streams)
    (_, at_logits, softmax), *attack, (training, at_weights, after) = seen
    assert torch.equal(at_logits, softmax)
    assert training
    assert not torch.equal(at_weights, after)
    assert (at_weights >= 0).all()
    assert torch.allclose(at_weights.sum(-1), torch.ones(len(at_weights)))
    assert not any(training for training, *_ in attack)
    assert len(attack) == (7 + 2 if variant == "sdarts_adv" else 0)


@ROWS
def test_a_perturbed_step_leaves_the_logits_and_gives_them_no_gradient(recipe, learner, variant: str) -> None:  # noqa: ANN001
    made = recipe(f"variant={variant}")
    taught, streams = learner(made)
    before = [p.detach().clone() for p in taught.logits]
    taught.begin(Progress(9, 10))
    taught.weight_step(*taught.pull(streams.train, use=0))
    assert all(map(torch.equal, before, taught.logits))
    assert all(p.grad is None for p in taught.logits)


def test_running_statistics_move_once_in_a_step_however_often_the_attack_looks(net) -> None:  # noqa: ANN001
    taught, batch = net(Adversarial(0.2))
    plain, _ = net(None)
    for learner in (taught, plain):
        learner.weight_step(batch, (learner.arch.draw(),))
    assert [training for training, _ in taught.objective.calls] == [False] * 9 + [True]
    assert taught.objective.norm.num_batches_tracked == 1
    assert torch.equal(taught.objective.norm.running_mean, plain.objective.norm.running_mean)
    assert torch.equal(taught.objective.norm.running_var, plain.objective.norm.running_var)


@BOTH
def test_the_random_state_of_torch_does_not_know_of_a_perturbation(net, perturb: Perturbation) -> None:  # noqa: ANN001
    states = []
    for part in (None, perturb):
        taught, batch = net(part)
        taught.weight_step(batch, (taught.arch.draw(),))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_an_attack_that_raises_leaves_the_network_in_training_mode(net) -> None:  # noqa: ANN001
    class Failing(Perturbation):
        def __call__(
            self, tables: Mapping[str, Tensor], surface: Surface, progress: Progress, rng: torch.Generator
        ) -> Mapping[str, Tensor]:
            surface.slopes(tables)
            raise ArithmeticError

    taught, batch = net(Failing())
    before = torch.get_rng_state()
    with pytest.raises(ArithmeticError):
        taught.weight_step(batch, (taught.arch.draw(),))
    assert all(module.training for module in taught.objective.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert [training for training, _ in taught.objective.calls] == [False]


def test_the_weights_get_the_gradient_of_the_loss_at_the_place_that_was_found(net) -> None:  # noqa: ANN001
    taught, batch = net(Adversarial(0.2))
    twin, _ = net(None)
    draw = twin.arch.draw()
    taught.weight_step(batch, (taught.arch.draw(),))
    found = torch.tensor([taught.objective.calls[-1][1]])
    assert not torch.equal(found, draw.weights["a"])
    twin.weight_step(batch, (replace(draw, weights={"a": found}),))
    assert all(map(torch.equal, taught.parameters, twin.parameters))


@pytest.mark.parametrize("perturb", ["random_smoothing", "adversarial"])
def test_with_pc_darts_the_operations_are_perturbed_and_the_edges_are_not(recipe, learner, perturb: str) -> None:  # noqa: ANN001
    made = recipe("variant=pc_darts", f"variant.perturb={perturb}")
    taught, streams = learner(made)
    taught.begin(Progress(9, 10))
    for _ in range(2):
        seen: list[Mapping[str, Tensor]] = []
        hook = taught.objective.register_forward_pre_hook(
            lambda *_, seen=seen: seen.append(taught.arch.current.weights)
        )
        made.variant.schedule(taught, streams)
        hook.remove()
        expected = taught.arch.expected().weights
        for weights in seen[1:]:
            assert all(torch.equal(weights[name], expected[name]) for name in expected if ".edge." in name)
        assert not torch.equal(seen[-1]["cell.op"], expected["cell.op"])


def test_with_a_look_ahead_its_inner_step_is_not_perturbed(searched) -> None:  # noqa: ANN001
    plain = searched("variant=darts_2nd", "variant.none=false", steps=1)
    perturbed = searched("variant=sdarts_rs", "variant.schedule=unrolled", steps=1)
    assert all(map(torch.equal, plain[:2], perturbed[:2]))  # the logits
    assert not any(map(torch.equal, plain[2:], perturbed[2:]))
