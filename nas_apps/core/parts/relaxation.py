"""What a relaxation is: how logits become mixing weights."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from nas_apps.core.progress import DONE, Progress


class Relaxation(Protocol):
    """The base of relaxations, called as `relax(logits, progress, rng)`.

    `sparse`: weights can be exactly zero, so that operations can be left out. `noisy`: two draws differ. `simplex`: the
    weights of a row sum to 1.
    """

    sparse: ClassVar[bool] = False
    noisy: ClassVar[bool] = False
    simplex: ClassVar[bool] = True

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        """Weights `[R, O]` from logits `[R, O]`; noise comes from `rng`, a generator of the CPU."""
        ...

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        """The expected weights `[R, O]`, differentiable: what is logged and priced."""
        return logits.softmax(-1)

    def gates(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The weights under which the logits learn; and, of the options that are not run, which get a gradient all the
        same (a mask `[R, O]`)."""
        return self(logits, progress, rng), None

    def scores(self, logits: Tensor) -> Tensor:
        """What an architecture is derived from, `[R, O]`: the expected weights, and where those can be exactly 0, what
        tells apart all that are."""
        return self.mean(logits, DONE)

    def settle(self, before: Tensor, after: Tensor, progress: Progress) -> None:
        """Change the logits `after` a step, given those `before` it."""
        return
