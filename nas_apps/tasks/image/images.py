"""A set of labelled images of one size, and how it is split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_apps.core.errors import UserError, unknown
from nas_apps.core.seeds import mix

Size = tuple[int, int]
Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""


class Pixels:
    """Images held in memory as uint8 [N, C, H, W], once on each device that asks for them."""

    def __init__(self, values: Tensor) -> None:
        self._copies = {values.device: values}

    def on(self, device: torch.device) -> Tensor:
        """All images on a device."""
        if device not in self._copies:
            self._copies[device] = next(iter(self._copies.values())).to(device)
        return self._copies[device]


class Files(NamedTuple):
    """Images left on the disk.

    paths: encoded by the file system's rule; an array, because workers would copy a list of a million strings.
    exact: whether the files have the set's size already, so that evaluation neither scales nor crops them.
    """

    paths: NDArray[np.bytes_]
    exact: bool


@dataclass(frozen=True, eq=False)
class Images:
    """A set of labelled images of one size.

    name: what the user called it. size: height and width. mean, std: of each channel, of pixels in [0, 1].
    rows: where this set's images stand in `pixels` and `files`. labels: of these rows. A folder that fits in memory
    has both `pixels` and `files`.
    """

    name: str
    class_names: tuple[str, ...]
    size: Size
    in_chans: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: Tensor  # [N]
    labels: Tensor  # [N]
    pixels: Pixels | None = None
    files: Files | None = None

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> Images:
        """The images at these places of the set; nothing is copied."""
        return replace(self, rows=self.rows[index], labels=self.labels[index])


def split(
    images: Images,
    fraction: float = 0.5,
    seed: int = 0,
    how: Literal["stratified", "random", "index"] = "stratified",
) -> tuple[Images, Images]:
    """The set in two: the first has `fraction` of the images, rounded down.

    "stratified" keeps the share of each class to within one image, "random" permutes, "index" cuts the set where it
    stands, as DARTS does (arXiv:1806.09055) with data that are in no order. Splits of splits make the protocols that
    use parts of a set: a tenth for the weights and a fortieth for the architecture is
    `a, rest = split(x, 0.1); b, _ = split(rest, 0.025 / 0.9)`.
    """
    first = int(fraction * len(images) + 1e-9) if 0 < fraction < 1 else 0
    if not 0 < first < len(images):
        raise UserError(
            f"{images.name}: cannot split {len(images)} images at the fraction {fraction}: both parts need an image"
        )
    order = _order(images.labels.numpy(), seed, how)
    parts = np.sort(order[:first]), np.sort(order[first:])
    return images.take(torch.from_numpy(parts[0])), images.take(torch.from_numpy(parts[1]))


def _order(labels: NDArray[np.int64], seed: int, how: str) -> NDArray[np.int64]:
    if how == "index":
        return np.arange(len(labels))
    shuffled = np.random.default_rng(mix(seed, len(labels))).permutation(len(labels))
    if how == "random":
        return shuffled
    if how != "stratified":
        raise unknown("split", how, ("stratified", "random", "index"))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    # The k-th of n images of a class goes to (k + 1/2) / n of the whole, so that any head of the order is stratified.
    height = np.empty(len(labels))
    height[by_class] = (place + 0.5) / np.repeat(counts, counts)
    return shuffled[np.argsort(height[shuffled], kind="stable")]
