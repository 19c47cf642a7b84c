"""Images of every kind are read as RGB bytes, or refused in one line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.tasks.sr.compare import write_beside, write_comparison  # noqa: E402
from nas_apps.tasks.sr.images import (  # noqa: E402
    images_in,
    read_image,
    read_picture,
    to_pixels,
    to_tensor,
    write_image,
)
from nas_apps.tasks.sr.pairs import Photo, make_pairs  # noqa: E402
from nas_apps.tasks.sr.resize import Pixels  # noqa: E402


def png_of_16_bits(path: Path, numbers: np.ndarray) -> None:
    """Write uint16 [H, W, 3], which Pillow cannot."""
    height, width, _ = numbers.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in numbers)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    content = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp"])
def test_colours_are_read_as_they_are(ending: str, tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    Image.fromarray(noise()).save(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read_image(tmp_path / f"a.{ending}"), noise())


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    write_image(tmp_path / "new" / "a.png", noise())
    assert np.array_equal(read_image(tmp_path / "new" / "a.png"), noise())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_grey_stands_for_all_channels(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    Image.fromarray(noise()[..., 0]).save(tmp_path / "a.png")
    pixels, grey, deep, _ = read_picture(tmp_path / "a.png")
    assert np.array_equal(pixels, noise()[..., :1].repeat(3, 2))
    assert (grey, deep) == (True, False)


def test_of_16_bits_the_upper_8_are_taken(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    numbers = noise().astype(np.uint16) * 256 + 200
    png_of_16_bits(tmp_path / "colour.png", numbers)
    Image.fromarray(numbers[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(numbers[..., 0]).save(tmp_path / "grey.tif")
    assert [*map(int, read_picture(tmp_path / "colour.png")[1:3])] == [0, 1]
    assert np.array_equal(read_image(tmp_path / "colour.png"), noise())
    for name in ("grey.png", "grey.tif"):
        pixels, grey, deep, _ = read_picture(tmp_path / name)
        assert np.array_equal(pixels, noise()[..., :1].repeat(3, 2))
        assert (grey, deep) == (True, True)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_an_alpha_channel_without_transparency_is_left_out(
    mode: str, tmp_path: Path, noise: Callable[..., Pixels]
) -> None:
    image = Image.fromarray(noise()).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_transparent_pixels_are_refused(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    image = Image.fromarray(noise()).convert("RGBA")
    image.paste((0, 0, 0, 40), (0, 0, 24, 20))
    image.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a.png: 25% of its pixels are transparent; allowed: none$"):
        read_image(tmp_path / "a.png")


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(noise(), -1))


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    write_image(tmp_path / "whole.png", noise())
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-300])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((9, 9), 70000, np.int32)).save(tmp_path / "wide.tif")
    for name, reason in (
        ("cut.png", "cannot read this image"),
        ("text.png", "cannot read this image"),
        ("empty.jpg", "cannot read this image"),
        ("gone.png", "No such file"),
        ("float.tif", "its pixels are floats; allowed: 8 or 16 bits"),
        ("wide.tif", "its pixels have more than 16 bits"),
    ):
        with pytest.raises(UserError, match=reason) as refused:
            read_image(tmp_path / name)
        assert str(refused.value).startswith(str(tmp_path / name))
        assert "\n" not in str(refused.value)


def test_only_images_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in images_in(tmp_path)] == ["a.jpg", "b.PNG"]
    with pytest.raises(UserError, match="cannot read this folder: No such file"):
        images_in(tmp_path / "none")


def test_pixels_go_to_tensors_and_back(noise: Callable[..., Pixels]) -> None:
    tensor = to_tensor(noise())
    assert tensor.shape == (3, 40, 48)
    assert tensor.max() <= 1
    assert np.array_equal(to_pixels(tensor), noise())
    outside = torch.tensor([-0.5, 1.4, 1.6 / 255]).view(3, 1, 1)
    assert to_pixels(outside).tolist() == [[[0, 255, 2]]]


def test_images_are_put_beside_each_other_below_their_text(tmp_path: Path, noise: Callable[..., Pixels]) -> None:
    write_beside(tmp_path / "c.png", {"one": noise(), "two\nlines": noise(seed=1)})
    made = read_image(tmp_path / "c.png")
    assert np.array_equal(made[-40:, :48], noise())
    assert np.array_equal(made[-40:, -48:], noise(seed=1))
    assert made[:-40, :48].min() < 255, "there is no text"


def test_a_comparison_shows_the_middle_of_bicubic_ours_and_the_real_image(
    tmp_path: Path, noise: Callable[..., Pixels]
) -> None:
    write_image(tmp_path / "a.png", noise(60, 81))
    pairs = make_pairs("some", [Photo("a", tmp_path / "a.png")], 2, tmp_path)
    write_comparison(tmp_path / "c.png", pairs, 0, noise(60, 80, seed=1), most=20)
    made = read_image(tmp_path / "c.png")[-20:]
    assert np.array_equal(made[:, -20:], noise(60, 80)[20:40, 30:50])
    assert np.array_equal(made[:, 28:48], noise(60, 80, seed=1)[20:40, 30:50])
    assert made.shape[1] == 3 * 20 + 2 * 8
