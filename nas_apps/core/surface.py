"""Looks at a loss that leave no trace: under other mixing weights, and under other weights of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

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
def replaced(objective: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other weights in place of an objective's, and copies in place of its buffers: running statistics stay."""
    buffers = {name: b.clone() for name, b in objective.named_buffers()}
    # Not functional_call: its weights are gone when it returns, and a checkpointed cell runs again in the backward.
    with _reparametrize_module(objective, {**weights, **buffers}):
        yield
