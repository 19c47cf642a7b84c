"""Image files decoded and transformed by worker processes, as timm does it."""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas_apps.core.errors import UserError
from nas_apps.core.seeds import mix
from nas_apps.tasks.image.arrays import EXTRA
from nas_apps.tasks.image.augment import Augment
from nas_apps.tasks.image.folder import read_image
from nas_apps.tasks.image.images import Images, Size

Transform = Callable[..., Tensor]
"""From a decoded RGB image to uint8 [3, H, W]."""

Decoded = Tensor | UserError

Keys = NDArray[np.int64]
"""[B, 2]: the place of an image in its set, and the seed of its transform."""

_POLICIES = "rand-*, augmix-*, original, originalr, v0, v0r, 3a (see timm's auto_augment)"
_CROP = 0.875


class Decoder(Dataset[Tensor]):
    """The images of a set as uint8 [B, C, H, W], by keys. Its workers return what a user did wrong, and do not raise
    it, since a loader would wrap the message in a traceback."""

    def __init__(self, images: Images, augment: Augment | None) -> None:
        if images.files is None:
            raise TypeError(f"{images.name} has no files")
        self._paths, self._rows, self._in_chans = images.files.paths, images.rows.numpy(), images.in_chans
        if augment:
            self._transform = _train_transform(images.size, augment)
        else:
            self._transform = _test_transform(images.size, 1.0 if images.files.exact else _CROP)

    def __getitems__(self, keys: Keys) -> Decoded:
        try:
            return torch.stack([self._read(int(place), int(seed)) for place, seed in keys])
        except UserError as error:
            return error

    def _read(self, place: int, seed: int) -> Tensor:
        image = read_image(self._paths[self._rows[place]], self._in_chans)
        with _seeded(seed):
            pixels = self._transform(image.convert("RGB"))
        return pixels if self._in_chans == 3 else pixels.float().mean(0, keepdim=True).round_().byte()


@final
class Ahead:
    """The batches of `keys`, decoded ahead by worker processes, which end when this is dropped."""

    def __init__(self, decoder: Decoder, keys: Iterable[Keys], workers: int | None, *, pinned: bool) -> None:
        loader = DataLoader(
            decoder,
            batch_sampler=keys,  # type: ignore[arg-type]  # torch hands the keys on as they are
            num_workers=_processors() if workers is None else workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # it collates what the decoder returns
            pin_memory=pinned,
            generator=torch.Generator(),  # or it would draw from the global one
        )
        # The finaliser keeps the loader's iterator out of reference cycles, such as a caught error makes: collected as
        # part of one, its queues would go first, and it would wait five seconds for each of its workers.
        self._batches: list[Iterator[Decoded]] = [iter(loader)]
        weakref.finalize(self, self._batches.clear)

    def __iter__(self) -> Iterator[Decoded]:
        return self

    def __next__(self) -> Decoded:
        return next(self._batches[0])


def _as_it_is(batch: Decoded) -> Decoded:
    return batch


def _processors() -> int:
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, present)


def _train_transform(size: Size, augment: Augment) -> Transform:
    create_transform = _timm()
    try:
        return create_transform(
            (3, *size),
            is_training=True,
            hflip=0.5 if augment.flip else 0.0,
            color_jitter=augment.jitter or None,
            auto_augment=augment.auto,
            use_prefetcher=True,
        )
    except (AssertionError, ValueError, KeyError):
        raise UserError(f"data.auto: timm has no {augment.auto!r}; allowed: {_POLICIES}") from None


def _test_transform(size: Size, crop: float) -> Transform:
    return _timm()((3, *size), crop_pct=crop, use_prefetcher=True)


def _timm() -> Callable[..., Transform]:
    try:
        from timm.data.transforms_factory import create_transform
    except ImportError:
        raise UserError(f"data: image folders need timm and torchvision: {EXTRA}") from None
    return create_transform


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The three global generators, from which timm and torchvision draw, seeded for a while and then put back."""
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.set_state(np.random.RandomState(mix(seed, 1) % 2**32).get_state())
    torch.default_generator.manual_seed(mix(seed, 2))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])
