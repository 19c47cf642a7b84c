"""Candidate operations: what a task hands the engine to build them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OpArgs:
    """What an operation is built for.

    channels: in and out. stride: 1, or 2 where a cell halves the resolution. affine: whether norms have weights; a
    super-net is built without (arXiv:1806.09055's code, and all that follows it), a derived network with.
    axis: of the channels in the tensors the operation sees.
    """

    channels: int
    stride: int = 1
    affine: bool = True
    axis: int = 1


OpTable = Mapping[str, Callable[[OpArgs], nn.Module]]
"""Name of an option -> how its module is built. A module is called as `op(x, *context)` and keeps the shape of x, but
for the stride. The table of a space in which a node may be left without input has the op "none" (zeros); one that has
"after" puts each node's sum through it, one module for all nodes of a cell."""


class Zero(nn.Module):
    """What an option that is not there says: zeros, without a gradient to x. With a stride, of maps `[B, C, H, W]`."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        return torch.zeros_like(x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride])
