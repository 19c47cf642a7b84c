"""Candidate operations on maps `[B, C, H, W]` whose channels can be narrowed (arXiv:2006.08198, whose operations
arXiv:2101.06658 takes). No convolution has a bias.

An operation is called as `op(x, slim)`: with `slim` it runs with the leading slices of its weights, without with all.
Unlike the released code, whose super-net always has convolutions for skips and always the widest separable operation
inside, ours has one rule for super-net and derived network: a skip is a convolution where the widths differ, and a
separable operation is 4 times as wide inside as what comes in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs, OpTable

EXPANSION = 4
Sizes = tuple[int, ...]


class Slim(NamedTuple):
    """The channels in force, in and out."""

    inputs: int
    outputs: int


def convolve(conv: nn.Conv2d, x: Tensor, slim: Slim | None) -> Tensor:
    """`conv`, or what it is with the leading slices of its weight."""
    if slim is None:
        y: Tensor = conv(x)
        return y
    depthwise = conv.groups > 1
    weight = conv.weight[: slim.outputs, : 1 if depthwise else slim.inputs]
    return functional.conv2d(x, weight, padding=conv.padding, groups=slim.outputs if depthwise else 1)


class Conv(nn.Module):
    """A convolution and a ReLU."""

    def __init__(self, inputs: Sizes, outputs: Sizes, *, kernel: int) -> None:
        super().__init__()
        self.conv = _conv(max(inputs), max(outputs), kernel)

    def forward(self, x: Tensor, slim: Slim | None = None) -> Tensor:
        return functional.relu(convolve(self.conv, x, slim))


class Residual(nn.Module):
    """Two 3x3 convolutions, and the skip around them."""

    def __init__(self, inputs: Sizes, outputs: Sizes) -> None:
        super().__init__()
        width = max(outputs)
        self.conv1, self.conv2 = _conv(max(inputs), width, 3), _conv(width, width, 3)
        self.skip = _skip(inputs, outputs)

    def forward(self, x: Tensor, slim: Slim | None = None) -> Tensor:
        inner = functional.relu(convolve(self.conv1, x, slim))
        y = convolve(self.conv2, inner, slim and Slim(slim.outputs, slim.outputs))
        return functional.relu(y + _skipped(self.skip, x, slim).to(y.dtype))


class Separable(nn.Module):
    """A 1x1 convolution that widens, a depthwise 3x3, a 1x1, and the skip around them."""

    def __init__(self, inputs: Sizes, outputs: Sizes) -> None:
        super().__init__()
        width = EXPANSION * max(inputs)
        self.widen, self.project = _conv(max(inputs), width, 1), _conv(width, max(outputs), 1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.skip = _skip(inputs, outputs)

    def forward(self, x: Tensor, slim: Slim | None = None) -> Tensor:
        inner = EXPANSION * slim.inputs if slim else 0
        y = functional.relu(convolve(self.widen, x, slim and Slim(slim.inputs, inner)))
        y = functional.relu(convolve(self.depthwise, y, slim and Slim(inner, inner)))
        y = convolve(self.project, y, slim and Slim(inner, slim.outputs))
        return functional.relu(y + _skipped(self.skip, x, slim).to(y.dtype))


_OPS: dict[str, Callable[[Sizes, Sizes], nn.Module]] = {
    "conv1": partial(Conv, kernel=1),
    "conv3": partial(Conv, kernel=3),
    "residual": Residual,
    "separable": Separable,
}


def op_table(inputs: Sizes, outputs: Sizes, channels: int) -> OpTable:
    """The operations of one place by name, built for any of the widths it may have in and out.

    A wiring may give them a share of the `channels` to work on, where there is one width, that of all maps.
    """

    def build(make: Callable[[Sizes, Sizes], nn.Module], args: OpArgs) -> nn.Module:
        if args.channels == channels:
            return make(inputs, outputs)
        if {*inputs, *outputs} != {channels}:
            raise UserError(
                f"variant.wiring: got {args.channels} of {channels} channels, and widths vary; allowed: full, or one "
                "width (task.widths=[1.0])"
            )
        return make((args.channels,), (args.channels,))

    return {name: partial(build, make) for name, make in _OPS.items()}


def cost_of(op: str, inputs: int, outputs: int) -> int:
    """The weights of an operation, which are also its multiply-adds for each pixel.

    >>> cost_of("conv3", 64, 24)
    13824
    """
    wide = EXPANSION * inputs
    skip = inputs * outputs if inputs != outputs else 0
    return {
        "conv1": inputs * outputs,
        "conv3": 9 * inputs * outputs,
        "residual": 9 * inputs * outputs + 9 * outputs * outputs + skip,
        "separable": inputs * wide + 9 * wide + wide * outputs + skip,
    }[op]


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


def _skip(inputs: Sizes, outputs: Sizes) -> nn.Conv2d | None:
    """A convolution, if the widths can differ."""
    return _conv(max(inputs), max(outputs), 1) if len({*inputs, *outputs}) > 1 else None


def _skipped(skip: nn.Conv2d | None, x: Tensor, slim: Slim | None) -> Tensor:
    if skip is None or (slim is not None and slim.inputs == slim.outputs):
        return x
    return convolve(skip, x, slim)
