"""One thread, fixed seeds, and a toy run in its smallest size."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.config import Recipe, load
from nas_apps.core.extras import Extras
from nas_apps.core.latency import measure
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.task import Optimisation, Streams

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


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What predicts the latency of toy networks, for methods that go by it: measured once."""
    out = tmp_path_factory.mktemp("measured") / "latency.safetensors"
    measure(load([], TINY), out, cells=10)
    return out


@pytest.fixture
def recipe(measured: Path) -> Callable[..., Recipe]:
    """A toy recipe of some seconds less than one, with overrides."""
    return lambda *overrides: load([], [*TINY, f"search.latency.file={measured}", *overrides])


@pytest.fixture
def learner() -> Callable[[Recipe], tuple[Learner, Streams]]:
    """The learner and streams of a recipe's search, on the CPU."""

    def make(recipe: Recipe) -> tuple[Learner, Streams]:
        return search_learner(recipe, Runtime(torch.device("cpu")))

    return make


@pytest.fixture
def searched(recipe, learner) -> Callable[..., list[Tensor]]:  # noqa: ANN001
    """The logits and then the weights after a toy search of some steps, an epoch each, with overrides."""

    def after(*overrides: str, steps: int = 4) -> list[Tensor]:
        made = recipe(*overrides)
        taught, streams = learner(made)
        for step in range(steps):
            taught.begin(Progress(step, steps))
            made.variant.schedule(taught, streams)
        return [*taught.logits, *taught.parameters]

    return after


@pytest.fixture
def teach() -> Callable[..., Learner]:
    """A learner of a hand-made objective, whose weights and logits take plain steps of SGD of rate `lr`."""

    def make(objective: nn.Module, arch: Arch, extras: Extras | None = None, *, lr: float = 0.1) -> Learner:
        phase, runtime = Phase("search", None, None, clip=None), Runtime(torch.device("cpu"))
        sgd = torch.optim.SGD([*objective.parameters()] or [torch.zeros(1)], lr)
        made = Learner(objective, arch, Optimisation(sgd, lambda progress: None), phase, runtime, extras)
        made.logit_optimizer = torch.optim.SGD(made.logits, lr)
        return made

    return make


@pytest.fixture(scope="session")
def search_step() -> ModuleType:
    """The benchmark of a search step, which counts the bytes that are kept for a backward."""
    path = Path(__file__).parents[1] / "benchmarks" / "search_step.py"
    spec = importlib.util.spec_from_file_location("search_step", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
