"""What can be named as data, how it is split, and the one line that each mistake gives."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nas_apps.tasks.image.folder
from nas_apps.core.errors import UserError
from nas_apps.tasks.image.data import load
from nas_apps.tasks.image.images import Images, split

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CPU = torch.device("cpu")
CIFAR10 = "cifar-10-batches-py"


def pixels_of(images: Images) -> torch.Tensor:
    """The pixels of a set in memory, in its own order."""
    assert images.pixels is not None
    return images.pixels.on(CPU)[images.rows]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_cifar10(root: Path, count: int = 20, protocol: int = 4, classes: int = 10) -> Path:
    folder = root / CIFAR10
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        batch = {b"data": noise(count, 3072, seed=number), b"labels": [k % classes for k in range(count)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    meta = {b"label_names": [f"name{k}".encode() for k in range(10)], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    return folder


def write_cifar100(root: Path, count: int = 100) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir()
    for number, name in enumerate(("train", "test")):
        labels = list(range(100))
        batch = {b"data": noise(count, 3072, seed=number), b"fine_labels": labels, b"coarse_labels": labels}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [f"fine{k}".encode() for k in range(100)]}))
    return folder


def write_npz(root: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "x_train": noise(40, 9, 7, 3),
        "y_train": np.arange(40) % 4,
        "x_test": noise(12, 9, 7, 3, seed=1),
        "y_test": np.arange(12) % 4,
    }
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(root / "set.npz", **arrays)
    return root / "set.npz"


def write_folder(root: Path, *parts: str, count: int = 5, shape: tuple[int, ...] = (10, 8, 3)) -> Path:
    """Images of three classes under each of `parts`, or under the root itself."""
    for number, part in enumerate(parts or (".",)):
        for label, name in enumerate(("ant", "bee", "cow")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(noise(*shape, seed=100 * number + 10 * label + k)).save(folder / f"{k}.png")
    return root


# -------------------------------------------------------------------------------------------------- what is read


def test_digits_are_split_by_class_and_always_alike() -> None:
    train, test = load("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert (train.num_classes, train.in_chans, train.size) == (10, 1, (8, 8))
    assert train.class_names == tuple("0123456789")
    assert set(train.rows.tolist()).isdisjoint(test.rows.tolist())
    share = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert ((share - 0.2).abs() < 0.01).all()
    again = load("digits").test
    assert torch.equal(again.rows, test.rows)
    assert torch.equal(pixels_of(again), pixels_of(test))


def test_digits_use_the_whole_range_of_a_byte() -> None:
    values = pixels_of(load("digits").train)
    assert (int(values.min()), int(values.max())) == (0, 255)


def test_constants_are_those_of_the_training_images_alone() -> None:
    train, test = load("digits")
    values = pixels_of(train).double() / 255
    assert train.mean == pytest.approx((values.mean().item(),))
    assert train.std == pytest.approx((values.std(correction=0).item(),))
    assert (test.mean, test.std) == (train.mean, train.std)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5], ids=lambda p: f"protocol {p}")
@pytest.mark.parametrize("inside", [True, False], ids=["the folder itself", "the folder above"])
def test_cifar10_is_read_from_its_own_layout(tmp_path: Path, protocol: int, inside: bool) -> None:
    folder = write_cifar10(tmp_path, protocol=protocol)
    train, test = load(str(folder if inside else tmp_path))
    assert (len(train), len(test)) == (100, 20)
    assert (train.size, train.in_chans) == ((32, 32), 3)
    assert train.class_names == tuple(f"name{k}" for k in range(10))
    assert train.mean[0] == 0.49139968
    assert train.std[2] == 0.26158768
    assert torch.equal(pixels_of(train)[20:40], torch.from_numpy(noise(20, 3, 32, 32, seed=1)))
    assert test.labels.tolist() == [k % 10 for k in range(20)]


def test_batches_that_python_2_and_numpy_1_wrote_are_read(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path, protocol=2)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"numpy._core", b"numpy.core"))
    assert len(load(str(folder)).train) == 100


def test_cifar100_is_read_with_its_fine_labels(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    train, test = load(str(tmp_path))
    assert (train.num_classes, len(train), len(test)) == (100, 100, 100)
    assert train.class_names[7] == "fine7"
    assert train.mean == (0.5071, 0.4865, 0.4409)


@pytest.mark.parametrize(
    ("order", "channels"),
    [((0, 1, 2, 3), 3), ((0, 3, 1, 2), 3), ((0, 1, 2), 1), ((0, 1, 2, 3), 1), ((0, 3, 1, 2), 1)],
    ids=["NHWC", "NCHW", "NHW", "NHW1", "N1HW"],
)
def test_arrays_are_read_in_every_layout(tmp_path: Path, order: tuple[int, ...], channels: int) -> None:
    base = {"x_train": noise(40, 9, 7, channels), "x_test": noise(12, 9, 7, channels, seed=1)}
    laid = {key: (a[..., 0] if len(order) == 3 else a).transpose(order) for key, a in base.items()}
    train, test = load(str(write_npz(tmp_path, **laid)))
    assert (train.size, train.in_chans, len(train), len(test)) == ((9, 7), channels, 40, 12)
    assert torch.equal(pixels_of(train), torch.from_numpy(base["x_train"]).permute(0, 3, 1, 2))
    assert torch.equal(pixels_of(test), torch.from_numpy(base["x_test"]).permute(0, 3, 1, 2))


def test_arrays_without_a_test_half_give_one_up(tmp_path: Path) -> None:
    train, test = load(str(write_npz(tmp_path, x_test=None, y_test=None)))
    assert (len(train), len(test)) == (32, 8)
    assert torch.bincount(test.labels).tolist() == [2, 2, 2, 2]


def test_labels_need_not_count_from_zero(tmp_path: Path) -> None:
    labels = {"y_train": np.arange(40)[:, None] % 4 * 10 + 5, "y_test": np.arange(12, dtype=np.uint8) % 2 * 10 + 15}
    train, test = load(str(write_npz(tmp_path, **labels)))
    assert train.class_names == ("5", "15", "25", "35")
    assert test.labels.tolist() == [1, 2] * 6


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_folder_is_read_with_its_own_held_out_half(tmp_path: Path, held_out: str) -> None:
    train, test = load(str(write_folder(tmp_path, "train", held_out)))
    assert (len(train), len(test), train.size, train.in_chans) == (15, 15, (10, 8), 3)
    assert train.class_names == ("ant", "bee", "cow")
    assert torch.equal(pixels_of(test)[6], torch.from_numpy(noise(10, 8, 3, seed=111)).permute(2, 0, 1))
    assert test.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5


@pytest.mark.parametrize("parts", [(), ("train",)], ids=["classes alone", "train alone"])
def test_a_folder_without_a_held_out_half_gives_one_up(tmp_path: Path, parts: tuple[str, ...]) -> None:
    train, test = load(str(write_folder(tmp_path, *parts)))
    assert (len(train), len(test)) == (12, 3)
    assert sorted(test.labels.tolist()) == [0, 1, 2]


def test_grey_images_are_found_to_be_grey(tmp_path: Path) -> None:
    train, _ = load(str(write_folder(tmp_path, shape=(5, 5))))
    assert train.in_chans == 1


def test_sixteen_bits_and_palettes_and_transparency_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path, shape=(5, 5))
    deep = np.full((5, 5), 0x8001, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "ant" / "deep.png")
    Image.new("LA", (5, 5), (77, 9)).save(tmp_path / "ant" / "clear.png")
    assert load(str(tmp_path)).train.in_chans == 1
    palette = Image.new("P", (5, 5), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "ant" / "few.png", transparency=b"\x00\xff")
    train, test = load(str(tmp_path))
    assert train.in_chans == 3
    assert train.pixels is not None
    first = train.pixels.on(CPU)[train.labels.new_tensor(range(8)), :, 0, 0]  # ant's five, then clear, deep and few
    assert first[5:].tolist() == [[77, 77, 77], [128, 128, 128], [200, 100, 50]]


def test_a_stated_size_scales_to_cover_and_cuts_at_the_centre(tmp_path: Path) -> None:
    write_folder(tmp_path)
    stripes = np.zeros((8, 32, 3), dtype=np.uint8)
    stripes[:, 8:24] = 200
    Image.fromarray(stripes).save(tmp_path / "ant" / "wide.png")
    train, test = load(str(tmp_path), image_size=(4, 8))
    assert train.size == (4, 8)
    assert train.pixels is not None
    assert (train.pixels.on(CPU)[5] > 150).all()  # the file after ant's five; its dark sides are cut off


@pytest.mark.parametrize("size", [5, (7, 3), 16], ids=str)
@pytest.mark.parametrize("in_chans", [1, 3], ids=["grey", "RGB"])
def test_size_and_channels_can_be_stated_for_arrays(size: int | tuple[int, int], in_chans: int) -> None:
    train, test = load("digits", size, in_chans)
    assert train.size == ((size, size) if isinstance(size, int) else size)
    assert pixels_of(train).shape == (1437, in_chans, *train.size)
    assert len(train.mean) == in_chans


def test_grey_is_the_luma_of_the_colours(tmp_path: Path) -> None:
    train, _ = load(str(write_npz(tmp_path)), in_chans=1)
    image = Image.fromarray(noise(40, 9, 7, 3)[3]).convert("L")
    difference = pixels_of(train)[3, 0].int() - torch.from_numpy(np.array(image)).int()
    assert difference.abs().max() <= 1


def test_a_folder_too_large_for_memory_stays_on_the_disk(tmp_path: Path) -> None:
    train, test = load(str(write_folder(tmp_path, "train", "val")), memory=0)
    assert train.pixels is None
    assert train.files is not None
    assert (len(train), len(test), train.size) == (15, 15, (10, 8))
    assert train.mean == (0.485, 0.456, 0.406)


def test_the_real_cifar10_is_read(tmp_path: Path) -> None:
    if not (SHARED / "cifar10" / "cifar10.npz").exists():
        pytest.skip(f"no CIFAR-10 at {SHARED}")
    spec = importlib.util.spec_from_file_location("unpack_cifar10", SHARED / "unpack_cifar10.py")
    assert spec is not None
    assert spec.loader is not None
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    unpack.write_batches(tmp_path, np.load(SHARED / "cifar10" / "cifar10.npz"))
    train, test = load(str(tmp_path))
    for file in (tmp_path / CIFAR10).iterdir():
        file.unlink()  # pytest keeps its folders
    assert (len(train), len(test), train.num_classes) == (50000, 10000, 10)
    assert train.class_names[3] == "cat"
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    mean = pixels_of(train).mean((0, 2, 3), dtype=torch.float32) / 255
    assert torch.allclose(mean, torch.tensor(train.mean), atol=2e-3)


# ---------------------------------------------------------------------------------------------------- mistakes


class Evil:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("ran"),)


def broken_cifar(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        change(write_cifar10(root))
        return root

    return write


def broken_folder(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        change(write_folder(root, "train", "val"))
        return root

    return write


def changed(batch: dict[bytes, Any]) -> Callable[[Path], Path]:
    """A CIFAR-10 folder with something else in its third batch."""
    return broken_cifar(lambda f: (f / "data_batch_3").write_bytes(pickle.dumps(batch)))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> Path:
    (path / "nothing").mkdir()
    return path / "nothing"


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        (root / name).write_bytes(content)
        return root / name

    return write


def without_images(path: Path) -> None:
    for file in (path / "train" / "bee").iterdir():
        file.unlink()


def one_class(path: Path) -> Path:
    write_folder(path, "train")
    for name in ("bee", "cow"):
        for file in (path / "train" / name).iterdir():
            file.unlink()
        (path / "train" / name).rmdir()
    return path


def flat(path: Path) -> Path:
    Image.fromarray(noise(4, 4)).save(path / "a.png")
    return path


def npz(**changes: Any) -> Callable[[Path], Path]:
    return lambda root: write_npz(root, **changes)


MISTAKES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a path that is not there": (lambda root: root / "cifar", r"cifar' does not exist; allowed: digits, a folder"),
    "a file of another kind": (written("x.tar.gz", b"x"), r"x.tar.gz' is a file of another kind; allowed: digits"),
    "an empty folder": (empty, r"nothing: found no images; allowed: train/<class>/"),
    "a folder of images without classes": (flat, r"found images but no folders of classes; allowed: train/<class>"),
    "a class without images": (broken_folder(without_images), r"train/bee: found no images of this class; allowed: f"),
    "one class": (one_class, r"train: found one class, 'ant'; allowed: two or more"),
    "a class missing in val": (
        broken_folder(lambda f: (f / "val" / "cow").rename(f / "val" / "ox")),
        r"the class 'cow' is in train/ but not in val/ \(2 such\)",
    ),
    "a class missing in train": (
        broken_folder(lambda f: (f / "val" / "x").mkdir()),
        r"the class 'x' is in val/ but not in train/ \(1 such\)",
    ),
    "val without train": (lambda root: write_folder(root, "val"), r"holds val/ but no train/; allowed: train/<class>"),
    "an image that is none": (
        broken_folder(lambda f: (f / "train" / "bee" / "2.png").write_bytes(b"text")),
        r"train/bee/2.png: cannot read this image \(.*\); mend or remove it",
    ),
    "an image cut short": (
        broken_folder(lambda f: cut_short(f / "val" / "ant" / "0.png")),
        r"val/ant/0.png: cannot read this image \(.*\); mend or remove it",
    ),
    "images of two sizes": (
        broken_folder(lambda f: Image.fromarray(noise(6, 6, 3)).save(f / "train" / "cow" / "1.png")),
        r"images of different sizes \(6x6 and 10x8, height x width\); state image_size",
    ),
    "a batch cut short": (broken_cifar(lambda f: cut_short(f / "data_batch_2")), r"data_batch_2: cut short, or not"),
    "a batch that is empty": (broken_cifar(lambda f: (f / "test_batch").write_bytes(b"")), r"test_batch: cut short"),
    "a batch that is missing": (
        broken_cifar(lambda f: (f / "data_batch_4").unlink()),
        r"data_batch_4: there is no such file; unpack the archive again",
    ),
    "names that are missing": (
        broken_cifar(lambda f: (f / "batches.meta").unlink()),
        r"batches.meta: there is no such",
    ),
    "names of something else": (
        broken_cifar(lambda f: (f / "batches.meta").write_bytes(pickle.dumps({"a": 1}))),
        r"batches.meta: no list 'label_names'; found: a",
    ),
    "a batch that would run code": (
        broken_cifar(lambda f: (f / "data_batch_3").write_bytes(pickle.dumps(Evil()))),
        r"data_batch_3: not a CIFAR file: its pickle asks for \S+, which was not run",
    ),
    "a batch that is a list": (
        broken_cifar(lambda f: (f / "data_batch_3").write_bytes(pickle.dumps([1]))),
        r"data_batch_3: not a CIFAR file: it holds a list; allowed: a dict",
    ),
    "a batch of floats": (
        changed({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}),
        r"'data' is float64 \[2, 3072\]; allowed: uint8 \[N, 3072\]",
    ),
    "a batch without images": (changed({b"labels": [0, 1]}), r"'data' is no array; allowed: uint8 \[N, 3072\]"),
    "a batch with too few labels": (
        changed({b"data": noise(3, 3072), b"labels": [0, 1]}),
        r"data_batch_3: 3 images and 2 labels 'labels'; allowed: one number for each image",
    ),
    "a batch without labels": (changed({b"data": noise(3, 3072)}), r"3 images and no labels 'labels'; allowed"),
    "a batch with a strange label": (
        changed({b"data": noise(2, 3072), b"labels": [0, 10]}),
        r"'labels' from 0 to 10; allowed: 0 to 9",
    ),
    "both CIFARs": (
        broken_cifar(lambda f: write_cifar100(f.parent)),
        r"holds cifar-10-batches-py and cifar-100-python; give the path of one of them",
    ),
    "arrays of other names": (
        npz(x_train=None, images=noise(4, 4, 4)),
        r"found the arrays images, x_test, y_test, y_train; allowed: x_train, y_train and perhaps x_test, y_test",
    ),
    "half of a test half": (npz(y_test=None), r"found the arrays x_test, x_train, y_train; allowed: x_train"),
    "arrays of floats": (npz(x_train=np.zeros((40, 9, 7))), r"x_train is of type float64; allowed: uint8"),
    "labels of floats": (npz(y_train=np.zeros(40)), r"y_train is of type float64; allowed: whole numbers"),
    "labels in a table": (
        npz(y_train=np.zeros((40, 4), dtype=int)),
        r"y_train has the shape \[40, 4\]; allowed: \[N\]",
    ),
    "images in rows": (npz(x_train=noise(40, 63)), r"x_train has the shape \[40, 63\]; allowed: \[N, H, W\]"),
    "two channels": (npz(x_train=noise(40, 9, 7, 2)), r"x_train has the shape \[40, 9, 7, 2\]; allowed"),
    "fewer labels than images": (npz(y_train=np.arange(39) % 4), r"x_train has 40 images and y_train 39 labels"),
    "a label met only in the test": (npz(y_test=np.arange(12)), r"y_test has the label 4, which y_train has not"),
    "halves of two shapes": (npz(x_test=noise(12, 9, 9, 3)), r"differ in shape: \(3, 9, 7\) and \(3, 9, 9\)"),
    "arrays of one class": (
        npz(y_train=np.zeros(40, dtype=int), y_test=np.zeros(12, dtype=int)),
        r"found one class, '0'",
    ),
    "arrays of objects": (npz(y_train=np.array([{}], dtype=object)), r"set.npz: cannot read it: it holds pickled obj"),
    "a file that is no npz": (written("x.npz", b"PK\x03\x04 and no more"), r"x.npz: cannot read it: not a whole .npz"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_that_says_where(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = MISTAKES[mistake]
    path = write(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        load(str(path))
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert not Path("ran").exists()


def test_a_size_that_only_a_full_reading_meets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_apps.tasks.image.folder, "_SAMPLE", 2)
    write_folder(tmp_path)
    Image.new("RGB", (6, 7)).save(tmp_path / "bee" / "1.png")
    with pytest.raises(UserError, match=r"bee/1.png: images of different sizes \(7x6 and 10x8, .*\); state image_size"):
        load(str(tmp_path))


def test_a_npz_cut_short_is_named(tmp_path: Path) -> None:
    path = write_npz(tmp_path)
    cut_short(path)
    with pytest.raises(UserError, match=r"set.npz: cannot read it: not a whole .npz file"):
        load(str(path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, r"image_size: 0; allowed"),
        ({"image_size": (8, 8, 8)}, r"image_size: \(8, 8, 8\); allowed"),
        ({"in_chans": 2}, r"in_chans: 2; allowed: 1 \(grey\), 3 \(RGB\), or nothing"),
    ],
    ids=["no size", "three sides", "two channels"],
)
def test_sizes_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load("digits", **settings)


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"digits needs scikit-learn: pip install 'nas-apps\[image\]'"):
        load("digits")
    write_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"pillow and torchvision: pip install 'nas-apps\[image\]'"):
        load(str(tmp_path))


# ------------------------------------------------------------------------------------------------------ splits


@pytest.mark.parametrize("how", ["stratified", "random", "index"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.73])
def test_a_split_is_disjoint_and_whole_and_of_the_stated_size(how: Any, fraction: float) -> None:
    train = load("digits").train
    first, second = split(train, fraction, 3, how)
    assert len(first) == int(fraction * len(train))
    assert sorted(first.rows.tolist() + second.rows.tolist()) == train.rows.tolist()
    again, _ = split(train, fraction, 3, how)
    assert torch.equal(again.rows, first.rows)


def test_a_split_by_index_cuts_the_set_where_it_stands() -> None:
    train = load("digits").train
    first, second = split(train, 0.5, how="index")
    assert torch.equal(torch.cat([first.rows, second.rows]), train.rows)


def test_a_stratified_split_of_a_sorted_folder_keeps_every_class_to_within_one_image(tmp_path: Path) -> None:
    train, _ = load(str(write_folder(tmp_path, "train", "val", count=7)))
    for part in split(train):
        assert set(torch.bincount(part.labels, minlength=3).tolist()) == {3, 4}


def test_a_stratified_split_keeps_rare_classes_too() -> None:
    train = load("digits").train
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.choice(10, len(train), p=np.arange(1, 11) / 55))
    for fraction in (0.1, 0.5, 0.77):
        part, _ = split(replace(train, labels=labels), fraction)
        assert ((torch.bincount(part.labels) - fraction * torch.bincount(labels)).abs() <= 1).all()


def test_splits_of_other_seeds_differ() -> None:
    train = load("digits").train
    assert not torch.equal(split(train, seed=0)[0].rows, split(train, seed=1)[0].rows)


def test_a_split_of_a_split_keeps_labels_with_images() -> None:
    train = load("digits").train
    part, _ = split(split(train, 0.3)[1], 0.4)
    label = dict(zip(train.rows.tolist(), train.labels.tolist(), strict=True))
    assert [label[row] for row in part.rows.tolist()] == part.labels.tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 1e-6, float("nan")])
def test_a_split_with_an_empty_part_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"digits: cannot split 1437 images at the fraction"):
        split(load("digits").train, fraction)


def test_an_unknown_way_to_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"split: no 'sorted'; allowed: index, random, stratified"):
        split(load("digits").train, how="sorted")  # type: ignore[arg-type]
