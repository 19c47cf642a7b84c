"""What the weights of a network are trained under instead of the mixing weights in force.

A perturbation is called once for each weight step as `perturb(tables, surface, progress, rng)` with the mixing weights
of each choice `[R, O]`, rows on the simplex, and returns others. Logits are neither read nor changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nas_apps.core.bounds import COUNT, NOT_NEGATIVE, POSITIVE, bounded
from nas_apps.core.parts.noise import uniform
from nas_apps.core.progress import Progress, Ramp, value

Tables = Mapping[str, Tensor]


class Surface(Protocol):
    """The loss of the training batch as a function of the mixing weights: in evaluation mode, over all ranks."""

    def loss(self, tables: Tables) -> float: ...

    def slopes(self, tables: Tables) -> Tables:
        """d loss / d each table."""
        ...


class Perturbation(Protocol):
    """Moves mixing weights."""

    def __call__(self, tables: Tables, surface: Surface, progress: Progress, rng: torch.Generator) -> Tables: ...


@dataclass(frozen=True)
class RandomSmoothing:
    """Uniform noise of at most epsilon on every weight, then back to the simplex: SDARTS-RS (arXiv:2002.05283, eq. 7).

    >>> clip_rows(torch.tensor([[0.5, 0.75, -0.5]]))
    tensor([[0.4000, 0.6000, 0.0000]])
    """

    epsilon: float | Ramp = Ramp(0.03, 0.3)

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "epsilon")

    def __call__(self, tables: Tables, surface: Surface, progress: Progress, rng: torch.Generator) -> Tables:
        epsilon = value(self.epsilon, progress)
        return _shaken(tables, epsilon, rng) if epsilon else tables


@dataclass(frozen=True)
class Adversarial:
    """The weights near those in force under which the training loss is highest, by projected gradient ascent of `steps`
    steps of 2 epsilon / steps: SDARTS-ADV (arXiv:2002.05283, eq. 8).

    After each step the distance is cut to epsilon, and then rows go back to the simplex, which may leave the ball a
    little (as in the code of the paper). What does not raise the loss is not used.
    """

    epsilon: float | Ramp = Ramp(0.03, 0.3)
    steps: int = 7
    random_start: bool = True

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "epsilon")
        bounded(self, COUNT, "steps")

    def __call__(self, tables: Tables, surface: Surface, progress: Progress, rng: torch.Generator) -> Tables:
        epsilon = value(self.epsilon, progress)
        if not epsilon:
            return tables
        found = _shaken(tables, epsilon, rng) if self.random_start else dict(tables)
        for _ in range(self.steps):
            slopes = surface.slopes(found)
            for name, table in tables.items():
                moved = found[name] + (2 * epsilon / self.steps) * slopes[name].sign()
                found[name] = clip_rows(table + (moved - table).clamp(-epsilon, epsilon))
        return found if surface.loss(found) >= surface.loss(tables) else tables


@dataclass(frozen=True)
class MeanShift:
    """Weights moved by mean shift among `samples` neighbours, each weighed by its training loss: MS-DARTS
    (arXiv:2108.09996), after the code that presents itself as the paper's.

    A neighbour's loss is that of its rows put back on the simplex, its place the one before that; the result is not put
    back. towards: "loss" weighs neighbours of higher loss more, as the code does; "fit" those of lower loss.
    bandwidth: of the Gaussian kernel over the distance of whole tables.
    """

    epsilon: float | Ramp = Ramp(0.025, 0.25)
    samples: int = 3
    steps: int = 2
    bandwidth: float = 1.0
    towards: Literal["loss", "fit"] = "loss"

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "epsilon")
        bounded(self, COUNT, "samples", "steps")
        bounded(self, POSITIVE, "bandwidth")

    def __call__(self, tables: Tables, surface: Surface, progress: Progress, rng: torch.Generator) -> Tables:
        epsilon = value(self.epsilon, progress)
        for _ in range(self.steps if epsilon else 0):
            near = [{n: t + uniform(t, epsilon, rng) for n, t in tables.items()} for _ in range(self.samples)]
            losses = [surface.loss({name: clip_rows(table) for name, table in x.items()}) for x in near]
            tables = {n: self.shift(t, torch.stack([x[n] for x in near]), losses) for n, t in tables.items()}
        return tables

    def shift(self, table: Tensor, near: Tensor, losses: list[float]) -> Tensor:
        """One step of mean shift of a table `[R, O]` among its neighbours `[N, R, O]`."""
        heights = torch.tensor(losses, dtype=torch.float64, device=table.device)
        distance = (table - clip_rows(near)).double().square().sum((1, 2))
        # One softmax, in which the factor of the kernel cancels: a small kernel does not vanish, and N = 1 is exact.
        kernel = -0.5 * distance / self.bandwidth**2
        mass = (kernel + (heights if self.towards == "loss" else -heights)).softmax(0).to(table)
        return (mass[:, None, None] * near).sum(0)


def clip_rows(table: Tensor) -> Tensor:
    """Rows back on the simplex: cut to [0, 1], and divided by their sum; a row without any mass puts it where its
    largest entry was."""
    cut = table.clamp(0, 1)
    total = cut.sum(-1, keepdim=True)
    top = torch.zeros_like(cut).scatter_(-1, table.argmax(-1, keepdim=True), 1.0)
    return torch.where(total > 0, cut / total.clamp_min(1e-30), top)


def _shaken(tables: Tables, epsilon: float, rng: torch.Generator) -> dict[str, Tensor]:
    return {name: clip_rows(table + uniform(table, epsilon, rng)) for name, table in tables.items()}


PERTURBATIONS: dict[str, type[Perturbation]] = {
    "adversarial": Adversarial,
    "mean_shift": MeanShift,
    "random_smoothing": RandomSmoothing,
}
