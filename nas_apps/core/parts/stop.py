"""When a search ends before its last epoch, and with the cell of which epoch.

A rule is called as `rule(history, space)` at the end of each epoch but the last. `history` has an entry an epoch, the
oldest first: `epoch`, `weights` (the expected weights `[R, O]` of each choice, as nested lists), and the figures of
`core/diagnosis.py` by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from nas_apps.core.bounds import COUNT, NOT_NEGATIVE, POSITIVE, bounded
from nas_apps.core.space import Space, decided

EIGENVALUE = "diagnosis/eigenvalue"
SKIPS = "diagnosis/skips/"

History = Sequence[Mapping[str, Any]]


class Verdict(NamedTuple):
    """The search is over. at: the epoch it ends after. epoch: the one whose cell it ends with. reason: what was seen,
    in words."""

    at: int
    epoch: int
    reason: str


class StopRule(Protocol):
    """Looks at a search so far."""

    def __call__(self, history: History, space: Space) -> Verdict | None:
        """A verdict when the search is to end here."""
        ...


@dataclass(frozen=True)
class Never:
    """The search ends with its last epoch.

    >>> Never()([], {}) is None
    True
    """

    def __call__(self, history: History, space: Space) -> Verdict | None:
        return None


@dataclass(frozen=True)
class EigenvalueStop:
    """Stop when the dominant eigenvalue of the validation loss in the logits grows fast, and go back to the cell from
    before it did (arXiv:1909.09656, algorithm 1, as in the code of the paper).

    The mean of the last `window` eigenvalues, one every `every` epochs, is compared with the mean `delta` eigenvalues
    earlier; a ratio above `factor` ends the search, from the epoch on at which the cell would be that of epoch `start`.
    The paper compares values 5 epochs apart, with a ratio of 1 / 0.75.

    adapt: with a number, the search does not end: it goes on from the epoch it would have returned, with the weights'
    weight decay times `adapt`, up to `cap`; once there it is not stopped again (DARTS-ADA).

    >>> history = [{"epoch": e, EIGENVALUE: 0.1 * 1.1 ** max(e - 20, 0)} for e in range(29)]
    >>> EigenvalueStop()(history, {}).epoch
    16
    """

    every: int = 2
    window: int = 5
    factor: float = 1.3
    delta: int = 4
    start: int = 10
    adapt: float | None = None
    cap: float = 243e-4

    def __post_init__(self) -> None:
        bounded(self, COUNT, "every", "window", "delta")
        bounded(self, NOT_NEGATIVE, "start")
        bounded(self, POSITIVE, "factor", "cap")
        if self.adapt is not None and self.adapt <= 1:
            raise ValueError(f"adapt: got {self.adapt}; allowed: more than 1, or null")

    @property
    def reach(self) -> int:
        """How many epochs back the returned cell is."""
        return self.every * (self.window // 2 + self.delta)

    def returns(self, decays: Sequence[float]) -> int:
        """How often a search with these weight decays can be sent back yet."""
        times, below = 0, [decay for decay in decays if 0 < decay < self.cap]
        while self.adapt is not None and below:
            times, below = times + 1, [decay * self.adapt for decay in below if decay * self.adapt < self.cap]
        return times

    def __call__(self, history: History, space: Space) -> Verdict | None:
        seen = [entry for entry in history if EIGENVALUE in entry and entry["epoch"] % self.every == 0]
        if not seen or seen[-1] is not history[-1] or len(seen) - self.delta < (self.window + 1) // 2:
            return None
        at = int(seen[-1]["epoch"])
        back = at - self.reach
        values = [float(entry[EIGENVALUE]) for entry in seen]
        now, before = _mean(values[-self.window :]), _mean(values[: -self.delta][-self.window :])
        if back < self.start or before == 0 or not now / before > self.factor:
            return None
        reason = f"the mean dominant eigenvalue grew from {before:.4g} to {now:.4g} in {self.delta * self.every} epochs"
        return Verdict(at, back, reason)


@dataclass(frozen=True)
class SkipCount:
    """Stop when the cell derived now has `skips` skip connections (arXiv:1909.06035, criterion 1).

    Only the first cell of the space counts, which is the normal one. The cell returned is that of this epoch: our
    reading. Logits that rest (a warm-up) stop nothing.

    >>> history = [{"epoch": e, "weights": {"normal.op": [[e]]}, SKIPS + "normal.op": e} for e in range(3)]
    >>> SkipCount()(history, {}).reason
    'normal.op: 2 skip connections'
    """

    skips: int = 2

    def __post_init__(self) -> None:
        bounded(self, COUNT, "skips")

    def __call__(self, history: History, space: Space) -> Verdict | None:
        name = next((name for name in history[-1] if name.startswith(SKIPS)), None) if history else None
        if name is None or history[-1][name] < self.skips or not _moves(history[-2:]):
            return None
        at = int(history[-1]["epoch"])
        return Verdict(at, at, f"{name.removeprefix(SKIPS)}: {history[-1][name]:.0f} skip connections")


@dataclass(frozen=True)
class RankStability:
    """Stop when the ranking of the learnable options of every row was the same for `epochs` epochs (arXiv:1909.06035,
    criterion 2). Logits that rest (a warm-up) stop nothing, nor does a space without two learnable options in a row.

    fixed: the options that have nothing to learn, and are not ranked.

    >>> from nas_apps.core.space import Choice
    >>> history = [{"epoch": e, "weights": {"a": [[0.6 + e / 100, 0.4]]}} for e in range(11)]
    >>> RankStability()(history, {"a": Choice((("conv", "linear"),))}).epoch
    10
    """

    epochs: int = 10
    fixed: tuple[str, ...] = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "noise")

    def __post_init__(self) -> None:
        bounded(self, COUNT, "epochs")

    def __call__(self, history: History, space: Space) -> Verdict | None:
        recent = history[-self.epochs - 1 :]
        if len(recent) <= self.epochs or not _moves(recent):
            return None
        first, *later = (self._ranking(entry["weights"], space) for entry in recent)
        if all(len(row) < 2 for row in first) or any(ranking != first for ranking in later):
            return None
        at = int(history[-1]["epoch"])
        return Verdict(at, at, f"the ranking of the learnable options was the same for {self.epochs} epochs")

    def _ranking(self, weights: Mapping[str, list[list[float]]], space: Space) -> list[list[str]]:
        return [
            sorted((o for o in options if o not in self.fixed), key=lambda o: -row[options.index(o)])
            for name, choice in decided(space).items()
            for options, row in zip(choice.rows, weights[name], strict=True)
        ]


def _moves(history: History) -> bool:
    """Whether the logits moved from each epoch to the next."""
    tables = [entry.get("weights") for entry in history]
    return len(tables) > 1 and all(a != b for a, b in zip(tables, tables[1:], strict=False))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


STOPS: dict[str, type[StopRule]] = {
    "never": Never,
    "eigenvalue": EigenvalueStop,
    "skip_count": SkipCount,
    "rank_stability": RankStability,
}
