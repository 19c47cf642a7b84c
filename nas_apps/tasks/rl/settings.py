"""The settings of the task: what its two algorithms are given, and how a network's weights are optimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas_apps.core.bounds import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, SHARE, TWO, bounded


@dataclass(frozen=True)
class PPO:
    """Proximal policy optimisation as the Procgen benchmark runs it (arXiv:1912.01588); arXiv:2106.02229 has steps of
    1024 and 2 epochs.

    envs: over all ranks. steps: of each of them in one rollout. epochs: passes over a rollout. clip: of the ratio, and
    of the change of a value. critic, entropy: their share in the loss. normalise: divide rewards by the running
    deviation of the discounted return, and clip them at 10.
    """

    envs: int = 64
    steps: int = 256
    epochs: int = 3
    clip: float = 0.2
    critic: float = 0.5
    entropy: float = 0.01
    gamma: float = 0.999
    lam: float = 0.95
    normalise: bool = True

    def __post_init__(self) -> None:
        bounded(self, COUNT, "envs", "steps", "epochs")
        bounded(self, POSITIVE, "clip")
        bounded(self, NOT_NEGATIVE, "critic", "entropy")
        bounded(self, SHARE, "gamma", "lam")


@dataclass(frozen=True)
class Rainbow:
    """Distributional double Q-learning from a prioritised replay, as arXiv:2106.02229's code sets it: dueling heads of
    `hidden` units, no noisy networks.

    envs: over all ranks. n_step: rewards that are added up before the target network is asked. atoms: of the returns'
    distribution on [low, high]; rewards are divided by the game's highest score first, where there is one. replay:
    transitions that are kept; warmup: how many there are before the first step; inserts: samples drawn for each that
    is put in. target_every: steps from one copy of the target network to the next. alpha, beta: exponents of the
    priorities and of the weights that correct for them; priority: of what is new. epsilon: an actor takes a random
    action with probability epsilon ** k, k from 1 to 8 over the actors, times 1 at the start and 8 at the end.
    """

    envs: int = 16
    gamma: float = 0.99
    n_step: int = 7
    atoms: int = 51
    low: float = 0.0
    high: float = 1.0
    hidden: int = 512
    replay: int = 500_000
    warmup: int = 10_000
    inserts: float = 4.0
    target_every: int = 500
    alpha: float = 0.8
    beta: float = 0.2
    priority: float = 4.0
    epsilon: float = 0.4

    def __post_init__(self) -> None:
        bounded(self, COUNT, "envs", "n_step", "hidden", "replay", "warmup", "target_every")
        bounded(self, POSITIVE, "inserts", "priority", "gamma")
        bounded(self, NOT_NEGATIVE, "alpha", "beta")
        bounded(self, SHARE, "gamma", "epsilon")
        if self.atoms < 2:
            raise ValueError(f"atoms: got {self.atoms}; allowed: 2 and more")
        if not self.low < self.high:
            raise ValueError(f"high: got {self.high}; allowed: more than low, {self.low}")


@dataclass(frozen=True)
class Acting:
    """What a phase learns from: the settings of the task's algorithm; episodes: those of one evaluation."""

    ppo: PPO = PPO()
    rainbow: Rainbow = Rainbow()
    episodes: int = 64

    def __post_init__(self) -> None:
        bounded(self, TWO, "episodes")


@dataclass(frozen=True)
class Weights:
    """How a network's weights are optimised; the rate stays, or falls on a straight line to 0."""

    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    lr: float = 5e-4
    eps: float = 1e-5
    schedule: Literal["constant", "linear"] = "constant"
    momentum: float = 0.0
    """Of SGD."""

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "lr")
        bounded(self, POSITIVE, "eps")
        bounded(self, BELOW_ONE, "momentum")
