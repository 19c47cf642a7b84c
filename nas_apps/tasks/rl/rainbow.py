"""The loss of distributional double Q-learning, and the actor that goes with it.

Legend: `B` batch, `N` actors, `H W C` of an observation, `Z` atoms, `A` actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_apps.core.delayed import Delayed
from nas_apps.core.task import Outcome
from nas_apps.tasks.rl.quiet import silence
from nas_apps.tasks.rl.settings import Rainbow

if TYPE_CHECKING:
    from tensordict import TensorDict

Transitions = dict[str, Tensor]
"""A batch. observation, next_observation: `[B, H, W, C]`, uint8. action: `[B]`. reward: `[B]`, of up to n steps added
up; steps: `[B]`, of how many. done: `[B]`, whether the episode ended with them. weight: `[B]`, what corrects for the
priority a transition was drawn with. return: a scalar to be logged, once there is one."""


class RainbowObjective(nn.Module):
    """The cross-entropy of the distribution of returns (arXiv:1707.06887) under double Q-learning (arXiv:1509.06461),
    each transition weighted for how often it is drawn (arXiv:1511.05952), by torchrl.

    Args:
        network, target: two networks of one structure, from observations to log-probabilities `[B, Z, A]`; the second
            lags behind the first and does not learn.
        delayed: the logits that the target is mixed with: one that is mixed with the live ones moves all the time.
    """

    support: Tensor

    def __init__(self, network: nn.Module, target: nn.Module, delayed: Delayed, settings: Rainbow) -> None:
        super().__init__()
        silence()
        self.network, self.target, self.delayed = network, target.requires_grad_(requires_grad=False), delayed
        self.settings = settings
        self.register_buffer("support", torch.linspace(settings.low, settings.high, settings.atoms), persistent=False)
        self.catch_up()

    def catch_up(self) -> None:
        """The target's weights and logits become those of the present."""
        self.target.load_state_dict(self.network.state_dict())
        self.delayed.catch_up()

    def forward(self, batch: Transitions) -> Outcome:
        """Leaves the new priorities, `[B]`, in the batch. The output is what is said of the actions taken, `[B, Z]`."""
        log = self.network(batch["observation"])  # [B, Z, A]
        losses = self._losses(batch, log)
        batch["priority"] = losses.detach()
        taken = log.gather(2, batch["action"][:, None, None].expand(-1, log.shape[1], 1))[..., 0]
        q = (taken.detach().exp() @ self.support).mean()
        stats = {"priority": batch["priority"].mean(), "q": q}
        stats |= {"return": batch["return"]} if "return" in batch else {}
        return Outcome((batch["weight"] * losses).mean(), stats, len(losses), taken)

    @torch.no_grad()
    def act(self, observation: Tensor, epsilon: Tensor, rng: torch.Generator) -> Tensor:
        """Actions `[N]`, on the CPU: those of the highest expected return, or, with probability epsilon `[N]`, any."""
        values = self._values(self.network(observation)).cpu()
        explored = torch.randint(values.shape[1], (len(values),), generator=rng)
        return torch.where(torch.rand(len(values), generator=rng) < epsilon, explored, values.argmax(1))

    def _values(self, log: Tensor) -> Tensor:
        return (log.exp() * self.support[:, None]).sum(1)  # [B, A]

    def _losses(self, batch: Transitions, log: Tensor) -> Tensor:
        """The cross-entropy of each transition, `[B]`."""
        from torchrl.objectives import DistributionalDQNLoss

        def answer(asked: TensorDict) -> TensorDict:
            """torchrl asks one network three times: of the observation; of the next one, for the best action; and of
            the next one again, which then has an answer already, and means the target."""
            if "next" in asked.keys():  # noqa: SIM118
                return asked.set("action_value", log)
            if "action_value" in asked.keys():  # noqa: SIM118
                with self.delayed.using():
                    return asked.set("action_value", self.target(asked["observation"]))
            now = self.network(asked["observation"])
            return asked.set("action_value", now).set("action", self._values(now).argmax(1))

        # Made anew each time, from a network without weights: torchrl makes a network functional once and for all, and
        # would not see weights that are replaced. It keeps nothing, and is made in a tenth of a millisecond.
        network = _Asked(answer, len(self.support))
        loss = DistributionalDQNLoss(network, gamma=self.settings.gamma, delay_value=False, reduction="none")
        found: Tensor = loss(self._in_atoms(batch))["loss"]
        return found

    def _in_atoms(self, batch: Transitions) -> TensorDict:
        """A batch in torchrl's layout, its rewards in units of atoms: atom z is the return z, and their distance 1.
        Under other distances torchrl's rounding gives mass to an atom beyond the last (61 / 61 * 61 is 61.000004)."""
        from tensordict import TensorDict

        s, column = self.settings, {name: batch[name][:, None] for name in ("action", "reward", "done", "steps")}
        discount = s.gamma ** column["steps"] * ~column["done"]
        reward = (column["reward"] + (discount - 1) * s.low) * (s.atoms - 1) / (s.high - s.low)
        after = {"observation": batch["next_observation"], "reward": reward, "done": column["done"]}
        held = {"observation": batch["observation"], "action": column["action"], "steps_to_next_obs": column["steps"]}
        return TensorDict({**held, "next": after}, [len(reward)], device=reward.device)


class _Asked(nn.Module):
    """A network without weights, of a distribution over the returns 0 to atoms - 1, that hands on what it is asked."""

    action_space = "categorical"
    in_keys = ("observation",)
    out_keys = ("action_value",)

    def __init__(self, answer: Callable[[Any], Any], atoms: int) -> None:
        super().__init__()
        self._answer = answer
        self.register_buffer("support", torch.arange(float(atoms)))

    def forward(self, tensordict: Any) -> Any:
        return self._answer(tensordict)
