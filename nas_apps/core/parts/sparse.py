"""Mixing weights that are exactly 0 for what lost: projections onto the simplex, without noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nas_apps.core.bounds import SHARE, bounded
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.progress import Progress, Ramp, value

Mode = Literal["projection", "ssn"]


@dataclass(frozen=True)
class Sparsemax(Relaxation):
    """Each row the point of the simplex nearest to its logits (arXiv:1602.02068, eq. 1): once an option is 1 / O behind
    or so, its weight is 0. What is derived from is the softmax of the logits, which has the same order.

    >>> Sparsemax()(torch.tensor([[0.8, 0.6, 0.1]]), Progress(0, 1), torch.Generator())
    tensor([[0.6000, 0.4000, 0.0000]])
    """

    sparse = True

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return sparsemax(logits)

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return sparsemax(logits)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


@dataclass(frozen=True)
class SparsestMax(Relaxation):
    """Each row the nearest point of the simplex that is at least a radius away from its centre (arXiv:1903.03793): as
    the radius grows from 0, sparsemax becomes the one-hot of the largest logit.

    radius: as a share of the distance from the centre to a corner, sqrt((O - 1) / O), so that at 1 rows of any number
    of options are one-hot, their weight exactly 1; raw: the radius itself, as in the papers' codes. mode: "ssn" takes
    the radius from the centre of sparsemax's support and not of the simplex, as the codes of arXiv:1903.03793 and
    arXiv:2101.06658 do, and so drops more options than the definition once sparsemax has dropped one.

    A row that the radius has brought down to two options has no gradient any more, whichever the loss: the larger has
    won. Its logits then rest, so that neither momentum nor a penalty lets the other win after all. Of equal logits the
    first wins. What is derived from is the softmax of the logits, which has the same order.

    >>> SparsestMax(radius=0.7, raw=True)(torch.tensor([[0.3, 0.2, 0.1]]), Progress(0, 1), torch.Generator())
    tensor([[0.9021, 0.0979, 0.0000]])
    """

    radius: float | Ramp = Ramp(0.0, 1.0, reach="last")
    mode: Mode = "projection"
    raw: bool = False

    sparse = True

    def __post_init__(self) -> None:
        bounded(self, SHARE, "radius")

    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return self.mean(logits, progress)

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return sparsestmax(logits, self._radius(logits, progress), self.mode)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def settle(self, before: Tensor, after: Tensor, progress: Progress) -> None:
        found = _face(before.detach().double(), self._radius(before, progress), self.mode)
        after.copy_(torch.where(found.pushed & (found.size <= 2), before, after))

    def _radius(self, logits: Tensor, progress: Progress) -> float:
        share, options = value(self.radius, progress), logits.shape[-1]
        return share if self.raw else share * math.sqrt((options - 1) / options)


def sparsemax(logits: Tensor) -> Tensor:
    """The point of the simplex nearest to each row `[..., O]`: max(z - t, 0) with the t that makes it sum to 1."""
    z = _shifted(logits)
    return _sparsemax(z)[0].to(logits)


def sparsestmax(logits: Tensor, radius: float, mode: Mode = "projection") -> Tensor:
    """The point nearest to each row `[..., O]` of those of the simplex that are `radius` or more from its centre.

    In closed form: with mean and s the mean of the m largest logits and the length of what is left of them, and rho the
    radius within their face of the simplex, the point is 1 / m + rho * (z - mean) / s, for the largest m within
    sparsemax's support at which nothing is negative. Where sparsemax is far enough out, it is sparsemax's.
    """
    z = _shifted(logits)
    w, _ = _sparsemax(z)
    face = _face(z.detach(), radius, mode)
    inside = face.rank < face.size
    rest = (z - (z * inside).sum(-1, keepdim=True) / face.size) * inside
    square = rest.square().sum(-1, keepdim=True)
    tie = square == 0
    corner = (face.rank == 0).double() - inside / face.size  # from the centre of the face to its first option
    length = (1 - 1 / face.size).clamp_min(0.5).sqrt()  # of one option there is no way to go
    towards = torch.where(tie, corner / length, rest / torch.where(tie, 1.0, square).sqrt())
    found = torch.where(face.pushed, inside / face.size + face.radius * towards, w)
    return found.clamp(0, 1).to(logits)


class _Face(NamedTuple):
    """Where the nearest point of each row lies.

    pushed: whether sparsemax is too near to the centre, `[..., 1]`. rank: of each option, 0 the largest, `[..., O]`.
    size: of the face of the largest ones that the point lies in. radius: how far from the centre of that face.
    """

    pushed: Tensor
    rank: Tensor
    size: Tensor
    radius: Tensor


def _face(z: Tensor, radius: float, mode: Mode) -> _Face:
    z = z - z.amax(-1, keepdim=True)
    w, support = _sparsemax(z)
    whole = support if mode == "ssn" else torch.full_like(support, z.shape[-1])
    corner = radius**2 + 1 / whole >= 1 - 1e-12  # so far out that only corners are left
    pushed = corner | (w.square().sum(-1, keepdim=True) - 1 / whole < radius**2)
    values, order = z.sort(dim=-1, descending=True, stable=True)
    sizes = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)  # [O]
    means = values.cumsum(-1) / sizes
    rests = (values.unsqueeze(-2) - means.unsqueeze(-1)).tril()  # [..., m, O]
    radii = (radius**2 - 1 / sizes + 1 / whole).clamp_min(0).sqrt()  # [..., m]
    fits = sizes * radii * (means - values) <= rests.square().sum(-1).sqrt()
    fits = (fits & (sizes <= support) & ~corner) | (sizes == 1)
    size = torch.where(fits, sizes, 0).amax(-1, keepdim=True)
    return _Face(pushed, order.argsort(-1), size, radii.gather(-1, size.long() - 1))


def _shifted(logits: Tensor) -> Tensor:
    """The rows in float64, their largest at 0: a weight of 1 is then exactly that."""
    z = logits.double()
    return z - z.detach().amax(-1, keepdim=True)


def _sparsemax(z: Tensor) -> tuple[Tensor, Tensor]:
    """Sparsemax of rows whose largest logit is 0, and the number of options it leaves, `[..., 1]`."""
    values = z.detach().sort(-1, descending=True).values
    sizes = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    support = (1 + sizes * values > values.cumsum(-1)).sum(-1, keepdim=True)
    inside = z.detach() >= values.gather(-1, support - 1)
    threshold = ((z * inside).sum(-1, keepdim=True) - 1) / support
    return (z - threshold).clamp_min(0) * inside, support.to(z.dtype)
