"""Images that come as arrays: scikit-learn's digits and .npz files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.images import Constants, Size

EXTRA = "pip install 'nas-apps[image]'"
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's
_KEYS = "x_train, y_train and perhaps x_test, y_test"
_SHAPES = "[N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"


class Half(NamedTuple):
    """uint8 images [N, C, H, W] and their labels [N]."""

    pixels: Tensor
    labels: Tensor


class Arrays(NamedTuple):
    """A data set in memory; `test` and `constants` are there when the source states them."""

    train: Half
    test: Half | None
    class_names: tuple[str, ...]
    constants: Constants | None = None


def read_digits() -> Arrays:
    """scikit-learn's 1,797 grey digits of 8x8."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(f"task.data: digits needs scikit-learn: {EXTRA}") from None
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # they count from 0 to 16
    half = Half(torch.from_numpy(pixels[:, None]), torch.from_numpy(digits.target).long())
    return Arrays(half, None, tuple(map(str, digits.target_names)))


def read_npz(path: Path) -> Arrays:
    """The arrays of a .npz file."""
    found = _open(path)
    if set(found) not in ({"x_train", "y_train"}, {"x_train", "y_train", "x_test", "y_test"}):
        raise UserError(f"{path}: found the arrays {', '.join(sorted(found)) or '(none)'}; allowed: {_KEYS}")
    names = np.unique(_labels(path, "y_train", found["y_train"]))
    train = _half(path, found, "train", names)
    test = _half(path, found, "test", names) if "x_test" in found else None
    if test and test.pixels.shape[1:] != train.pixels.shape[1:]:
        raise UserError(
            f"{path}: images of x_train and x_test differ in shape: "
            f"{tuple(train.pixels.shape[1:])} and {tuple(test.pixels.shape[1:])} (channels, height, width)"
        )
    return Arrays(train, test, tuple(map(str, names)))


def fit(pixels: Tensor, in_chans: int, size: Size) -> Tensor:
    """Images [N, C, H, W] in another number of channels and size: scaled to cover it, then cut at the centre."""
    if pixels.shape[1] != in_chans and in_chans == 3:
        pixels = pixels.expand(-1, 3, -1, -1)
    if pixels.shape[1:] == (in_chans, *size):
        return pixels.contiguous()
    return torch.cat([_fit(part, in_chans, size) for part in torch.split(pixels, 4096)])


def _fit(pixels: Tensor, in_chans: int, size: Size) -> Tensor:
    values = pixels.float()
    if pixels.shape[1] == 3 and in_chans == 1:
        values = (values * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    height, width = pixels.shape[2:]
    if (height, width) != size:
        scale = max(size[0] / height, size[1] / width)
        cover = max(size[0], round(height * scale)), max(size[1], round(width * scale))
        values = functional.interpolate(values, cover, mode="bilinear", antialias=True)
        top, left = (cover[0] - size[0]) // 2, (cover[1] - size[1]) // 2
        values = values[:, :, top : top + size[0], left : left + size[1]]
    return values.round_().clamp_(0, 255).byte()


def _open(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds pickled objects" if "allow_pickle" in str(error) else "not a whole .npz file"
        raise UserError(f"{path}: cannot read it: {reason}; allowed: arrays of numbers {_KEYS}") from None


def _half(path: Path, found: Mapping[str, NDArray[Any]], part: str, names: NDArray[Any]) -> Half:
    x, y = f"x_{part}", f"y_{part}"
    pixels, labels = _pixels(path, x, found[x]), _labels(path, y, found[y])
    if len(pixels) != len(labels):
        raise UserError(f"{path}: {x} has {len(pixels)} images and {y} {len(labels)} labels")
    if strange := sorted(set(labels.tolist()) - set(names.tolist())):
        raise UserError(f"{path}: {y} has the label {strange[0]}, which y_train has not")
    return Half(pixels, torch.from_numpy(np.searchsorted(names, labels)).long())


def _pixels(path: Path, key: str, array: NDArray[Any]) -> Tensor:
    if array.dtype != np.uint8:
        raise UserError(f"{path}: {key} is of type {array.dtype}; allowed: uint8, from 0 to 255")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise UserError(f"{path}: {key} has the shape {list(array.shape)}; allowed: {_SHAPES}")
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(path: Path, key: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu":
        raise UserError(f"{path}: {key} is of type {array.dtype}; allowed: whole numbers")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not len(array):
        raise UserError(f"{path}: {key} has the shape {list(array.shape)}; allowed: [N]")
    return array.astype(np.int64)
