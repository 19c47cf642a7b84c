"""What the sub-graphs of a super-net learn from the whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nas_apps.core.bounds import NOT_NEGATIVE, POSITIVE, bounded
from nas_apps.core.progress import Progress, Ramp, value


@dataclass(frozen=True)
class Distill:
    """In the steps of the weights, each sub-graph also learns what the super-net under its expected weights says, which
    is computed once for a batch and without a graph, in training mode like them: it normalises by the batch, and drops
    what they drop (arXiv:2107.04324, a reconstruction from its abstract).

    Adds weight * T^2 * KL(teacher / T || student / T), over the classes in the last dimension of `Outcome.output`.
    """

    weight: float | Ramp = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "weight")
        bounded(self, POSITIVE, "temperature")

    def on(self, progress: Progress) -> bool:
        """Whether there is anything to add at this point of the run."""
        return value(self.weight, progress) > 0

    def __call__(self, student: Tensor, teacher: Tensor, progress: Progress) -> Tensor:
        log_p, log_q = ((x.float() / self.temperature).log_softmax(-1) for x in (teacher, student))
        apart = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
        return value(self.weight, progress) * self.temperature**2 * apart
