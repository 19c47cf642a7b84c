"""Who learns from which batch, and in what order.

A schedule is called once a step as `schedule(learner, streams)` and returns stats to log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from nas_apps.core.bounds import POSITIVE, SHARE, bounded
from nas_apps.core.hypergrad import LookAhead
from nas_apps.core.learner import Learner, Stats
from nas_apps.core.task import Streams

TRAIN, VALID = 0, 1  # uses of a draw: the noise of the two streams is independent


class Schedule(Protocol):
    """`bilevel`: whether the architecture learns from data of its own; `searches`: whether there are steps at all."""

    @property
    def bilevel(self) -> bool: ...

    @property
    def searches(self) -> bool: ...

    def __call__(self, learner: Learner, streams: Streams) -> Stats: ...


@dataclass(frozen=True)
class WeightsOnly:
    """The weights learn and the logits stay: final training.

    >>> WeightsOnly().bilevel
    False
    """

    bilevel = False
    searches = True

    def __call__(self, learner: Learner, streams: Streams) -> Stats:
        return learner.weight_step(*learner.pull(streams.train, use=TRAIN))


@dataclass(frozen=True)
class FirstOrder:
    """The logits step on a validation batch, the weights on a training batch (arXiv:1806.09055 with xi = 0).

    warmup: share of the run in which the logits stay (15 of 50 epochs in arXiv:1907.05737). weights_first: the order of
    arXiv:1910.04465.

    >>> FirstOrder(warmup=0.3).bilevel
    True
    """

    warmup: float = 0.0
    weights_first: bool = False

    bilevel = True
    searches = True

    def __post_init__(self) -> None:
        bounded(self, SHARE, "warmup")

    def __call__(self, learner: Learner, streams: Streams) -> Stats:
        stats: dict[str, Tensor] = {}
        if self.weights_first:
            stats |= learner.weight_step(*learner.pull(streams.train, use=TRAIN))
        if float(learner.progress) >= self.warmup:
            grads, seen = learner.arch_gradients(*learner.pull(streams.valid, use=VALID))
            learner.arch_step(grads)
            stats |= seen
        if not self.weights_first:
            stats |= learner.weight_step(*learner.pull(streams.train, use=TRAIN))
        return stats


@dataclass(frozen=True)
class Unrolled:
    """The logits step on the validation loss after a look-ahead step of the weights on the training batch, with which
    the weights then step (arXiv:1806.09055, eq. 5 to 8).

    exact: the second derivative by a second backward; otherwise the paper's central difference, of radius `difference`
    over the norm of the gradient. Unlike the paper, exact is the default where the loss allows it: at the paper's 0.01
    the difference is far off on networks with ReLU.

    >>> Unrolled(exact=False).difference
    0.01
    """

    exact: bool = True
    difference: float = 0.01
    warmup: float = 0.0

    bilevel = True
    searches = True

    def __post_init__(self) -> None:
        bounded(self, POSITIVE, "difference")
        bounded(self, SHARE, "warmup")

    def __call__(self, learner: Learner, streams: Streams) -> Stats:
        cycle, train = streams.train.cycle, learner.pull(streams.train, use=TRAIN)
        stats: dict[str, Tensor] = {}
        if float(learner.progress) >= self.warmup:
            look = LookAhead(None if self.exact else self.difference)
            grads, seen = look(learner, train, learner.pull(streams.valid, use=VALID))
            learner.arch_step(grads)
            stats |= seen
        draw = learner.arch.draw(
            learner.progress, cycle=cycle, use=TRAIN
        )  # the same noise under the logits as they are now
        return {**stats, **learner.weight_step(train[0], draw)}


@dataclass(frozen=True)
class Joint:
    """Weights and logits step at once, with the gradients of one pass over one training batch (arXiv:2108.08128).

    No validation batch is consumed, so the whole training set is there for both.

    >>> Joint().bilevel
    False
    """

    bilevel = False
    searches = True

    def __call__(self, learner: Learner, streams: Streams) -> Stats:
        return learner.joint_step(*learner.pull(streams.train, use=TRAIN))


@dataclass(frozen=True)
class NoSearch:
    """No step is taken: for a method that draws its architecture without looking at data.

    >>> NoSearch().searches
    False
    """

    bilevel = False
    searches = False

    def __call__(self, learner: Learner, streams: Streams) -> Stats:
        return {}


SCHEDULES: dict[str, type[Schedule]] = {
    "first_order": FirstOrder,
    "joint": Joint,
    "no_search": NoSearch,
    "unrolled": Unrolled,
    "weights_only": WeightsOnly,
}
