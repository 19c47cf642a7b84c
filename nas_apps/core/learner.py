"""An objective and its architecture, with an optimiser for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas_apps.core.arch import Arch, Draw, Tables
from nas_apps.core.errors import UserError
from nas_apps.core.extras import Extras
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.core.surface import LossSurface, replaced
from nas_apps.core.task import Batch, Optimisation, Outcome, Stream

Stats = Mapping[str, Tensor]
Draws = tuple[Draw, ...]


class Learner:
    """What a schedule works with: pulls batches, takes gradients, steps the two optimisers.

    Gradients and stats are means over all ranks, weighted by the items each saw. The final training, dense and of the
    weights alone, runs in DistributedDataParallel, whose mean is over equal shares; a search cannot (it does not work
    with `torch.autograd.grad`).
    """

    def __init__(
        self,
        objective: nn.Module,
        arch: Arch,
        optimisation: Optimisation,
        phase: Phase,
        runtime: Runtime,
        extras: Extras | None = None,
    ) -> None:
        self.objective, self.arch, self.phase, self.runtime = objective, arch, phase, runtime
        self.optimizer, self.average = optimisation.optimizer, optimisation.average
        self._set_rates, self._extras = optimisation.set_rates, extras or Extras()
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.logits = list(arch.logits.values())
        settings = phase.logits
        self.logit_optimizer = torch.optim.Adam(
            self.logits or [torch.zeros(0)], settings.lr, settings.betas, settings.eps, settings.weight_decay
        )
        self._wrapped = phase.name == "train" and runtime.world > 1
        self._forward = DistributedDataParallel(objective, static_graph=True) if self._wrapped else objective
        self.progress = Progress(0, 1)

    def begin(self, progress: Progress, rates: Progress | None = None) -> None:
        """Enter a step at this point of the run; `rates`: of the learning rates, where that is another."""
        self.progress = progress
        self._set_rates(rates or progress)
        if not self.objective.training:  # evaluation sets the mode of the whole; the walk through it is not free
            self.objective.train()

    def pull(self, stream: Stream, *, use: int, samples: int = 1, learn: bool = False) -> tuple[Batch, Draws]:
        """The next batch of a stream, pulled under the (first) draw of its cycle, and the draws of that cycle."""
        draws = self.arch.draws(self.progress, cycle=stream.cycle, use=use, samples=samples, learn=learn)
        with self.arch.using(draws[0].leaf(grad=False)):  # what an actor reads of it without a gradient stays apart
            return next(stream), draws

    @contextmanager
    def loss(self, batch: Batch, draw: Draw) -> Iterator[Outcome]:
        """The outcome of a batch, inside the draw: differentiate it inside the block."""
        with self.arch.using(draw):
            with self.runtime.autocast():
                outcome = self._forward(batch)
            yield outcome

    def weight_step(self, batch: Batch, draws: Draws, *, sums: bool = False, jointly: int = 1) -> Stats:
        """One step of the weights under some draws; the logits get no gradient.

        sums: the gradient is the sum over the draws, otherwise their mean. jointly: how many draws' graphs are held at
        a time.
        """
        constant = tuple(self._perturbed(batch, draw.leaf(grad=False)) for draw in draws)
        stats, weight = self._backward(batch, constant, 1.0 if sums else 1 / len(draws), jointly, self._taught(batch))
        self._step_weights(weight)
        return stats

    def joint_step(self, batch: Batch, draws: Draws, *, one_norm: bool = False) -> Stats:
        """One forward and one backward a draw; then both optimisers step with those gradients (arXiv:2108.08128).

        one_norm: the bound on the norm of the weights' gradient is on that of weights and logits together.
        """
        leaves = tuple(draw.leaf() for draw in draws)
        stats, weight = self._backward(batch, leaves, 1 / len(draws), 1, None)
        slopes: list[Tables] = [{n: w.grad for n, w in d.weights.items() if w.grad is not None} for d in leaves]
        grads = self._to_logits(draws, slopes)
        self.runtime.average_(grads, weight)
        for p, grad in zip(self.logits, grads, strict=True):
            p.grad = grad
        self._step_weights(weight, self.logits if one_norm else [])
        return {**stats, **self.arch_step(grads)}

    def arch_gradients(self, batch: Batch, draws: Draws) -> tuple[list[Tensor], Stats]:
        """The gradient of a batch's loss with respect to the logits, the weights held (first order); its mean over the
        draws, which are run one after the other."""
        slopes, seen = [], []
        for draw in draws:
            with self.loss(batch, draw.leaf()) as outcome:
                slopes.append(self.slopes(outcome.loss))
            seen.append(self.stats("valid", outcome))
            weight = outcome.weight
            del outcome  # and with it the graph of this draw
        grads = [grad / len(draws) for grad in self._to_logits(draws, slopes)]
        self.runtime.average_(grads, weight)
        return grads, _means(seen)

    def slopes(self, loss: Tensor) -> Tables:
        """d loss / d the mixing weights in force, a leaf draw's."""
        weights = self.arch.current.weights
        return dict(zip(weights, gradients(loss, list(weights.values())), strict=True))

    def arch_step(self, grads: Sequence[Tensor]) -> Stats:
        """Step the logits with these gradients, and those of the penalties."""
        taken = self.logit_optimizer.state.get(self.logits[0], {}).get("step", 0)
        penalty, stats = self._extras.penalty(self.arch, self.progress, int(taken))
        extra = [torch.zeros_like(p) for p in self.logits] if penalty is None else gradients(penalty, self.logits)
        for p, grad, more in zip(self.logits, grads, extra, strict=True):
            p.grad = grad if penalty is None else grad + more
        if self.phase.logits.clip is not None:
            nn.utils.clip_grad_norm_(self.logits, self.phase.logits.clip)
        before = [p.detach().clone() for p in self.logits]
        self.logit_optimizer.step()
        with torch.no_grad():
            for choice, p, old in zip(self.arch.space.values(), self.logits, before, strict=True):
                self.arch.relax[choice.kind].settle(old, p, self.progress)
        for p in self.logits:
            p.grad = None
        return stats

    def _perturbed(self, batch: Batch, draw: Draw) -> Draw:
        if self._extras.perturb is None:
            return draw
        rng = torch.Generator().manual_seed(mix(draw.noise, 1))
        with LossSurface(self, batch, draw) as surface:
            return draw.at(self._extras.perturb(surface.tables, surface, self.progress, rng))

    def _taught(self, batch: Batch) -> Tensor | None:
        """What the super-net under its expected weights says of a batch; its running statistics stay as they are."""
        if self._extras.distill is None or not self._extras.distill.on(self.progress):
            return None
        with torch.no_grad(), replaced(self.objective, {}), self.loss(batch, self.arch.expected(self.progress)) as all_:
            output = all_.output
        if not isinstance(output, Tensor):
            raise UserError("variant.distill: this task's networks say nothing that a teacher could be compared with")
        return output

    def _backward(
        self, batch: Batch, draws: Draws, scale: float, jointly: int, teacher: Tensor | None
    ) -> tuple[Stats, int]:
        """Gradients of the losses under some draws, added up in `.grad`; the stats, and the items they are means of."""
        self.optimizer.zero_grad(set_to_none=True)  # an operation that did not run keeps no gradient, and takes no step
        seen = []
        for first in range(0, len(draws), jointly):
            held = []
            for draw in draws[first : first + jointly]:
                with self.loss(batch, draw) as outcome:
                    held.append((draw, outcome, self._extras.guided(outcome, teacher, self.progress)))
            while held:
                draw, outcome, loss = held.pop()
                with self.arch.using(draw):
                    (loss * scale if scale != 1 else loss).backward()  # type: ignore[no-untyped-call]
                seen.append(self.stats("train", outcome))
                weight = outcome.weight
                del outcome, loss  # and with them the graph of this draw
        return _means(seen), weight

    def _to_logits(self, draws: Draws, slopes: Sequence[Tables]) -> list[Tensor]:
        """Gradients with respect to the logits from those with respect to the weights of their draws."""
        pairs = [(d.weights[n], s) for d, found in zip(draws, slopes, strict=True) for n, s in found.items()]
        pairs = [(w, s.view_as(w)) for w, s in pairs if w.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in self.logits]
        outputs, grads = zip(*pairs, strict=True)
        return list(torch.autograd.grad(outputs, self.logits, grads, materialize_grads=True))

    def _step_weights(self, weight: int, beside: Sequence[Tensor] = ()) -> None:
        """Step the weights; their gradient is clipped as one vector with that of what is `beside` them."""
        if not self._wrapped:
            self.runtime.average_([p.grad for p in self.parameters if p.grad is not None], weight)
        if self.phase.clip is not None:
            nn.utils.clip_grad_norm_([*self.parameters, *beside], self.phase.clip)
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

    def follow(self) -> None:
        """Let the running average, where there is one, go on from the weights as they are."""
        if self.average is not None:
            self.average.module.load_state_dict(self.objective.state_dict())

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


def _means(seen: Sequence[Stats]) -> Stats:
    if len(seen) == 1:
        return seen[0]
    return {name: torch.stack([stats[name] for stats in seen]).mean() for name in seen[0]}


def gradients(loss: Tensor, wrt: Sequence[Tensor], *, create_graph: bool = False, again: bool = False) -> list[Tensor]:
    """d loss / d each of `wrt`; zeros for what the loss does not depend on. `again`: the graph, or that of the draw it
    shares with another loss, is differentiated once more later."""
    if not loss.requires_grad or not wrt:
        return [torch.zeros_like(p) for p in wrt]
    keep = create_graph or again
    found = torch.autograd.grad(loss, wrt, retain_graph=keep, create_graph=create_graph, materialize_grads=True)
    return list(found)
