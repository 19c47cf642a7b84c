"""What a method adds to the losses of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.parts.distill import Distill
from nas_apps.core.parts.penalty import Penalty, Seen, total
from nas_apps.core.parts.perturb import Perturbation
from nas_apps.core.price import Price
from nas_apps.core.progress import Progress
from nas_apps.core.seeds import mix
from nas_apps.core.space import decided
from nas_apps.core.task import Outcome


@dataclass(frozen=True)
class Extras:
    """The parts of a method beside its schedule; none of them in a final training.

    perturb: moves the mixing weights before a weight step. penalties: on the logits. distill: what sub-graphs learn
    from the super-net. prices: by what is priced, the cost of the network that tables of weights stand for.
    """

    perturb: Perturbation | None = None
    penalties: tuple[Penalty, ...] = ()
    distill: Distill | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)

    def penalty(self, arch: Arch, progress: Progress, step: int) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The sum of the penalties, None where there is nothing to add; and each by its name. step: of the logits."""
        if not self.penalties:
            return None, {}
        seen = Seen(
            {n: arch.logits[n] for n, c in decided(arch.space).items() if arch.relax[c.kind] == arch.relax["op"]},
            arch.means(progress),
            progress,
            self.prices,
            torch.Generator().manual_seed(mix(arch.seed, 4, step)),
            {n: (arch.logits[n], c.parents) for n, c in arch.space.items() if c.parents is not None},
        )
        whole, parts = total(self.penalties, seen)
        return whole, {f"penalty/{name}": y.detach() for name, y in parts.items()}

    def guided(self, outcome: Outcome, teacher: Tensor | None, progress: Progress) -> Tensor:
        """The loss of a sub-graph that also learns from a teacher, where there is one."""
        if teacher is None or self.distill is None:
            return outcome.loss
        return outcome.loss + self.distill(outcome.output, teacher, progress)
