"""The skeleton of DARTS networks (arXiv:1806.09055): cells of two kinds, two of which halve the resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.cell import Cell, Fill
from nas_apps.core.op import OpArgs
from nas_apps.tasks.image.ops import FactorizedReduce, relu_conv_norm
from nas_apps.tasks.image.skeleton import STEM, Feature, Network, Skeleton, Stem
from nas_apps.tasks.image.spaces import ImageSpace

_STEM_WIDTH = {"cifar": 3, "imagenet": 1, "imagenet_search": 3}


def darts_skeleton(space: ImageSpace, fill: Fill, settings: Network, *, in_chans: int, num_classes: int) -> Skeleton:
    """The modules of a DARTS network; the cells a third and two thirds of the way down halve the resolution."""
    channels, affine = settings.channels, settings.affine is not False
    width = _STEM_WIDTH[settings.stem] * channels
    halving = {settings.cells // 3, 2 * settings.cells // 3}
    before, last, reduction, halved = width, width, 1 if settings.stem == "cifar" else 8, settings.stem != "cifar"
    features = [] if settings.stem == "cifar" else [Feature(STEM, width, 4)]
    cells: list[nn.Module] = []
    auxiliary = None
    for index in range(settings.cells):
        halves = index in halving
        channels, reduction = (2 * channels, 2 * reduction) if halves else (channels, reduction)
        args = OpArgs(channels, 2 if halves else 1, affine)
        inner = fill.cell("reduce" if halves else "normal", space.dag, space.ops, args)
        cells.append(DartsCell(inner, (before, last), channels, halved=halved, affine=affine))
        before, last, halved = last, channels * space.dag.nodes, halves
        if index + 1 in halving or index + 1 == settings.cells:
            features.append(Feature(index, last, reduction))
        if settings.auxiliary and index == 2 * settings.cells // 3:
            auxiliary = index, AuxiliaryHead(last, num_classes, last_norm=settings.stem == "cifar")
    return Skeleton(_stem(settings.stem == "cifar", in_chans, width), cells, nn.Identity(), features, auxiliary)


class DartsCell(nn.Module):
    """A cell with the two layers that bring the states before it to its width and size; its nodes side by side.

    halved: the cell before this one halved the resolution, so that the older of the two states is twice as large.
    """

    def __init__(self, inner: Cell, widths: tuple[int, int], channels: int, *, halved: bool, affine: bool) -> None:
        super().__init__()
        before, last = widths
        match_older = FactorizedReduce if halved else relu_conv_norm
        self.preprocess0 = match_older(before, channels, affine=affine)
        self.preprocess1 = relu_conv_norm(last, channels, affine=affine)
        self.inner = inner

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        return torch.cat(self.inner(self.preprocess0(before), self.preprocess1(last)), 1)


class AuxiliaryHead(nn.Module):
    """A classifier in the middle of the network, for training alone.

    The map is averaged in 2 x 2 windows that start at its ends and meet or overlap: 5 x 5 pixels of the 8 x 8 of CIFAR
    and of the 7 x 7 of ImageNet, as in arXiv:1806.09055's code, whose ImageNet head has no norm after its last
    convolution. Unlike the paper's, the head takes any other size too.
    """

    def __init__(self, channels: int, num_classes: int, *, last_norm: bool) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU())
        self.mix = nn.Sequential(
            nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768) if last_norm else nn.Identity(), nn.ReLU()
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.squeeze(quarters(x.relu())))  # [B, 768, 1, 1]
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def quarters(x: Tensor) -> Tensor:
    """The means of 2 x 2 windows, `[B, C, 2, 2]`: half of each axis, rounded up, but 5 pixels where there are more."""
    x = functional.interpolate(x, [max(size, 2) for size in x.shape[-2:]]) if min(x.shape[-2:]) < 2 else x
    window = [max((size + 1) // 2, min(5, size - 1)) for size in x.shape[-2:]]
    return functional.avg_pool2d(x, window, [size - w for size, w in zip(x.shape[-2:], window, strict=True)])


def _stem(keeps_size: bool, in_chans: int, width: int) -> Stem:
    if keeps_size:
        return Stem(nn.Sequential(*_conv_norm(in_chans, width, stride=1)))
    first = [*_conv_norm(in_chans, width // 2), nn.ReLU(), *_conv_norm(width // 2, width)]
    return Stem(nn.Sequential(*first), nn.Sequential(nn.ReLU(), *_conv_norm(width, width)))


def _conv_norm(inputs: int, outputs: int, *, stride: int = 2) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
