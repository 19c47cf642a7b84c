"""PSNR and SSIM by protocol, against published figures and another library."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from nas_apps.core.errors import UserError
from nas_apps.tasks.sr.images import Picture, images_in, read_picture
from nas_apps.tasks.sr.metrics import Figures, Protocol, average, bicubic_figures, compare, luma, psnr, smallest, ssim
from nas_apps.tasks.sr.pairs import make_pairs
from nas_apps.tasks.sr.photographs import SPLIT, photographs
from nas_apps.tasks.sr.resize import Pixels

TABLE: dict[str, dict[int, dict[Protocol, tuple[float, float]]]] = {
    "Set5": {
        2: {"B": (33.6621, 0.9299), "A": (33.6404, 0.9292), "C": (33.6741, 0.9303)},
        3: {"B": (30.3936, 0.8682), "A": (30.3864, 0.8678), "C": (30.4047, 0.8689)},
        4: {"B": (28.4220, 0.8104), "A": (28.4177, 0.8101), "C": (28.4302, 0.8111)},
    },
    "Set14": {
        2: {"B": (30.2335, 0.8687), "A": (30.2200, 0.8683), "C": (30.2319, 0.8691)},
        3: {"B": (27.5430, 0.7736), "A": (27.5328, 0.7737), "C": (27.5391, 0.7745)},
        4: {"B": (26.0030, 0.7019), "A": (25.9933, 0.7023), "C": (25.9970, 0.7029)},
    },
}
PAPERS = {"Set5": (33.66, 30.39, 28.42), "Set14": (30.24, 27.55, 26.00)}
"""What papers print of bicubic at x2, x3, x4; ours is protocol B."""

IMAGES = {  # protocol B: baby, bird, butterfly, head, woman
    2: (37.0660, 36.8075, 27.4343, 34.8583, 32.1445),
    3: (33.9105, 32.5755, 24.0380, 32.8797, 28.5643),
    4: (31.7769, 30.1801, 22.0990, 31.5901, 26.4641),
}
EMBEDDED = {  # protocol A, x2 | x3 | x4: PSNR, and SSIM where it is known
    "astronaut": ((31.694, 0.9445), (28.672, 0.8923), (26.835, 0.8417)),
    "chelsea": ((35.216, 0.9146), (32.869, 0.8530), (31.460, 0.8052)),
    "coffee": ((30.579, 0.8845), (28.397, 0.8120), (27.285, 0.7635)),
    "rocket": ((32.289, 0.9140), (30.584, 0.8725), (29.985, 0.8520)),
    "china": ((24.347, 0.7763), (23.021, 0.6849), (22.423, 0.6364)),
    "flower": ((35.150, 0.9677), (32.354, 0.9413), (30.699, 0.9160)),
    "camera": ((29.887, 0.8636), (27.665, 0.7975), (26.167, 0.7470)),
    "brick": ((36.307,), (31.345,), (27.794,)),
    "grass": ((23.360,), (21.075,), (19.825,)),
    "gravel": ((27.494,), (24.151,), (22.256,)),
    "coins": ((27.451,), (25.130,), (23.679,)),
}


@lru_cache(maxsize=2)
def pictures(folder: Path) -> list[Picture]:
    return [read_picture(path) for path in images_in(folder)]


def figures(folder: Path, scale: int, protocol: Protocol) -> list[Figures]:
    return [bicubic_figures(p.pixels, scale, protocol, grey=p.grey) for p in pictures(folder)]


@pytest.mark.parametrize("protocol", ["A", "B", "C"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_bicubic_has_its_published_figures(
    name: str, scale: int, protocol: Protocol, published: Callable[[str], Path]
) -> None:
    ours = average(figures(published(name), scale, protocol))
    expected = TABLE[name][scale][protocol]
    assert ours.psnr == pytest.approx(expected[0], abs=2e-4)
    assert ours.ssim == pytest.approx(expected[1], abs=1e-4)
    if protocol == "B":
        assert ours.psnr == pytest.approx(PAPERS[name][scale - 2], abs=0.005 if name == "Set5" else 0.015)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_has_its_figures_of_each_image(scale: int, published: Callable[[str], Path]) -> None:
    ours = [figure.psnr for figure in figures(published("Set5"), scale, "B")]
    assert ours == pytest.approx(IMAGES[scale], abs=1e-4)


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_bicubic_has_its_figures_of_the_embedded_photographs(name: str) -> None:
    pytest.importorskip("skimage")
    photos = {photo.name: photo for part in SPLIT for photo in photographs(part)}
    picture = read_picture(photos[name].hr)
    for scale, (expected, *similar) in zip((2, 3, 4), EMBEDDED[name], strict=True):
        ours = bicubic_figures(picture.pixels, scale, "A", grey=picture.grey)
        assert ours.psnr == pytest.approx(expected, abs=2e-3), scale
        assert not similar or ours.ssim == pytest.approx(similar[0], abs=1e-4), scale


def test_the_luma_is_of_16_to_235() -> None:
    colours = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(colours)[0] == pytest.approx([235, 16, 81.481, 144.553, 40.966])
    assert luma(colours, "A")[0].tolist() == [235, 16, 81, 145, 41]


def test_of_a_grey_image_the_grey_is_measured(noise: Callable[..., Pixels]) -> None:
    grey = noise()[..., :1].repeat(3, 2)
    assert luma(grey, "A", grey=True).tolist() == grey[..., 0].tolist()
    other = grey.copy()
    other[20, 20] ^= 8
    gap = compare(other, grey, 2).psnr - compare(other, grey, 2, grey=True).psnr
    assert gap == pytest.approx(20 * np.log10(255 / 219))


def test_an_image_is_itself_without_error(noise: Callable[..., Pixels]) -> None:
    assert compare(noise(), noise(), 2) == Figures(float("inf"), 1.0)


def test_the_border_does_not_count(noise: Callable[..., Pixels]) -> None:
    other = noise()
    other[:3] = other[:, -3:] = 0
    assert compare(other, noise(), 3).psnr == float("inf")
    assert compare(other, noise(), 2).psnr < 40


def test_ssim_is_scikit_images_with_the_papers_settings(noise: Callable[..., Pixels]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = luma(noise()), luma(noise()) + np.random.default_rng(1).normal(0, 9, (40, 48))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, every = metrics.structural_similarity(a, b, full=True, **settings)
    assert ssim(a, b, 0) == pytest.approx(every[5:-5, 5:-5].mean(), abs=1e-9)
    assert psnr(a, b, 0) == pytest.approx(metrics.peak_signal_noise_ratio(a, b, data_range=255))


def test_what_cannot_be_measured_is_refused(noise: Callable[..., Pixels]) -> None:
    with pytest.raises(UserError, match="protocol: no 'D'; allowed: A, B, C"):
        compare(noise(), noise(), 2, "D")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"planes: got \[40, 48\] and \[40, 44\]; allowed: two of one"):
        compare(noise(), noise(40, 44), 2)
    with pytest.raises(ValueError, match=r"image: got float64 \[40, 48, 3\]; allowed: uint8"):
        compare(noise() / 255, noise(), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_smallest_image_can_be_measured_and_one_less_cannot(scale: int, noise: Callable[..., Pixels]) -> None:
    side = smallest(scale)
    assert bicubic_figures(noise(side, side), scale).psnr > 0
    with pytest.raises(ValueError, match="and more, each way"):
        bicubic_figures(noise(side - 1, side), scale)


def test_set14_s_one_grey_file_is_known_from_a_set(published: Callable[[str], Path], tmp_path: Path) -> None:
    from nas_apps.tasks.sr.folders import find_photos

    photos = [photo for photo in find_photos(published("Set14"), 2) if photo.name in ("img_003", "img_004")]
    pairs = make_pairs("Set14", photos, 2, tmp_path)
    assert [pairs.grey(0), pairs.grey(1)] == [True, False]
    assert pairs.notices() == ["Set14: 1 of 2 images are grey: their one channel stands for all three (img_003)"]
