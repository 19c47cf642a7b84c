"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    params: as papers count them, without auxiliary heads. macs: multiply-adds of convolutions and linear layers.
    literature_macs: macs + 2 for each output of a batch norm + 1 for each output of a ReLU, the rule behind the 597M
    and 586M of arXiv:1907.05737 and the 557M of arXiv:1904.12760.
    """

    params: int
    macs: int
    literature_macs: int


def cost(module: nn.Module, *inputs: object) -> Cost:
    """The cost of `module` for one forward on `inputs`, which are a batch of one.

    >>> cost(nn.Conv2d(4, 8, 3, groups=2), torch.zeros(1, 4, 5, 5))
    Cost(params=152, macs=1296, literature_macs=1296)
    """
    found = calls(module, *inputs)
    macs = sum(call.macs for call in found)
    return Cost(count_params(module), macs, macs + sum(call.extra for call in found))


def count_params(module: nn.Module) -> int:
    """The number of parameters whose name does not contain "auxiliary".

    >>> count_params(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for name, p in module.named_parameters() if "auxiliary" not in name)


def count_macs(module: nn.Module, *inputs: object) -> int:
    """The multiply-adds of convolutions and linear layers in one forward on `inputs`, which are a batch of one.

    >>> count_macs(nn.Linear(3, 2), torch.zeros(1, 3))
    6
    """
    return sum(call.macs for call in calls(module, *inputs))


class Call(NamedTuple):
    """One call of a layer: its multiply-adds, and what the literature's rule adds to them."""

    layer: nn.Module
    macs: int
    extra: int


def calls(module: nn.Module, *inputs: object) -> list[Call]:
    """The calls of layers that count, in one forward on `inputs`, which are a batch of one.

    Each layer counts as often as it is called; functional calls are not seen.
    """
    found: list[Call] = []

    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(Call(layer, _layer_macs(layer, args[0], output), _layer_extra(layer, output)))

    with ExitStack() as stack, torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _COUNTED):
                stack.callback(layer.register_forward_hook(count).remove)
        stack.enter_context(_as_it_was(module, inputs))
        module(*inputs)
    return found


_COUNTED = (_ConvNd, nn.Linear, _BatchNorm, nn.ReLU)


def _layer_macs(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    if isinstance(layer, nn.Linear):
        return y.numel() * layer.in_features
    if isinstance(layer, _ConvTransposeNd):
        return x.numel() * layer.out_channels // layer.groups * prod(layer.kernel_size)
    if isinstance(layer, _ConvNd):
        return y.numel() * layer.in_channels // layer.groups * prod(layer.kernel_size)
    return 0


def _layer_extra(layer: nn.Module, y: Tensor) -> int:
    if isinstance(layer, _BatchNorm):
        return 2 * y.numel()
    return y.numel() if isinstance(layer, nn.ReLU) else 0


@contextmanager
def _as_it_was(module: nn.Module, inputs: tuple[object, ...]) -> Iterator[None]:
    """Evaluation mode, with training flags and random states put back after."""
    flags = [(layer, layer.training) for layer in module.modules()]
    devices = {x.device for x in inputs if isinstance(x, Tensor) and x.is_cuda}
    with torch.random.fork_rng(devices=devices):
        module.eval()
        try:
            yield
        finally:
            for layer, training in flags:
                layer.training = training
