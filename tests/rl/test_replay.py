"""What goes into the replay, how it is drawn, and that a stream goes on where it was stopped."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Fill, Mixed
from nas_apps.core.delayed import Delayed
from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.relax import GumbelOneHot
from nas_apps.core.parts.wiring import Full
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Choice
from nas_apps.tasks.rl.prioritised import Prioritised
from nas_apps.tasks.rl.rainbow import RainbowObjective
from nas_apps.tasks.rl.replay import Replay, n_step
from nas_apps.tasks.rl.settings import Rainbow
from nas_apps.tasks.toy import OPS

pytestmark = pytest.mark.usefixtures("torchrl")

ACTIONS, ENVS = 3, 4
SETTINGS = Rainbow(envs=ENVS, n_step=3, atoms=5, replay=64, warmup=24, inserts=2.0, target_every=3, gamma=0.9)


class Walk:
    """Environments that show (which one, which episode, which step of it) and pay the number of the step, and a half
    more for action 0. How long an episode is, is not seen."""

    def __init__(self, num: int = ENVS) -> None:
        self.num_envs, self.steps = num, 0
        self.dice = torch.arange(num) * 7919 + 1
        self.episode, self.at, self.length = torch.zeros(num).long(), torch.zeros(num).long(), torch.full((num,), 4)

    def reset(self) -> tuple[np.ndarray, dict[str, Any]]:
        self.at[:] = 0
        return self._shown(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.steps += 1
        self.dice = (self.dice * 1103515245 + 12345) % 2**31
        reward = pay(self.at, torch.from_numpy(actions))
        self.at += 1
        done = self.at >= self.length
        self.episode[done] += 1
        self.at[done] = 0
        self.length = torch.where(done, 1 + (self.dice >> 16) % 8, self.length)
        ended, late = done.numpy(), self.episode.numpy() % 2 == 0  # every second episode ends by running out of time
        return self._shown(), reward.numpy(), ended & late, ended & ~late, {}

    def get_state(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in vars(self).items() if isinstance(value, Tensor)}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        vars(self).update({name: value.clone() for name, value in state.items()})

    def _shown(self) -> np.ndarray:
        seen = torch.stack([torch.arange(self.num_envs), self.episode % 256, self.at], -1)
        return seen[:, None, None].byte().numpy()  # [N, 1, 1, 3]


class Stateless(Walk):
    def get_state(self) -> Any:
        return None


def pay(at: Tensor, action: Tensor) -> Tensor:
    return at + 0.5 * (action == 0)


class Gated(nn.Module):
    def __init__(self, fill: Fill) -> None:
        super().__init__()
        self.place, self.head = fill.mix("gate", 0, OPS, OpArgs(3)), nn.Linear(3, SETTINGS.atoms * ACTIONS)

    def forward(self, observation: Tensor) -> Tensor:
        return self.head(self.place(observation.flatten(1) / 8)).view(len(observation), -1, ACTIONS).log_softmax(1)


class Plain(Gated):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.place, self.head = nn.Identity(), nn.Linear(3, SETTINGS.atoms * ACTIONS)


def stream(
    settings: Rainbow = SETTINGS, env: Walk | None = None, batch_size: int = 16, seed: int = 0, **others: Any
) -> Replay:
    torch.manual_seed(seed)
    objective = RainbowObjective(Plain(), Plain(), Delayed(), settings)
    runtime, frames = others.pop("runtime", Runtime(torch.device("cpu"))), others.pop("frames", 4000)
    made = Walk() if env is None else env
    return Replay(objective, made, settings, runtime, batch_size=batch_size, seed=seed, frames=frames, **others)


def learn(made: Replay, batches: int) -> list[dict[str, Tensor]]:
    """Batches as they are served, each learned from with a plain step."""
    served = []
    for _ in range(batches):
        batch = next(made)
        served.append(dict(batch))
        made.objective(batch).loss.backward()
        with torch.no_grad():
            for p in made.objective.network.parameters():
                p -= 0.5 * p.grad
                p.grad = None
    return served


def test_transitions_are_of_n_steps_of_one_episode() -> None:
    made = stream(replace(SETTINGS, replay=1000), scale=20.0)
    cut = 0
    for batch in learn(made, 60):
        ends = batch["done"]
        before, after = batch["observation"][:, 0, 0].long(), batch["next_observation"][:, 0, 0].long()
        assert torch.equal(after[~ends][:, :2], before[~ends][:, :2])  # the same environment and episode
        assert torch.equal(after[~ends][:, 2], before[~ends][:, 2] + 3)
        assert (batch["steps"][~ends] == 3).all()
        assert torch.equal(after[ends][:, 0], before[ends][:, 0])
        assert (after[ends][:, 2] == 0).all()  # the first look at the next episode
        assert torch.equal(after[ends][:, 1], before[ends][:, 1] + 1)
        first = pay(before[:, 2], batch["action"])
        rest = sum(((before[:, 2] + k) * 0.9**k * (batch["steps"] > k) for k in (1, 2)), torch.tensor(0.0))
        low = (first + rest) / 20
        assert (batch["reward"] >= low - 1e-5).all()
        assert (batch["reward"] <= low + 0.05).all()  # what action 0 pays more in the two steps after the first
        cut += int((batch["steps"] < 3).sum())
    assert cut > 50


def test_sums_of_rewards_stop_at_an_end() -> None:
    rng = torch.Generator().manual_seed(0)
    reward, done = torch.randn(5, 30, generator=rng), torch.rand(5, 30, generator=rng) < 0.2
    for n in (1, 2, 7):
        summed, last, steps = n_step(reward, done, 0.8, n)
        for i in range(5):
            for t in range(30 - n + 1):
                end = next((k for k in range(t, t + n) if done[i, k]), t + n - 1)
                wanted = sum(float(reward[i, k]) * 0.8 ** (k - t) for k in range(t, end + 1))
                assert (int(last[i, t]), int(steps[i, t])) == (end, end - t + 1)
                assert float(summed[i, t]) == pytest.approx(wanted, abs=1e-5)


def test_rewards_are_scaled_and_then_clipped() -> None:
    batches = learn(stream(replace(SETTINGS, n_step=1), scale=2.0), 20)
    reward = torch.cat([batch["reward"] for batch in batches])
    at = torch.cat([batch["observation"][:, 0, 0, 2] for batch in batches])
    action = torch.cat([batch["action"] for batch in batches])
    assert torch.equal(reward, (pay(at.long(), action) / 2).clamp(max=1))
    assert (reward == 1).any()


def test_the_environments_take_as_many_steps_as_a_batch_pays_for() -> None:
    made = stream(batch_size=16)  # 16 samples, 2 of each transition, 4 environments: 2 steps
    counts = []
    for _ in range(5):
        next(made)
        counts.append(made.env.steps)
    assert counts == [8, 10, 12, 14, 16]  # 24 transitions, of which the newest 2 steps are not over
    assert made.cycle == 5


def test_a_replay_that_a_checkpoint_of_many_processes_could_not_hold_is_refused() -> None:
    both = Runtime(torch.device("cpu"), rank=1, world=2)
    with pytest.raises(UserError, match=r"^data.rainbow.replay: got \d+ with 2 processes; allowed: up to \d+, or one"):
        stream(replace(SETTINGS, replay=10**10), runtime=both, batch_size=16)


@pytest.mark.parametrize("batch_size", [4, 12, 17])
def test_batches_that_pay_for_no_whole_number_of_steps_are_refused(batch_size: int) -> None:
    with pytest.raises(UserError, match=rf"^batch_size: got {batch_size}; allowed: 8 and its multiples, \S+inserts=2"):
        stream(batch_size=batch_size)


def test_a_replay_that_never_fills_is_refused() -> None:
    with pytest.raises(UserError, match="^data.rainbow.replay: got 20; allowed: 24 and more"):
        stream(replace(SETTINGS, replay=20))


def test_a_gamma_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="^gamma: got 0.0; allowed: more than 0"):
        replace(SETTINGS, gamma=0.0)


def test_epsilon_falls_from_actor_to_actor_and_over_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = stream(frames=200), []
    act = made.objective.act

    def noted(observation: Tensor, epsilon: Tensor, rng: torch.Generator) -> Tensor:
        seen.append(epsilon)
        return act(observation, epsilon, rng)

    monkeypatch.setattr(made.objective, "act", noted)
    learn(made, 40)
    for k, epsilon in ((0, seen[0]), (25, seen[25]), (50, seen[50]), (60, seen[60])):
        power = torch.tensor([1, 2, 4, 8]) * (1 + 7 * min(k * ENVS / 200, 1))
        torch.testing.assert_close(epsilon, 0.4**power)


def test_an_actor_is_the_live_network_and_not_the_target() -> None:
    made = stream(replace(SETTINGS, epsilon=0.0, target_every=1000), batch_size=8)
    next(made)
    actions = []
    for liked in (1, 2):
        with torch.no_grad():
            made.objective.network.head.weight.zero_()
            made.objective.network.head.bias.view(-1, ACTIONS).copy_(
                torch.linspace(-9, 9, 5)[:, None] * (torch.arange(ACTIONS) == liked)
            )
        for _ in range(20):  # until the replay has nothing else left
            batch = next(made)
        actions.append(set(batch["action"].tolist()))
    assert actions == [{1}, {2}]


def test_the_mean_of_the_last_returns_is_served() -> None:
    made = stream(frames=1)
    paid, wanted = torch.zeros(ENVS), []
    step = made.env.step

    def counted(actions: np.ndarray) -> Any:
        answer = step(actions)
        for i, (reward, ended) in enumerate(zip(answer[1], answer[2] | answer[3], strict=True)):
            paid[i] += reward
            if ended:
                wanted.append(float(paid[i]))
                paid[i] = 0
        return answer

    made.env.step = counted
    for batch in (next(made) for _ in range(150)):
        assert float(batch["return"]) == pytest.approx(sum(wanted[-100:]) / len(wanted[-100:]))
    assert len(wanted) > 150


def test_before_an_episode_has_ended_there_is_no_return() -> None:
    env = Walk()
    env.length[:] = 1000
    assert "return" not in next(stream(env=env))


def drawn(held: Prioritised, number: int = 20000) -> tuple[Tensor, Tensor]:
    """How often each of ten items is drawn, and its weight."""
    batch = held.draw(number)
    weight = torch.zeros(10).scatter_(0, batch["index"], batch["weight"])
    assert torch.equal(batch["x"], batch["index"])
    return batch["index"].bincount(minlength=10).double(), weight


def chi_square(counts: Tensor, chances: Tensor) -> float:
    wanted = chances / chances.sum() * counts.sum()
    return float(((counts - wanted) ** 2 / wanted).sum())


CRITICAL = 27.88  # of 9 degrees of freedom, exceeded by chance once in 1000 times


def held(alpha: float = 0.8, beta: float = 0.2, size: int = 10) -> Prioritised:
    made = Prioritised(size, alpha=alpha, beta=beta, rng=torch.Generator().manual_seed(0))
    made.add({"x": torch.arange(10)}, 4.0)
    return made


PRIORITIES = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 0.3])


def test_items_are_drawn_by_a_power_of_their_priorities() -> None:
    made = held()
    made.rate(torch.arange(10), PRIORITIES)
    counts, _ = drawn(made)
    assert chi_square(counts, PRIORITIES**0.8) < CRITICAL
    assert chi_square(counts, PRIORITIES) > 10 * CRITICAL
    assert chi_square(counts, torch.ones(10)) > 10 * CRITICAL


def test_weights_correct_for_how_often_an_item_is_drawn() -> None:
    made = held(beta=0.6)
    made.rate(torch.arange(10), PRIORITIES)
    counts, weight = drawn(made)
    assert (counts > 0).all()
    chance = PRIORITIES**0.8
    torch.testing.assert_close(weight, (chance / chance.min()) ** -0.6)
    few = made.draw(3)  # the largest weight is that of the batch, not of the replay
    assert few["weight"].max() == 1
    ratio = (chance[few["index"]] / chance[few["index"]].min()) ** -0.6
    torch.testing.assert_close(few["weight"], ratio)
    assert 0 not in few["index"].tolist()


def test_without_an_exponent_items_are_drawn_alike() -> None:
    made = held(alpha=0.0)
    made.rate(torch.arange(10), PRIORITIES)
    counts, weight = drawn(made)
    assert chi_square(counts, torch.ones(10)) < CRITICAL
    assert (weight == 1).all()


def test_what_is_new_has_its_own_priority_and_not_the_largest() -> None:
    made = held(size=10)
    made.rate(torch.arange(10), torch.full((10,), 50.0))
    made.add({"x": torch.tensor([0])}, 4.0)  # in the place of the oldest
    counts, _ = drawn(made)
    assert chi_square(counts, torch.tensor([4.0, *[50.0] * 9]) ** 0.8) < CRITICAL


def test_an_item_with_a_high_loss_is_drawn_more_after_its_batch() -> None:
    made, shares = stream(replace(SETTINGS, warmup=60, replay=60, n_step=1, inserts=16.0), batch_size=64), []
    for _ in range(3):
        batch = next(made)
        one = int(batch["index"][0])
        batch["priority"] = torch.where(batch["index"] == one, 300.0, 1.0)
        shares.append(float((next(made)["index"] == one).double().mean()))
    assert min(shares) > 0.3


def test_a_batch_that_nobody_learned_from_changes_no_priority() -> None:
    one, other = stream(), stream()
    next(one), other.load_state_dict(one.state_dict())
    assert torch.equal(next(one)["index"], next(other)["index"])


def test_the_target_catches_up_on_time_and_with_one_stream_only() -> None:
    for catches_up in (True, False):
        made = stream(catches_up=catches_up)
        online, target = made.objective.network.head, made.objective.target.head
        caught = []
        for _ in range(8):
            with torch.no_grad():
                online.weight += 1
            next(made)
            caught.append(torch.equal(online.weight, target.weight))
        assert caught == [catches_up and step % 3 == 0 for step in range(8)]


def saved(made: Replay) -> dict[str, Any]:
    """A state as it comes back from a file that is read without running code."""
    file = io.BytesIO()
    torch.save({"stream": made.state_dict(), "objective": made.objective.state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(state: dict[str, Any], env: Walk | None = None) -> Replay:
    made = stream(env=env, seed=1)
    made.objective.load_state_dict(state["objective"])
    made.load_state_dict(state["stream"])
    return made


def same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


@pytest.mark.parametrize("before", [0, 1, 5, 30])
def test_a_stopped_stream_goes_on_to_the_bit(before: int) -> None:
    made = stream()
    learn(made, before)
    other = resumed(saved(made))
    assert other.cycle == before
    assert same(learn(made, 12), learn(other, 12))


def test_saving_changes_nothing() -> None:
    one, other = stream(), stream()
    for _ in range(6):
        one.state_dict()
        assert same(learn(one, 1), learn(other, 1))


def forget_env(state: dict[str, Any]) -> None:
    state["env"] = Walk().get_state()


def forget_priorities(state: dict[str, Any]) -> None:
    state["held"]["powers"].fill_(1.0)


def forget_window(state: dict[str, Any]) -> None:
    state["seen"], state["done"] = state["seen"][-1:], []


def forget_rng(state: dict[str, Any]) -> None:
    state["rng"] = torch.Generator().manual_seed(5).get_state()


def forget_place(state: dict[str, Any]) -> None:
    state["held"]["writer"] = {"_cursor": 0}


@pytest.mark.parametrize("forget", [forget_env, forget_priorities, forget_window, forget_rng, forget_place])
def test_a_state_with_a_part_left_out_is_noticed(forget: Callable[[dict[str, Any]], None]) -> None:
    made = stream()
    learn(made, 9)
    state = saved(made)
    forget(state["stream"])
    assert not same(learn(made, 12), learn(resumed(state), 12))


def test_a_stream_can_be_taken_back_to_where_it_was() -> None:
    made = stream()
    learn(made, 3)
    state = saved(made)
    first = learn(made, 8)
    made.objective.load_state_dict(state["objective"])
    made.load_state_dict(state["stream"])
    assert same(learn(made, 8), first)


def test_an_environment_without_a_state_begins_anew_and_the_replay_stays() -> None:
    made = stream(env=Stateless())
    learn(made, 5)
    env = Stateless()
    env.episode += 100
    other = resumed(saved(made), env)
    assert [len(s) for s in (other.state_dict()["seen"], other.state_dict()["done"])] == [1, 0]
    episodes = learn(other, 1)[0]["observation"][:, 0, 0, 1]
    assert (episodes < 100).any()
    later = torch.cat([batch["observation"][:, 0, 0, 1] for batch in learn(other, 30)])
    assert (later >= 100).any()


def test_in_a_search_by_samples_the_target_lags_behind_in_weights_and_logits(teach) -> None:  # noqa: ANN001
    space = {"gate": Choice((("skip_connect", "linear", "tanh"),))}
    arch = Arch(space, {choice.kind: GumbelOneHot() for choice in space.values()}, init_std=1.0)
    fill = Mixed(arch, Full())
    objective = RainbowObjective(Gated(fill), Gated(fill), fill.delayed(), SETTINGS)
    learner = teach(objective, arch)
    made = Replay(objective, Walk(), SETTINGS, learner.runtime, batch_size=16, seed=0, frames=1000)
    kept, caught = objective.delayed.get_buffer("gate").clone(), []
    target = [p.clone() for p in objective.target.parameters()]
    for step in range(7):
        before = arch.logits["gate"].detach().clone()
        batch, draws = learner.pull(made, use=0, learn=True)
        if step % 3 == 0:
            kept, target = before, [p.detach().clone() for p in objective.network.parameters()]
            caught.append(kept)
        stats = learner.joint_step(batch, draws)
        assert torch.equal(objective.delayed.get_buffer("gate"), kept)
        assert all(torch.equal(p, q) for p, q in zip(objective.target.parameters(), target, strict=True))
        assert not torch.equal(arch.logits["gate"], before)
        assert {"train/loss", "train/priority", "train/q", "train/return"} <= set(stats)
    assert len(caught) == 3
    assert not torch.equal(caught[0], caught[1])
