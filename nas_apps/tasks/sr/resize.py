"""MATLAB's `imresize` with its bicubic kernel, to the bit: what published low-resolution images were made with.

The kernel is Keys' with a = -1/2, made wider when an image shrinks; the border is repeated, as older MATLAB does.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Pixels = NDArray[np.uint8]


def bicubic(image: NDArray[Any], scale: Fraction | float) -> NDArray[Any]:
    """An image [H, W] or [H, W, C] at `scale` times its size, rounded up.

    uint8 gives uint8, rounded after the rows and again after the columns, as MATLAB does; floats give float64, and are
    not rounded.

    >>> ramp = np.arange(0, 64, 4, dtype=np.uint8).reshape(4, 4)
    >>> bicubic(ramp, Fraction(1, 2)).tolist()
    [[10, 18], [42, 50]]
    """
    exact = Fraction(scale).limit_denominator(1000)
    return _rows(_rows(image, exact).swapaxes(0, 1), exact).swapaxes(0, 1)


@final
class Bicubic(nn.Module):
    """`bicubic` of float images [B, C, H, W] as one convolution, which can be exported with any H and W.

    scale: a whole number, or 1 over one. There are no weights; under autocast it is computed in full precision.
    """

    kernel: Tensor  # [up * up, 1, T, T]

    def __init__(self, scale: Fraction | int) -> None:
        super().__init__()
        exact = Fraction(scale)
        self.up, self.down = exact.numerator, exact.denominator
        if self.up > 1 and self.down > 1:
            raise ValueError(f"scale: got {scale}; allowed: a whole number or 1 over one")
        first, weights = _taps(exact)
        self._border = (-first, first + weights.shape[1] - 1) * 2
        kernel = torch.tensor(np.einsum("ik,jl->ijkl", weights, weights), dtype=torch.get_default_dtype())
        self.register_buffer("kernel", kernel.flatten(0, 1)[:, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The images at `scale` times their size, rounded up."""
        with torch.autocast(images.device.type, enabled=False):
            padded = functional.pad(images.to(self.kernel.dtype), self._border, mode="replicate")
            planes = functional.conv2d(padded.flatten(0, 1)[:, None], self.kernel, stride=self.down)
            resized = functional.pixel_shuffle(planes, self.up)
            return resized.view(*images.shape[:2], *resized.shape[2:])


def shrink(image: Pixels, scale: int) -> Pixels:
    """The low-resolution image of one [H, W, 3], of which what is over a multiple of `scale` is cut off."""
    return bicubic(cut(image, scale), Fraction(1, scale))


def cut(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """An image [H, W, ...] without the rows and columns that are over a multiple of `scale`."""
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def _rows(image: NDArray[Any], scale: Fraction) -> NDArray[Any]:
    """An image [H, ...] with `scale` times the rows."""
    first, weights = _taps(scale)
    up, down = scale.numerator, scale.denominator
    rows = ceil(len(image) * scale)
    steps = ceil(rows / up)
    reads = np.arange(first, first + down * (steps - 1) + weights.shape[1])
    padded = image[reads.clip(0, len(image) - 1)]
    resized = np.empty((steps * up, *image.shape[1:]))
    for phase, taps in enumerate(weights):
        resized[phase::up] = sum(
            tap * padded[place : place + down * (steps - 1) + 1 : down] for place, tap in enumerate(taps) if tap
        )
    return to_bytes(resized[:rows]) if image.dtype == np.uint8 else resized[:rows]


def to_bytes(values: NDArray[np.float64]) -> Pixels:
    """Numbers of 0 to 255 as uint8, halves rounded up."""
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _taps(scale: Fraction) -> tuple[int, NDArray[np.float64]]:
    """(first, weights [up, T]) of a scale of up / down.

    Output up * i + r is the sum over k of weights[r, k] * input[down * i + first + k].
    """
    narrow = min(scale, Fraction(1))
    centres = [(phase + Fraction(1, 2)) / scale - Fraction(1, 2) for phase in range(scale.numerator)]
    first, last = floor(centres[0] - 2 / narrow) + 1, ceil(centres[-1] + 2 / narrow) - 1
    rows = [[_keys((centre - place) * narrow) for place in range(first, last + 1)] for centre in centres]
    return first, np.array([[float(weight / sum(row)) for weight in row] for row in rows])


def _keys(x: Fraction) -> Fraction:
    """Keys' cubic kernel with a = -1/2."""
    x = abs(x)
    if x <= 1:
        return 1 + x * x * (3 * x - 5) / 2
    return 2 + x * (-8 + x * (5 - x)) / 2 if x < 2 else Fraction(0)
