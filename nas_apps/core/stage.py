"""The stages of a search that narrows its space as it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from nas_apps.core.bounds import POSITIVE, TWO, bounded
from nas_apps.core.parts.wiring import Wiring


@dataclass(frozen=True)
class Stage:
    """A part of a search; the stages of a search share its epochs evenly, and in each one progress starts anew.

    keep: how many options of each row are left, the heaviest of the stage before; None for all. deeper: how many times
    as many cells the super-net has as the recipe says, for tasks whose network settings have `deeper`. wiring: in place
    of the method's. inherit: logits and weights go on from the stage before, those that are still there and of the same
    shape; otherwise they start anew.
    """

    keep: int | None = None
    deeper: float = 1.0
    wiring: Wiring | None = None
    inherit: bool = False

    def __post_init__(self) -> None:
        bounded(self, TWO, "keep")
        bounded(self, POSITIVE, "deeper")
