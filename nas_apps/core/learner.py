"""An objective and its architecture, with an optimiser for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas_apps.core.arch import Arch, Draw
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.task import Batch, Optimisation, Outcome, Stream

Stats = Mapping[str, Tensor]


class Learner:
    """What a schedule works with: pulls batches, takes gradients, steps the two optimisers.

    Gradients and stats are means over all ranks, weighted by the items each saw. The final training, dense and of the
    weights alone, runs in DistributedDataParallel, whose mean is over equal shares; a search cannot (it does not work
    with `torch.autograd.grad`).
    """

    def __init__(
        self, objective: nn.Module, arch: Arch, optimisation: Optimisation, phase: Phase, runtime: Runtime
    ) -> None:
        self.objective, self.arch, self.phase, self.runtime = objective, arch, phase, runtime
        self.optimizer, self.average = optimisation.optimizer, optimisation.average
        self._set_rates = optimisation.set_rates
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.logits = list(arch.logits.values())
        settings = phase.logits
        self.logit_optimizer = torch.optim.Adam(
            self.logits or [torch.zeros(0)], lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self._wrapped = phase.name == "train" and runtime.world > 1
        self._forward = DistributedDataParallel(objective, static_graph=True) if self._wrapped else objective
        self.progress = Progress(0, 1)

    def begin(self, progress: Progress) -> None:
        """Enter a step at this point of the run."""
        self.progress = progress
        self._set_rates(progress)
        if not self.objective.training:  # evaluation sets the mode of the whole; the walk through it is not free
            self.objective.train()

    def pull(self, stream: Stream, *, use: int) -> tuple[Batch, Draw]:
        """The next batch of a stream, pulled under the draw of its cycle, and that draw."""
        draw = self.arch.draw(self.progress, cycle=stream.cycle, use=use)
        with self.arch.using(draw):
            return next(stream), draw

    @contextmanager
    def loss(self, batch: Batch, draw: Draw) -> Iterator[Outcome]:
        """The outcome of a batch, inside the draw: differentiate it inside the block."""
        with self.arch.using(draw):
            with self.runtime.autocast():
                outcome = self._forward(batch)
            yield outcome

    def weight_step(self, batch: Batch, draw: Draw) -> Stats:
        """One step of the weights under a draw; the logits get no gradient."""
        with self._weight_gradients(batch, draw.detach()) as outcome:
            outcome.loss.backward()  # type: ignore[no-untyped-call]
        self._step_weights(outcome)
        return self.stats("train", outcome)

    def joint_step(self, batch: Batch, draw: Draw) -> Stats:
        """One forward and one backward; then both optimisers step with those gradients (arXiv:2108.08128)."""
        for p in self.logits:
            p.grad = None
        with self._weight_gradients(batch, draw) as outcome:
            outcome.loss.backward()  # type: ignore[no-untyped-call]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.logits]
        self.runtime.average_(grads, outcome.weight)
        self._step_weights(outcome)
        self.arch_step(grads)
        return self.stats("train", outcome)

    def arch_gradients(self, batch: Batch, draw: Draw) -> tuple[list[Tensor], Stats]:
        """The gradient of a batch's loss with respect to the logits, the weights held (first order)."""
        with self.loss(batch, draw) as outcome:
            grads = gradients(outcome.loss, self.logits)
        self.runtime.average_(grads, outcome.weight)
        return grads, self.stats("valid", outcome)

    def arch_step(self, grads: Sequence[Tensor]) -> None:
        """Step the logits with these gradients."""
        for p, grad in zip(self.logits, grads, strict=True):
            p.grad = grad
        if self.phase.logits.clip is not None:
            nn.utils.clip_grad_norm_(self.logits, self.phase.logits.clip)
        self.logit_optimizer.step()
        for p in self.logits:
            p.grad = None

    @contextmanager
    def _weight_gradients(self, batch: Batch, draw: Draw) -> Iterator[Outcome]:
        self.optimizer.zero_grad(set_to_none=True)  # an operation that did not run keeps no gradient, and takes no step
        with self.loss(batch, draw) as outcome:
            yield outcome

    def _step_weights(self, outcome: Outcome) -> None:
        if not self._wrapped:
            self.runtime.average_([p.grad for p in self.parameters if p.grad is not None], outcome.weight)
        if self.phase.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.phase.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.objective)

    def stats(self, stream: str, outcome: Outcome) -> Stats:
        """Loss and stats of an outcome over all ranks, named after their stream."""
        stats = self.runtime.means({"loss": outcome.loss, **outcome.stats}, outcome.weight)
        return {f"{stream}/{name}": value for name, value in stats.items()}

    def settle(self) -> None:
        """Make the running statistics of norms the means over all ranks: what is evaluated and saved is one network."""
        modules = [self.objective] if self.average is None else [self.objective, self.average.module]
        with torch.no_grad():
            self.runtime.average_([b for m in modules for b in m.buffers() if b.is_floating_point()], 1.0)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the running average where there is one."""
        return self.objective if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """All that the learner learned."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` was."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "objective": self.objective,
            "arch": self.arch,
            "optimizer": self.optimizer,
            "logits": self.logit_optimizer,
        }
        return parts if self.average is None else parts | {"average": self.average}


def gradients(loss: Tensor, wrt: Sequence[Tensor], *, create_graph: bool = False, again: bool = False) -> list[Tensor]:
    """d loss / d each of `wrt`; zeros for what the loss does not depend on. `again`: the graph, or that of the draw it
    shares with another loss, is differentiated once more later."""
    if not loss.requires_grad or not wrt:
        return [torch.zeros_like(p) for p in wrt]
    keep = create_graph or again
    found = torch.autograd.grad(loss, wrt, retain_graph=keep, create_graph=create_graph, materialize_grads=True)
    return list(found)
