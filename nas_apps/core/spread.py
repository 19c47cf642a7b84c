"""Mean and spread of independent values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from nas_apps.core.drawing.page_text import SHARES, short


class Spread(NamedTuple):
    """Of independent values: how many, their mean, and their sample standard deviation if there are two or more."""

    number: int
    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """
        >>> Spread.of([1.0, 2.0, 3.0]), Spread.of([4.0]), Spread.of([])
        (Spread(number=3, mean=2.0, deviation=1.0), Spread(number=1, mean=4.0, deviation=None), None)
        """
        if not values:
            return None
        number, mean = len(values), math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(number, mean, math.sqrt(squares / (number - 1)) if number > 1 else None)

    def text(self, name: str) -> str:
        """Mean and deviation, in the unit that the name of the figure speaks of.

        >>> Spread(2, 0.9712, 0.0041).text("accuracy"), Spread(1, 3000.0, None).text("params")
        ('97.12 \u00b1 0.41 %', '3,000 \u00b1 -')
        """
        if SHARES.search(name) and 0 <= self.mean <= 1.5:
            spread = "-" if self.deviation is None else f"{100 * self.deviation:.2f}"
            return f"{100 * self.mean:.2f} \u00b1 {spread} %"
        return f"{short(name, self.mean)} \u00b1 {'-' if self.deviation is None else short(name, self.deviation)}"
