"""What a training stream serves, and when.

The order of an epoch and all noise in it are drawn on the CPU, from the seed, the epoch and the place in it alone, for
the whole batch. Each rank serves its own share. So neither ranks, workers nor interruptions change what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.tasks.image.augment import Augment, crop, cutout, mixup, normalise
from nas_apps.tasks.image.images import Images

_USES = {"train": 0, "valid": 1}
_ORDER, _NOISE, _FILE = range(3)


@dataclass(frozen=True)
class Feed:
    """How a set is served.

    batch_size: over all ranks. use: streams of one seed with different uses have unrelated orders; with one order, a
    training batch would meet the same validation batch in every epoch. workers: processes that decode image files; one
    for each processor, up to 8, when not given.
    """

    batch_size: int
    seed: int = 0
    use: Literal["train", "valid"] = "train"
    workers: int | None = None


class Turn(NamedTuple):
    """Where a batch stands: its epoch, its number there, the places of the epoch that this rank reads, and which of
    what it read it keeps."""

    epoch: int
    number: int
    reads: slice
    keeps: slice


class Epoch(NamedTuple):
    """What one epoch draws. All but the mixing weights are on the device, in the order of the epoch."""

    number: int
    rows: Tensor  # [N]
    labels: Tensor  # [N]
    noise: Tensor  # [5, N]: top and left of the crop, mirror, y and x of the hole
    weights: list[float]
    """How much of itself an image keeps when it is mixed, for each batch."""


class Plan:
    """The batches of a training stream, each a function of its cycle."""

    def __init__(self, images: Images, augment: Augment, feed: Feed, runtime: Runtime) -> None:
        self.images, self.feed, self.runtime = images, feed, runtime
        self.augment, self.from_files = augment.over(images), augment.reads_files(images)
        self.batch_size = min(feed.batch_size, len(images))
        if self.batch_size < runtime.world:
            raise UserError(
                f"{images.name}: a batch of {self.batch_size} (batch_size {feed.batch_size}, {len(images)} images) "
                f"leaves some of {runtime.world} ranks without an image"
            )
        self.num_batches = len(images) // self.batch_size
        self._epoch: Epoch | None = None

    def turn(self, cycle: int) -> Turn:
        """The batch of a cycle. Mixing needs pairs, so what is read starts and ends at even places of the batch."""
        epoch, number = divmod(cycle, self.num_batches)
        share = self.runtime.share(self.batch_size)
        first, last = share.start, share.stop
        if self.augment.mixup:
            first, last = first - first % 2, min(last + last % 2, self.batch_size)
        start = number * self.batch_size
        return Turn(epoch, number, slice(start + first, start + last), slice(share.start - first, share.stop - first))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The places of the set in the order of an epoch."""
        return self._rng(_ORDER, epoch).permutation(len(self.images))

    def epoch(self, number: int) -> Epoch:
        """What an epoch draws; the last answer is kept."""
        if self._epoch is None or self._epoch.number != number:
            rng, order, device = self._rng(_NOISE, number), torch.from_numpy(self.order(number)), self.runtime.device
            shifts, mirrors = 2 * (self.augment.crop_padding or 0) + 1, 2 if self.augment.flip else 1
            bounds = np.array([shifts, shifts, mirrors, *self.images.size])
            noise = torch.from_numpy(rng.integers(0, bounds[:, None], (len(bounds), len(order))))
            alpha = self.augment.mixup
            weights = rng.beta(alpha, alpha, self.num_batches).tolist() if alpha else []
            rows, labels = self.images.rows[order], self.images.labels[order]
            self._epoch = Epoch(number, rows.to(device), labels.to(device), noise.to(device), weights)
        return self._epoch

    def file_seed(self, epoch: int, place: int) -> int:
        """The seed of what befalls one image between its file and its batch."""
        return mix(self.feed.seed, _USES[self.feed.use], _FILE, epoch, place)

    def _rng(self, kind: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng(mix(self.feed.seed, _USES[self.feed.use], kind, epoch))

    def batch(self, pixels: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
        """This rank's share of a batch, from the uint8 pixels that it read."""
        epoch, augment = self.epoch(turn.epoch), self.augment
        top, left, mirrored, y, x = epoch.noise[:, turn.reads]
        labels = epoch.labels[turn.reads]
        if not self.from_files and (augment.crop_padding or augment.flip):
            pixels = crop(pixels, top, left, mirrored > 0, augment.crop_padding or 0)
        images = normalise(pixels, self.images)
        if augment.cutout:
            images = cutout(images, y, x, augment.cutout)
        if augment.mixup:
            images, labels = mixup(images, labels, epoch.weights[turn.number], self.images.num_classes)
        return images[turn.keeps], labels[turn.keeps]

    def state(self, cycle: int) -> dict[str, int]:
        """What a stream at `cycle` saves."""
        return {"cycle": cycle, "images": len(self.images), "batch_size": self.batch_size}

    def cycle(self, state: Mapping[str, Any]) -> int:
        """The cycle of a saved state, which must be of a stream of this length and batch size."""
        for name in ("images", "batch_size"):
            if state[name] != (now := self.state(0)[name]):
                raise UserError(f"{self.images.name}: cannot resume: {name} was {state[name]} and is {now} now")
        return int(state["cycle"])
