"""What a user of the super-resolution task is told, and what not."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from nas_apps import cli
from nas_apps.tasks.sr import task as sr
from nas_apps.tasks.sr.images import write_image
from nas_apps.tasks.sr.resize import Pixels, shrink

NETWORK = ("task.tree.cells=2", "task.tree.ups=1", "task.tree.searched=1", "task.channels=8", "task.ops_per_cell=2",
           "task.scale=2")  # fmt: skip
PHASE = ("batch_size=4", "data.side=8", "epochs=1", "epoch_steps=1")


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def data(tmp_path: Path, noise: Callable[..., Pixels]) -> Path:
    """A folder that a test may spoil: five images to learn from, and their low-resolution ones beside."""
    for k in range(5):
        image = noise(seed=k)
        write_image(tmp_path / "mine" / f"{k}.png", image)
        write_image(tmp_path / "mine_lr" / f"{k}x2.png", shrink(image, 2))
    return tmp_path / "mine"


@pytest.fixture
def call(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """The command line on those images."""
    sizes = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE]
    given = ["task=sr", f"task.data={data}", f"task.cache={tmp_path / 'cache'}", "variant=darts", "device=cpu"]

    def run(*words: str) -> Ended:
        verb, *rest = words
        monkeypatch.setattr(
            sys, "argv", ["nas-apps", verb, *given, *NETWORK, *sizes, *rest, "--run", f"{tmp_path}/run"]
        )
        sr._photos.cache_clear(), sr._test.cache_clear()  # as in a process of its own
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Ended(status, *capsys.readouterr())

    return run


def refused(ended: Ended, said: str, run: Path) -> None:
    """It ended with one line that says this, and wrote nothing."""
    assert (ended.status, ended.out) == (2, ""), ended
    lines = [line for line in re.split(r"[\r\n]+", ended.err) if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("nas-apps: ")
    assert said in lines[0]
    assert not run.exists()


def tiny(path: Path) -> None:
    write_image(path, np.zeros((9, 40, 3), np.uint8))


def transparent(path: Path) -> None:
    write_image(path, np.zeros((40, 48, 4), np.uint8))


def floats(path: Path) -> None:
    Image.fromarray(np.zeros((40, 48), np.float32)).save(path, "TIFF")


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot read this image"),
    "no image": (lambda path: path.write_bytes(b"an image"), "cannot read this image"),
    "no bytes": (lambda path: path.write_bytes(b""), "cannot read this image"),
    "tiny": (tiny, "got 40x9 pixels; allowed: 16x16 and more at x2"),
    "transparent": (transparent, "100% of its pixels are transparent; allowed: none"),
    "floats": (floats, "its pixels are floats; allowed: 8 or 16 bits"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_an_image_at_fault_is_one_line_before_anything_runs_or_is_left_out(
    spoil: str, data: Path, call: Callable[..., Ended], tmp_path: Path
) -> None:
    make, said = SPOILED[spoil]
    make(data / "3.png")
    refused(call("search"), said, tmp_path / "run")
    ended = call("search", "task.skip_faulty=true")
    assert ended.status == 0, ended.err
    assert f"{data}: left out: {data / '3.png'}: {said}" in ended.err
    assert ended.err.count("left out") == 1
    assert (tmp_path / "run" / "genotype.json").exists()


def test_an_image_that_holds_no_patch_is_told_of_or_left_out(
    data: Path, call: Callable[..., Ended], noise: Callable[..., Pixels], tmp_path: Path
) -> None:
    for k in range(5):
        write_image(data / f"small{k}.png", noise(30, 30, seed=9 + k))
    patches = ("search.data.side=18", "task.held_out=1")
    refused(
        call("search", *patches),
        "15x15 pixels in low resolution are less than a patch; allowed: 18x18",
        tmp_path / "run",
    )
    ended = call("search", *patches, "task.skip_faulty=true")
    assert ended.status == 0, ended.err
    assert len(re.findall("left out: small.: 15x15 pixels", ended.err)) >= 4


def test_low_resolution_images_of_another_scale_are_refused(
    call: Callable[..., Ended], tmp_path: Path, noise: Callable[..., Pixels]
) -> None:
    lr = f"task.lr={tmp_path / 'mine_lr'}"
    write_image(tmp_path / "mine_lr" / "2x2.png", shrink(noise(seed=2), 4))
    refused(
        call("search", lr),
        "2x2.png: got 12x10 pixels, for an image of 48x40; allowed: 24x20, which is x2",
        tmp_path / "run",
    )
    ended = call("search", lr, "task.skip_faulty=true")
    assert ended.status == 0, ended.err
    assert ended.err.count("left out: ") == 1


def test_a_folder_without_images_and_one_that_is_not_there_are_a_line_each(
    call: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    run = tmp_path / "run"
    refused(
        call("search", f"task.data={tmp_path / 'empty'}"), "empty: found no images; allowed: a folder of images", run
    )
    refused(call("search", f"task.data={tmp_path / 'none'}"), "none: does not exist; allowed: a folder of images", run)
    refused(call("search", f"task.lr={tmp_path / 'empty'}"), "empty: found no low-resolution images; allowed: ", run)


def test_a_teacher_s_file_that_is_not_there_is_one_line(call: Callable[..., Ended], tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    refused(
        call("search", "task.teacher=rrdb.pth"), "teacher: rrdb.pth: cannot be read: No such file", tmp_path / "run"
    )


def genotype(call: Callable[..., Ended], tmp_path: Path) -> list[str]:
    assert call("search").status == 0
    shutil.move(tmp_path / "run", tmp_path / "search")
    return ["--genotype", str(tmp_path / "search" / "genotype.json")]


def test_a_search_reads_no_image_that_a_training_is_tested_on(
    data: Path, call: Callable[..., Ended], tmp_path: Path
) -> None:
    for test in (data / "DIV2K_valid_HR", tmp_path / "Set5"):
        test.mkdir()
        (test / "a.png").write_bytes(b"no image")
    tests = f"task.tests=[{tmp_path / 'Set5'}]"
    given = genotype(call, tmp_path)
    refused(call("train", *given), f"{data / 'DIV2K_valid_HR' / 'a.png'}: cannot read this image", tmp_path / "run")
    shutil.rmtree(data / "DIV2K_valid_HR")
    assert call("search", tests).status == 0
    shutil.rmtree(tmp_path / "run")
    refused(call("train", *given, tests), f"{tmp_path / 'Set5' / 'a.png'}: cannot read this image", tmp_path / "run")
    missing = f"task.tests=[{tmp_path / 'Set14'}]"
    refused(call("train", *given, missing), f"{tmp_path / 'Set14'}: does not exist", tmp_path / "run")


def test_what_is_left_out_of_test_images_is_said(
    call: Callable[..., Ended], tmp_path: Path, noise: Callable[..., Pixels]
) -> None:
    given = genotype(call, tmp_path)
    write_image(tmp_path / "Set5" / "a.png", noise())
    (tmp_path / "Set5" / "b.png").write_bytes(b"no image")
    ended = call("train", *given, f"task.tests=[{tmp_path / 'Set5'}]", "task.skip_faulty=true")
    assert ended.status == 0, ended.err
    assert f"Set5: left out: {tmp_path / 'Set5' / 'b.png'}: cannot read this image" in ended.err
    assert "Set5/psnr_c" in (tmp_path / "run" / "summary.json").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("task.scale=5", "task.scale: got 5; allowed: 2, 3, 4"),
        ("task.tree.variant=C", "task.tree.variant: got 'C'; allowed: A, B"),
        ("task.tree.variant=A task.scale=4", "scale: got 4 with tree.ups 1; allowed, in the variant A: "),
        ("task.tree.searched=9", "task.tree.searched: got 9; allowed: 0 to 1, less than cells"),
        ("task.ops=[conv9]", "task.ops: no 'conv9'; allowed: conv1, conv3, residual, separable"),
        ("task.widths=[2.0]", "task.widths: got 2.0; allowed: more than 0, up to 1"),
        ("task.widths=[]", "task: ops, widths: got none; allowed: one and more of each"),
        ("task.train_share=2", "task.train_share: got 2.0; allowed: "),
        ("task.held_out=5", "got 5 images, and 5 of them held out; allowed: 1 and more of each"),
        ("search.data.side=0", "search.data.side: got 0; allowed: 1 and more"),
        ("search.weights.milestones=[2.0]", "search.weights.milestones: got"),
        ("task.data=photographs task.held_out=1", "data: got lr or held_out with 'photographs'; allowed: neither"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(
    given: str, said: str, call: Callable[..., Ended], tmp_path: Path
) -> None:
    refused(call("search", *given.split()), said, tmp_path / "run")
