"""Images through a trained up-sampler: in tiles, so that memory does not grow with the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_apps.core.errors import UserError, require
from nas_apps.tasks.sr.export import load_network, write_onnx
from nas_apps.tasks.sr.images import Picture, picture_of, read_picture, to_pixels, to_tensor
from nas_apps.tasks.sr.network import Upscaler
from nas_apps.tasks.sr.resize import Pixels, bicubic

TILE = 256
"""The side of a tile, in pixels of the image that is enlarged."""


class Span(NamedTuple):
    """Where a tile is along one side. read: of the image. written: of the enlarged image. kept: of the tile's own."""

    read: slice
    written: slice
    kept: slice


def spans(size: int, tile: int, margin: int, scale: int) -> Iterator[Span]:
    """Tiles of a side of `size` pixels, each read with a margin of its neighbours.

    >>> [span.read for span in spans(10, 4, 1, 2)]
    [slice(0, 5, None), slice(3, 9, None), slice(7, 10, None)]
    """
    for start in range(0, size, tile):
        stop, first = min(start + tile, size), max(start - margin, 0)
        written, kept = (slice(scale * (start - at), scale * (stop - at)) for at in (0, first))
        yield Span(slice(first, min(stop + margin, size)), written, kept)


def reach(network: nn.Module) -> int:
    """As many pixels in each direction as those of an enlarged image can depend on: all convolutions of a network of
    one exit are one after another, and the bicubic kernel reaches no further than the first and the last of them."""
    return sum(conv.kernel_size[0] // 2 for conv in network.modules() if isinstance(conv, nn.Conv2d))


@dataclass(frozen=True, eq=False)
class Enlarger:
    """A trained up-sampler as one uses it.

    network: of one exit, in evaluation mode; where it is, is where images are enlarged.
    """

    network: Upscaler

    @property
    def scale(self) -> int:
        """How many times the height and the width grow."""
        return self.network.scale

    def to(self, device: torch.device | str) -> Enlarger:
        """Itself, with the network on a device."""
        self.network.to(device)
        return self

    def upscale(self, image: Any, *, tile: int = TILE) -> Any:
        """An image, `scale` times as high and wide; what tiles make is what the whole image would, up to rounding.

        Args:
            image: a file's path or a Pillow image, which give a Pillow image; uint8 [H, W] or [H, W, 3], which gives
                the like; a tensor [3, H, W] or [B, 3, H, W] of floats of 0 to 1, which gives the like. Grey images stay
                grey. Where an image is transparent, its alpha is enlarged by bicubic interpolation.
            tile: the side of a tile; less needs less memory.
        """
        if tile < 1:
            raise UserError(f"tile: got {tile}; allowed: 1 and more")
        if isinstance(image, Tensor):
            return self._tensor(image, tile)
        if isinstance(image, np.ndarray):
            return self.pixels(_picture(image), tile=tile)
        require("PIL", extra="sr")
        from PIL.Image import Image, fromarray

        if isinstance(image, str | Path):
            return fromarray(self.pixels(read(Path(image)), tile=tile))
        if isinstance(image, Image):
            return fromarray(self.pixels(_of_8_bits(picture_of(image, alpha=True), "image"), tile=tile))
        raise UserError(f"image: got a {type(image).__name__}; allowed: a path, a Pillow image, an array, a tensor")

    def pixels(self, picture: Picture, *, tile: int = TILE) -> Pixels:
        """The pixels of a picture's enlargement: uint8 [H, W], [H, W, 2] with alpha, [H, W, 3], or [H, W, 4]."""
        height, width = picture.pixels.shape[:2]
        channels = 1 if picture.grey else 3
        found = np.empty((height * self.scale, width * self.scale, channels + (picture.alpha is not None)), np.uint8)
        for rows, columns in self._tiles(height, width, tile):
            part = self._run(to_tensor(picture.pixels[rows.read, columns.read])[None])[0, :, rows.kept, columns.kept]
            part = part.mean(0, keepdim=True) if picture.grey else part
            found[rows.written, columns.written, :channels] = to_pixels(part)
            if picture.alpha is not None:
                alpha = bicubic(picture.alpha[rows.read, columns.read], self.scale)
                found[rows.written, columns.written, -1] = alpha[rows.kept, columns.kept]
        return found[..., 0] if found.shape[-1] == 1 else found

    def to_onnx(self, path: Path | str) -> None:
        """Write the network as ONNX; see `write_onnx`."""
        write_onnx(self.network, Path(path))

    def _tensor(self, image: Tensor, tile: int) -> Tensor:
        if not image.is_floating_point() or image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.numel():
            raise UserError(
                f"image: got a tensor {[*image.shape]} of {image.dtype}; allowed: floats of 0 to 1, [3, H, W] or "
                "[B, 3, H, W]"
            )
        batch = image[None] if image.ndim == 3 else image
        height, width = image.shape[-2:]
        found = batch.new_empty(len(batch), 3, height * self.scale, width * self.scale)
        for rows, columns in self._tiles(height, width, tile):
            part = self._run(batch[..., rows.read, columns.read])[..., rows.kept, columns.kept]
            found[..., rows.written, columns.written] = part.clamp(0, 1)
        return found[0] if image.ndim == 3 else found

    def _tiles(self, height: int, width: int, tile: int) -> Iterator[tuple[Span, Span]]:
        margin = reach(self.network)
        return product(spans(height, tile, margin, self.scale), spans(width, tile, margin, self.scale))

    @torch.no_grad()
    def _run(self, part: Tensor) -> Tensor:
        found: Tensor = self.network(part.to(self.network.stem.weight))
        return found


def load(folder: Path | str) -> Enlarger:
    """The trained up-sampler of a run, on the CPU."""
    return Enlarger(load_network(folder))


def read(path: Path) -> Picture:
    """The image in a file of 8 bits a channel."""
    return _of_8_bits(read_picture(path, alpha=True), str(path))


def _of_8_bits(picture: Picture, where: str) -> Picture:
    if picture.deep:
        raise UserError(f"{where}: got 16 bits a channel; allowed: 8")
    return picture


def _picture(image: NDArray[Any]) -> Picture:
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not image.size or not (grey or (image.ndim == 3 and image.shape[2] == 3)):
        raise UserError(f"image: got an array {[*image.shape]} of {image.dtype}; allowed: uint8, [H, W] or [H, W, 3]")
    return Picture(np.repeat(image[..., None], 3, 2) if grey else image, grey)
