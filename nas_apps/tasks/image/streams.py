"""Endless, resumable batches for training, and single passes for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.tasks.image.augment import Augment, normalise
from nas_apps.tasks.image.decode import Ahead, Decoder, Keys
from nas_apps.tasks.image.images import Images
from nas_apps.tasks.image.plan import Feed as Feed
from nas_apps.tasks.image.plan import Plan

Labelled = tuple[Tensor, Tensor]
"""Float images [B, C, H, W] and their labels [B], or [B, classes] after mixup, on the device."""


def stream(images: Images, augment: Augment, feed: Feed, runtime: Runtime) -> MemoryStream | FileStream:
    """Shuffled, augmented batches of a set without end, this rank's share of each.

    The last, partial batch of an epoch is left out; a set smaller than a batch is served whole.
    """
    plan = Plan(images, augment, feed, runtime)
    return FileStream(plan) if plan.from_files else MemoryStream(plan)


@final
class MemoryStream:
    """Batches of a set that lies on the device."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._cycle = plan, 0
        self._pixels = _pixels(plan.images, plan.runtime)

    @property
    def cycle(self) -> int:
        """The batches served so far."""
        return self._cycle

    @property
    def epoch(self) -> int:
        """Batches in one epoch."""
        return self._plan.num_batches

    def __next__(self) -> Labelled:
        turn = self._plan.turn(self._cycle)
        rows = self._plan.epoch(turn.epoch).rows[turn.reads]
        batch = self._plan.batch(self._pixels.index_select(0, rows), turn)
        self._cycle += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        return self._plan.state(self._cycle)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a stream stood, in the middle of an epoch too."""
        self._cycle = self._plan.cycle(state)


@final
class FileStream:
    """Batches of a set that lies on the disk, decoded ahead by worker processes."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._cycle = plan, 0
        self._decoder = Decoder(plan.images, plan.augment)
        self._ahead: Ahead | None = None

    @property
    def cycle(self) -> int:
        """The batches served so far."""
        return self._cycle

    @property
    def epoch(self) -> int:
        """Batches in one epoch."""
        return self._plan.num_batches

    def __next__(self) -> Labelled:
        if self._ahead is None:
            pinned = self._plan.runtime.device.type == "cuda"
            self._ahead = Ahead(self._decoder, _keys(self._plan, self._cycle), self._plan.feed.workers, pinned=pinned)
        pixels = next(self._ahead)
        if isinstance(pixels, UserError):
            self._ahead = None
            raise pixels
        turn = self._plan.turn(self._cycle)
        batch = self._plan.batch(pixels.to(self._plan.runtime.device, non_blocking=True), turn)
        self._cycle += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        return self._plan.state(self._cycle)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a stream stood, in the middle of an epoch too; workers start afresh from there."""
        self._ahead, self._cycle = None, self._plan.cycle(state)


def _keys(plan: Plan, cycle: int) -> Iterator[Keys]:
    # Not a method: the loader keeps it, and would keep the stream that keeps the loader, and so its workers.
    epoch, order = -1, np.empty(0, dtype=np.int64)
    while True:
        turn = plan.turn(cycle)
        if turn.epoch != epoch:
            epoch, order = turn.epoch, plan.order(turn.epoch)
        seeds = [plan.file_seed(epoch, place) for place in range(turn.reads.start, turn.reads.stop)]
        yield np.stack([order[turn.reads], np.array(seeds)], 1)
        cycle += 1


def evaluation_batches(
    images: Images, batch_size: int, runtime: Runtime, workers: int | None = None
) -> Iterator[Labelled]:
    """Every image once, in order and as it is; each rank gets its share of each batch, and as many batches as others.

    What the last batch lacks in images for all ranks is added to the one before, so that no share is empty.
    """
    starts = list(range(0, len(images), max(batch_size, runtime.world)))
    if len(images) < runtime.world:
        raise UserError(f"{images.name}: {len(images)} images cannot be shared by {runtime.world} ranks")
    if len(images) - starts[-1] < runtime.world:
        starts.pop()
    shares = [_share(start, stop, runtime) for start, stop in zip(starts, [*starts[1:], len(images)], strict=True)]
    labels = images.labels.to(runtime.device)
    for share, pixels in zip(shares, _read(images, shares, runtime, workers), strict=True):
        yield normalise(pixels, images), labels[share]


def _share(start: int, stop: int, runtime: Runtime) -> slice:
    share = runtime.share(stop - start)
    return slice(start + share.start, start + share.stop)


def _read(images: Images, shares: list[slice], runtime: Runtime, workers: int | None) -> Iterator[Tensor]:
    if images.pixels is not None:
        whole, rows = _pixels(images, runtime), images.rows.to(runtime.device)
        yield from (whole.index_select(0, rows[share]) for share in shares)
        return
    places = torch.arange(len(images)).numpy()
    keys = (np.stack([places[share], places[share]], 1) for share in shares)
    for pixels in Ahead(Decoder(images, None), keys, workers, pinned=runtime.device.type == "cuda"):
        if isinstance(pixels, UserError):
            raise pixels
        yield pixels.to(runtime.device, non_blocking=True)


def _pixels(images: Images, runtime: Runtime) -> Tensor:
    if images.pixels is None:
        raise TypeError(f"{images.name} is not in memory")
    return images.pixels.on(runtime.device)
