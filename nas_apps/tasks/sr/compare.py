"""Images side by side in one PNG: what bicubic, a network and the camera made of the same place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nas_apps.core.errors import require
from nas_apps.tasks.sr.images import write_image
from nas_apps.tasks.sr.metrics import Protocol, bicubic_figures, compare
from nas_apps.tasks.sr.pairs import Pairs
from nas_apps.tasks.sr.resize import Pixels, bicubic

_TEXT, _GAP = 32, 8  # pixels: the height of two lines of text, and between images


def write_comparison(
    path: Path, pairs: Pairs, place: int, ours: Pixels, *, protocol: Protocol = "C", most: int = 480
) -> None:
    """Bicubic's, our and the real image of a pair beside each other, with their figures.

    ours: uint8 [H, W, 3]. most: of larger images, the middle that is at most so high and wide is shown; figures are of
    the whole.
    """
    hr, lr, grey, scale = pairs.hr(place), pairs.lr(place), pairs.grey(place), pairs.scale
    figures = {
        "bicubic": bicubic_figures(hr, scale, protocol, grey=grey, lr=lr),
        "ours": compare(ours, hr, scale, protocol, grey=grey),
    }
    told = {name: f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f}" for name, (psnr, ssim) in figures.items()}
    write_beside(
        path,
        {
            f"bicubic x{scale}\n{told['bicubic']}": _middle(bicubic(lr, scale), most),
            f"ours x{scale}\n{told['ours']}": _middle(ours, most),
            f"{pairs.names[place]}\nfigures: luma, protocol {protocol}": _middle(hr, most),
        },
    )


def write_beside(path: Path, images: Mapping[str, Pixels]) -> None:
    """Write images uint8 [H, W, 3] of one height beside each other, each below its text."""
    require("PIL", extra="sr")
    from PIL import Image as pillow
    from PIL import ImageDraw

    panels = []
    for text, image in images.items():
        strip = pillow.new("RGB", (image.shape[1], _TEXT), "white")
        ImageDraw.Draw(strip).multiline_text((2, 2), text, fill="black")
        panels += [np.concatenate([np.asarray(strip), image]), np.full((_TEXT + len(image), _GAP, 3), 255, np.uint8)]
    write_image(path, np.concatenate(panels[:-1], 1))


def _middle(image: Pixels, most: int) -> Pixels:
    top, left = (max(side - most, 0) // 2 for side in image.shape[:2])
    return image[top : top + most, left : left + most]
