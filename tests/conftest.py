"""One thread, fixed seeds, and a toy run in its smallest size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.config import Recipe, load
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner
from nas_apps.core.runtime import Runtime
from nas_apps.core.task import Streams

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

TINY = ("task=toy", "task.points=96", "search.epochs=4", "search.batch_size=16", "search.log_steps=1",
        "train.epochs=3", "train.batch_size=16", "train.log_steps=1", "search.logits.lr=0.05",
        "search.network.channels=12")  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def double() -> Iterator[None]:
    """Float64 as the default, for comparisons to many digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """A toy recipe of some seconds less than one, with overrides."""
    return lambda *overrides: load([], [*TINY, *overrides])


@pytest.fixture
def learner() -> Callable[[Recipe], tuple[Learner, Streams]]:
    """The learner and streams of a recipe's search, on the CPU."""

    def make(recipe: Recipe) -> tuple[Learner, Streams]:
        return search_learner(recipe, Runtime(torch.device("cpu")))

    return make


class Stopped(BaseException):
    """Stands for the end of a process: nothing of ours catches it."""


@pytest.fixture
def stopping() -> Callable[[int], AbstractContextManager[None]]:
    """`with stopping(n):` a run inside ends after step n, with a checkpoint of it if one was due."""

    @contextmanager
    def at(step: int) -> Iterator[None]:
        save = Checkpoints.save

        def stop(self: Checkpoints, learner: Learner, streams: Streams, done: int, *, last: bool) -> None:
            save(self, learner, streams, done, last=last)
            if done == step:
                raise Stopped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "save", stop)
            with pytest.raises(Stopped):
                yield

    return at


@pytest.fixture
def nas_apps(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, in an empty folder."""

    def call(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nas_apps", *args]
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=300
        )

    return call
