"""The loss of distributional double Q-learning against a naive one, and the target that lags behind."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Fill, Fixed, Mixed
from nas_apps.core.delayed import Delayed
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full
from nas_apps.core.space import Choice
from nas_apps.core.surface import replaced
from nas_apps.tasks.rl.rainbow import RainbowObjective
from nas_apps.tasks.rl.settings import Rainbow
from nas_apps.tasks.toy import OPS

pytestmark = pytest.mark.usefixtures("torchrl")

STATES, ACTIONS = 6, 3
SETTINGS = Rainbow(gamma=0.9)
SPACE = {"gate": Choice((tuple(OPS),))}


class Table(nn.Module):
    """A distribution for each state and action: the state is the first pixel of an observation."""

    def __init__(self, atoms: int, spread: float = 1.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(spread * torch.randn(STATES, atoms, ACTIONS))

    def forward(self, observation: Tensor) -> Tensor:
        return self.logits[observation[:, 0, 0, 0].long()].log_softmax(1)


class Gated(nn.Module):
    """A table behind a place that is searched."""

    def __init__(self, fill: Fill, atoms: int) -> None:
        super().__init__()
        self.place, self.head = fill.mix("gate", 0, OPS, OpArgs(4)), nn.Linear(4, atoms * ACTIONS)

    def forward(self, observation: Tensor) -> Tensor:
        x = self.place(observation.flatten(1) / STATES)
        return self.head(x).view(len(x), -1, ACTIONS).log_softmax(1)


def tables(settings: Rainbow = SETTINGS) -> RainbowObjective:
    objective = RainbowObjective(Table(settings.atoms), Table(settings.atoms), Delayed(), settings)
    with torch.no_grad():
        objective.target.logits.normal_()
    return objective


def gated() -> tuple[RainbowObjective, Arch]:
    arch = Arch(SPACE, {choice.kind: Softmax() for choice in SPACE.values()}, init_std=1.0)
    fill = Mixed(arch, Full())
    return RainbowObjective(Gated(fill, SETTINGS.atoms), Gated(fill, SETTINGS.atoms), fill.delayed(), SETTINGS), arch


def transitions(settings: Rainbow = SETTINGS, number: int = 64) -> dict[str, Tensor]:
    """All kinds: rewards within the support, beyond it, and on an atom; ends; one to `n_step` steps."""
    atoms = torch.linspace(settings.low, settings.high, settings.atoms)
    width = settings.high - settings.low
    reward = settings.low + width * (1.5 * torch.rand(number) - 0.25)
    reward[: number // 2] = atoms[torch.arange(number // 2) % settings.atoms]
    reward[0], reward[1] = settings.low, settings.high
    done = torch.arange(number) % 3 == 0
    done[:2] = True
    return {
        "observation": torch.randint(STATES, (number, 2, 2, 1)).byte(),
        "next_observation": torch.randint(STATES, (number, 2, 2, 1)).byte(),
        "action": torch.randint(ACTIONS, (number,)),
        "reward": reward,
        "done": done,
        "steps": torch.randint(1, settings.n_step + 1, (number,)),
        "weight": torch.rand(number) + 0.1,
        "index": torch.arange(number),
        "return": torch.tensor(2.5),
    }


def naive(objective: RainbowObjective, batch: dict[str, Tensor], best: Tensor | None = None) -> Tensor:
    """The cross-entropy of each transition, by the triangular kernel of arXiv:1707.06887, eq. 7, in float64.

    best: the actions that are valued, those the online network prefers when not given.
    """
    s = objective.settings
    atoms = torch.linspace(s.low, s.high, s.atoms, dtype=torch.float64)
    spacing = (s.high - s.low) / (s.atoms - 1)
    said = objective.network(batch["observation"]).double()
    preferred = (objective.network(batch["next_observation"]).double().exp() * atoms[:, None]).sum(1).argmax(1)
    valued = objective.target(batch["next_observation"]).double().exp()
    losses = []
    for i, action in enumerate(preferred if best is None else best):
        discount = 0.0 if batch["done"][i] else s.gamma ** int(batch["steps"][i])
        returns = (batch["reward"][i].double() + discount * atoms).clamp(s.low, s.high)
        kernel = (1 - (returns[None] - atoms[:, None]).abs() / spacing).clamp(0, 1)
        wanted = kernel @ valued[i, :, action]
        assert wanted.sum().item() == pytest.approx(1, abs=1e-5)
        losses.append(-(wanted * said[i, :, batch["action"][i]]).sum())
    return torch.stack(losses)


def prefer(table: nn.Module, action: int) -> None:
    """Make an action's returns high and the others' low, in all states."""
    with torch.no_grad():
        slope = torch.linspace(-3, 3, table.logits.shape[1])[None, :, None]
        noise = 0.1 * torch.randn(table.logits.shape, generator=torch.Generator().manual_seed(0))
        table.logits.copy_(noise + torch.where(torch.arange(ACTIONS) == action, slope, -slope))


@pytest.mark.parametrize("support", [(0.0, 1.0, 51), (-10.0, 10.0, 51), (0.0, 1.0, 62), (-0.3, 2.0, 2)], ids=str)
def test_the_loss_is_that_of_a_naive_projection(support: tuple[float, float, int]) -> None:
    low, high, atoms = support
    settings = replace(SETTINGS, low=low, high=high, atoms=atoms)
    objective, batch = tables(settings), transitions(settings)
    outcome, wanted = objective(batch), naive(objective, batch)
    torch.testing.assert_close(batch["priority"].double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outcome.loss.double(), (wanted * batch["weight"]).mean(), rtol=1e-4, atol=1e-5)
    assert not batch["priority"].requires_grad


def test_the_outcome_says_what_it_saw() -> None:
    objective, batch = tables(), transitions()
    outcome = objective(batch)
    p = outcome.output.detach().exp()
    torch.testing.assert_close(p.sum(1), torch.ones(64))
    rows = torch.arange(64), batch["observation"][:, 0, 0, 0].long()
    torch.testing.assert_close(p, objective.network.logits[rows[1]].softmax(1)[rows[0], :, batch["action"]])
    assert float(outcome.stats["q"]) == pytest.approx(float((p * objective.support).sum(1).mean()), rel=1e-5)
    assert float(outcome.stats["priority"]) == pytest.approx(float(batch["priority"].mean()))
    assert (float(outcome.stats["return"]), outcome.weight) == (2.5, 64)


def test_the_online_network_picks_and_the_target_evaluates() -> None:
    objective, batch = tables(), transitions()
    seen = []
    for picked, liked in ((0, 1), (1, 1), (1, 2)):  # by the online network, by the target
        prefer(objective.network, picked)
        prefer(objective.target, liked)
        objective(batch)
        wanted = naive(objective, batch, best=torch.full((64,), picked))
        torch.testing.assert_close(batch["priority"].double(), wanted, rtol=1e-4, atol=1e-5)
        seen.append(batch["priority"])
    assert not torch.allclose(seen[1], seen[2])  # nothing but what the target says has changed


def test_gradients_reach_the_online_network_alone() -> None:
    objective, arch = gated()
    batch = transitions()
    with arch.using(arch.draw()):
        objective(batch).loss.backward()
    assert all(p.grad is not None for p in [*objective.network.parameters(), *arch.parameters()])
    assert all(p.grad is None and not p.requires_grad for p in objective.target.parameters())
    learning = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {"network"}


def test_weights_that_are_put_in_place_are_the_ones_that_count() -> None:
    objective, batch = tables(), transitions()
    other = (objective.network.logits.detach() + torch.randn_like(objective.network.logits)).requires_grad_()
    with replaced(objective, {"network.logits": other}):
        loss = objective(batch).loss
        wanted = (naive(objective, batch) * batch["weight"]).mean().detach()
        (grad,) = torch.autograd.grad(loss, other)
    assert float(loss.detach()) == pytest.approx(float(wanted), rel=1e-4)
    assert grad.abs().sum() > 0
    assert float(objective(batch).loss.detach()) != pytest.approx(float(wanted), rel=1e-3)


def test_a_copy_has_networks_of_its_own() -> None:
    objective, batch = tables(), transitions()
    copied = copy.deepcopy(objective)
    before = objective(batch).loss
    prefer(copied.network, 0)
    prefer(copied.target, 0)
    assert torch.equal(objective(batch).loss, before)
    torch.testing.assert_close(copied(batch).loss.double(), (naive(copied, batch) * batch["weight"]).mean())


def test_the_target_is_mixed_with_logits_that_lag_behind() -> None:
    objective, arch = gated()
    used: dict[str, Tensor] = {}
    for name in ("network", "target"):
        note = lambda *_, name=name: used.__setitem__(name, arch.current.weights["gate"].detach().clone())  # noqa: E731
        objective.get_submodule(name).register_forward_pre_hook(note)
    sgd = torch.optim.SGD(arch.parameters(), 1.0)
    first = arch.logits["gate"].detach().softmax(-1)
    for step in range(6):
        if step == 4:
            objective.catch_up()
            held = arch.logits["gate"].detach().softmax(-1)
        with arch.using(arch.draw()):
            objective(transitions()).loss.backward()
        assert torch.equal(used["network"], arch.logits["gate"].softmax(-1))
        assert torch.equal(used["target"], first if step < 4 else held)
        assert torch.equal(used["network"], used["target"]) == (step in (0, 4))
        sgd.step()


def test_the_targets_state_is_the_objectives() -> None:
    objective, arch = gated()
    with torch.no_grad():
        arch.logits["gate"] += torch.arange(4)
        objective.network.head.weight += 1
    other, _ = gated()
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.delayed.get_buffer("gate") + torch.arange(4), arch.logits["gate"])
    assert torch.equal(other.network.head.weight, other.target.head.weight + 1)


def test_a_network_that_is_not_searched_has_the_same_loss() -> None:
    fill = Fixed(SPACE, Genotype({"gate": (("tanh",),)}))
    network, target = Gated(fill, SETTINGS.atoms), Gated(fill, SETTINGS.atoms)
    objective, batch = RainbowObjective(network, target, fill.delayed(), SETTINGS), transitions()
    objective(batch)
    torch.testing.assert_close(batch["priority"].double(), naive(objective, batch), rtol=1e-4, atol=1e-5)


def test_actions_are_the_best_ones_or_random_as_often_as_asked() -> None:
    objective, rng = tables(), torch.Generator().manual_seed(0)
    prefer(objective.network, 2)
    observation = torch.zeros(6000, 2, 2, 1, dtype=torch.uint8)
    epsilon = torch.tensor([0.0, 0.3, 1.0]).repeat_interleave(2000)
    shares = (objective.act(observation, epsilon, rng) == 2).view(3, 2000).double().mean(1)
    assert shares[0] == 1
    torch.testing.assert_close(shares[1:], torch.tensor([0.8, 1 / 3], dtype=torch.float64), atol=0.04, rtol=0)
    again = objective.act(observation, epsilon, torch.Generator().manual_seed(0))
    assert torch.equal(again, objective.act(observation, epsilon, torch.Generator().manual_seed(0)))
