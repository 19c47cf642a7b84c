"""Bounds on the numbers of settings, checked where the settings are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nas_apps.core.progress import Ramp


class Bound(NamedTuple):
    """What a number has to be, and how a user is told."""

    holds: Callable[[float], bool]
    words: str


NOT_NEGATIVE = Bound(lambda number: number >= 0, "0 and more")
POSITIVE = Bound(lambda number: number > 0, "more than 0")
COUNT = Bound(lambda number: number >= 1, "1 and more")
TWO = Bound(lambda number: number >= 2, "2 and more")
SHARE = Bound(lambda number: 0 <= number <= 1, "0 to 1")
BELOW_ONE = Bound(lambda number: 0 <= number < 1, "0 and more, less than 1")


def bounded(settings: object, bound: Bound, *names: str) -> None:
    """Refuse settings of which a number is out of bounds; what is not given, is not a number.

    >>> bounded(Ramp(0.0, 2.0), SHARE, "start", "end")
    Traceback (most recent call last):
    ValueError: end: got 2.0; allowed: 0 to 1
    """
    for name in names:
        for number in _numbers(getattr(settings, name)):
            if not bound.holds(number):
                raise ValueError(f"{name}: got {number}; allowed: {bound.words}")


def _numbers(value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    if isinstance(value, Ramp):
        return value.start, value.end
    return value if isinstance(value, tuple) else (value,)
