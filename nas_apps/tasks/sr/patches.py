"""Endless batches of patches for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_apps.core.bounds import COUNT, bounded
from nas_apps.core.errors import UserError
from nas_apps.core.order import Order
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.tasks.sr.images import to_tensor
from nas_apps.tasks.sr.pairs import Pairs
from nas_apps.tasks.sr.resize import Pixels

_USES = {"train": 0, "valid": 1}


@dataclass(frozen=True)
class Crops:
    """How patches are cut out of images.

    side: of a patch in low resolution, in pixels. per_image: how many an image gives in an epoch. flip: mirror half of
    them. rotate: turn them by 0 to 3 quarters.
    """

    side: int = 32
    per_image: int = 1
    flip: bool = True
    rotate: bool = True

    def __post_init__(self) -> None:
        bounded(self, COUNT, "side", "per_image")


@final
class Patches:
    """An endless, resumable stream of {"lr": [B, 3, side, side], "hr": [B, 3, scale * side, scale * side]}, floats of
    0 to 1, this rank's share of each batch.

    Images come in an order drawn anew each epoch, and what is cut out of them is drawn for each batch, both from the
    seed. A set that gives fewer patches than a batch is served whole.

    Args:
        pairs: images that hold a patch; `Pairs.of_side` leaves only such.
        batch_size: patches in a batch, over all ranks.
        use: streams of one seed with different uses have unrelated orders.
    """

    def __init__(
        self,
        pairs: Pairs,
        crops: Crops,
        batch_size: int,
        runtime: Runtime,
        *,
        seed: int,
        use: Literal["train", "valid"] = "train",
    ) -> None:
        self._pairs, self._crops, self._runtime = pairs.of_side(crops.side, skip=False), crops, runtime
        self._seed = mix(seed, _USES[use])
        self._order = Order(torch.arange(len(pairs) * crops.per_image) % len(pairs), batch_size, self._seed)
        if self._order.batch_size < runtime.world:
            raise UserError(
                f"{pairs.name}: a batch of {self._order.batch_size} (batch_size {batch_size}, {len(pairs)} images, "
                f"{crops.per_image} of each) leaves some of {runtime.world} ranks without a patch"
            )

    @property
    def cycle(self) -> int:
        """The batches served so far."""
        return self._order.served

    @property
    def epoch(self) -> int:
        """Batches in one epoch."""
        return self._order.epoch_batches

    def __next__(self) -> dict[str, Tensor]:
        rng = np.random.default_rng(mix(self._seed, self.cycle))
        size = self._order.batch_size
        corners, turns = rng.random((size, 2)), rng.integers(4 if self._crops.rotate else 1, size=size)
        mirrored = rng.integers(2 if self._crops.flip else 1, size=size)
        share = self._runtime.share(size)
        drawn = zip(next(self._order)[share].tolist(), corners[share], turns[share], mirrored[share], strict=True)
        pairs = [self._cut(place, *draws) for place, *draws in drawn]
        lr, hr = (np.stack(patches) for patches in zip(*pairs, strict=True))
        return {"lr": to_tensor(lr, self._runtime.device), "hr": to_tensor(hr, self._runtime.device)}

    def _cut(self, place: int, corner: NDArray[np.float64], turns: int, mirrored: int) -> tuple[Pixels, Pixels]:
        side, scale = self._crops.side, self._pairs.scale
        free = np.array(self._pairs.lr_size(place)) - side + 1
        top, left = (corner * free).astype(int)
        patches = (
            self._pairs.lr(place)[top : top + side, left : left + side],
            self._pairs.hr(place)[scale * top : scale * (top + side), scale * left : scale * (left + side)],
        )
        lr, hr = (np.rot90(patch[:, ::-1] if mirrored else patch, turns) for patch in patches)
        return lr, hr

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        return {"cycle": self.cycle, "images": len(self._pairs), "batch_size": self._order.batch_size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a stream stood, in the middle of an epoch too."""
        for name, now in self.state_dict().items():
            if name != "cycle" and state[name] != now:
                raise UserError(f"{self._pairs.name}: cannot resume: {name} was {state[name]} and is {now} now")
        self._order.load_state_dict({"served": int(state["cycle"])})
