"""Whole episodes, as many of each environment, and sums that survive a stop."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.tasks.rl.envs import make_env
from nas_apps.tasks.rl.episodes import Tally, play

CPU = torch.device("cpu")
PATTERN = "pattern_env:nas_apps/Pattern-v0"


class Clocks:
    """Environment i has episodes of i + 1 steps; episode k of it returns 100 * i + k in all."""

    def __init__(self, num: int) -> None:
        self.num_envs, self.step_of, self.episode = num, np.zeros(num, int), np.zeros(num, int)

    def reset(self) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros((self.num_envs, 2, 2, 1), np.uint8), {}

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        index = np.arange(self.num_envs)
        reward = ((100 * index + self.episode) / (index + 1)).astype(np.float32)
        self.step_of += 1
        done = self.step_of > index
        self.step_of[done], self.episode = 0, self.episode + done
        return self.reset()[0], reward, done & (index % 2 == 0), done & (index % 2 == 1), {}


def still(observations: Tensor) -> Tensor:
    return torch.zeros(len(observations), dtype=torch.int64)


@pytest.mark.parametrize(
    ("episodes", "returns"),
    [(6, [0, 1, 100, 101, 200, 201]), (7, [0, 1, 2, 100, 101, 200, 201]), (2, [0, 100]), (0, [])],
)
def test_each_environment_gives_as_many_episodes_however_long_they_are(episodes: int, returns: list[int]) -> None:
    assert play(still, Clocks(3), episodes, CPU).round().tolist() == returns


def bar(observations: Tensor) -> Tensor:
    """The orientation of the green bar: which of four neighbours of its middle are lit."""
    green = torch.nn.functional.pad((observations[..., 1] > 0).float(), (1, 1, 1, 1))
    pairs = [(0, 1, 2, 1), (1, 0, 1, 2), (0, 0, 2, 2), (0, 2, 2, 0)]
    size = observations.shape[1]
    lit = [green[:, a : a + size, b : b + size] * green[:, 1:-1, 1:-1] * green[:, c : c + size, d : d + size]
           for a, b, c, d in pairs]  # fmt: skip
    return torch.stack(lit, -1).flatten(1, 2).sum(1).argmax(-1)


@pytest.mark.parametrize("name", [PATTERN, "pattern_env:nas_apps/PatternLong-v0"])
def test_who_reads_the_pattern_gets_all_and_who_does_not_gets_a_quarter(name: str) -> None:
    assert play(bar, make_env(name, 8, seed=1), 40, CPU).tolist() == pytest.approx([1.0] * 40)
    assert play(still, make_env(name, 32, seed=1), 1000, CPU).mean() == pytest.approx(0.25, abs=0.05)


def test_no_one_can_read_a_shuffled_pattern() -> None:
    env = make_env("pattern_env:nas_apps/PatternShuffled-v0", 32, seed=1)
    assert play(bar, env, 1000, CPU).mean() == pytest.approx(0.25, abs=0.05)


@pytest.mark.skipif(not (find_spec("procgen") or find_spec("procgen_gym")), reason="procgen is not installed")
def test_episodes_of_procgen_are_whole_and_repeat_under_a_seed() -> None:
    def returns() -> list[float]:
        rng = torch.Generator().manual_seed(1)
        env = make_env("jumper", 4, seed=1)
        return play(lambda seen: torch.randint(15, (len(seen),), generator=rng), env, 6, CPU).tolist()

    once = returns()
    assert returns() == once
    assert len(once) == 6
    assert {*once} == {0.0, 10.0}  # of a whole episode of jumper there is nothing else


def test_a_tally_goes_on_from_its_state() -> None:
    rng = torch.Generator().manual_seed(0)
    rewards, done = torch.rand(20, 4, generator=rng), torch.rand(20, 4, generator=rng) < 0.3
    whole, half, rest = Tally(4), Tally(4), Tally(4)
    expected = [whole.add(*step).tolist() for step in zip(rewards, done, strict=True)]
    for step in zip(rewards[:10], done[:10], strict=True):
        half.add(*step)
    state = half.state_dict()
    half.add(rewards[0], done[0])  # what was given is not changed by going on
    rest.load_state_dict(state)
    assert [rest.add(*step).tolist() for step in zip(rewards[10:], done[10:], strict=True)] == expected[10:]
    assert any(expected[10:])
    with pytest.raises(UserError, match="a state of 4 envs; allowed: 5"):
        Tally(5).load_state_dict(whole.state_dict())
