"""The gradient of the validation loss through a look-ahead step of the weights (arXiv:1806.09055, section 2.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_apps.core.learner import Draws, Learner, Stats, gradients
from nas_apps.core.surface import replaced
from nas_apps.core.task import Batch, Outcome

Pulled = tuple[Batch, Draws]


@dataclass(frozen=True)
class LookAhead:
    """Gradients of L_valid(w', a) with w' = w - lr * (momentum * buffer + dL_train(w, a)/dw + decay * w).

    The term through w' is -lr * d/da <dL_train/dw, v>, with v = dL_valid/dw'. With `difference` None it is exact, by a
    second backward; otherwise it is the paper's central difference at w +- R v, R = difference / |v|. The weights, the
    optimiser and the norms' running statistics are read and never written (the code of the paper lets statistics move).
    """

    difference: float | None = None

    def __call__(self, learner: Learner, train: Pulled, valid: Pulled) -> tuple[list[Tensor], Stats]:
        optimised = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
        weights = {name: p for name, p in learner.objective.named_parameters() if id(p) in optimised}
        exact = self.difference is None
        with _loss(learner, train, weights) as outcome:  # open until the end: checkpointed cells run again in it
            slopes = gradients(outcome.loss, list(weights.values()), create_graph=exact)
            mean_slopes = [g.detach().clone() for g in slopes]
            learner.runtime.average_(mean_slopes, outcome.weight)
            ahead, rates = _step(learner, weights, mean_slopes)
            with _loss(learner, valid, ahead) as at:
                both = gradients(at.loss, [*ahead.values(), *learner.logits], again=True)
            learner.runtime.average_(both, at.weight)
            stats = learner.stats("valid", at)
            del at  # and with it the graph of the validation loss
            v, direct = both[: len(ahead)], both[len(ahead) :]
            v = [rate * x for rate, x in zip(rates, v, strict=True)]
            if exact:
                pairs = [(g, x) for g, x in zip(slopes, v, strict=True) if g.requires_grad]
                inner = sum(((g * x).sum() for g, x in pairs), torch.zeros((), device=learner.runtime.device))
                through = gradients(inner, learner.logits)
            else:
                through = self._by_difference(learner, train, weights, v)
        learner.runtime.average_(through, outcome.weight)
        grads = [d - t for d, t in zip(direct, through, strict=True)]
        return grads, stats

    def _by_difference(
        self, learner: Learner, train: Pulled, weights: Mapping[str, Tensor], v: Sequence[Tensor]
    ) -> list[Tensor]:
        assert self.difference is not None
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x.double()) for x in v])))
        if norm == 0:
            return [torch.zeros_like(p) for p in learner.logits]
        radius = self.difference / norm
        sides = []
        for sign in (radius, -radius):
            moved = {name: (w + sign * x).detach() for (name, w), x in zip(weights.items(), v, strict=True)}
            devices = [learner.runtime.device] if learner.runtime.device.type == "cuda" else []
            with torch.random.fork_rng(devices), _loss(learner, train, moved) as outcome:  # both sides drop the same
                sides.append(gradients(outcome.loss, learner.logits, again=True))
            del outcome  # and with it the graph of this side
        return [(plus - minus) / (2 * radius) for plus, minus in zip(*sides, strict=True)]


@contextmanager
def _loss(learner: Learner, pulled: Pulled, weights: Mapping[str, Tensor]) -> Iterator[Outcome]:
    batch, (draw,) = pulled
    with replaced(learner.objective, weights), learner.loss(batch, draw) as outcome:
        yield outcome


def _step(
    learner: Learner, weights: Mapping[str, Tensor], slopes: list[Tensor]
) -> tuple[dict[str, Tensor], list[float]]:
    """The weights after the optimiser's next step, and how fast each moves against its own slope."""
    optimizer = learner.optimizer
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    ahead, rates = {}, []
    for (name, w), slope in zip(weights.items(), slopes, strict=True):
        group = groups[id(w)]
        lr, momentum, nesterov = group["lr"], group["momentum"], group["nesterov"]
        d = slope + group["weight_decay"] * w.detach()
        buffer = optimizer.state[w].get("momentum_buffer") if w in optimizer.state else None
        moved = d if buffer is None else d + momentum * buffer  # what the buffer will be
        step = d + momentum * moved if nesterov else moved
        ahead[name] = (w.detach() - lr * step).requires_grad_()
        rates.append(lr * (1 + momentum) if nesterov else lr)
    return ahead, rates


def refuse_optimizer(optimizer: torch.optim.Optimizer) -> str | None:
    """Why a look-ahead through this optimiser cannot be taken, if it cannot."""
    if not isinstance(optimizer, torch.optim.SGD):
        return (
            f"the look-ahead is a step of SGD, and the weights are optimised by {type(optimizer).__name__}; allowed: "
            "search.weights.optimizer=sgd where this task has it, or variant.schedule=first_order"
        )
    if any(group["dampening"] for group in optimizer.param_groups):
        return "the look-ahead knows no dampening of the momentum"
    return None
