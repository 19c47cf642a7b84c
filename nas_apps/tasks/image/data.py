"""The labelled images that a user names: an embedded set, CIFAR, arrays in a file, or a folder of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.arrays import Arrays, fit, read_digits, read_npz
from nas_apps.tasks.image.cifar import read_cifar
from nas_apps.tasks.image.folder import one_size, probe, read_all, scan
from nas_apps.tasks.image.images import Constants, Files, Images, Pixels, Size, split

ALLOWED = "digits, a folder with cifar-10-batches-py or cifar-100-python, a .npz file, a folder of images"
HELD_OUT = 0.2
"""Share of the images that become the test set where the source has none: stratified, the same in every run."""

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_GREY = (0.449,), (0.226,)
_UNKNOWN: Constants = (), ()


class Sets(NamedTuple):
    """train: what a search splits and a final training learns from. test: what is left for the final figures."""

    train: Images
    test: Images


def load(
    data: str,
    image_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    memory: int = 2**30,
) -> Sets:
    """The training and the test images called `data`: "digits", or a path.

    image_size, in_chans: read from the data when not given. Images that differ are scaled to cover the size
    and cut at the centre, made grey or made RGB. memory: the bytes up to which a folder of images is read into memory.
    """
    size = _stated(image_size)
    if in_chans not in (None, 1, 3):
        raise UserError(f"task.in_chans: {in_chans}; allowed: 1 (grey), 3 (RGB), or nothing")
    if data == "digits":
        return _from_arrays(data, read_digits(), size, in_chans)
    path = Path(data).expanduser()
    if path.is_file() and path.suffix == ".npz":
        return _from_arrays(data, read_npz(path), size, in_chans)
    if not path.is_dir():
        what = "is a file of another kind" if path.exists() else "does not exist"
        raise UserError(f"task.data: {data!r} {what}; allowed: {ALLOWED}")
    try:
        arrays = read_cifar(path)
        return _from_arrays(data, arrays, size, in_chans) if arrays else _from_folder(path, size, in_chans, memory)
    except PermissionError as error:
        raise UserError(f"{error.filename}: may not be read") from None


def _stated(image_size: int | tuple[int, int] | None) -> Size | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"task.image_size: {image_size}; allowed: a side, or height and width, of 1 or more")
    return size


def _from_arrays(name: str, arrays: Arrays, size: Size | None, in_chans: int | None) -> Sets:
    shape = arrays.train.pixels.shape
    if len(arrays.class_names) < 2:
        raise UserError(f"{name}: found one class, {arrays.class_names[0]!r}; allowed: two or more")
    size, channels = size or (int(shape[2]), int(shape[3])), in_chans or int(shape[1])
    halves = [half for half in (arrays.train, arrays.test) if half]
    pixels = Pixels(torch.cat([fit(half.pixels, channels, size) for half in halves]))
    labels = torch.cat([half.labels for half in halves])
    constants = arrays.constants if channels == shape[1] else None
    images = Images(name, arrays.class_names, size, channels, *_UNKNOWN, torch.arange(len(labels)), labels, pixels)
    return _sets(images, len(arrays.train.labels), constants)


def _from_folder(path: Path, size: Size | None, in_chans: int | None, memory: int) -> Sets:
    found = scan(path)
    halves = [half for half in (found.train, found.test) if half]
    paths, labels = np.concatenate([half.paths for half in halves]), torch.cat([half.labels for half in halves])
    sizes, grey = probe(paths)
    chosen, channels = size or one_size(path, sizes), in_chans or (1 if grey else 3)
    fits = len(paths) * channels * chosen[0] * chosen[1] <= memory
    pixels = Pixels(read_all(paths, channels, chosen, scale=size is not None)) if fits else None
    files, rows = Files(paths, exact=sizes == {chosen}), torch.arange(len(paths))
    images = Images(str(path), found.class_names, chosen, channels, *_UNKNOWN, rows, labels, pixels, files)
    # A set too large to be read is too large for its statistics too, and networks trained on ImageNet expect these.
    constants = None if fits else _IMAGENET if channels == 3 else _IMAGENET_GREY
    return _sets(images, len(found.train.labels), constants)


def _sets(images: Images, num_train: int, constants: Constants | None) -> Sets:
    """The training images come first; where they are all there is, some of them become the test set."""
    if num_train < len(images):
        train, test = images.take(torch.arange(num_train)), images.take(torch.arange(num_train, len(images)))
    else:
        train, test = split(images, 1 - HELD_OUT)
    mean, std = constants or _statistics(train)
    return Sets(replace(train, mean=mean, std=std), replace(test, mean=mean, std=std))


def _statistics(images: Images) -> Constants:
    """Mean and standard deviation of each channel, exactly: from how often each of the 256 values occurs."""
    if images.pixels is None:
        raise TypeError(f"{images.name} is not in memory")
    counts = torch.zeros(images.in_chans, 256, dtype=torch.float64)
    for rows in torch.split(images.rows, 4096):
        part = images.pixels.on(torch.device("cpu"))[rows]
        counts += torch.stack([torch.bincount(part[:, c].reshape(-1), minlength=256) for c in range(images.in_chans)])
    values, shares = torch.arange(256, dtype=torch.float64) / 255, counts / counts.sum(1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]).square()).sum(1)
    floor = 1 / 255  # a blank channel has no deviation to divide by
    return tuple(mean.tolist()), tuple(max(std, floor) for std in variance.sqrt().tolist())
