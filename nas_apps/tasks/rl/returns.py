"""Returns on the scale of a game, and rewards on the scale of their returns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nas_apps.core.errors import UserError

RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "easy": {
        "bigfish": (1, 40), "bossfight": (0.5, 13), "caveflyer": (3.5, 12), "chaser": (0.5, 13), "climber": (2, 12.6),
        "coinrun": (5, 10), "dodgeball": (1.5, 19), "fruitbot": (-1.5, 32.4), "heist": (3.5, 10), "jumper": (1, 10),
        "leaper": (1.5, 10), "maze": (5, 10), "miner": (1.5, 13), "ninja": (3.5, 10), "plunder": (4.5, 30),
        "starpilot": (2.5, 64),
    },
    "hard": {
        "bigfish": (0, 40), "bossfight": (0.5, 13), "caveflyer": (2, 13.4), "chaser": (0.5, 14.2), "climber": (1, 12.6),
        "coinrun": (5, 10), "dodgeball": (1.5, 19), "fruitbot": (-0.5, 27.2), "heist": (2, 10), "jumper": (1, 10),
        "leaper": (1.5, 10), "maze": (4, 10), "miner": (1.5, 20), "ninja": (2, 10), "plunder": (3, 30),
        "starpilot": (1.5, 35),
    },
}  # fmt: skip
"""The least and the most a game of Procgen gives (arXiv:1912.01588), by mode."""


def normalised(game: str, mode: str, value: float) -> float | None:
    """A return where 0 is the game's least and 1 its most; a random player may be below 0. None for games without.

    >>> normalised("starpilot", "easy", 64), normalised("coinrun", "hard", 4), normalised("Pong-v5", "easy", 3)
    (1.0, -0.2, None)
    """
    if game not in RANGES[mode]:
        return None
    least, most = RANGES[mode][game]
    return (value - least) / (most - least)


class RewardNormaliser:
    """Rewards over the running standard deviation of the discounted return, clipped, as the VecNormalize of OpenAI's
    baselines has it for Procgen: `returns` [N] go on over time and start at 0 after an end; the moments are of all of
    them that were ever seen. Computed in float64 on the CPU.
    """

    def __init__(self, num: int, gamma: float, clip: float = 10.0) -> None:
        self.gamma, self.clip = gamma, clip
        self._returns = torch.zeros(num, dtype=torch.float64)
        self._mean = torch.zeros((), dtype=torch.float64)
        self._variance = torch.ones((), dtype=torch.float64)
        self._count = torch.tensor(1e-4, dtype=torch.float64)

    def __call__(self, reward: Tensor, done: Tensor) -> Tensor:
        """The rewards [N] of one step, of which `done` [N] ended an episode."""
        raw = reward.detach().to("cpu", torch.float64)
        returns = self._returns * self.gamma + raw
        self._see(returns)
        scaled = (raw / (self._variance + 1e-8).sqrt()).clamp(-self.clip, self.clip)
        self._returns = returns.masked_fill(done.cpu(), 0.0)
        return scaled.to(reward)

    def state_dict(self) -> dict[str, Tensor]:
        """The returns under way and their moments."""
        return {"returns": self._returns, "mean": self._mean, "variance": self._variance, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, of as many environments."""
        if state["returns"].shape != self._returns.shape:
            raise UserError(f"rewards: got a state of {len(state['returns'])} envs; allowed: {len(self._returns)}")
        self._returns = state["returns"]
        self._mean, self._variance, self._count = state["mean"], state["variance"], state["count"]

    def _see(self, values: Tensor) -> None:
        """Moments of what was seen and the values together, without keeping the former."""
        old, new = self._count, len(values)
        total, apart = old + new, values.mean() - self._mean
        squares = self._variance * old + values.var(correction=0) * new + apart**2 * old * new / total
        self._mean, self._variance, self._count = self._mean + apart * new / total, squares / total, total
