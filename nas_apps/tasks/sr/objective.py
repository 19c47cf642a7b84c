"""What an up-sampler learns from: the distance of its images from the real ones, or from a teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.bounds import NOT_NEGATIVE, bounded
from nas_apps.core.errors import UserError, require
from nas_apps.core.task import Outcome
from nas_apps.tasks.sr.cells import Widths
from nas_apps.tasks.sr.network import Upscaler

SANDWICH = "sandwich"
"""The entry of a batch that says whether all widths learn from it; they do where it has none."""

_PASSES: tuple[Widths, ...] = ("sampled", "max", "min")


@dataclass(frozen=True)
class Loss:
    """The weights of its terms.

    pixel: the mean absolute difference of pixels. content: that of the features which VGG-19 has of them before the
    last ReLU (arXiv:1809.00219), for which `vgg` is a file of its weights, as torchvision has them.
    """

    pixel: float = 1.0
    content: float = 0.0
    vgg: str | None = None

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "pixel", "content")
        if not self.pixel and not self.content:
            raise ValueError("pixel, content: both are 0; allowed: more than 0 for one of them, or both")
        if (self.vgg is None) == bool(self.content):
            given = "not given" if self.vgg is None else f"got {self.vgg}"
            raise ValueError(
                f"vgg: {given} with content {self.content}; allowed: a file with content above 0, only then"
            )


class Restoration(nn.Module):
    """The loss of an up-sampler on a batch of `lr` `[B, 3, H, W]` and `hr` `[B, 3, sH, sW]`, both of 0 to 1.

    sandwich: in training mode it is the sum of those at the widths in force, at the widest and at the narrowest
    (arXiv:1903.05134), so that every width is trained; but for batches that say otherwise. teacher: makes the images to
    come near to, in the place of the real ones.
    """

    def __init__(
        self, network: Upscaler, loss: Loss, *, sandwich: bool, teacher: Callable[[Tensor], Tensor] | None
    ) -> None:
        super().__init__()
        self.network, self._loss, self._teacher = network, loss, teacher
        self._passes = _PASSES if sandwich else _PASSES[:1]
        self._vgg = None if loss.vgg is None else [Vgg(Path(loss.vgg))]  # in a list: not a part that is trained or kept

    def forward(self, batch: Mapping[str, Any]) -> Outcome:
        lr = batch["lr"]
        target = batch["hr"] if self._teacher is None else self._teacher(lr)
        passes = self._passes if self.training and batch.get(SANDWICH, True) else _PASSES[:1]
        images = [self.network(lr, widths) for widths in passes]
        losses = [self._distance(image, target) for image in images]
        with torch.no_grad():
            error = (images[0].clamp(0, 1) - batch["hr"]).square().mean()
        return Outcome(torch.stack(losses).sum(), {"mse": error}, len(lr))

    def _distance(self, image: Tensor, target: Tensor) -> Tensor:
        distance = self._loss.pixel * functional.l1_loss(image, target)
        if self._vgg is not None:
            vgg = self._vgg[0].to(image.device)
            distance = distance + self._loss.content * functional.l1_loss(vgg(image), vgg(target))
        return distance


class Vgg(nn.Module):
    """The features of VGG-19 before the ReLU of its last convolution, of images `[B, 3, H, W]` of 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        require("torchvision", extra="teacher")
        from torchvision.models import vgg19

        with torch.device("meta"):  # its 120 million other weights are not made
            self.layers = vgg19(init_weights=False).features[:35]
        names = self.layers.state_dict().keys()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.layers.load_state_dict({name: state[f"features.{name}"] for name in names}, assign=True)
        except Exception as error:  # what a file that is none of weights raises is not documented
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"task.loss.vgg: {path}: not torchvision's weights of VGG-19 ({reason})") from None
        self.requires_grad_(requires_grad=False).eval()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers((images - self.mean) / self.std)
        return features
