"""Pairs of low- and high-resolution images, decoded once into files and then read from where they are needed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
from tqdm import tqdm

from nas_apps.core.cache import key, made_once, stamp
from nas_apps.core.errors import UserError
from nas_apps.tasks.sr.images import Picture, read_picture
from nas_apps.tasks.sr.metrics import smallest
from nas_apps.tasks.sr.resize import Pixels, shrink

_VERSION = 1  # of what is made from the same files
_TOLD = 10  # faults, line by line


@dataclass(frozen=True)
class Photo:
    """An image.

    hr: its file. lr: the file of its low-resolution image, which is made here when there is none. centre: the side of
    the square in the middle that is taken; all of it when not given.
    """

    name: str
    hr: Path
    lr: Path | None = None
    centre: int | None = None


@final
class Pictures:
    """Decoded images in a folder that `_write` filled: rows of them, read from the disk when they are looked at.

    faults: what is wrong with an image that is not there, by its row. grey, deep: rows of such images.
    """

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "facts.json").read_text())
        self.sizes = np.array(facts["sizes"], np.int64)  # [N, 2]
        self.faults = {int(row): text for row, text in facts["faults"].items()}
        self.grey, self.deep = frozenset(facts["grey"]), frozenset(facts["deep"])
        self._ends = np.cumsum(self.sizes.prod(1) * 3)
        self._pixels = np.memmap(folder / "pixels.u8", np.uint8, "r")

    def __getitem__(self, row: int) -> Pixels:
        height, width = self.sizes[row]
        end = self._ends[row]
        return self._pixels[end - height * width * 3 : end].reshape(height, width, 3)


@dataclass(frozen=True, eq=False)
class Pairs:
    """A set of pairs of images of one scale.

    rows: which of the decoded images are in the set. left_out: what is wrong with those that are not, a line for each.
    """

    name: str
    scale: int
    names: tuple[str, ...]
    rows: tuple[int, ...]
    hr_pictures: Pictures
    lr_pictures: Pictures
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def lr(self, place: int) -> Pixels:
        """The low-resolution image, uint8 [h, w, 3], read-only."""
        return self.lr_pictures[self.rows[place]]

    def hr(self, place: int) -> Pixels:
        """The image, uint8 [scale * h, scale * w, 3], read-only; what is over a multiple of the scale is cut off."""
        height, width = self.lr_size(place)
        return self.hr_pictures[self.rows[place]][: self.scale * height, : self.scale * width]

    def lr_size(self, place: int) -> tuple[int, int]:
        """The height and width of a low-resolution image."""
        height, width = self.lr_pictures.sizes[self.rows[place]]
        return int(height), int(width)

    def grey(self, place: int) -> bool:
        """Whether the file of an image is grey."""
        return self.rows[place] in self.hr_pictures.grey

    def take(self, places: Sequence[int]) -> Pairs:
        """The pairs at these places; nothing is copied."""
        return replace(
            self, rows=tuple(self.rows[place] for place in places), names=tuple(self.names[place] for place in places)
        )

    def of_side(self, side: int, *, skip: bool) -> Pairs:
        """The pairs whose low-resolution images hold a square of `side` pixels.

        skip: leave out the others; UserError for the first of them otherwise.
        """
        small = [place for place in range(len(self)) if min(self.lr_size(place)) < side]
        if not small:
            return self
        faults = [
            f"{self.names[place]}: {_size(self.lr_size(place))} pixels in low resolution are less than a patch; "
            f"allowed: {side}x{side} and more"
            for place in small
        ]
        if not skip or len(small) == len(self):
            raise UserError(f"{self.name}: {faults[0]}")
        kept = self.take([place for place in range(len(self)) if place not in set(small)])
        return replace(kept, left_out=(*self.left_out, *faults))

    def notices(self) -> list[str]:
        """What to tell a user of the set, a line for each thing."""
        left = [f"{self.name}: left out: {fault}" for fault in self.left_out[:_TOLD]]
        if more := len(self.left_out) - len(left):
            left.append(f"{self.name}: left out: {more} more")
        grey = [name for place, name in enumerate(self.names) if self.grey(place)]
        deep = [name for place, name in enumerate(self.names) if self.rows[place] in self.hr_pictures.deep]
        told = {"grey: their one channel stands for all three": grey, "of 16 bits: the upper 8 are used": deep}
        return left + [
            f"{self.name}: {len(names)} of {len(self)} images are {what} ({names[0]}{' ...' * (len(names) > 1)})"
            for what, names in told.items()
            if names
        ]


def make_pairs(name: str, photos: Sequence[Photo], scale: int, cache: Path, *, skip: bool = False) -> Pairs:
    """Pairs of photos, decoded below `cache` unless they are there: for these files, by their paths, sizes and times.

    They take 3 bytes a pixel there. Low-resolution images are MATLAB's bicubic ones, except where they are supplied.

    skip: leave out images that are at fault; UserError for the first of them otherwise.
    """
    cache = cache.expanduser()
    stamps = [(photo.centre, *stamp(photo.hr)) for photo in photos]
    hr = _made(cache / f"hr-{key(_VERSION, stamps)}", [partial(_read_hr, photo) for photo in photos], name, skip=skip)

    def read_lr(row: int) -> Picture:
        if row in hr.faults:
            raise UserError(hr.faults[row])
        return Picture(_lr(photos[row], hr[row], scale))

    supplied = [photo.lr and stamp(photo.lr) for photo in photos]
    lr_name = f"lr-x{scale}-{key(_VERSION, stamps, supplied)}"
    lr = _made(cache / lr_name, [partial(read_lr, row) for row in range(len(photos))], name, skip=skip)
    rows = tuple(row for row in range(len(photos)) if row not in lr.faults)
    return Pairs(name, scale, tuple(photos[row].name for row in rows), rows, hr, lr, tuple(lr.faults.values()))


def _read_hr(photo: Photo) -> Picture:
    picture = read_picture(photo.hr)
    if photo.centre is None:
        return picture
    top, left = ((side - photo.centre) // 2 for side in picture.pixels.shape[:2])
    return picture._replace(pixels=picture.pixels[top : top + photo.centre, left : left + photo.centre])


def _lr(photo: Photo, hr: Pixels, scale: int) -> Pixels:
    size, least = hr.shape[:2], smallest(scale)
    if min(size) < least:
        raise UserError(f"{photo.hr}: got {_size(size)} pixels; allowed: {least}x{least} and more at x{scale}")
    if photo.lr is None:
        return shrink(hr, scale)
    if not photo.lr.is_file():
        raise UserError(f"{photo.hr}: has no low-resolution image {photo.lr.name} in {photo.lr.parent}")
    lr = read_picture(photo.lr).pixels
    height, width = size[0] // scale, size[1] // scale
    if not (height <= lr.shape[0] <= -(-size[0] // scale) and width <= lr.shape[1] <= -(-size[1] // scale)):
        raise UserError(
            f"{photo.lr}: got {_size(lr.shape)} pixels, for an image of {_size(size)}; "
            f"allowed: {_size((height, width))}, which is x{scale}"
        )
    return lr[:height, :width]


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _made(folder: Path, reads: Sequence[Callable[[], Picture]], name: str, *, skip: bool) -> Pictures:
    pictures = Pictures(made_once(folder, lambda new: _write(new, reads, name, skip=skip)))
    if pictures.faults and not skip:
        raise UserError(next(iter(pictures.faults.values())))
    return pictures


def _write(folder: Path, reads: Sequence[Callable[[], Picture]], name: str, *, skip: bool) -> None:
    sizes, faults, grey, deep = [], {}, [], []
    with (folder / "pixels.u8").open("wb") as file:
        for row, read in enumerate(tqdm(_ahead(reads), name, len(reads), leave=False, disable=None)):
            if isinstance(read, UserError):
                if not skip:
                    raise read
                sizes.append((0, 0))
                faults[row] = str(read)
                continue
            sizes.append(read.pixels.shape[:2])
            grey += [row] * read.grey
            deep += [row] * read.deep
            file.write(read.pixels.tobytes())
        file.flush()
        os.fsync(file.fileno())
    if len(faults) == len(reads):
        raise UserError(f"{name}: none of {len(reads)} images can be used: {faults[0]}")
    (folder / "facts.json").write_text(json.dumps({"sizes": sizes, "faults": faults, "grey": grey, "deep": deep}))


def _ahead(reads: Sequence[Callable[[], Picture]]) -> Iterator[Picture | UserError]:
    """The answers in order, some at once by threads: decoding and resizing leave Python's lock."""
    some = os.cpu_count() or 1
    with ThreadPoolExecutor(some) as pool:
        for start in range(0, len(reads), some):
            yield from pool.map(_attempt, reads[start : start + some])


def _attempt(read: Callable[[], Picture]) -> Picture | UserError:
    try:
        return read()
    except UserError as error:
        return error
