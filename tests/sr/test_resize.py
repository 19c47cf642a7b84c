"""Bicubic resizing is MATLAB's, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from nas_apps.tasks.sr.images import read_image
from nas_apps.tasks.sr.resize import Bicubic, Pixels, _taps, bicubic, shrink

HALF = Fraction(1, 2)


@pytest.fixture
def square() -> Pixels:
    k = np.arange(64)
    return ((3 * k + 37 * k % 23) % 256).reshape(8, 8).astype(np.uint8)


def test_a_small_image_is_resized_as_matlab_does(square: Pixels) -> None:
    half = bicubic(square, HALF)
    assert half.tolist() == [[24, 31, 37, 40], [73, 80, 83, 89], [121, 127, 134, 138], [167, 175, 180, 187]]
    assert bicubic(square, 0.25).tolist() == [[52, 62], [148, 160]]
    assert bicubic(half, 2)[0].tolist() == [21, 22, 26, 30, 33, 35, 37, 37]


def test_the_weights_are_those_of_keys_kernel_with_a_of_minus_a_half() -> None:
    outer = [-0.01171875, -0.03515625, 0.11328125, 0.43359375]
    assert [w for w in _taps(HALF)[1][0] if w] == [*outer, *outer[::-1]]
    up = [-0.0234375, 0.2265625, 0.8671875, -0.0703125]
    assert [[w for w in row if w] for row in _taps(Fraction(2))[1]] == [up, up[::-1]]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_published_low_resolution_images_are_reproduced_bit_for_bit(
    scale: int, published: Callable[[str], Path]
) -> None:
    images = sorted((published("Set5_ref") / f"image_SRF_{scale}").glob("*_HR.png"))
    assert len(images) == 5
    for path in images:
        theirs = read_image(path.with_name(path.name.replace("_HR", "_LR")))
        assert np.array_equal(shrink(read_image(path), scale), theirs), path.name


def test_floats_are_not_rounded_and_bytes_are_after_each_direction() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    floats = bicubic(image.astype(float), HALF)
    assert floats.dtype == np.float64
    differ = (bicubic(image, HALF) != np.floor(floats + 0.5).clip(0, 255)).mean()
    assert 0.05 < differ < 0.3  # rounding once, at the end, is what others do


@pytest.mark.parametrize("scale", [2, 3, 4, HALF, Fraction(1, 3), Fraction(1, 4), Fraction(2, 3)])
def test_sizes_are_rounded_up_and_a_plain_image_stays_so(scale: Fraction) -> None:
    resized = bicubic(np.full((11, 14, 3), 77, np.uint8), scale)
    assert resized.shape == (-(-11 * scale // 1), -(-14 * scale // 1), 3)
    assert (resized == 77).all()


@pytest.mark.parametrize("scale", [2, 3, 4, HALF, Fraction(1, 3), Fraction(1, 4)])
def test_the_convolution_computes_what_the_loop_does(scale: Fraction) -> None:
    image = np.random.default_rng(0).random((2, 13, 17, 3))
    ours = Bicubic(scale).double()(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    expected = np.stack([bicubic(one, scale) for one in image])
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_the_convolution_is_traced_for_any_size() -> None:
    double = Bicubic(2)
    traced = torch.jit.trace(double, torch.rand(1, 3, 8, 8))
    other = torch.rand(2, 3, 11, 9)
    assert torch.equal(traced(other), double(other))


def test_the_convolution_has_no_weights_and_is_exact_under_autocast() -> None:
    double, images = Bicubic(2), torch.rand(1, 3, 8, 8)
    assert not double.state_dict()
    expected = double(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(double(images), expected)


def test_the_convolution_refuses_a_scale_that_is_not_whole() -> None:
    with pytest.raises(ValueError, match=r"scale: got 2/3; allowed: a whole number or 1 over one"):
        Bicubic(Fraction(2, 3))
