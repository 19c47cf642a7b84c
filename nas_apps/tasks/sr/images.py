"""One image: read with one clear line where it cannot be, written whole, and as a tensor."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas_apps.core import files
from nas_apps.core.errors import UserError, require
from nas_apps.tasks.sr.resize import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_GREY = ("1", "L", "LA", "La")


class Picture(NamedTuple):
    """What is in an image's file.

    pixels: uint8 [H, W, 3]. grey: whether it has one channel, which is then all three. deep: whether it has 16 bits, of
    which the upper 8 are taken. alpha: how opaque it is, uint8 [H, W]; None where all of it is.
    """

    pixels: Pixels
    grey: bool = False
    deep: bool = False
    alpha: Pixels | None = None


def read_image(path: Path) -> Pixels:
    """The pixels of an image, uint8 [H, W, 3]."""
    return read_picture(path).pixels


def read_picture(path: Path, *, alpha: bool = False) -> Picture:
    """An image of any kind; of transparent pixels only where `alpha` is asked for, since what colours those would show
    is not known."""
    require("PIL", extra="sr")
    from PIL import Image as pillow
    from PIL import ImageOps

    try:
        with pillow.open(path) as image:
            how = [tile[3][:1] if isinstance(tile[3], tuple) else tile[3] for tile in image.tile]
            deep = "16" in str(how)  # Pillow's name of how the file holds pixels, without the numbers beside it
            return picture_of(ImageOps.exif_transpose(image), deep=deep, alpha=alpha)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    # What Pillow raises for files that are cut short, damaged, not images, or too large to be meant.
    except (OSError, SyntaxError, ValueError, EOFError, pillow.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise UserError(f"{path}: cannot read this image ({reason}); mend or remove it") from None


def picture_of(image: Image, *, deep: bool = False, alpha: bool = False) -> Picture:
    """What is in an image that is read. deep, alpha: whether its file has 16 bits, whether it may be transparent."""
    if image.mode == "F":
        raise UserError("its pixels are floats; allowed: 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip at 255
        numbers = np.asarray(image).astype(np.int64)
        if numbers.min() < 0 or numbers.max() >= 2**16:
            raise UserError("its pixels have more than 16 bits; allowed: 8 or 16")
        return Picture(np.repeat((numbers >> 8).astype(np.uint8)[..., None], 3, 2), grey=True, deep=True)
    opaque = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
    if opaque is not None and opaque.min() == 255:
        opaque = None
    if opaque is not None and not alpha:
        raise UserError(f"{(opaque < 255).mean():.0%} of its pixels are transparent; allowed: none")
    return Picture(np.array(image.convert("RGB")), image.mode in _GREY, deep, opaque)


def write_image(path: Path, pixels: Pixels) -> None:
    """Write a PNG of uint8 [H, W, 3], whole or not at all; [H, W] is grey, a channel more than 1 or 3 is alpha."""
    require("PIL", extra="sr")
    from PIL import Image as pillow

    content = BytesIO()
    pillow.fromarray(pixels).save(content, "PNG")
    files.write(path, content.getbuffer())


def to_tensor(pixels: Pixels, device: torch.device | None = None) -> Tensor:
    """uint8 [..., H, W, 3] as floats of 0 to 1 [..., 3, H, W] on a device."""
    return torch.tensor(pixels).to(device).movedim(-1, -3).contiguous().float() / 255


def to_pixels(image: Tensor) -> Pixels:
    """Floats [3, H, W] as uint8 [H, W, 3]: what is outside of 0 to 1 is cut off, and the rest rounded."""
    scaled = image.detach().float().clamp(0, 1) * 255
    pixels: Pixels = scaled.add(0.5).byte().movedim(0, -1).contiguous().cpu().numpy()
    return pixels


def images_in(folder: Path) -> list[Path]:
    """The images in a folder, by name; not those in folders in it."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot read this folder: {error.strerror}; allowed: a folder of images") from None
