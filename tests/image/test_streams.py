"""What streams serve: augmentation's laws, ranks, resumption, and whole evaluations."""

from __future__ import annotations

import gc
import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.tasks.image.augment import Augment, crop, cutout, mixup
from nas_apps.tasks.image.data import load
from nas_apps.tasks.image.images import Images, Pixels
from nas_apps.tasks.image.plan import Feed
from nas_apps.tasks.image.streams import FileStream, MemoryStream, evaluation_batches, stream

CPU = torch.device("cpu")
ALONE = Runtime(CPU)
PLAIN = Augment(crop_padding=0, flip=False, cutout=0)
FULL = Augment(crop_padding=2, flip=True, cutout=5, mixup=0.4)
FILES = Augment(auto="rand-m9-mstd0.5", flip=True, cutout=4, mixup=0.4)

# Python 3.12 warns about any fork of a process with threads, which torch is; torch about more workers than processors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning"),
]


def ranks(world: int) -> list[Runtime]:
    return [Runtime(CPU, rank, world) for rank in range(world)]


def numbered(count: int, size: tuple[int, int] = (9, 7), in_chans: int = 3) -> Images:
    """Images that tell who they are: all pixels of image k are k + 1, and its label is k modulo 5."""
    pixels = (torch.arange(count, dtype=torch.uint8) + 1).view(-1, 1, 1, 1).expand(-1, in_chans, *size).contiguous()
    rows = torch.arange(count)
    constants = (0.0,) * in_chans, (1 / 255,) * in_chans  # so that floats are the bytes
    return Images("numbered", tuple("abcde"), size, in_chans, *constants, rows, rows % 5, Pixels(pixels))


def random_images(count: int, size: tuple[int, int] = (9, 7)) -> Images:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, *size), dtype=np.uint8))
    return replace(numbered(count, size), pixels=Pixels(pixels), name="random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 images of four classes."""
    root, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for name in ("ant", "bee", "cow", "dog"):
        (root / "train" / name).mkdir(parents=True)
        (root / "test" / name).mkdir(parents=True)
        for k in range(7):
            Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(root / "train" / name / f"{k}.png")
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(root / "test" / name / "0.png")
    return root


@pytest.fixture(scope="module")
def on_disk(folder: Path) -> Images:
    return load(str(folder), memory=0).train


def serve(
    images: Images, augment: Augment, count: int, runtime: Runtime = ALONE, **feed: Any
) -> list[tuple[Tensor, Tensor]]:
    source = stream(images, augment, Feed(**({"batch_size": 8} | feed)), runtime)
    return [next(source) for _ in range(count)]


def same(left: list[tuple[Tensor, Tensor]], right: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def global_state() -> tuple[object, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


# ------------------------------------------------------------------------------------------------------- order


def test_an_epoch_serves_every_image_once_and_in_an_order_of_its_own() -> None:
    images, source = numbered(24), stream(numbered(24), PLAIN, Feed(8), ALONE)
    assert source.epoch == 3
    epochs = [torch.cat([next(source)[0][:, 0, 0, 0] for _ in range(3)]).int().tolist() for _ in range(3)]
    assert all(sorted(epoch) == list(range(1, len(images) + 1)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_labels_go_with_their_images() -> None:
    for images, labels in serve(numbered(24).take(torch.arange(3, 20)), PLAIN, 5, batch_size=4):
        assert ((images[:, 0, 0, 0].long() - 1) % 5).tolist() == labels.tolist()
        assert labels.dtype == torch.int64


@pytest.mark.parametrize(("count", "batch_size", "batches", "served"), [(25, 8, 3, 8), (5, 8, 1, 5), (8, 8, 1, 8)])
def test_a_partial_batch_is_left_out_unless_it_is_all_there_is(
    count: int, batch_size: int, batches: int, served: int
) -> None:
    source = stream(numbered(count), PLAIN, Feed(batch_size), ALONE)
    assert source.epoch == batches
    assert [len(next(source)[0]) for _ in range(4)] == [served] * 4


@pytest.mark.parametrize("change", [{"seed": 1}, {"use": "valid"}, {"seed": -1}], ids=str)
def test_seeds_and_uses_have_unrelated_orders(change: dict[str, Any]) -> None:
    images = numbered(200)
    one, other = (serve(images, PLAIN, 1, batch_size=200, **feed)[0][0][:, 0, 0, 0] for feed in ({}, change))
    assert (one == other).float().mean() < 0.05


def test_the_cycle_counts_batches_and_the_state_is_plain_numbers() -> None:
    source = stream(numbered(24), FULL, Feed(8), ALONE)
    for cycle in range(5):
        assert source.cycle == cycle
        next(source)
    assert source.state_dict() == {"cycle": 5, "images": 24, "batch_size": 8}
    assert all(type(value) is int for value in source.state_dict().values())


# ------------------------------------------------------------------------------------------------ augmentation


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 5)], ids=str)
def test_without_crop_flip_and_cutout_images_are_only_normalised(size: tuple[int, int]) -> None:
    images = replace(random_images(16, size), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    assert images.pixels is not None
    raw = images.pixels.on(CPU).double() / 255
    expected = (raw - torch.tensor(images.mean).view(3, 1, 1)) / torch.tensor(images.std).view(3, 1, 1)
    ((served, _),) = serve(images, PLAIN, 1, batch_size=16)
    distance = (served.double()[:, None] - expected).abs().amax((2, 3, 4))  # [served, stored]
    assert served.dtype == torch.float32
    assert (distance.amin(1) < 1e-5).all()
    assert sorted(distance.argmin(1).tolist()) == list(range(16))


def naive_crop(image: np.ndarray, top: int, left: int, mirrored: bool, padding: int) -> np.ndarray:
    """RandomCrop with padding and RandomHorizontalFlip, as the papers' code applies them."""
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    cut = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return cut[:, :, ::-1] if mirrored else cut


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("size", [(32, 32), (9, 7)], ids=str)
def test_a_batch_is_cropped_as_each_image_would_be(padding: int, size: tuple[int, int]) -> None:
    images, rng = random_images(12, size), np.random.default_rng(1)
    assert images.pixels is not None
    pixels = images.pixels.on(CPU)
    top, left = torch.from_numpy(rng.integers(0, 2 * padding + 1, (2, 12)))
    mirrored = torch.from_numpy(rng.integers(0, 2, 12) > 0)
    expected = [
        naive_crop(p.numpy(), int(t), int(s), bool(m), padding)
        for p, t, s, m in zip(pixels, top, left, mirrored, strict=True)
    ]
    assert torch.equal(crop(pixels, top, left, mirrored, padding), torch.from_numpy(np.stack(expected)))


def test_half_of_the_images_are_mirrored_and_the_rest_stay() -> None:
    images = random_images(400)
    images = replace(images, pixels=Pixels(images.pixels.on(CPU)[:1].expand(400, -1, -1, -1).contiguous()))  # type: ignore[union-attr]
    ((flipped, _),) = serve(images, replace(PLAIN, flip=True), 1, batch_size=400)
    ((plain, _),) = serve(images, PLAIN, 1, batch_size=400)
    mirrored = (flipped == plain.flip(3)).flatten(1).all(1)
    assert ((flipped == plain).flatten(1).all(1) ^ mirrored).all()
    assert abs(mirrored.float().mean() - 0.5) < 0.1


def test_every_shift_within_the_border_is_equally_likely() -> None:
    images = numbered(1)
    point = torch.zeros(1, 3, 9, 7, dtype=torch.uint8)
    point[:, :, 4, 3] = 255
    images = replace(images, pixels=Pixels(point)).take(torch.zeros(2500, dtype=torch.int64))
    ((served, _),) = serve(images, replace(PLAIN, crop_padding=2), 1, batch_size=2500)
    row, column = served[:, 0].flatten(1).argmax(1) // 7 - 4, served[:, 0].flatten(1).argmax(1) % 7 - 3
    counts = torch.bincount((row + 2) * 5 + column + 2, minlength=25)
    assert len(counts) == 25
    assert ((counts - 100).square() / 100).sum() < 43  # chi-squared of 24 degrees of freedom, p = 0.01


def expected_hole(size: tuple[int, int], side: int) -> float:
    """Mean share of an image that a hole covers, counted centre by centre as DARTS' code places it."""
    lengths = [np.mean([min(max(c - side // 2 + side, 0), n) - max(c - side // 2, 0) for c in range(n)]) for n in size]
    return float(lengths[0] * lengths[1] / (size[0] * size[1]))


@pytest.mark.parametrize(
    ("size", "side"), [((32, 32), 16), ((9, 7), 3), ((9, 7), 4), ((5, 6), 12)], ids=["CIFAR", "odd", "even", "larger"]
)
def test_cutout_blanks_the_share_that_its_law_says(size: tuple[int, int], side: int) -> None:
    images = numbered(1, size).take(torch.zeros(4000, dtype=torch.int64))
    ((served, _),) = serve(images, replace(PLAIN, cutout=side), 1, batch_size=4000)
    blank = (served == 0).float()
    assert ((served == 1) | (served == 0)).all()
    assert torch.equal(blank[:, 0], blank[:, 2])
    assert abs(float(blank.mean()) - expected_hole(size, side)) < 0.01


def test_the_law_of_cifar_is_the_one_of_the_papers_code() -> None:
    assert expected_hole((32, 32), 16) == pytest.approx((14 / 32) ** 2)


def test_a_hole_is_centred_and_the_border_cuts_it() -> None:
    holes = cutout(torch.ones(2, 1, 6, 6), torch.tensor([3, 0]), torch.tensor([3, 5]), 4)
    assert (holes[0, 0, 1:5, 1:5] == 0).all()
    assert (holes[1, 0, :2, 3:] == 0).all()
    assert holes.sum((1, 2, 3)).tolist() == [20, 30]


def test_the_hole_lies_at_the_mean_of_normalised_images() -> None:
    images = replace(random_images(8, (32, 32)), mean=(0.5,) * 3, std=(0.2,) * 3)
    ((served, _),) = serve(images, replace(PLAIN, cutout=16), 1)
    assert ((served == 0).all(1).flatten(1).sum(1) >= 64).all()


def test_mixup_mixes_neighbours_and_their_labels_alike() -> None:
    labels, images = torch.tensor([0, 1, 2, 0, 1]), torch.arange(5.0).view(5, 1, 1, 1)
    mixed, shares = mixup(images, labels, 0.75, 3)
    assert mixed.flatten().tolist() == [0.25, 0.75, 2.25, 2.75, 4.0]
    assert shares.tolist() == [[0.75, 0.25, 0], [0.25, 0.75, 0], [0.25, 0, 0.75], [0.75, 0, 0.25], [0, 1, 0]]


def test_mixing_weights_change_from_batch_to_batch_and_follow_beta() -> None:
    batches = serve(numbered(40), replace(PLAIN, mixup=0.2), 400, batch_size=4)
    assert all(torch.allclose(shares.sum(1), torch.ones(4)) for _, shares in batches)
    weights = torch.stack([shares[0].amax() for _, shares in batches])
    # The larger of w and 1 - w, w ~ Beta(0.2, 0.2), has the mean 0.906 (neighbours of one class show as 1).
    assert 0.87 < weights.mean() < 0.96


def test_the_defaults_suit_the_data() -> None:
    digits, cifar_like = load("digits").train, random_images(8, (32, 32))
    assert Augment().over(digits) == Augment(crop_padding=1, flip=False, cutout=0)
    assert Augment().over(cifar_like) == Augment(crop_padding=4, flip=True, cutout=16)
    assert Augment(flip=True, cutout=3).over(digits) == Augment(crop_padding=1, flip=True, cutout=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_padding": -1}, r"crop_padding: -1 is negative; allowed: 0 or more"),
        ({"mixup": -0.1}, r"mixup: -0.1 is negative"),
        ({"jitter": (0.4,)}, r"jitter: \[0.4\]; allowed: 3 or 4 numbers"),
        ({"jitter": (0.4,) * 3, "auto": "v0"}, r"jitter: timm leaves it out beside auto \('v0'\)"),
    ],
    ids=["negative padding", "negative mixup", "one jitter", "policy and jitter"],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):  # a recipe puts the path before it
        Augment(**settings)


def test_policies_are_refused_where_they_cannot_work(on_disk: Images) -> None:
    with pytest.raises(UserError, match=r"data.auto: works on image folders alone; digits comes as arrays"):
        stream(load("digits").train, Augment(auto="rand-m9"), Feed(8), ALONE)
    with pytest.raises(UserError, match=r"data.auto: timm has no 'best'; allowed: rand-"):
        stream(on_disk, Augment(auto="best"), Feed(8), ALONE)
    with pytest.raises(UserError, match=r"data.crop_padding: images of .* are cropped by timm's transform"):
        stream(on_disk, Augment(crop_padding=4), Feed(8), ALONE)


# ------------------------------------------------------------------------------------------------ ranks, resume


@pytest.fixture(params=["memory", "files, no workers", "files, two workers"])
def source_kind(request: pytest.FixtureRequest, on_disk: Images) -> tuple[Images, Augment, int]:
    if request.param == "memory":
        return random_images(28), FULL, 0
    return on_disk, FILES, 2 if "two" in request.param else 0


def test_a_stream_taken_up_in_the_middle_of_an_epoch_is_the_unbroken_one(
    source_kind: tuple[Images, Augment, int],
) -> None:
    images, augment, workers = source_kind
    feed = Feed(8, seed=5, workers=workers)
    unbroken = stream(images, augment, feed, ALONE)
    before, state = [next(unbroken) for _ in range(4)], unbroken.state_dict()  # three batches are an epoch
    after = [next(unbroken) for _ in range(4)]
    fresh = stream(images, augment, feed, ALONE)
    next(fresh)
    fresh.load_state_dict(state)
    assert fresh.cycle == 4
    assert same([next(fresh) for _ in range(4)], after)
    fresh.load_state_dict({**state, "cycle": 0})
    assert same([next(fresh) for _ in range(4)], before)


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_all_ranks_are_the_batch_of_one_process(
    world: int, source_kind: tuple[Images, Augment, int]
) -> None:
    images, augment, workers = source_kind
    whole = serve(images, augment, 4, batch_size=9, workers=0)
    shares = [serve(images, augment, 4, runtime, batch_size=9, workers=workers) for runtime in ranks(world)]
    joined = [
        (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])) for parts in zip(*shares, strict=True)
    ]
    assert same(joined, whole)


# One policy draws from Python's and numpy's generators, the other from torch's.
@pytest.mark.parametrize("augment", [FILES, Augment(jitter=(0.4, 0.4, 0.4, 0.2))], ids=["auto", "jitter"])
def test_workers_do_not_change_what_is_served(on_disk: Images, augment: Augment) -> None:
    assert same(serve(on_disk, augment, 4, workers=2), serve(on_disk, augment, 4, workers=0))


@pytest.mark.parametrize("augment", [FILES, Augment(jitter=(0.4, 0.4, 0.4, 0.2))], ids=["auto", "jitter"])
def test_one_file_is_never_augmented_twice_alike(on_disk: Images, augment: Augment) -> None:
    many = on_disk.take(torch.zeros(28, dtype=torch.int64))
    batches = serve(many, replace(augment, mixup=0.0, cutout=0), 2, batch_size=28, workers=0)
    assert len({image.numpy().tobytes() for images, _ in batches for image in images}) == 56


def test_global_generators_are_left_alone(source_kind: tuple[Images, Augment, int]) -> None:
    images, augment, workers = source_kind
    before = global_state()
    serve(images, augment, 4, workers=workers)
    list(evaluation_batches(images, 8, ALONE, workers))
    assert global_state() == before


def test_global_generators_do_not_change_what_is_served(source_kind: tuple[Images, Augment, int]) -> None:
    images, augment, workers = source_kind
    first = serve(images, augment, 2, workers=workers)
    random.random()
    np.random.random()
    torch.rand(3)
    assert same(serve(images, augment, 2, workers=workers), first)


def test_a_state_of_another_set_is_refused() -> None:
    state = stream(numbered(24), PLAIN, Feed(8), ALONE).state_dict()
    with pytest.raises(UserError, match=r"numbered: cannot resume: images was 24 and is 25 now"):
        stream(numbered(25), PLAIN, Feed(8), ALONE).load_state_dict(state)
    with pytest.raises(UserError, match=r"cannot resume: batch_size was 8 and is 4 now"):
        stream(numbered(24), PLAIN, Feed(4), ALONE).load_state_dict(state)


@pytest.mark.parametrize(("count", "batch_size"), [(24, 1), (1, 8), (24, 0)], ids=["batch", "set", "nothing"])
def test_a_batch_too_small_for_the_ranks_is_refused(count: int, batch_size: int) -> None:
    with pytest.raises(UserError, match=r"numbered: a batch of \d .* leaves some of 2 ranks without an image"):
        stream(numbered(count), PLAIN, Feed(batch_size), ranks(2)[1])


# ------------------------------------------------------------------------------------------------------ workers


def workers_end() -> bool:
    gc.disable()  # dropping the stream must be enough
    try:
        return not multiprocessing.active_children()
    finally:
        gc.enable()


def test_workers_end_with_their_stream_and_with_a_resumption(on_disk: Images) -> None:
    source = stream(on_disk, Augment(), Feed(8, workers=2), ALONE)
    assert isinstance(source, FileStream)
    next(source)
    assert len(multiprocessing.active_children()) == 2
    source.load_state_dict(source.state_dict())
    assert workers_end()
    next(source)
    assert len(multiprocessing.active_children()) == 2
    del source
    assert workers_end()


def test_workers_end_at_once_when_a_caught_error_held_their_stream(on_disk: Images) -> None:
    source: Any = stream(on_disk, Augment(), Feed(8, workers=2), ALONE)
    batches: Any = evaluation_batches(on_disk, 4, ALONE, 2)
    next(source), next(batches)
    cycle = [source, batches]
    cycle.append(cycle)
    del source, batches, cycle
    start = time.perf_counter()
    gc.collect()
    assert workers_end()
    assert time.perf_counter() - start < 4


def test_workers_of_an_evaluation_that_is_left_early_end(on_disk: Images) -> None:
    batches: Iterator[Any] = evaluation_batches(on_disk, 4, ALONE, 2)
    next(batches)
    del batches
    assert workers_end()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for k in range(10):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{k}.png")
    images, feed = load(str(tmp_path), memory=0).train, Feed(4, workers=workers)
    unbroken = serve(images, Augment(), 4, batch_size=4, workers=0)
    for file in tmp_path.rglob("*.png"):
        file.rename(file.with_suffix(".kept"))
        file.write_bytes(b"gone")
    source = stream(images, Augment(), feed, ALONE)
    with pytest.raises(UserError, match=r"\d.png: cannot read this image \(.*\); mend or remove it") as raised:
        next(source)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"\d.png: cannot read this image"):
        next(evaluation_batches(images, 8, ALONE, workers))
    for file in tmp_path.rglob("*.kept"):
        file.rename(file.with_suffix(".png"))
    assert same([next(source) for _ in range(4)], unbroken)


# --------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 8, 9, 100])
@pytest.mark.parametrize("count", [3, 24, 25])
def test_an_evaluation_sees_every_image_once_whatever_the_ranks(world: int, batch_size: int, count: int) -> None:
    images = numbered(count)
    passes = [list(evaluation_batches(images, batch_size, runtime)) for runtime in ranks(world)]
    assert len({len(one) for one in passes}) == 1
    assert all(len(labels) == len(batch) > 0 for one in passes for batch, labels in one)
    joined = [part for parts in zip(*passes, strict=True) for part in parts]
    assert torch.cat([x for x, _ in joined])[:, 0, 0, 0].int().tolist() == list(range(1, count + 1))
    assert torch.cat([y for _, y in joined]).tolist() == images.labels.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_from_files_is_the_one_from_memory(folder: Path, workers: int) -> None:
    disk, memory = load(str(folder), memory=0).test, load(str(folder)).test
    disk = replace(disk, mean=memory.mean, std=memory.std)
    assert isinstance(stream(memory, Augment(), Feed(2), ALONE), MemoryStream)
    assert same(list(evaluation_batches(disk, 3, ALONE, workers)), list(evaluation_batches(memory, 3, ALONE)))


def test_grey_files_are_served_grey(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for k in range(5):
            Image.new("L", (9, 6), 50 + k).save(tmp_path / name / f"{k}.png")
    train, test = load(str(tmp_path), memory=0)
    ((images, _),) = serve(train, FILES, 1, batch_size=8, workers=0)
    assert images.shape == (8, 1, 6, 9)
    ((images, _),) = evaluation_batches(test, 8, ALONE, 0)
    assert images.shape == (2, 1, 6, 9)
    assert images.std((2, 3)).max() < 1e-6


def test_more_ranks_than_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"numbered: 2 images cannot be shared by 3 ranks"):
        next(evaluation_batches(numbered(2), 8, ranks(3)[0]))
