"""What can be named as data, how it is paired with low-resolution images, and the line that each mistake gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.tasks.sr import sets  # noqa: E402
from nas_apps.tasks.sr.folders import find_photos, set_name  # noqa: E402
from nas_apps.tasks.sr.images import write_image  # noqa: E402
from nas_apps.tasks.sr.pairs import make_pairs  # noqa: E402
from nas_apps.tasks.sr.photographs import SPLIT  # noqa: E402
from nas_apps.tasks.sr.resize import Pixels, shrink  # noqa: E402
from nas_apps.tasks.sr.sets import count_notice, halves, load_photos, load_test  # noqa: E402

Write = Callable[..., list[Pixels]]


@pytest.fixture
def write(noise: Callable[..., Pixels]) -> Write:
    """Write images of noise called as said into a folder."""

    def make(folder: Path, *names: str, size: tuple[int, int] = (40, 48)) -> list[Pixels]:
        images = [noise(*size, seed=seed) for seed in range(len(names))]
        for name, image in zip(names, images, strict=True):
            write_image(folder / name, image)
        return images

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_low_resolution_images_of_any_folder_are_bicubic_s(tmp_path: Path, cache: Path, write: Write) -> None:
    images = write(tmp_path / "mine", "b.png", "a.png", size=(41, 50))
    pairs = load_test(str(tmp_path / "mine"), 3, cache)
    assert pairs.name == "mine"
    assert pairs.names == ("a", "b")
    for place, image in enumerate(reversed(images)):
        assert np.array_equal(pairs.lr(place), shrink(image, 3))
        assert np.array_equal(pairs.hr(place), image[:39, :48])


def test_images_are_decoded_and_made_smaller_once(
    tmp_path: Path, cache: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine", "a.png", "b.png")
    load_test(str(tmp_path / "mine"), 2, cache)
    made = {path: path.stat().st_mtime_ns for path in cache.iterdir() if path.is_dir()}
    monkeypatch.chdir(tmp_path)
    again = load_test("mine", 2, cache)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir() if path.is_dir()} == made
    other = load_test("mine", 4, cache)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == len(made) + 1, "images are decoded anew"
    write(tmp_path / "mine", "b.png", size=(44, 44))
    changed = load_test("mine", 2, cache)
    assert (again.lr_size(1), other.lr_size(1), changed.lr_size(1)) == ((20, 24), (10, 12), (22, 22))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (("a.png",), ["a"]),
        (("DIV2K_train_HR/0001.png", "DIV2K_valid_HR/0801.png"), ["0001"]),
        (("Flickr2K_HR/000001.png", "Flickr2K_LR_bicubic/X2/000001x2.png"), ["000001"]),
        (("DIV2K/DIV2K_train_HR/0001.png", "Flickr2K/Flickr2K_HR/000001.png"), ["0001", "000001"]),
        (("DF2K_HR/0001.png", "DIV2K_train_HR/0001.png"), ["0001"]),
        (("HR/baby.png", "LR_bicubic/X2/babyx2.png"), ["baby"]),
        (("GTmod12/baby.png", "LRbicx2/baby.png"), ["baby"]),
        (("image_SRF_2/a_SRF_2_HR.png", "image_SRF_2/a_SRF_2_LR.png"), ["a"]),
    ],
)
def test_known_layouts_are_found(layout: tuple[str, ...], expected: list[str], tmp_path: Path, write: Write) -> None:
    write(tmp_path, *layout)
    assert [photo.name for photo in find_photos(tmp_path, 2)] == expected


@pytest.mark.parametrize("called", ["{}.png", "{}x2.png", "{}_LR.png", "X2/{}x2.png"])
def test_supplied_low_resolution_images_are_used(called: str, tmp_path: Path, cache: Path, write: Write) -> None:
    write(tmp_path / "hr", "a.png", "b.png", size=(41, 48))
    theirs = write(tmp_path / "lr", called.format("b"), called.format("a"), size=(21, 24))
    pairs = load_test(str(tmp_path / "hr"), 2, cache, lr=tmp_path / "lr")
    assert np.array_equal(pairs.lr(0), theirs[1][:20])
    assert np.array_equal(pairs.lr(1), theirs[0][:20])
    learned = load_photos(str(tmp_path / "hr"), 2, cache, lr=tmp_path / "lr")
    assert np.array_equal(learned.train.lr(0), pairs.lr(pairs.names.index(learned.train.names[0])))


def test_a_folder_of_a_scale_in_selfexsrs_layout_brings_its_low_resolution_images(
    tmp_path: Path, cache: Path, write: Write
) -> None:
    write(tmp_path / "Set5" / "image_SRF_4", "img_001_SRF_4_HR.png")
    theirs = write(tmp_path / "Set5" / "image_SRF_4", "img_001_SRF_4_LR.png", size=(10, 12))
    for path in ("Set5", "Set5/image_SRF_4"):
        pairs = load_test(str(tmp_path / path), 4, cache)
        assert (pairs.name, pairs.names) == ("Set5", ("img_001",))
        assert np.array_equal(pairs.lr(0), theirs[0])
    halved = load_test(str(tmp_path / "Set5" / "image_SRF_4"), 2, cache)
    assert halved.lr_size(0) == (20, 24), "those of another scale are made here"
    with pytest.raises(UserError, match=r"Set5: has images of x4, and none of x3; allowed: one it has"):
        load_test(str(tmp_path / "Set5"), 3, cache)


def test_our_images_of_the_published_ones_equal_those_beside_them(
    published: Callable[[str], Path], cache: Path
) -> None:
    ours, theirs = (load_test(str(published(name)), 2, cache) for name in ("Set5", "Set5_ref"))
    assert len(ours) == len(theirs) == 5
    assert all(np.array_equal(ours.lr(place), theirs.lr(place)) for place in range(5))


@pytest.mark.parametrize("scale", [2, 4])
def test_urban100_at_half_its_size_is_refused_with_the_reason(scale: int, tmp_path: Path, write: Write) -> None:
    write(tmp_path / "Urban100" / "image_SRF_2", "a_SRF_2_HR.png", "a_SRF_2_LR.png")
    write(tmp_path / "Urban100" / "image_SRF_4", "a_SRF_4_HR.png", "a_SRF_4_LR.png")
    with pytest.raises(UserError, match=r"image_SRF_2: these images are Urban100's at half their size.*image_SRF_4"):
        find_photos(tmp_path / "Urban100" / "image_SRF_2", scale)
    if scale == 2:
        with pytest.raises(UserError, match="half their size"):
            find_photos(tmp_path / "Urban100", scale)
    assert find_photos(tmp_path / "Urban100" / "image_SRF_4", scale)


def test_a_folder_that_is_none_or_has_no_images_is_refused(tmp_path: Path, write: Write) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    write(tmp_path / "image_SRF_2", "a.png")
    for name, reason in (
        ("none", "does not exist; allowed: a folder of images"),
        ("file", "is a file; allowed: a folder of images"),
        ("empty", "found no images; allowed: a folder of images"),
        ("image_SRF_2", "found no images called <name>_HR"),
    ):
        with pytest.raises(UserError, match=reason) as refused:
            find_photos(tmp_path / name, 2)
        assert "\n" not in str(refused.value)
    write(tmp_path / "hr", "a.png")
    with pytest.raises(UserError, match=r"empty: found no low-resolution images"):
        find_photos(tmp_path / "hr", 2, tmp_path / "empty")


FAULTS = {
    "damaged": (lambda hr, lr: (hr / "b.png").write_text("x"), r"b.png: cannot read this image"),
    "tiny": (
        lambda hr, lr: write_image(hr / "b.png", np.zeros((9, 30, 3), np.uint8)),
        r"b.png: got 30x9 pixels; allowed: 16x16 and more at x2",
    ),
    "without its partner": (
        lambda hr, lr: (lr / "bx2.png").unlink(),
        r"b.png: has no low-resolution image bx2.png in .*lr",
    ),
    "of another scale": (
        lambda hr, lr: write_image(lr / "bx2.png", np.zeros((10, 12, 3), np.uint8)),
        r"bx2.png: got 12x10 pixels, for an image of 48x40; allowed: 24x20, which is x2",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_image_at_fault_is_refused_or_left_out_and_told(
    fault: str, tmp_path: Path, cache: Path, write: Write
) -> None:
    write(tmp_path / "hr", "a.png", "b.png", "c.png")
    write(tmp_path / "lr", "ax2.png", "bx2.png", "cx2.png", size=(20, 24))
    spoil, reason = FAULTS[fault]
    spoil(tmp_path / "hr", tmp_path / "lr")
    hr, lr = str(tmp_path / "hr"), tmp_path / "lr"
    for _ in range(2):  # what was made for those who skip does not help those who do not
        with pytest.raises(UserError, match=reason) as refused:
            load_test(hr, 2, cache, lr=lr)
        assert "\n" not in str(refused.value)
        pairs = load_test(hr, 2, cache, lr=lr, skip=True)
        assert pairs.names == ("a", "c")
        assert pairs.lr_size(1) == (20, 24)
        (notice,) = pairs.notices()
        assert notice == f"hr: left out: {refused.value}"


def test_a_set_of_which_nothing_is_left_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "a.png").write_text("x")
    with pytest.raises(UserError, match=r"hr: none of 1 images can be used: .*a.png: cannot read"):
        load_test(str(tmp_path / "hr"), 2, cache, skip=True)
    assert not [path for path in cache.iterdir() if path.is_dir()], "something is left"


def test_many_faults_are_told_in_a_few_lines(tmp_path: Path, cache: Path, write: Write) -> None:
    write(tmp_path / "hr", *(f"{n}.png" for n in range(15)))
    for number in range(1, 14):
        (tmp_path / "hr" / f"{number}.png").write_text("x")
    notices = load_test(str(tmp_path / "hr"), 2, cache, skip=True).notices()
    assert len(notices) == 11
    assert notices[-1] == "hr: left out: 3 more"


def test_images_smaller_than_a_patch_are_refused_or_left_out(tmp_path: Path, cache: Path, write: Write) -> None:
    write(tmp_path / "hr", "a.png")
    write(tmp_path / "hr", "b.png", size=(100, 100))
    pairs = load_test(str(tmp_path / "hr"), 2, cache)
    told = "a: 24x20 pixels in low resolution are less than a patch; allowed: 32x32 and more"
    with pytest.raises(UserError, match=f"hr: {told}"):
        pairs.of_side(32, skip=False)
    left = pairs.of_side(32, skip=True)
    assert left.names == ("b",)
    assert left.notices() == [f"hr: left out: {told}"]
    assert pairs.of_side(20, skip=False) is pairs
    with pytest.raises(UserError, match="64x64 and more"):
        pairs.of_side(64, skip=True)


def test_what_is_held_out_is_not_learned_from(tmp_path: Path, cache: Path, write: Write) -> None:
    write(tmp_path / "DIV2K_train_HR", *(f"{n:04}.png" for n in range(20)))
    write(tmp_path / "DIV2K_valid_HR", "0801.png")
    found = load_photos(str(tmp_path), 2, cache)
    assert (len(found.train), len(found.valid)) == (18, 2)
    assert not set(found.train.names) & set(found.valid.names)
    assert found.test
    assert found.test.names == ("0801",)
    assert found.facts() == f"{tmp_path}: train 18, valid 2, test 1 images at x2; 0.0 million pixels in train"
    assert len(load_photos(str(tmp_path), 2, cache, held_out=5).valid) == 5
    with pytest.raises(UserError, match=r"got 20 images, and 20 of them held out; allowed: 1 and more of each"):
        load_photos(str(tmp_path), 2, cache, held_out=20)


def test_halves_have_no_image_in_both(tmp_path: Path, cache: Path, write: Write) -> None:
    write(tmp_path / "hr", *(f"{n}.png" for n in range(7)))
    pairs = load_test(str(tmp_path / "hr"), 2, cache)
    first, second = halves(pairs, 0.5, seed=3)
    assert sorted(first.names + second.names) == sorted(pairs.names)
    assert (len(first), len(second)) == (4, 3)
    assert [len(half) for half in halves(pairs, 0.01)] == [1, 6]
    place = pairs.names.index(second.names[1])
    assert np.array_equal(second.lr(1), pairs.lr(place))
    with pytest.raises(UserError, match="got 1 image to halve; allowed: 2 and more"):
        halves(pairs.take([0]))


def test_a_published_set_with_other_images_is_told_of(tmp_path: Path, cache: Path, write: Write) -> None:
    write(tmp_path / "Set5", *(f"{n}.png" for n in range(5)))
    assert count_notice(load_test(str(tmp_path / "Set5"), 2, cache)) is None
    shutil.move(tmp_path / "Set5" / "4.png", tmp_path)
    told = count_notice(load_test(str(tmp_path / "Set5"), 2, cache))
    assert told == "Set5: 4 images, and the published set has 5: figures are not comparable"


def test_the_embedded_photographs_are_split_as_said(cache: Path) -> None:
    pytest.importorskip("skimage")
    found = load_photos("photographs", 2, cache)
    parts = {"train": found.train, "valid": found.valid, "test": found.test}
    assert {name: part.names for name, part in parts.items() if part} == dict(SPLIT)
    assert found.train.lr_size(3) == (256, 256), "the centre of hubble"
    assert found.facts() == "photographs: train 7, valid 3, test 2 images at x2; 1.8 million pixels in train"
    assert found.test
    notices = [notice for part in (found.train, found.valid, found.test) for notice in part.notices()]
    assert [notice.split(": ")[1] for notice in notices] == ["train", "test"]
    with pytest.raises(UserError, match="got lr or held_out with 'photographs'; allowed: neither"):
        load_photos("photographs", 2, cache, held_out=2)
    assert sets.NAME == "photographs"


def test_names_of_sets_are_those_of_their_folders() -> None:
    named = [set_name(Path(p)) for p in ("x/Set14", "x/Set14/HR", "x/B100/GTmod12", "x/Urban100/image_SRF_4")]
    assert named == ["Set14", "Set14", "B100", "Urban100"]


def test_two_pairs_of_one_folder_are_made_from_one_decoding(tmp_path: Path, cache: Path, write: Write) -> None:
    write(tmp_path / "hr", "a.png")
    photos = find_photos(tmp_path / "hr", 2)
    pairs = [make_pairs("x", photos, scale, cache) for scale in (2, 3)]
    assert len(list(cache.glob("hr-*"))) == 1
    assert np.array_equal(pairs[0].hr(0)[:39], pairs[1].hr(0))
