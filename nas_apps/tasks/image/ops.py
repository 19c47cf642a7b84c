"""Candidate operations on images, `[B, C, H, W]`.

No ReLU is in place: the same tensor goes into several operations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.op import OpArgs, OpTable, Zero
from nas_apps.core.space import NONE, SKIP


class Noise(nn.Module):
    """N(0, 1) noise of the strided shape, whatever x is: an operation that a sound search avoids (arXiv:1909.09656)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


class FactorizedReduce(nn.Module):
    """Half the resolution without losing pixels: two strided 1x1 convolutions, one of them a pixel to the lower right.

    Unlike the code of arXiv:1806.09055, which fails on them, odd sizes are padded by a pixel, as in NAS-Bench-201.
    """

    def __init__(self, inputs: int, outputs: int, *, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.here = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.there = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        height, width = x.shape[-2:]
        whole = functional.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x  # pad copies
        y: Tensor = self.norm(torch.cat([self.here(x), self.there(whole[:, :, 1:, 1:])], 1))
        return y


def relu_conv_norm(inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, affine: bool = True) -> nn.Module:
    """ReLU, convolution that keeps the size but for the stride, batch norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, affine=affine),
    )


def conv_norm_relu(inputs: int, outputs: int, *, kernel: int = 1, affine: bool = True) -> nn.Module:
    """Convolution that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, affine=affine),
        nn.ReLU(),
    )


def _separable(args: OpArgs, kernel: int, *, stride: int, dilation: int = 1) -> list[nn.Module]:
    channels, padding = args.channels, dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=args.affine),
    ]


def _sep_conv(args: OpArgs, kernel: int) -> nn.Module:
    first = _separable(args, kernel, stride=args.stride)
    return nn.Sequential(*first, *_separable(args, kernel, stride=1))


def _dil_conv(args: OpArgs, kernel: int) -> nn.Module:
    return nn.Sequential(*_separable(args, kernel, stride=args.stride, dilation=2))


def _pool(pool: nn.Module, args: OpArgs) -> nn.Module:
    # The super-net normalises what it pools, the derived network does not (arXiv:1806.09055's code).
    return pool if args.affine else nn.Sequential(pool, nn.BatchNorm2d(args.channels, affine=False))


def _max_pool(args: OpArgs) -> nn.Module:
    return _pool(nn.MaxPool2d(3, args.stride, 1), args)


def _avg_pool(args: OpArgs) -> nn.Module:
    return nn.AvgPool2d(3, args.stride, 1, count_include_pad=False)


def _skip(args: OpArgs) -> nn.Module:
    if args.stride == 1:
        return nn.Identity()  # an Identity and nothing else: DropPath tells it by its class
    return FactorizedReduce(args.channels, args.channels, affine=args.affine)


def _nor_conv(args: OpArgs, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(args.channels, args.channels, kernel, args.stride, kernel // 2, bias=not args.affine),
        nn.BatchNorm2d(args.channels, affine=args.affine),
    )


DARTS_OPS: OpTable = {
    NONE: lambda args: Zero(args.stride),
    "noise": lambda args: Noise(args.stride),
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": lambda args: _pool(_avg_pool(args), args),
    SKIP: _skip,
    "sep_conv_3x3": lambda args: _sep_conv(args, 3),
    "sep_conv_5x5": lambda args: _sep_conv(args, 5),
    "dil_conv_3x3": lambda args: _dil_conv(args, 3),
    "dil_conv_5x5": lambda args: _dil_conv(args, 5),
}
"""The operations of the cells of arXiv:1806.09055, and the noise of arXiv:1909.09656."""

NASBENCH201_OPS: OpTable = {
    NONE: lambda args: Zero(args.stride),
    SKIP: _skip,
    "nor_conv_1x1": lambda args: _nor_conv(args, 1),
    "nor_conv_3x3": lambda args: _nor_conv(args, 3),
    "avg_pool_3x3": _avg_pool,
}
"""The operations of NAS-Bench-201 (arXiv:2001.00326). A convolution has a bias where its norm has no weights."""

NASBENCH101_OPS: OpTable = {
    "maxpool3x3": lambda args: nn.MaxPool2d(3, 1, 1),
    "conv3x3-bn-relu": lambda args: conv_norm_relu(args.channels, args.channels, kernel=3, affine=args.affine),
    "conv1x1-bn-relu": lambda args: conv_norm_relu(args.channels, args.channels, affine=args.affine),
}
"""The operations of NAS-Bench-101 (arXiv:1902.09635), in the order of arXiv:2001.10422's code. None has a stride."""
