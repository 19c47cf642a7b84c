"""Candidate operations of arXiv:2106.02229 on images, `[B, C, H, W]`.

Unlike the released code's, a strided operation pads both sides alike, where TensorFlow pads an even size on its far
side alone; sizes are the same, half and rounded up. A depthwise convolution honours its stride, where the release's has
none. All keep the memory format of their input, and observations come with channels last, which a CPU is faster with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.op import OpArgs, OpTable, Zero
from nas_apps.core.space import AFTER, NONE, SKIP


class BatchStatistics(nn.Module):
    """Batch norm by the statistics of the batch at hand, always, and without weights."""

    def forward(self, x: Tensor) -> Tensor:
        if x[:, 0].numel() == 1:  # torch refuses one value a channel; less its mean, that is 0
            return torch.zeros_like(x)
        return functional.batch_norm(x, None, None, training=True)


def _conv(args: OpArgs, *, kernel: int, dilation: int = 1, depthwise: bool = False) -> nn.Module:
    channels, padding = args.channels, dilation * (kernel // 2)
    groups = channels if depthwise else 1
    return nn.Conv2d(channels, channels, kernel, args.stride, padding, dilation, groups)


def _dep_sep_conv(args: OpArgs, *, kernel: int) -> nn.Module:
    pointwise = nn.Conv2d(args.channels, args.channels, 1)
    return nn.Sequential(_conv(args, kernel=kernel, depthwise=True), pointwise)


def _then_relu(build: Callable[[OpArgs], nn.Module]) -> Callable[[OpArgs], nn.Module]:
    return lambda args: nn.Sequential(build(args), nn.ReLU())


def _pooled(args: OpArgs, then: nn.Module) -> nn.Module:
    """What has no stride of its own, after an average pool that has; else by itself: DropPath knows an Identity."""
    return then if args.stride == 1 else nn.Sequential(nn.AvgPool2d(3, args.stride, 1, count_include_pad=False), then)


_CONVS: OpTable = {
    "conv_3x3": partial(_conv, kernel=3),
    "conv_5x5": partial(_conv, kernel=5),
    "dil_conv_3x3": partial(_conv, kernel=3, dilation=2),
    "dil_conv_5x5": partial(_conv, kernel=5, dilation=2),
    "dep_conv_3x3": partial(_conv, kernel=3, depthwise=True),
    "dep_conv_5x5": partial(_conv, kernel=5, depthwise=True),
    "dep_sep_conv_3x3": partial(_dep_sep_conv, kernel=3),
    "dep_sep_conv_5x5": partial(_dep_sep_conv, kernel=5),
}

OPS: OpTable = {
    **_CONVS,
    **{f"{name}_relu": _then_relu(build) for name, build in _CONVS.items()},
    "relu": lambda args: _pooled(args, nn.ReLU()),
    "tanh": lambda args: _pooled(args, nn.Tanh()),
    SKIP: lambda args: _pooled(args, nn.Identity()),
    NONE: lambda args: Zero(args.stride),
}
"""The operations by name: "dil" dilated by 2, "dep" depthwise, "dep_sep" depthwise and then 1x1."""

NORMED: OpTable = {**OPS, AFTER: lambda args: BatchStatistics()}
"""The same, with a norm after each node's sum."""
