"""The scale of games, and the normalisation of rewards against plain sums over all that was seen."""

from __future__ import annotations

import pytest
import torch

from nas_apps.core.errors import UserError
from nas_apps.tasks.rl.returns import RANGES, RewardNormaliser, normalised

TABLE = """
coinrun 5 10 5 10      starpilot 2.5 64 1.5 35     caveflyer 3.5 12 2 13.4  dodgeball 1.5 19 1.5 19
fruitbot -1.5 32.4 -.5 27.2  chaser .5 13 .5 14.2  miner 1.5 13 1.5 20      jumper 1 10 1 10
leaper 1.5 10 1.5 10   maze 5 10 4 10              bigfish 1 40 0 40        heist 3.5 10 2 10
climber 2 12.6 1 12.6  plunder 4.5 30 3 30         ninja 3.5 10 2 10        bossfight .5 13 .5 13
"""


def test_the_ranges_are_those_of_the_benchmark() -> None:
    words = TABLE.split()
    rows = {words[i]: [float(word) for word in words[i + 1 : i + 5]] for i in range(0, len(words), 5)}
    assert len(rows) == 16
    assert {game: [*RANGES["easy"][game], *RANGES["hard"][game]] for game in RANGES["easy"]} == rows
    assert RANGES["easy"]["starpilot"][1] == 64
    assert RANGES["hard"]["starpilot"][1] == 35


def test_a_normalised_return_is_never_clipped() -> None:
    assert normalised("starpilot", "hard", 64) == pytest.approx(62.5 / 33.5)
    assert normalised("fruitbot", "easy", -2.58) == pytest.approx(-1.08 / 33.9)
    assert normalised("nas_apps/Pattern-v0", "easy", 1.0) is None


def episodes(steps: int, num: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards and ends [T, N], of which few are not 0."""
    rng = torch.Generator().manual_seed(1)
    rewards = torch.randn(steps, num, generator=rng) * (torch.rand(steps, num, generator=rng) < 0.3) * 4
    return rewards, torch.rand(steps, num, generator=rng) < 0.2


def test_rewards_are_over_the_deviation_of_all_discounted_returns() -> None:
    rewards, done = episodes(40)
    ours, clipped = RewardNormaliser(3, 0.9), RewardNormaliser(3, 0.9, clip=0.5)
    running, seen = [0.0] * 3, []
    for reward, end in zip(rewards, done, strict=True):
        running = [0.9 * past + now for past, now in zip(running, reward.tolist(), strict=True)]
        seen += running
        count = len(seen) + 1e-4  # as if a ten-thousandth of a value had been seen before, of mean 0 and variance 1
        mean = sum(seen) / count
        deviation = ((1e-4 + sum(value**2 for value in seen)) / count - mean**2 + 1e-8) ** 0.5
        expected = torch.tensor([value / deviation for value in reward.tolist()])
        got = ours(reward, end)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected.clamp(-10, 10))
        torch.testing.assert_close(clipped(reward, end), expected.clamp(-0.5, 0.5))
        running = [0.0 if ended else value for ended, value in zip(end.tolist(), running, strict=True)]


def test_the_first_reward_is_clipped_at_ten() -> None:
    assert RewardNormaliser(1, 0.9)(torch.tensor([1e9]), torch.tensor([False])).tolist() == [10.0]


def test_a_normaliser_goes_on_exactly_from_its_state() -> None:
    rewards, done = episodes(30)
    whole, half, rest, other = (RewardNormaliser(3, 0.99) for _ in range(4))
    expected = [whole(*step) for step in zip(rewards, done, strict=True)]
    for step in zip(rewards[:15], done[:15], strict=True):
        half(*step)
    state = half.state_dict()
    half(rewards[0], done[0])  # what was given is not changed by going on
    rest.load_state_dict(state)
    assert all(
        torch.equal(rest(*step), want) for *step, want in zip(rewards[15:], done[15:], expected[15:], strict=True)
    )
    assert not torch.equal(other(rewards[20], done[20]), expected[20])
    with pytest.raises(UserError, match="a state of 3 envs; allowed: 2"):
        RewardNormaliser(2, 0.99).load_state_dict(whole.state_dict())
