"""The batches of an agent that learns on-policy: what its own network, super-net or not, lives through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.order import Order
from nas_apps.core.phase import Phase
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.tasks.rl.envs import go_on
from nas_apps.tasks.rl.episodes import Tally
from nas_apps.tasks.rl.ppo import FACT, PPOObjective
from nas_apps.tasks.rl.quiet import silence
from nas_apps.tasks.rl.returns import RewardNormaliser
from nas_apps.tasks.rl.settings import PPO

RECENT = 100
"""Episodes whose mean return is logged."""


class Rollouts:
    """A stream of minibatches of transitions.

    When a rollout is used up the objective acts for the next one, under the draw in force and in the mode it is in. All
    minibatches of a rollout are of one cycle, so the noise of a sampled draw is that of the actor and of the learner;
    what it picks follows the logits, as they move from one minibatch to the next.

    Args:
        env: this rank's share of the environments.
        batch_size: of this rank.
        seed: of this rank and stream.
    """

    def __init__(
        self, objective: PPOObjective, env: VectorEnv, settings: PPO, batch_size: int, runtime: Runtime, seed: int
    ) -> None:
        self.objective, self.env, self.settings, self.runtime = objective, env, settings, runtime
        self._order = Order(torch.arange(env.num_envs * settings.steps), batch_size, mix(seed, 0))
        self.epoch = settings.epochs * self._order.epoch_batches
        self._rng = torch.Generator(runtime.device).manual_seed(mix(seed, 1))
        self._normaliser = RewardNormaliser(env.num_envs, settings.gamma)
        self._tally, self._recent = Tally(env.num_envs), torch.zeros(0, dtype=torch.float64)
        self._rollout: dict[str, Tensor] = {}
        self._observation = self._on_device(env.reset()[0])

    @property
    def cycle(self) -> int:
        return self._order.served // self.epoch

    def __next__(self) -> dict[str, Tensor]:
        if self._order.served % self.epoch == 0:
            self._rollout = self._collect()
        items = next(self._order).to(self.runtime.device)
        batch = {name: entry[items] for name, entry in self._rollout.items()}
        return batch | ({f"{FACT}return": self._recent.mean()} if len(self._recent) else {})

    def _collect(self) -> dict[str, Tensor]:
        """`steps` steps of every environment, with advantages: `[steps * envs, ...]`."""
        steps, envs = self.settings.steps, self.env.num_envs
        observations = self._observation.new_empty(steps, *self._observation.shape)
        lived: list[tuple[Tensor, ...]] = []
        returns: list[Tensor] = []
        for step in range(steps):
            observations[step] = self._observation
            with self.runtime.autocast():
                action, log_p, value = self.objective.act(self._observation, self._rng)
            reward, done = self._step(action)
            returns.append(self._tally.add(reward, done))
            if self.settings.normalise:
                reward = self._normaliser(reward, done)
            lived.append((action, log_p, value, reward.to(value), self._on_device(done)))
        with self.runtime.autocast():
            last = self.objective.value(self._observation)
        ended = self.runtime.gather(torch.cat(returns))
        self._recent = torch.cat([self._recent, *ended])[-RECENT:]
        action, log_p, value, reward, done = map(torch.stack, zip(*lived, strict=True))
        advantage, target = self._advantages(value, torch.cat([value[1:], last[None]]), reward, done)
        rollout = {"observation": observations, "action": action, "action_log_prob": log_p}
        rollout |= {"state_value": value[..., None], "advantage": advantage, "value_target": target}
        return {name: entry.reshape(steps * envs, *entry.shape[2:]) for name, entry in rollout.items()}

    def _advantages(self, value: Tensor, after: Tensor, reward: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        """Generalised advantages and the targets of the values (arXiv:1506.02438, eq. 16), `[steps, envs, 1]`.

        No value is taken over the end of an episode, be it a time-out: Procgen does not tell one from the other.
        """
        silence()
        from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

        # [envs, steps, 1]; on the CPU, since it is a convolution, which CUDA would round to TF32
        columns = (x.T[..., None].cpu() for x in (value, after, reward, done))
        found = vec_generalized_advantage_estimate(self.settings.gamma, self.settings.lam, *columns)
        return self._on_device(found[0].transpose(0, 1)), self._on_device(found[1].transpose(0, 1))

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        observation, reward, terminated, truncated, _ = self.env.step(action.cpu().numpy())
        self._observation = self._on_device(observation)
        return torch.as_tensor(reward, dtype=torch.float32), torch.as_tensor(terminated | truncated)

    def _on_device(self, x: Any) -> Tensor:
        return torch.as_tensor(x).to(self.runtime.device)

    def state_dict(self) -> dict[str, Any]:
        """All of it; the rollout is in it while some of its minibatches are still to be served."""
        used_up = self._order.served % self.epoch == 0
        return {
            "order": self._order.state_dict(),
            "rng": self._rng.get_state(),
            "normaliser": self._normaliser.state_dict(),
            "tally": self._tally.state_dict(),
            "recent": self._recent,
            "rollout": {} if used_up else {name: entry.cpu() for name, entry in self._rollout.items()},
            "env": self.env.get_state(),
            "observation": self._observation.cpu(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` was; in an environment that has no state to take up, with new episodes."""
        self._order.load_state_dict(state["order"])
        self._rng.set_state(state["rng"].cpu())
        self._normaliser.load_state_dict(state["normaliser"])
        self._recent = state["recent"]
        self._rollout = {name: self._on_device(entry) for name, entry in state["rollout"].items()}
        if go_on(self.env, state["env"]):
            self._tally.load_state_dict(state["tally"])
            self._observation = self._on_device(state["observation"])


def check_rollout(phase: Phase) -> None:
    """A rollout is cut into whole minibatches, and an epoch is of whole rollouts: what depends on progress, a
    temperature say, is then the same for the actor and for the learner."""
    ppo = phase.data.ppo
    transitions = ppo.envs * ppo.steps
    if transitions % phase.batch_size:
        raise UserError(
            f"{phase.name}.batch_size: got {phase.batch_size}; allowed: what divides a rollout of "
            f"{phase.name}.data.ppo.envs * steps = {transitions}"
        )
    steps = ppo.epochs * transitions // phase.batch_size
    if phase.epoch_steps is not None and phase.epoch_steps % steps:
        raise UserError(
            f"{phase.name}.epoch_steps: got {phase.epoch_steps}; allowed: a multiple of {steps}, the minibatches "
            "that one rollout is learned in"
        )
