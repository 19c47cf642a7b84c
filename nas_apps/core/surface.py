"""The training loss as a function of the mixing weights: what perturbations look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas_apps.core.arch import Draw, Tables
from nas_apps.core.space import decided
from nas_apps.core.task import Batch

if TYPE_CHECKING:
    from nas_apps.core.learner import Learner


class LossSurface:
    """The loss of one batch under other mixing weights than those of a draw, in evaluation mode and over all ranks.

    Inside its `with` block no running statistic, no random state and no gradient of the learner changes; after it, also
    when it ends in an exception, the objective is in training mode again.
    """

    def __init__(self, learner: Learner, batch: Batch, draw: Draw) -> None:
        self._learner, self._batch, self._draw = learner, batch, draw
        self._undo = ExitStack()
        self.tables = {name: draw.weights[name].detach() for name in decided(learner.arch.space)}

    def __enter__(self) -> LossSurface:
        cuda = self._learner.runtime.device.type == "cuda"
        self._undo.enter_context(torch.random.fork_rng([self._learner.runtime.device] if cuda else []))
        self._undo.callback(self._learner.objective.train)
        self._learner.objective.eval()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def loss(self, tables: Mapping[str, Tensor]) -> float:
        """The loss under these weights."""
        with torch.no_grad(), self._learner.loss(self._batch, self._draw.at(tables)) as outcome:
            return float(self._learner.runtime.means({"loss": outcome.loss}, outcome.weight)["loss"])

    def slopes(self, tables: Mapping[str, Tensor]) -> Tables:
        """d loss / d each table."""
        with self._learner.loss(self._batch, self._draw.at(tables).leaf()) as outcome:
            found = {name: slope for name, slope in self._learner.slopes(outcome.loss).items() if name in tables}
        self._learner.runtime.average_(list(found.values()), outcome.weight)
        return found


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Running statistics and other buffers are after the block what they were before it."""
    buffers = list(module.buffers())
    before = [b.clone() for b in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for b, old in zip(buffers, before, strict=True):
                b.copy_(old)
