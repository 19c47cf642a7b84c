"""How an up-sampler's weights are optimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nas_apps.core.bounds import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, bounded
from nas_apps.core.progress import Progress
from nas_apps.core.task import Optimisation


@dataclass(frozen=True)
class Weights:
    """Adam, whose rate falls at some moments of the run; as they are, those of the released code of arXiv:2101.06658.

    milestones: shares of the run after which the rate is times `factor`.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    milestones: tuple[float, ...] = (0.25, 0.5, 0.75)
    factor: float = 0.5

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "lr", "weight_decay")
        bounded(self, BELOW_ONE, "betas")
        bounded(self, SHARE, "milestones")
        bounded(self, POSITIVE, "factor")

    def rate(self, progress: Progress) -> float:
        """The rate at a point of the run.

        >>> [Weights(lr=1.0).rate(Progress(epoch, 4)) for epoch in range(4)]
        [1.0, 0.5, 0.25, 0.125]
        """
        return self.lr * self.factor ** sum(float(progress) >= moment for moment in self.milestones)


def optimisation(objective: nn.Module, settings: Weights) -> Optimisation:
    """The optimiser of an objective's weights and its rates."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, settings.lr, settings.betas, weight_decay=settings.weight_decay)

    def set_rates(progress: Progress) -> None:
        optimizer.param_groups[0]["lr"] = settings.rate(progress)

    return Optimisation(optimizer, set_rates)
