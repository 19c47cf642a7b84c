"""Images made here, and where the published ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas_apps.tasks.sr.resize import Pixels

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "sr"


@pytest.fixture
def published() -> Callable[[str], Path]:
    """The folder of a published set; a test that needs it is skipped where it is not."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"{name} is not here")
        return SHARED / name

    return find


@pytest.fixture
def noise() -> Callable[..., Pixels]:
    """An image of smooth noise, uint8 [height, width, 3]."""

    def make(height: int = 40, width: int = 48, seed: int = 0) -> Pixels:
        coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        return coarse.repeat(4, 0).repeat(4, 1)[:height, :width]

    return make
