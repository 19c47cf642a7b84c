"""The order in which a data set's items are served: a function of (seed, epoch), and a position in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nas_apps.core.seeds import mix


class Order:
    """An endless, resumable sequence of batches of item numbers, shuffled anew each epoch.

    The last partial batch of an epoch is left out, so that every batch has `batch_size` items; a set smaller than that
    is one batch.

    Args:
        items: the item numbers to serve, `[N]`.
        batch_size: items in a batch, over all ranks.
        seed: of the order.
    """

    def __init__(self, items: Tensor, batch_size: int, seed: int) -> None:
        self.items, self.seed = items, seed
        self.batch_size = min(batch_size, len(items))
        self.epoch_batches = len(items) // self.batch_size
        self.served = 0
        self._shuffled: tuple[int, Tensor] = (-1, items)

    def __next__(self) -> Tensor:
        epoch, batch = divmod(self.served, self.epoch_batches)
        if self._shuffled[0] != epoch:
            rng = torch.Generator().manual_seed(mix(self.seed, epoch))
            self._shuffled = epoch, self.items[torch.randperm(len(self.items), generator=rng)]
        self.served += 1
        return self._shuffled[1][batch * self.batch_size : (batch + 1) * self.batch_size]

    def state_dict(self) -> dict[str, int]:
        """How many batches were served."""
        return {"served": self.served}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take up where `state_dict` was."""
        self.served = state["served"]
