"""The gradient of options that were not run (arXiv:1812.00332, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def probe(y: Tensor, weights: Mapping[int, Tensor], run: Callable[[int, Tensor], Tensor], x: Tensor) -> Tensor:
    """y, such that in its backward pass the weight of each option k gets <run(k, x), dL/dy>, computed there without a
    graph: what it would get had the option been run with weight 0. Nothing but x is kept for it."""
    if not torch.is_grad_enabled() or not any(w.requires_grad for w in weights.values()):
        return y
    found: Tensor = _Probe.apply(y, x.detach(), tuple(weights), run, *weights.values())  # type: ignore[no-untyped-call]
    return found


class _Probe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, options: tuple[int, ...], run: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        device = x.device.type
        ctx.precision = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.options, ctx.run = (options, [w.dtype for w in weights]), run
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        device, dtype, enabled = ctx.precision
        with torch.no_grad(), torch.autocast(device, dtype, enabled=enabled):
            found = [(ctx.run(k, x) * slope).sum(dtype=dtype).reshape(1) for k, dtype in zip(*ctx.options, strict=True)]
        return slope, None, None, None, *found
