"""Random weights, their noise made on the CPU by a generator that is given, so that every rank draws the same."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def gumbel(like: Tensor, rng: torch.Generator) -> Tensor:
    """Gumbel(0, 1) noise of the shape of `like`; finite, as -log of an Exp(1) sample is."""
    noise = torch.empty(like.shape, dtype=torch.float64).exponential_(generator=rng)
    return -noise.clamp_min(1e-30).log().to(like)


def soft_gumbel(logits: Tensor, temperature: float, rng: torch.Generator) -> Tensor:
    """softmax((log p + Gumbel noise) / temperature), with p the softmax of the logits."""
    return ((logits.log_softmax(-1) + gumbel(logits, rng)) / temperature).softmax(-1)


def uniform(like: Tensor, radius: float, rng: torch.Generator) -> Tensor:
    """Uniform noise in [-radius, radius) of the shape of `like`."""
    return ((2 * torch.rand(like.shape, generator=rng, dtype=torch.float64) - 1) * radius).to(like)


def pick(p: Tensor, number: int, rng: torch.Generator) -> Tensor:
    """Indices `[R, number]` of options drawn from the rows of p `[R, O]`, without replacement."""
    return torch.multinomial(p.detach().double().cpu(), number, generator=rng).to(p.device)


def concentration(logits: Tensor) -> Tensor:
    """The concentration of a Dirichlet law: elu(logits) + 1, positive also where that rounds to 0."""
    return (functional.elu(logits) + 1).clamp_min(1e-4)


def dirichlet(concentration: Tensor, rng: torch.Generator) -> Tensor:
    """A sample of the Dirichlet law of each row, with the pathwise gradient that `torch.distributions` has: it varies
    less than that of the gamma variables a sample is made of."""
    c = concentration.double().cpu()
    x = torch._sample_dirichlet(c.detach(), generator=rng)
    slope = torch._dirichlet_grad(x, c.detach(), c.detach().sum(-1, keepdim=True).expand_as(c))
    step = slope * (c - c.detach())  # zero, with a gradient
    return (x + step - x * step.sum(-1, keepdim=True)).to(concentration)


def straight_through(soft: Tensor, index: Tensor) -> Tensor:
    """Weights that are exactly 1 at `index` `[R, K]` and 0 elsewhere, with the gradient of `soft` at `index` alone."""
    hard = torch.zeros_like(soft).scatter_(-1, index, 1.0)
    return hard * (1 + (soft - soft.detach()))


def gate(p: Tensor, index: Tensor) -> Tensor:
    """Weights that are exactly 1 at `index` `[R, 1]` and 0 elsewhere, with the gradient of `p` at every option."""
    return torch.zeros_like(p).scatter_(-1, index, 1.0) + (p - p.detach())
