"""What ESPnet's "conv2d" subsampling, two convolutions of kernel 3 and stride 2, leaves of utterances."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

Frames = TypeVar("Frames", int, Tensor)

SHORTEST = 7
"""Frames of the shortest utterance that has one left. In training two have to be left: batch norms refuse a single
value."""


def subsampled(frames: Frames) -> Frames:
    """The frames that are left of `frames`.

    >>> subsampled(6), subsampled(7), subsampled(11), subsampled(120)
    (0, 1, 2, 29)
    """
    return ((frames - 1) // 2 - 1) // 2
