"""How training images are varied: crops, mirrors, holes and mixtures, a batch at a time on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.images import Images


@dataclass(frozen=True)
class Augment:
    """How training images are varied. None stands for what suits the data.

    Sets in memory are padded, cropped and mirrored on the device. Image folders that do not fit in memory, and those
    with `auto` or `jitter`, go through timm's transform instead: a crop of random size and shape, and a mirror.
    """

    crop_padding: int | None = None
    """Black border within which an image is shifted; an eighth of the side when not given (4 of 32)."""
    flip: bool | None = None
    """Whether half of the images are mirrored; when not given, coloured ones are: grey ones are often signs."""
    cutout: int | None = None
    """Side of the square that is blanked (arXiv:1708.04552); half the side of images in memory (16 of 32) when not
    given, but none below 16 pixels, where it would hide the whole sign."""
    auto: str | None = None
    """One of timm's policies, such as rand-m9-mstd0.5; for image folders."""
    jitter: tuple[float, ...] = ()
    """Brightness, contrast, saturation and perhaps hue, as DARTS' (0.4, 0.4, 0.4, 0.2) on ImageNet; for folders."""
    mixup: float = 0.0
    """Both parameters of the Beta distribution of mixing weights (arXiv:1710.09412). Labels are then [N, classes]."""

    def __post_init__(self) -> None:
        for name, value in (("crop_padding", self.crop_padding), ("cutout", self.cutout), ("mixup", self.mixup)):
            if value is not None and value < 0:
                raise ValueError(f"{name}: {value} is negative; allowed: 0 or more")
        if len(self.jitter) not in (0, 3, 4) or min(self.jitter, default=0) < 0:
            raise ValueError(f"jitter: {list(self.jitter)}; allowed: 3 or 4 numbers of 0 or more, or none")

        if self.auto and self.jitter:
            raise ValueError(f"jitter: timm leaves it out beside auto ({self.auto!r}); give one of them")

    def reads_files(self, images: Images) -> bool:
        """Whether training images are decoded one by one as they are needed."""
        if (self.auto or self.jitter) and images.files is None:
            setting = "auto" if self.auto else "jitter"
            raise UserError(f"data.{setting}: works on image folders alone; {images.name} comes as arrays")
        return bool(self.auto or self.jitter or images.pixels is None)

    def over(self, images: Images) -> Augment:
        """These settings with all that was left open decided."""
        side, files = min(images.size), self.reads_files(images)
        if files and self.crop_padding:
            raise UserError(
                f"data.crop_padding: images of {images.name} are cropped by timm's transform as they are read; "
                "allowed: 0 or nothing"
            )
        padding, cutout = (0, 0) if files else (side // 8, side // 2 if side >= 16 else 0)
        return replace(
            self,
            crop_padding=padding if self.crop_padding is None else self.crop_padding,
            flip=images.in_chans == 3 if self.flip is None else self.flip,
            cutout=cutout if self.cutout is None else self.cutout,
        )


def crop(pixels: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Images [B, C, H, W] cut out of a black border of `padding` at (top, left), and mirrored where asked.

    top, left: [B], from 0 to 2 * padding; `padding` leaves an image in its place.
    """
    batch, channels, height, width = pixels.shape
    row, column = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    columns = torch.where(mirrored[:, None], width - 1 - column, column) + left[:, None]  # [B, W]
    rows = row + top[:, None]  # [B, H]
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None]  # [B, H, W]
    padded = functional.pad(pixels, (padding,) * 4).flatten(2)
    places = places.view(batch, 1, height * width).expand(batch, channels, height * width)
    return padded.gather(2, places).view_as(pixels)


def cutout(images: Tensor, y: Tensor, x: Tensor, side: int) -> Tensor:
    """Images [B, C, H, W] with zeros in a square around (y, x), which the border cuts off (arXiv:1708.04552)."""
    row = torch.arange(images.shape[2], device=images.device) - y[:, None] + side // 2  # [B, H]
    column = torch.arange(images.shape[3], device=images.device) - x[:, None] + side // 2  # [B, W]
    rows, columns = ((row >= 0) & (row < side)).float(), ((column >= 0) & (column < side)).float()
    return images * (1 - rows[:, None, :, None] * columns[:, None, None])  # several times faster than masked_fill


def normalise(pixels: Tensor, images: Images) -> Tensor:
    """uint8 pixels [B, C, H, W] as floats, less the mean and over the standard deviation of their channel."""
    constants = torch.tensor((images.mean, [1 / std for std in images.std])).to(pixels.device, non_blocking=True)
    mean, scale = constants.view(2, 1, -1, 1, 1)
    return pixels.float().mul_(1 / 255).sub_(mean).mul_(scale)


def mixup(images: Tensor, labels: Tensor, weight: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """Each image mixed with its neighbour in a shuffled batch (arXiv:1710.09412), and the labels [B, classes] likewise.

    Unlike the paper, whose partner is another permutation, pairs are neighbours: a rank then needs no image of
    another rank's share but the one across its edge. The last of an odd number stays as it is.
    """
    partner = (torch.arange(len(images), device=images.device) ^ 1).clamp_(max=len(images) - 1)
    shares = functional.one_hot(labels, num_classes).to(images.dtype)
    return images[partner].lerp_(images, weight), shares[partner].lerp_(shares, weight)
