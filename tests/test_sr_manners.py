"""What the super-resolution task makes of files that only look as if something were wrong with them, or of folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from nas_apps.tasks.sr.images import read_picture


@pytest.mark.parametrize(("width", "ending"), [(720, "bmp"), (512, "bmp"), (64, "tif"), (64, "ppm"), (64, "jpg")])
def test_an_image_of_8_bits_is_not_taken_for_one_of_16_by_the_numbers_in_its_header(
    width: int, ending: str, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((8, width, 3), np.uint8)).save(tmp_path / f"a.{ending}")  # a row of 720 takes 2160 bytes
    assert not read_picture(tmp_path / f"a.{ending}").deep
