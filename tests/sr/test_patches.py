"""Batches of patches: aligned, the same for any number of ranks, and taken up where they stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.core.runtime import Runtime  # noqa: E402
from nas_apps.tasks.sr.images import to_pixels, write_image  # noqa: E402
from nas_apps.tasks.sr.pairs import Pairs, Photo, make_pairs  # noqa: E402
from nas_apps.tasks.sr.patches import Crops, Patches  # noqa: E402
from nas_apps.tasks.sr.resize import Pixels, shrink  # noqa: E402

CPU = Runtime(torch.device("cpu"))
Batches = list[dict[str, torch.Tensor]]


@pytest.fixture
def pairs(tmp_path: Path, noise: Callable[..., Pixels]) -> Pairs:
    """Five images of noise, of sizes that differ, at x2."""
    photos = []
    for number in range(5):
        photos.append(Photo(f"p{number}", tmp_path / f"{number}.png"))
        write_image(photos[-1].hr, noise(60 + 4 * number, 80 - 6 * number, seed=number))
    return make_pairs("some", photos, 2, tmp_path / "cache")


def equal(a: Batches, b: Batches) -> bool:
    return all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in ("lr", "hr"))


def take(stream: Patches, number: int) -> Batches:
    return [next(stream) for _ in range(number)]


def test_a_batch_is_of_floats_of_0_to_1(pairs: Pairs) -> None:
    batch = next(Patches(pairs, Crops(side=12), 4, CPU, seed=0))
    assert {name: tuple(t.shape) for name, t in batch.items()} == {"lr": (4, 3, 12, 12), "hr": (4, 3, 24, 24)}
    assert all(t.dtype == torch.float32 and t.is_contiguous() and 0 <= t.min() < t.max() <= 1 for t in batch.values())


@pytest.mark.parametrize(("flip", "rotate"), [(False, False), (True, False), (True, True)])
def test_both_patches_show_one_place(flip: bool, rotate: bool, pairs: Pairs) -> None:
    stream = Patches(pairs, Crops(side=20, flip=flip, rotate=rotate, per_image=2), 10, CPU, seed=1)
    for batch in take(stream, 2):
        for lr, hr in zip(batch["lr"], batch["hr"], strict=True):
            inner = slice(3, -3)  # what is beyond a patch's border is in the image, and not in the patch
            made = shrink(to_pixels(hr), 2)[inner, inner].astype(int)
            assert np.abs(made - to_pixels(lr)[inner, inner]).max() <= 2


@pytest.fixture
def coded(tmp_path: Path, noise: Callable[..., Pixels]) -> Pairs:
    """Five pairs, in whose low-resolution images a pixel is (its row, its column, the number of the image)."""
    photos = [Photo(f"p{n}", tmp_path / f"{n}.png", tmp_path / f"{n}x2.png") for n in range(5)]
    for number, photo in enumerate(photos):
        write_image(photo.hr, noise(60, 80))
        rows, columns = np.mgrid[:30, :40]
        assert photo.lr
        write_image(photo.lr, np.stack([rows, columns, np.full_like(rows, number)], 2).astype(np.uint8))
    return make_pairs("coded", photos, 2, tmp_path / "cache")


def read(patch: torch.Tensor) -> tuple[int, tuple[int, int], tuple[int, ...]]:
    """(image, top and left, where one goes to the right and down) of a patch of coded images."""
    pixels = to_pixels(patch).astype(int)
    steps = *(pixels[0, 1] - pixels[0, 0])[:2], *(pixels[1, 0] - pixels[0, 0])[:2]
    return int(pixels[0, 0, 2]), (int(pixels[..., 0].min()), int(pixels[..., 1].min())), tuple(map(int, steps))


def test_an_epoch_cuts_as_often_from_each_image(coded: Pairs) -> None:
    stream = Patches(coded, Crops(side=8, per_image=4), 10, CPU, seed=0)
    assert stream.epoch == 2
    for _ in range(2):
        images = [read(patch)[0] for batch in take(stream, stream.epoch) for patch in batch["lr"]]
        assert sorted(images) == sorted([*range(5)] * 4)


@pytest.mark.parametrize(
    ("flip", "rotate", "ways"), [(False, False, 1), (True, False, 2), (False, True, 4), (True, True, 8)]
)
def test_patches_are_mirrored_and_turned_where_asked(flip: bool, rotate: bool, ways: int, coded: Pairs) -> None:
    stream = Patches(coded, Crops(side=10, per_image=20, flip=flip, rotate=rotate), 100, CPU, seed=0)
    met = {read(patch)[2] for patch in next(stream)["lr"]}
    assert len(met) == ways
    assert ((0, -1, 1, 0) in met) == flip, "a mirror swaps left and right"


def test_every_place_of_an_image_is_reached(coded: Pairs) -> None:
    stream = Patches(coded, Crops(side=29, per_image=60), 300, CPU, seed=0)
    assert {read(patch)[1] for patch in next(stream)["lr"]} == {(top, left) for top in range(2) for left in range(12)}


def test_batches_are_a_function_of_the_seed(pairs: Pairs) -> None:
    def made(seed: int = 0, use: str = "train") -> Batches:
        return take(Patches(pairs, Crops(side=12), 4, CPU, seed=seed, use=use), 3)  # type: ignore[arg-type]

    assert equal(made(), made())
    assert not equal(made(), made(seed=1))
    assert not equal(made(), made(use="valid"))
    one = take(Patches(pairs.take([0]), Crops(side=12), 1, CPU, seed=0), 2)
    assert not equal(one[:1], one[1:]), "an image gives another patch in each epoch"


def test_a_stream_is_taken_up_where_it_stopped_in_the_middle_of_an_epoch(pairs: Pairs) -> None:
    crops = Crops(side=12, per_image=3)
    stream = Patches(pairs, crops, 4, CPU, seed=0)
    take(stream, 5)
    state = stream.state_dict()
    assert state == {"cycle": 5, "images": 5, "batch_size": 4}
    again = Patches(pairs, crops, 4, CPU, seed=0)
    again.load_state_dict(state)
    assert again.cycle == 5
    assert equal(take(stream, 4), take(again, 4))
    with pytest.raises(UserError, match="some: cannot resume: batch_size was 4 and is 3 now"):
        Patches(pairs, crops, 3, CPU, seed=0).load_state_dict(state)


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_all_ranks_make_the_batch(world: int, pairs: Pairs) -> None:
    def stream(rank: int, world: int) -> Patches:
        return Patches(pairs, Crops(side=12), 5, Runtime(torch.device("cpu"), rank, world), seed=0)

    (whole,), shares = take(stream(0, 1), 1), [next(stream(rank, world)) for rank in range(world)]
    assert equal([whole], [{name: torch.cat([share[name] for share in shares]) for name in whole}])


def test_too_few_patches_for_the_ranks_are_refused(pairs: Pairs) -> None:
    with pytest.raises(UserError, match=r"some: a batch of 2 \(batch_size 8, 2 images, 1 of each\) leaves some of 3"):
        Patches(pairs.take([0, 1]), Crops(side=12), 8, Runtime(torch.device("cpu"), 0, 3), seed=0)


def test_an_image_smaller_than_a_patch_is_refused(pairs: Pairs) -> None:
    with pytest.raises(UserError, match="p0: 40x30 pixels in low resolution are less than a patch; allowed: 31x31"):
        Patches(pairs, Crops(side=31), 4, CPU, seed=0)
    with pytest.raises(ValueError, match="side: got 0; allowed: 1 and more"):
        Crops(side=0)
