"""Who learns from which batch, and in what order.

A schedule is called once a step as `schedule(learner, streams)` and returns stats to log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from nas_apps.core.bounds import COUNT, POSITIVE, SHARE, bounded
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
    arXiv:1910.04465. every: steps of the weights to one of the logits (arXiv:1812.00332).

    samples: independent draws of each step, run one after the other, so that memory is that of one; the logits step
    with the mean of their gradients, the weights with their sum or mean (arXiv:2011.11233, eq. 11 and 12). jointly: how
    many draws of a weight step are held in memory at a time.

    >>> FirstOrder(warmup=0.3).bilevel
    True
    """

    warmup: float = 0.0
    weights_first: bool = False
    every: int = 1
    samples: int = 1
    weight_gradients: Literal["sum", "mean"] = "mean"
    jointly: int = 1

    bilevel = True
    searches = True

    def __post_init__(self) -> None:
        bounded(self, SHARE, "warmup")
        bounded(self, COUNT, "every", "samples", "jointly")

    def __call__(self, learner: Learner, streams: Streams) -> Stats:
        turn = streams.train.cycle % self.every == 0
        stats: dict[str, Tensor] = {}
        if self.weights_first:
            stats |= self._weights(learner, streams)
        if turn and float(learner.progress) >= self.warmup:
            pulled = learner.pull(streams.valid, use=VALID, samples=self.samples, learn=True)
            grads, seen = learner.arch_gradients(*pulled)
            stats |= {**learner.arch_step(grads), **seen}
        if not self.weights_first:
            stats |= self._weights(learner, streams)
        return stats

    def _weights(self, learner: Learner, streams: Streams) -> Stats:
        batch, draws = learner.pull(streams.train, use=TRAIN, samples=self.samples)
        return learner.weight_step(batch, draws, sums=self.weight_gradients == "sum", jointly=self.jointly)


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
            stats |= {**learner.arch_step(grads), **seen}
        # the same noise under the logits as they are now
        draws = learner.arch.draws(learner.progress, cycle=cycle, use=TRAIN)
        return {**stats, **learner.weight_step(train[0], draws)}


@dataclass(frozen=True)
class Joint:
    """Weights and logits step at once, with the gradients of one pass over one training batch (arXiv:2108.08128).

    No validation batch is consumed, so the whole training set is there for both. one_norm: the bound on the norm of the
    weights' gradient, `search.clip`, is on weights and logits as one vector (arXiv:2106.02229).

    >>> Joint().bilevel
    False
    """

    one_norm: bool = False

    bilevel = False
    searches = True

    def __call__(self, learner: Learner, streams: Streams) -> Stats:
        return learner.joint_step(*learner.pull(streams.train, use=TRAIN, learn=True), one_norm=self.one_norm)


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
