"""A prioritised replay: what is drawn more often than the rest, and what corrects for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nas_apps.tasks.rl.quiet import require_replay


class Prioritised:
    """The last `size` items; an item of priority p is drawn with probability P proportional to p ** alpha, and weighted
    by P ** -beta over the largest such weight of its batch (arXiv:1511.05952; the code of arXiv:2106.02229 has the
    batch's largest, torchrl the whole replay's). torchrl's buffer on the CPU.

    Args:
        rng: what is drawn from, and nothing else: the same state draws the same items.
    """

    def __init__(self, size: int, *, alpha: float, beta: float, rng: torch.Generator) -> None:
        require_replay()
        self._size, self._alpha, self._beta, self._rng = size, alpha, beta, rng
        self._clear()

    def _clear(self) -> None:
        from torchrl.data import LazyTensorStorage, PrioritizedSampler, ReplayBuffer

        # Its exponent is ours to apply: pow gives other last bits for a batch than for the whole, and so would a
        # restored replay. A power of 1 is exact.
        sampler = PrioritizedSampler(self._size, alpha=1.0, beta=self._beta)
        self._buffer = ReplayBuffer(storage=LazyTensorStorage(self._size), sampler=sampler)
        self._buffer.set_rng(self._rng)
        self._powers = torch.zeros(self._size)  # p ** alpha

    def __len__(self) -> int:
        return len(self._buffer)

    def add(self, items: Mapping[str, Tensor], priority: float) -> None:
        """Put in items, `[M, ...]` each, over the oldest where it is full."""
        from tensordict import TensorDict

        number = len(next(iter(items.values())))
        index = self._buffer.extend(TensorDict(dict(items), [number]))
        self.rate(index, torch.full((number,), priority))

    def rate(self, index: Tensor, priority: Tensor) -> None:
        """Give items, `[M]`, their priorities."""
        self._put(index.cpu(), priority.cpu().float().pow(self._alpha))

    def draw(self, number: int) -> dict[str, Tensor]:
        """Some items, with their `index` and `weight`, `[number]`."""
        items, about = self._buffer.sample(number, return_info=True)
        weight = about["priority_weight"]
        return {**items, "index": about["index"], "weight": weight / weight.max()}

    def state_dict(self) -> dict[str, Any]:
        """The items, `p ** alpha` of each, and where the next one goes."""
        here = len(self)
        items = {name: value.clone() for name, value in self._buffer[:here].items()} if here else {}
        return {"items": items, "powers": self._powers[:here].clone(), "writer": self._buffer.writer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; what is here is forgotten."""
        from tensordict import TensorDict

        self._clear()
        here = len(state["powers"])
        if here:
            self._buffer.extend(TensorDict(state["items"], [here]))
            self._put(torch.arange(here), state["powers"])
        self._buffer.writer.load_state_dict(state["writer"])

    def _put(self, index: Tensor, powers: Tensor) -> None:
        self._powers[index] = powers
        self._buffer.update_priority(index, powers)
