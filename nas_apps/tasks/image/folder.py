"""Image folders: what is in them, and how one image is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.arrays import EXTRA
from nas_apps.tasks.image.images import Size

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_LAYOUT = "train/<class>/ beside test/<class>/ or val/<class>/, or <class>/ alone, holding " + " ".join(ENDINGS)
_GREY = ("1", "L", "LA", "La", "I", "F")
_SAMPLE = 256


class Half(NamedTuple):
    """Encoded paths of images [N] and their labels [N]."""

    paths: NDArray[np.bytes_]
    labels: Tensor


class Folder(NamedTuple):
    """What a folder of images holds."""

    train: Half
    test: Half | None
    class_names: tuple[str, ...]


def scan(path: Path) -> Folder:
    """The images of a folder by class; `test/` is taken before `val/`, and its classes must be those of `train/`."""
    train = path / "train"
    held_out = [path / name for name in ("test", "val") if (path / name).is_dir()]
    if not train.is_dir():
        if held_out:
            raise UserError(f"{path}: holds {held_out[0].name}/ but no train/; allowed: {_LAYOUT}")
        names = _classes(path)
        return Folder(_half(path, names), None, names)
    names = _classes(train)
    if not held_out:
        return Folder(_half(train, names), None, names)
    if strange := sorted(set(names) ^ set(_classes(held_out[0]))):
        where, other = ("train", held_out[0].name) if strange[0] in names else (held_out[0].name, "train")
        raise UserError(f"{path}: the class {strange[0]!r} is in {where}/ but not in {other}/ ({len(strange)} such)")
    return Folder(_half(train, names), _half(held_out[0], names), names)


def probe(paths: NDArray[np.bytes_]) -> tuple[set[Size], bool]:
    """The sizes met in an even sample of the files, and whether all of it is grey."""
    sizes, grey = set(), True
    for encoded in paths[np.unique(np.linspace(0, len(paths) - 1, _SAMPLE).astype(int))]:
        with _opened(encoded) as image:
            sizes.add((image.height, image.width))
            grey = grey and image.mode.split(";")[0] in _GREY
    return sizes, grey


def read_image(encoded: bytes, in_chans: int) -> Image:
    """One image, decoded, grey or RGB."""
    with _opened(encoded) as image:
        if image.mode == "P":
            image = image.convert("RGBA")  # Pillow warns about transparency otherwise
        if image.mode.startswith("I;16"):  # Pillow would clip at 255
            from PIL import Image as pillow

            image = pillow.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
        return image.convert("L" if in_chans == 1 else "RGB")


def read_all(paths: NDArray[np.bytes_], in_chans: int, size: Size, *, scale: bool) -> Tensor:
    """All images as uint8 [N, C, H, W]. With `scale` they are made to cover the size and cut at the centre; without,
    one of another size is an error."""
    pixels = torch.empty(len(paths), in_chans, *size, dtype=torch.uint8)

    def read(number: int) -> None:
        image = read_image(paths[number], in_chans)
        if (image.height, image.width) != size:
            if not scale:
                raise _other_size(os.fsdecode(paths[number]), {(image.height, image.width), size})
            image = _fit(image, size)
        pixels[number] = to_tensor(image)

    # Decoding leaves Python's lock, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done: Iterable[None] = pool.map(read, range(len(paths)))
        for _ in tqdm(done, "reading images", len(paths), leave=False, disable=None):
            pass
    return pixels


def to_tensor(image: Image) -> Tensor:
    """A decoded image as uint8 [C, H, W]."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def one_size(path: Path, sizes: set[Size]) -> Size:
    """The size of all, where the user stated none."""
    if len(sizes) > 1:
        raise _other_size(str(path), sizes)
    return next(iter(sizes))


def _other_size(where: str, sizes: set[Size]) -> UserError:
    met = " and ".join(f"{height}x{width}" for height, width in sorted(sizes)[:2])
    return UserError(f"{where}: images of different sizes ({met}, height x width); state image_size")


def _fit(image: Image, size: Size) -> Image:
    from PIL import Image as pillow
    from PIL import ImageOps

    return ImageOps.fit(image, (size[1], size[0]), pillow.Resampling.BILINEAR)


@contextmanager
def _opened(encoded: bytes) -> Iterator[Image]:
    try:
        from PIL import Image as pillow
    except ImportError:
        raise UserError(f"data: image folders need pillow and torchvision: {EXTRA}") from None
    path = os.fsdecode(encoded)
    try:
        with pillow.open(path) as image:
            image.load()
            yield image
    except UserError:
        raise
    # What Pillow raises for files that are cut short, damaged, not images, or too large to be meant.
    except (OSError, SyntaxError, ValueError, EOFError, pillow.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot read this image ({' '.join(str(error).split())}); mend or remove it") from None


def _classes(path: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith(".")))
    if not names:
        found = "images but no folders of classes" if any(_images(path)) else "no images"
        raise UserError(f"{path}: found {found}; allowed: {_LAYOUT}")
    if len(names) < 2:
        raise UserError(f"{path}: found one class, {names[0]!r}; allowed: two or more")
    return names


def _half(path: Path, names: Sequence[str]) -> Half:
    paths: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(_images(path / name))
        if not found:
            raise UserError(f"{path / name}: found no images of this class; allowed: files in {' '.join(ENDINGS)}")
        paths += found
        labels += [label] * len(found)
    return Half(np.array(paths), torch.tensor(labels))


def _images(path: Path) -> Iterator[bytes]:
    for folder, _, files in os.walk(path, followlinks=True):
        for file in files:
            if file.lower().endswith(ENDINGS) and not file.startswith("."):
                yield os.fsencode(Path(folder) / file)
