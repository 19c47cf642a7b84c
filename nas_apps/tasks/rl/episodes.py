"""Whole episodes: their returns while learning, and a number of them played."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix

AT_ONCE = 64
"""Environments in which episodes are played side by side."""


class Tally:
    """The sums of rewards of the episodes under way in N environments.

    >>> tally = Tally(2)
    >>> tally.add(torch.tensor([1.0, 5.0]), torch.tensor([False, True]))
    tensor([5.], dtype=torch.float64)
    >>> tally.add(torch.tensor([2.0, 7.0]), torch.tensor([True, True]))
    tensor([3., 7.], dtype=torch.float64)
    """

    def __init__(self, num: int) -> None:
        self._sums = torch.zeros(num, dtype=torch.float64)

    def add(self, reward: Tensor, done: Tensor) -> Tensor:
        """Add one step's rewards [N]; the returns of the episodes that it ended, in the order of the environments."""
        sums, ended = self._sums + reward.cpu(), done.cpu()
        self._sums = sums.masked_fill(ended, 0.0)
        return sums[ended]

    def state_dict(self) -> dict[str, Tensor]:
        """The sums under way."""
        return {"sums": self._sums}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, of as many environments."""
        if state["sums"].shape != self._sums.shape:
            raise UserError(f"episodes: got a state of {len(state['sums'])} envs; allowed: {len(self._sums)}")
        self._sums = state["sums"]


@torch.no_grad()
def play(act: Callable[[Tensor], Tensor], env: Any, episodes: int, device: torch.device) -> Tensor:
    """The raw returns [episodes] of what `act` does: observations uint8 [N, H, W, C] to actions [N].

    Each environment gives its first episodes, all as many as each other but for a remainder: to take those that end
    first would prefer the short ones. env: one just made, since Procgen's cannot be begun anew.
    """
    num = env.num_envs
    wanted = [len(range(one, episodes, num)) for one in range(num)]
    played: list[list[float]] = [[] for _ in range(num)]
    tally = Tally(num)
    observations, _ = env.reset()
    while any(len(got) < want for got, want in zip(played, wanted, strict=True)):
        actions = act(torch.from_numpy(observations).to(device))
        observations, reward, terminated, truncated, _ = env.step(actions.cpu().numpy())
        done = torch.from_numpy(terminated | truncated)
        ended = tally.add(torch.from_numpy(reward), done)
        for one, value in zip(done.nonzero().flatten().tolist(), ended.tolist(), strict=True):
            played[one].append(value)
    return torch.tensor([value for got, want in zip(played, wanted, strict=True) for value in got[:want]])


def play_shared(
    act: Callable[[Tensor], Tensor], make: Callable[..., Any], episodes: int, runtime: Runtime, *, seed: int
) -> Tensor:
    """The raw returns [episodes] of episodes that the ranks share out, each in environments of its own.

    make: called with how many, and their seed.
    """
    share = runtime.share(episodes)
    mine, found = share.stop - share.start, torch.zeros(0)
    if mine:
        env = make(min(mine, AT_ONCE), seed=mix(seed, runtime.rank))
        found = play(act, env, mine, runtime.device)
        env.close()
    return torch.cat(runtime.gather(found))
