"""The images of the task: what is learned from, what a search looks at, and what is measured at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from nas_apps.core.errors import UserError
from nas_apps.core.seeds import mix
from nas_apps.tasks.sr.folders import COUNTS, find_photos, set_name
from nas_apps.tasks.sr.pairs import Pairs, make_pairs
from nas_apps.tasks.sr.photographs import NAME, photographs

_HELD_OUT = 10  # images at most, and a tenth


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Images in parts that have none in common.

    valid: held out of what is learned from. read_test: reads what is tested on, which a search never does.
    """

    name: str
    train: Pairs
    valid: Pairs
    read_test: Callable[[], Pairs | None]

    @cached_property
    def test(self) -> Pairs | None:
        """The photographs' own part, or DIV2K's validation images where they are beside the training ones; None where
        there is none."""
        return self.read_test()

    def facts(self) -> str:
        """The set in one line."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        counts = ", ".join(f"{name} {len(part)}" for name, part in parts.items() if part)
        pixels = sum(np.prod(self.train.lr_size(place)) for place in range(len(self.train))) * self.train.scale**2
        return f"{self.name}: {counts} images at x{self.train.scale}; {pixels / 1e6:.1f} million pixels in train"


def load_photos(
    data: str, scale: int, cache: Path, *, lr: Path | None = None, held_out: int | None = None, skip: bool = False
) -> PhotoSet:
    """The images called `data`: "photographs", or a folder.

    lr: a folder of low-resolution images of those that are learned from. held_out: how many of a folder's are kept for
    `valid`; a tenth, and at most 10, when not given. skip: leave out images at fault.
    """
    if data == NAME:
        if lr or held_out is not None:
            raise UserError(f"data: got lr or held_out with {NAME!r}; allowed: neither; they are a folder's")
        train, valid, test = (partial(_photographs, part, scale, cache) for part in ("train", "valid", "test"))
        return PhotoSet(NAME, train(), valid(), test)
    folder = Path(data).expanduser()
    every = make_pairs(data, find_photos(folder, scale, lr), scale, cache, skip=skip)
    number = max(1, min(_HELD_OUT, len(every) // 10)) if held_out is None else held_out
    if not 1 <= number < len(every):
        raise UserError(f"{data}: got {len(every)} images, and {number} of them held out; allowed: 1 and more of each")
    valid, train = _split(every, number, seed=0)
    beside = folder / "DIV2K_valid_HR"

    def read_test() -> Pairs | None:
        found = beside.is_dir()
        return make_pairs(str(beside), find_photos(beside, scale), scale, cache, skip=skip) if found else None

    return PhotoSet(data, train, replace(valid, left_out=()), read_test)  # what is left out of both is said once


def _photographs(part: str, scale: int, cache: Path) -> Pairs:
    return make_pairs(f"{NAME}: {part}", photographs(part), scale, cache)


def load_test(folder: str, scale: int, cache: Path, *, lr: Path | None = None, skip: bool = False) -> Pairs:
    """A set that networks are compared on, called as its folder is: Set5, Set14, BSD100, Urban100, or any other."""
    path = Path(folder)
    return make_pairs(set_name(path), find_photos(path, scale, lr), scale, cache, skip=skip)


def count_notice(pairs: Pairs) -> str | None:
    """What to tell a user of a published set that has not the images it is published with."""
    published = COUNTS.get(pairs.name)
    if published in (None, len(pairs)):
        return None
    return f"{pairs.name}: {len(pairs)} images, and the published set has {published}: figures are not comparable"


def halves(pairs: Pairs, share: float = 0.5, seed: int = 0) -> tuple[Pairs, Pairs]:
    """The images in two, with none in both; the first has about `share` of them, and each one or more."""
    if len(pairs) < 2:
        raise UserError(f"{pairs.name}: got 1 image to halve; allowed: 2 and more")
    return _split(pairs, min(max(round(share * len(pairs)), 1), len(pairs) - 1), seed)


def _split(pairs: Pairs, first: int, seed: int) -> tuple[Pairs, Pairs]:
    order = np.random.default_rng(mix(seed, len(pairs))).permutation(len(pairs)).tolist()
    parts: Sequence[list[int]] = sorted(order[:first]), sorted(order[first:])
    return pairs.take(parts[0]), pairs.take(parts[1])
