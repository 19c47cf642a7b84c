"""What the super-resolution task makes of files that only look as if something were wrong with them, or of folders."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

pytest.importorskip("PIL")

from PIL import Image

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.config import Recipe, load
from nas_apps.core.folder import read_recipe
from nas_apps.core.inherit import take
from nas_apps.core.learners import search_learner, train_learner
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.runtime import Runtime
from nas_apps.tasks.sr.images import read_picture

CPU = Runtime(torch.device("cpu"))


@pytest.mark.parametrize(("width", "ending"), [(720, "bmp"), (512, "bmp"), (64, "tif"), (64, "ppm"), (64, "jpg")])
def test_an_image_of_8_bits_is_not_taken_for_one_of_16_by_the_numbers_in_its_header(
    width: int, ending: str, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((8, width, 3), np.uint8)).save(tmp_path / f"a.{ending}")  # a row of 720 takes 2160 bytes
    assert not read_picture(tmp_path / f"a.{ending}").deep


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe of a small up-sampler on a folder of images, one of which is smaller than a patch."""
    rng = np.random.default_rng(0)
    for name, side in {"a": 24, "b": 64, "c": 64, "d": 64, "e": 64}.items():
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    sizes = ("task=sr", f"task.data={tmp_path / 'photos'}", f"task.cache={tmp_path / 'cache'}", "task.scale=2",
             "task.tree={cells: 2, ups: 1, searched: 1}", "task.channels=8", "task.ops_per_cell=2", "task.held_out=1",
             "task.skip_faulty=true", "search.epochs=2", "search.batch_size=2", "search.data.side=16", "train.epochs=1",
             "train.batch_size=2", "train.data.side=16")  # fmt: skip
    return lambda *overrides: load([], [*sizes, "variant=trilevel", *overrides])


@pytest.mark.parametrize("halves", [True, False])
def test_what_is_smaller_than_a_patch_is_left_out_and_told_once(
    halves: bool, small: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    made = small()
    made.task.streams(nn.Identity(), made.search, CPU, seed=0, halves=halves)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"photos: left out: a: 12x12 pixels in low resolution are less than a patch; allowed: 16x16", line)


def test_a_found_network_goes_on_to_another_scale_with_all_but_its_last_convolution(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    made = small()
    genotype = nas_apps.search(made, tmp_path / "search")
    inherit = f"train.inherit={tmp_path / 'search'}"
    nas_apps.train(small(inherit), genotype, tmp_path / "train")
    inherit = f"train.inherit={tmp_path / 'train'}"
    other = nas_apps.train(small("task.scale=4", "train.epochs=0", inherit), genotype, tmp_path / "transfer")
    back = nas_apps.train(
        small("train.epochs=0", f"train.inherit={tmp_path / 'transfer'}"), genotype, tmp_path / "back"
    )
    assert [re.search(r"the first is ([\w.]+)", one["warnings"][0])[1] for one in (other, back)] == [
        "network.tail.x4.weight",
        "network.tail.x2.weight",
    ]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("train", "transfer"))
    same = [name for name in first if not name.startswith("tail.")]
    assert same
    assert all(torch.equal(first[name], second[name]) for name in same)


@pytest.mark.slow
def test_a_larger_training_set_leaves_the_scale_and_the_tests_as_they_were_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("large", "Set5"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)).save(tmp_path / name / f"{number}.png")
    root = Path(__file__).parent.parent
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path)}
    command = ["sh", str(root / "recipes" / "sr_div2k.sh"), "--stage", "5", "--scale", "2", "--tests", "Set5"]
    command += ["--transfer-data", "large", "--data", "large", "--genotype", "trilevel_b1", "--run", "run"]
    sizes = (f"task.data={tmp_path / 'large'}", f"task.cache={tmp_path}", "variant=trilevel", "task.scale=2",
             "train.epochs=1", "train.epoch_steps=1", "train.batch_size=1")  # fmt: skip
    trained = load([root / "recipes" / "conf" / "sr" / "div2k" / "base.yaml"], sizes)
    nas_apps.train(trained, trained.task.find("trilevel_b1"), tmp_path / "run" / "train")
    recipe = tmp_path / "run" / "transfer" / "recipe.yaml"
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, start_new_session=True) as begun:
        while not recipe.exists() and begun.poll() is None:
            time.sleep(0.05)
        if begun.poll() is None:
            os.killpg(begun.pid, signal.SIGKILL)
        assert recipe.exists(), begun.stderr and begun.stderr.read().decode()
    task = read_recipe(tmp_path / "run" / "transfer").task
    assert (task.scale, task.data, task.tests) == (2, str(tmp_path / "large"), (str(tmp_path / "Set5"),))


def test_in_bfloat16_too_the_found_network_is_the_super_net_to_the_bit(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    made = small("precision=bf16", "task.tree={cells: 3, ups: 1, searched: 2}", "task.channels=16", "search.epochs=4")
    ops = ("residual", "separable")  # those with a sum of their own
    made = replace(made, task=replace(made.task, ops=ops))
    genotype = nas_apps.search(made, tmp_path / "search")
    searched, _ = search_learner(made, CPU)
    searched.load_state_dict(checkpoint.read(tmp_path / "search" / "checkpoint.pt")["learner"])
    found, _ = train_learner(made, genotype, CPU)
    assert take(searched.objective.state_dict(), found.objective).missing is None
    images, said = torch.rand(1, 3, 24, 24), []
    for learner, progress in ((searched, Progress(3, 4)), (found, DONE)):
        draw = learner.arch.expected(progress)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), learner.arch.using(draw):
            said.append(learner.objective.eval().get_submodule("network")(images))
    assert torch.equal(*said)
