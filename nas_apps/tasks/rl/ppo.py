"""The objective of an agent that learns on-policy: torchrl's PPO over a network that also acts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas_apps.core.task import Outcome
from nas_apps.tasks.rl.network import ActorCritic
from nas_apps.tasks.rl.quiet import silence
from nas_apps.tasks.rl.settings import PPO

FACT = "fact/"
"""What the names of entries of a batch begin with that are logged and not learned from."""


class PPOObjective(nn.Module):
    """Clipped loss of the policy, clipped squared loss of the value, entropy bonus (arXiv:1707.06347, eq. 7 and 9),
    with advantages normalised within a minibatch; squared errors are not halved, as in arXiv:2106.02229's code.

    torchrl's loss gets what the network said of a minibatch, not the network: that is run once for both heads, and
    stays the one owner of its weights.
    """

    def __init__(self, network: ActorCritic, settings: PPO) -> None:
        super().__init__()
        silence()
        from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
        from torchrl.objectives import ClipPPOLoss

        self.network = network
        said = TensorDictModule(_as_it_is, ["said"], ["logits"])
        policy = ProbabilisticTensorDictModule(
            ["logits"], ["action"], distribution_class=torch.distributions.Categorical, return_log_prob=True
        )
        self.loss = ClipPPOLoss(
            ProbabilisticTensorDictSequential(said, policy),
            TensorDictModule(_as_it_is, ["valued"], ["state_value"]),
            clip_epsilon=settings.clip,
            clip_value=settings.clip,
            entropy_coeff=settings.entropy,
            critic_coeff=settings.critic,
            loss_critic_type="l2",
            normalize_advantage=True,
            functional=False,
        )

    def forward(self, batch: Mapping[str, Tensor]) -> Outcome:
        """The loss of a minibatch of transitions, `[B, ...]` each, as `Rollouts` serves them."""
        from tensordict import TensorDict

        logits, value = self._said(batch["observation"])
        held = {name: entry for name, entry in batch.items() if not name.startswith(FACT)}
        found = self.loss(TensorDict({**held, "said": logits, "valued": value}, [len(logits)]))
        stats = {
            "policy_loss": found["loss_objective"],
            "value_loss": found["loss_critic"],
            "entropy": found["entropy"],
            "kl": found["kl_approx"],
            "clipped": found["clip_fraction"],
            "max_ratio": found["max_ratio"],
        }
        stats |= {name.removeprefix(FACT): entry for name, entry in batch.items() if name.startswith(FACT)}
        loss = found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]
        return Outcome(loss, stats, len(logits), logits)

    @torch.no_grad()
    def act(self, observation: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Actions `[N]` drawn from the policy, their log-probabilities `[N]`, and the values `[N]` of `observation`."""
        logits, value = self._said(observation)
        log_p = logits - logits.logsumexp(-1, keepdim=True)  # as torch's Categorical, so that ratios begin at 1
        action = torch.multinomial(log_p.exp(), 1, generator=rng)
        return action[:, 0], log_p.gather(1, action)[:, 0], value[:, 0]

    @torch.no_grad()
    def value(self, observation: Tensor) -> Tensor:
        """The values `[N]` of observations."""
        return self._said(observation)[1][:, 0]

    def _said(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """What the network says, in no less than single precision."""
        logits, value = self.network(observation)
        kind = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(kind), value.to(kind)


def _as_it_is(x: Tensor) -> Tensor:
    return x
