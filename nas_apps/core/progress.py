"""Where a run stands, and the values that depend on it alone.

Rates, temperatures and radii are functions of progress. Nothing counts epochs by itself, so a resumed run cannot
disagree with an unbroken one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """Epoch `epoch` of `epochs`, counted from 0. `float(progress)` is `epoch / epochs`, in [0, 1)."""

    epoch: int
    epochs: int

    def __float__(self) -> float:
        return self.epoch / max(self.epochs, 1)

    @property
    def to_last(self) -> float:
        """The fraction that reaches 1 in the last epoch: `epoch / (epochs - 1)`."""
        return self.epoch / max(self.epochs - 1, 1)


DONE = Progress(1, 1)
"""The end of a run: `float(DONE)` is 1."""


@dataclass(frozen=True)
class Ramp:
    """A value that moves from `start` to `end` over a run.

    `reach` says when `end` is met: one epoch after the last (`never`, the usual e / E), or in the last epoch (`last`,
    e / (E - 1)).

    >>> Ramp(10.0, 0.1, reach="last")(Progress(249, 250))
    0.1
    >>> Ramp(0.0, 0.2)(Progress(25, 50))
    0.1
    """

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"
    reach: Literal["never", "last"] = "never"

    def __call__(self, progress: Progress) -> float:
        t = progress.to_last if self.reach == "last" else float(progress)
        if self.shape == "cosine":
            t = (1 - math.cos(math.pi * t)) / 2
        return (1 - t) * self.start + t * self.end


def value(setting: float | Ramp, progress: Progress) -> float:
    """The number a setting stands for at this point of the run."""
    return setting(progress) if isinstance(setting, Ramp) else setting
