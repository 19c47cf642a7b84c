"""How a recogniser's weights are optimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas_apps.core.bounds import BELOW_ONE, NOT_NEGATIVE, POSITIVE, bounded
from nas_apps.core.progress import Progress
from nas_apps.core.task import Optimisation


@dataclass(frozen=True)
class Weights:
    """How the weights are optimised, with the numbers of ESPnet's AISHELL recipe `train_asr_conformer_e12_amp`.

    warmup_steps: the rate rises on a straight line to `lr` in so many steps, and then falls as 1 / sqrt(step); with 0
    it stays. In a search with stages each begins with a warm-up of its own. weight_decay: added to the gradient, times
    the weights. optimizer: a look-ahead of the weights (`variant.schedule=unrolled`) is one of SGD. ema: decay of the
    running average of the weights that is decoded with and exported, as ESPnet's recipes do with the average of their
    ten best epochs; none when not given.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 1e-6
    warmup_steps: int = 35_000
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    """Of Adam, as `betas`."""
    momentum: float = 0.9
    """Of SGD."""
    ema: float | None = None

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "lr", "weight_decay", "warmup_steps")
        bounded(self, POSITIVE, "eps")
        bounded(self, BELOW_ONE, "betas", "momentum", "ema")


def optimisation(objective: nn.Module, settings: Weights) -> Optimisation:
    """The optimiser of an objective's weights, with the rates of ESPnet's `WarmupLR`.

    It counts its steps in its own state, which a checkpoint has: a resumed run goes on at the same rate.
    """
    s, parameters = settings, [p for p in objective.parameters() if p.requires_grad]
    if s.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, s.lr, s.momentum, weight_decay=s.weight_decay)
    else:
        optimizer = torch.optim.Adam(parameters, s.lr, s.betas, s.eps, s.weight_decay)
    optimizer.param_groups[0]["taken"] = 0
    optimizer.register_step_post_hook(_count)

    def set_rates(_: Progress) -> None:
        group = optimizer.param_groups[0]
        group["lr"] = s.lr * warmup(group["taken"] + 1, s.warmup_steps)

    return Optimisation(optimizer, set_rates, None if s.ema is None else _Average(objective, s.ema))


class _Average(AveragedModel):
    """The running average of an objective's weights, and of its norms' statistics."""

    def __init__(self, objective: nn.Module, decay: float) -> None:
        super().__init__(objective, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def update(self, model: nn.Module) -> None:
        """Take a step towards the weights as they are."""
        self.update_parameters(model)


def warmup(step: int, steps: int) -> float:
    """The share of the full rate in step `step`, counted from 1, with a warm-up of so many steps.

    >>> warmup(1, 4), warmup(4, 4), warmup(16, 4), warmup(16, 0)
    (0.25, 1.0, 0.5, 1.0)
    """
    return min(step / steps, (steps / step) ** 0.5) if steps else 1.0


def _count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    optimizer.param_groups[0]["taken"] += 1
