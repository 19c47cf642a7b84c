"""Seeds made from seeds: every use of randomness has its own, and none depends on another."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch


def mix(*words: int) -> int:
    """One 63-bit seed from several numbers; different numbers, or another order of them, give another seed.

    >>> mix(0, 1) == mix(0, 1), mix(0, 1) == mix(1, 0)
    (True, False)
    """
    state = 0x9E3779B97F4A7C15
    for word in words:
        state = ((state ^ word) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state % 2**63


def seed_process(seed: int) -> None:
    """Seed the generators of this process that libraries draw from: initial weights, dropout, mixing of images."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.set_state(np.random.RandomState(seed % 2**32).get_state())


def rng_state() -> dict[str, Any]:
    """The state of the generators that `seed_process` seeds, and of the current CUDA device's."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype("int64")), *rest),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to where `rng_state` was."""
    torch.set_rng_state(state["torch"].cpu())
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype("uint32"), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextmanager
def keep_rng() -> Iterator[None]:
    """Whatever is drawn inside, the generators are afterwards where they were."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
