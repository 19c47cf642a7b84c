"""Seeds made from seeds: every use of randomness has its own, and none depends on another."""

from __future__ import annotations

import random

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
