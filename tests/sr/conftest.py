"""Images made here, and where the published ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas_apps.core.config import Recipe, load
from nas_apps.tasks.sr.images import write_image
from nas_apps.tasks.sr.resize import Pixels

SIZES = ("task.tree.cells=2", "task.tree.ups=1", "task.tree.searched=1", "task.channels=16", "task.ops_per_cell=2",
         "task.widths=[0.5,1.0]", "task.scale=2", "device=cpu")  # fmt: skip
PHASE = ("batch_size=4", "data.side=8", "epochs=4", "epoch_steps=2", "log_steps=1", "evaluate_every=4")
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

    return smooth_noise


def smooth_noise(height: int = 40, width: int = 48, seed: int = 0) -> Pixels:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)[:height, :width]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of smooth noise."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        write_image(folder / f"{seed}.png", smooth_noise(seed=seed))
    return folder


@pytest.fixture
def small(photos: Path) -> Callable[..., Recipe]:
    """The recipe of a small network and some steps, with overrides."""
    sizes = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE]
    given = ["task=sr", f"task.data={photos}", f"task.cache={photos / 'cache'}", *SIZES, *sizes]
    return lambda *overrides: load([], [*given, *overrides])
