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


@dataclass(frozen=True)
class Span:
    """Epochs `first` to `last` - 1 of a run, in which progress is counted anew; `whole`: the epochs over which learning
    rates run all the same, where they do not begin anew too.

    >>> Span(25, 50).at(30), Span(25, 50, whole=50).rates(30)
    (Progress(epoch=5, epochs=25), Progress(epoch=30, epochs=50))
    """

    first: int
    last: int
    whole: int | None = None

    def at(self, epoch: int) -> Progress:
        """Where epoch `epoch` of the run stands in the span."""
        return Progress(epoch - self.first, self.last - self.first)

    def rates(self, epoch: int) -> Progress:
        """Where it stands for learning rates."""
        return self.at(epoch) if self.whole is None else Progress(epoch, self.whole)


DONE = Progress(1, 1)
"""The end of a run: `float(DONE)` is 1."""


@dataclass(frozen=True)
class Ramp:
    """A value that moves from `start` to `end` over a run.

    `reach` says when `end` is met: one epoch after the last (`never`, the usual e / E), or in the last epoch (`last`,
    e / (E - 1)). `begin`, `finish`: shares of the run between which it moves.

    >>> Ramp(10.0, 0.1, reach="last")(Progress(249, 250))
    0.1
    >>> Ramp(0.0, 0.2)(Progress(25, 50))
    0.1
    >>> [Ramp(0.0, 1.0, begin=0.25, finish=0.75)(Progress(epoch, 4)) for epoch in range(4)]
    [0.0, 0.0, 0.5, 1.0]
    """

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"
    reach: Literal["never", "last"] = "never"
    begin: float = 0.0
    finish: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.finish <= 1:
            raise ValueError(f"begin, finish: got {self.begin} and {self.finish}; allowed: 0 to 1, in order")

    def __call__(self, progress: Progress) -> float:
        t = progress.to_last if self.reach == "last" else float(progress)
        t = min(max(t - self.begin, 0.0) / (self.finish - self.begin), 1.0)
        if self.shape == "cosine":
            t = (1 - math.cos(math.pi * t)) / 2
        return (1 - t) * self.start + t * self.end


def value(setting: float | Ramp, progress: Progress) -> float:
    """The number a setting stands for at this point of the run."""
    return setting(progress) if isinstance(setting, Ramp) else setting
