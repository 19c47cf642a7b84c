"""PSNR and SSIM as papers on super-resolution measure them: on the luma, without a border as wide as the scale."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_apps.core.errors import unknown
from nas_apps.tasks.sr.resize import Pixels, bicubic, cut, shrink, to_bytes

Protocol = Literal["A", "B", "C"]
PROTOCOLS = {
    "A": "RGB in bytes, luma rounded",
    "B": "luma rounded first and resized as a float (SRCNN's; for bicubic alone)",
    "C": "RGB in bytes, luma not rounded (BasicSR's)",
}
"""What is measured under each name. In all of them the luma is BT.601's, of 16 to 235; a border of `scale` pixels does
not count; and of an image whose file is grey (Set14 has one such) the grey itself is measured, of 0 to 255."""

_LUMA = np.array([65.481, 128.553, 24.966])
_WINDOW = 11
_GAUSSIAN = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
_GAUSSIAN /= _GAUSSIAN.sum()


class Figures(NamedTuple):
    """How near an image is to another: PSNR in dB, and SSIM."""

    psnr: float
    ssim: float


def smallest(scale: int) -> int:
    """The least height and width of an HR image that can be measured."""
    return -(-(_WINDOW + 2 * scale) // scale) * scale


def luma(image: Pixels, protocol: Protocol = "C", *, grey: bool = False) -> NDArray[np.float64]:
    """The luma [H, W] of RGB bytes [H, W, 3]: 16 to 235, or 0 to 255 with `grey`; rounded, except in protocol C.

    >>> luma(np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)).round(3).tolist()
    [[235.0, 16.0, 81.481]]
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: got {image.dtype} {list(image.shape)}; allowed: uint8 [H, W, 3]")
    exact = image @ (_LUMA / _LUMA.sum()) if grey else 16 + image @ (_LUMA / 255)
    return exact if protocol == "C" else np.floor(exact + 0.5)


def compare(image: Pixels, hr: Pixels, scale: int, protocol: Protocol = "C", *, grey: bool = False) -> Figures:
    """An image against the real one, both uint8 [H, W, 3]; grey: whether the real one's file is."""
    planes = luma(image, protocol, grey=grey), luma(hr, protocol, grey=grey)
    return Figures(psnr(*planes, scale), ssim(*planes, scale))


def bicubic_figures(
    hr: Pixels, scale: int, protocol: Protocol = "C", *, grey: bool = False, lr: Pixels | None = None
) -> Figures:
    """What bicubic interpolation reaches on an HR image; from `lr` where a low-resolution image is supplied.

    hr: uint8 [H, W, 3]. Protocol B makes its own low-resolution luma and does not look at `lr`.
    """
    hr = cut(hr, scale)
    if protocol != "B":
        return compare(bicubic(shrink(hr, scale) if lr is None else lr, scale), hr, scale, protocol, grey=grey)
    real = luma(hr, protocol, grey=grey)
    plane = to_bytes(bicubic(bicubic(real, Fraction(1, scale)), scale)).astype(float)
    return Figures(psnr(plane, real, scale), ssim(plane, real, scale))


def average(figures: Sequence[Figures]) -> Figures:
    """The mean over images, which is what papers print of a set."""
    return Figures(*(float(np.mean(column)) for column in zip(*figures, strict=True)))


def psnr(plane: NDArray[np.float64], real: NDArray[np.float64], border: int) -> float:
    """The peak signal-to-noise ratio of planes [H, W] of 0 to 255, in dB; infinite where they are equal."""
    a, b = _inner(plane, real, border)
    error = float(np.square(a - b).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(plane: NDArray[np.float64], real: NDArray[np.float64], border: int) -> float:
    """The structural similarity of planes [H, W] of 0 to 255.

    Means are over a Gaussian window of 11 x 11 and deviation 1.5, and only where all of it lies in the image.
    """
    a, b = _inner(plane, real, border)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    both = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def _inner(
    plane: NDArray[np.float64], real: NDArray[np.float64], border: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if plane.shape != real.shape or plane.ndim != 2:
        raise ValueError(f"planes: got {list(plane.shape)} and {list(real.shape)}; allowed: two of one [H, W]")
    if min(plane.shape) < 2 * border + _WINDOW:
        raise ValueError(f"planes: got {list(plane.shape)}; allowed: {2 * border + _WINDOW} and more, each way")
    inner = slice(border, plane.shape[0] - border), slice(border, plane.shape[1] - border)
    return plane[inner], real[inner]


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    for _ in range(2):
        rows = len(plane) - _WINDOW + 1
        plane = sum(tap * plane[place : place + rows] for place, tap in enumerate(_GAUSSIAN)).T
    return plane
