"""Two processes on half batches search and train one up-sampler, that of one process on the whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("PIL")

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.config import Recipe, load

SIZES = ("task.tree.cells=2", "task.tree.ups=1", "task.tree.searched=1", "task.channels=16", "task.ops_per_cell=2",
         "task.widths=[0.5,1.0]", "task.scale=2", "device=cpu", "search.logits.lr=0.05", "search.logits.init_std=0.01",
         "search.logits.eps=1.0e-3")  # fmt: skip
PHASE = ("batch_size=4", "data.side=8", "epochs=2", "epoch_steps=2", "log_steps=1", "checkpoint_steps=1")
VARIANTS = ("trilevel", "gdas")
STOP = 3
RANKS = """
import sys, torch
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
sys.path.insert(0, {tests!r})
from test_sr_ranks import everything
everything({folder!r}, {photos!r})
"""


class _Stopped(BaseException):
    """The end of a process."""


def recipe(variant: str, photos: str, *given: str) -> Recipe:
    sizes = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE]
    data = ("task=sr", f"task.data={photos}", f"task.cache={photos}/cache", f"variant={variant}")
    shares = ("task.held_out=2", "search.data.per_image=4", "search.batch_size=3")  # of which ranks have 2 and 1
    return load([], [*data, *SIZES, *sizes, *shares, *given])


def everything(folder: str, photos: str) -> None:
    """Runs in this process: searched, searched with a stop in between, and trained on with what was searched."""
    save, stop = Checkpoints.save, list[int]()

    def stopped(self: Checkpoints, learner: Any, streams: Any, done: int, *, last: bool) -> None:
        save(self, learner, streams, done, last=last)
        torch.save(learner.state_dict(), self.path.parent / f"rank{self.runtime.rank}.pt")
        if stop and done == stop[0]:
            raise _Stopped

    Checkpoints.save = stopped  # type: ignore[method-assign]
    try:
        for variant in VARIANTS:
            root = Path(folder) / variant
            genotype = nas_apps.search(recipe(variant, photos), root / "search")
            inherit = f"train.inherit={root / 'search'}"
            nas_apps.train(recipe(variant, photos, inherit), genotype, root / "train")
            stop.append(STOP)
            try:
                nas_apps.search(recipe(variant, photos), root / "stopped")
            except _Stopped:
                stop.clear()
            nas_apps.search(recipe(variant, photos), root / "stopped", resume=True)
    finally:
        Checkpoints.save = save  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> tuple[Path, Path]:
    """The same runs by one process and by two."""
    root = tmp_path_factory.mktemp("sr_ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    code = RANKS.format(tests=str(Path(__file__).parent), folder=str(root / "two"), photos=str(photos))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **given, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        everything(str(root / "one"), str(photos))
        for rank in ranks:
            _, error = rank.communicate(timeout=150)
            assert rank.returncode == 0, error
    finally:
        for rank in ranks:
            rank.kill()  # one that waits for the other's end
    return root / "one", root / "two"


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def bits(state: Any) -> Any:
    """A state in a form that is equal when the bits are."""
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, dict):
        return {name: bits(value) for name, value in state.items()}
    return [*map(bits, state)] if isinstance(state, list | tuple) else state


@pytest.mark.parametrize("stage", ["search", "train"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_learn_what_one_does_and_say_the_same(variant: str, stage: str, folders: tuple[Path, Path]) -> None:
    """In single precision, so the order of summation is seen."""
    one, two = (folder / variant / stage for folder in folders)
    for first, second in zip(lines(one), lines(two), strict=True):
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)
    weights = [checkpoint.read(run / "checkpoint.pt")["learner"]["objective"] for run in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-2, atol=1e-4)
    assert (one / "genotype.json").read_text() == (two / "genotype.json").read_text()


@pytest.mark.parametrize("stage", ["search", "train", "stopped"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_hold_one_network(variant: str, stage: str, folders: tuple[Path, Path]) -> None:
    run = folders[1] / variant / stage
    first, second = (torch.load(run / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert bits(first) == bits(second)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_that_are_stopped_go_on_to_the_bit(variant: str, folders: tuple[Path, Path]) -> None:
    whole, stopped = (folders[1] / variant / stage for stage in ("search", "stopped"))
    first, second = (checkpoint.read(run / "checkpoint.pt") for run in (whole, stopped))
    assert bits(first) == bits(second)
    assert (whole / "metrics.jsonl").read_text() == (stopped / "metrics.jsonl").read_text()
