"""The batches of Rainbow: the live network acts, what it saw goes into a replay, and batches are drawn from there.

Legend: `N` environments, `T` steps of each, `M` transitions, `H W C` of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.tasks.rl.envs import go_on
from nas_apps.tasks.rl.episodes import Tally
from nas_apps.tasks.rl.prioritised import Prioritised
from nas_apps.tasks.rl.rainbow import RainbowObjective, Transitions
from nas_apps.tasks.rl.settings import Rainbow

EPISODES = 100  # of which the logged return is the mean
MOST_SHARED = 2**31  # bytes of the replays of several processes


class Replay:
    """A stream of transitions of n steps (arXiv:1710.02298). Before each batch, in this order: the last one's items get
    the priorities that the objective left in it, the target catches up if it is time, the environments take their
    steps.

    Unlike the code of arXiv:2106.02229, the actors have the weights of the moment, not those of some hundred steps ago.

    Args:
        objective: the live one.
        env: whose episodes begin anew by themselves, the observation after an end being the next episode's first.
        batch_size: over all ranks.
        frames: steps of all environments in the whole run, over which epsilon falls.
        scale: what rewards are divided by before they are clipped at -1 and 1.
        catches_up: whether this stream's batches are what the target's updates are counted in.
    """

    def __init__(
        self,
        objective: RainbowObjective,
        env: Any,
        settings: Rainbow,
        runtime: Runtime,
        *,
        batch_size: int,
        seed: int,
        frames: int,
        scale: float = 1.0,
        catches_up: bool = True,
    ) -> None:
        self.objective, self.env, self.settings, self.runtime = objective, env, settings, runtime
        self._scale, self._catches_up, self._frames = scale, catches_up, frames
        self._envs = env.num_envs * runtime.world
        self._steps = _steps(settings, batch_size, self._envs)
        mine = runtime.share(batch_size)
        self._batch_size = mine.stop - mine.start
        self._rng = torch.Generator().manual_seed(mix(seed, runtime.rank))
        self._begin()
        _refuse_large(settings, self._seen[0][0].numel(), runtime)
        share = settings.replay // runtime.world
        self._held = Prioritised(share, alpha=settings.alpha, beta=settings.beta, rng=self._rng)
        self._batches = self._taken = 0
        self._served: Transitions | None = None

    def _begin(self) -> None:
        """Episodes that nothing is remembered of."""
        observation, _ = self.env.reset()
        self._seen = [torch.tensor(observation)]  # T + 1 of [N, H, W, C]
        self._done: list[dict[str, Tensor]] = []  # T of action, reward and done, [N]
        self._tally, self._returns = Tally(self.env.num_envs), list[float]()
        self._ended: list[float] = []  # since the last batch

    @property
    def cycle(self) -> int:
        """Batches served."""
        return self._batches

    def __next__(self) -> Transitions:
        self._rate()
        if self._catches_up and self._batches % self.settings.target_every == 0:
            self.objective.catch_up()
        self._advance()
        while len(self._held) * self.runtime.world < self.settings.warmup:
            self._advance()
        ended, self._ended = [one for mine in self.runtime.gather(self._ended) for one in mine], []
        self._returns = [*self._returns, *ended][-EPISODES:]
        self._batches += 1
        drawn = {name: value.to(self.runtime.device) for name, value in self._held.draw(self._batch_size).items()}
        self._served = drawn
        if self._returns:
            self._served["return"] = torch.tensor(sum(self._returns) / len(self._returns))
        return self._served

    def _rate(self) -> None:
        """Give the items of the batch served last their new priorities."""
        if self._served is not None and "priority" in self._served:
            self._held.rate(self._served["index"], self._served["priority"])
        self._served = None

    def _advance(self) -> None:
        """Act, and put in the transitions whose n steps are over."""
        for _ in range(self._steps):
            self._act()
        ready = len(self._done) - self.settings.n_step + 1
        if ready <= 0:
            return
        action, reward, done = (torch.stack([s[name] for s in self._done], 1) for name in ("action", "reward", "done"))
        reward, last, steps = n_step(reward, done, self.settings.gamma, self.settings.n_step)
        seen, row = torch.stack(self._seen, 1), torch.arange(len(done))[:, None]
        made = {
            "observation": seen[:, :-1],
            "next_observation": seen[row, last + 1],
            "action": action,
            "reward": reward,
            "done": done[row, last],
            "steps": steps,
        }
        self._held.add({name: v[:, :ready].flatten(0, 1) for name, v in made.items()}, self.settings.priority)
        self._seen, self._done = self._seen[ready:], self._done[ready:]

    def _act(self) -> None:
        """One step of every environment."""
        seen = self._seen[-1].to(self.runtime.device)
        with self.runtime.autocast():
            action = self.objective.act(seen, self._epsilon(), self._rng)
        observation, raw, terminated, truncated, _ = self.env.step(action.numpy())
        reward, done = torch.tensor(np.asarray(raw, np.float32)), torch.tensor(terminated | truncated)
        self._ended += self._tally.add(reward, done).tolist()
        self._done.append({"action": action, "reward": (reward / self._scale).clamp(-1, 1), "done": done})
        self._seen.append(torch.tensor(observation))
        self._taken += self._envs

    def _epsilon(self) -> Tensor:
        """The probabilities that actions are random, `[N]`."""
        first = self.runtime.rank * self.env.num_envs
        power = torch.logspace(0, 3, self._envs, base=2.0)[first : first + self.env.num_envs]  # 1 to 8
        return self.settings.epsilon ** (power * (1 + 7 * min(self._taken / self._frames, 1.0)))

    def state_dict(self) -> dict[str, Any]:
        """All that the next batches depend on. The priorities that are due are given first, as they would be next."""
        self._rate()
        return {
            "batches": self._batches,
            "taken": self._taken,
            "env": self.env.get_state(),
            "seen": list(self._seen),
            "done": list(self._done),
            "tally": self._tally.state_dict(),
            "returns": list(self._returns),
            "held": self._held.state_dict(),
            "rng": self._rng.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. An environment that cannot begins new episodes."""
        self._batches, self._taken, self._served = state["batches"], state["taken"], None
        self._held.load_state_dict(state["held"])
        self._rng.set_state(state["rng"].cpu())
        self._begin()
        if go_on(self.env, state["env"]):
            self._seen, self._done = list(state["seen"]), list(state["done"])
            self._tally.load_state_dict(state["tally"])
            self._returns = list(state["returns"])


def n_step(reward: Tensor, done: Tensor, gamma: float, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of the steps of `[N, T]`: the discounted sum of its reward and the n - 1 after it, up to an end of the
    episode; the step that was the last of them; how many they are. torchrl's, which leaves `done` where it was.
    """
    from tensordict import TensorDict
    from torchrl.data.postprocs import MultiStep

    step = torch.arange(done.shape[1]).expand_as(done)
    summed = MultiStep(gamma, n)(TensorDict({"next": {"reward": reward, "done": done, "step": step}}, done.shape))
    return summed["next", "reward"], summed["next", "step"], summed["steps_to_next_obs"]


def _refuse_large(settings: Rainbow, pixels: int, runtime: Runtime) -> None:
    """A checkpoint brings the replays of all ranks together, through the memory of each."""
    most = MOST_SHARED // (2 * pixels)
    if runtime.world > 1 and settings.replay > most:
        raise UserError(
            f"data.rainbow.replay: got {settings.replay} with {runtime.world} processes; allowed: up to {most}, or one "
            "process"
        )


def _steps(settings: Rainbow, batch_size: int, envs: int) -> int:
    """The steps of each environment that one batch pays for."""
    steps = batch_size / settings.inserts / envs
    if steps < 1 or steps != int(steps):
        each = settings.inserts * envs
        raise UserError(
            f"batch_size: got {batch_size}; allowed: {each:g} and its multiples, data.rainbow.inserts="
            f"{settings.inserts:g} samples for each step of data.rainbow.envs={envs}"
        )
    if settings.replay < max(settings.warmup, int(steps) * envs):
        least = max(settings.warmup, int(steps) * envs)
        raise UserError(
            f"data.rainbow.replay: got {settings.replay}; allowed: {least} and more, warmup and the steps of a batch"
        )
    return int(steps)
