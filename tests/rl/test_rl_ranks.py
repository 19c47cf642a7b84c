"""Two processes, each in games of its own, search and train one agent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.config import Recipe, load
from nas_apps.core.learner import Learner
from nas_apps.core.task import Streams

SIZES = ("epochs=2", "batch_size=16", "network.channels=[4]", "network.features=8", "network.cells=1", "log_steps=1",
         "checkpoint_steps=1", "data.episodes=5", "data.ppo.envs=4", "data.ppo.steps=8", "data.ppo.epochs=2",
         "data.rainbow.envs=4", "data.rainbow.replay=200", "data.rainbow.warmup=32", "data.rainbow.hidden=8",
         "data.rainbow.n_step=3", "data.rainbow.target_every=3")  # fmt: skip
RUNS = {
    "ppo": ("task.algorithm=ppo", "variant=rl_darts"),
    "ppo, bilevel": ("task.algorithm=ppo", "variant=darts"),
    "rainbow": ("task.algorithm=rainbow", "variant=rl_darts", "search.epoch_steps=4", "train.epoch_steps=4"),
}
STOP = 6  # of 8 steps: in the middle of the second rollout, after an evaluation
RANKS = """
import sys, torch
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
sys.path.insert(0, {tests!r})
from test_rl_ranks import everything
everything({folder!r})
"""


class _Stopped(BaseException):
    """The end of a process."""


def recipe(name: str) -> Recipe:
    sizes = [f"{phase}.{size}" for phase in ("search", "train") for size in SIZES]
    game = "task.game=pattern_env:nas_apps/PatternLong-v0"
    return load([], ["task=rl", game, "task.nodes=2", "search.logits.lr=0.05", *sizes, *RUNS[name]])


def everything(folder: str) -> None:
    """Runs by this rank, each searched in one go, searched with a stop in between, and trained."""
    from nas_apps.tasks.rl.task import RLTask

    save, evaluate = Checkpoints.save, RLTask.evaluate
    figures: list[dict[str, float]] = []
    stop: list[int] = []

    def watched(self: Checkpoints, learner: Learner, streams: Streams, done: int, *, last: bool) -> None:
        """Save, and what this rank has beside it."""
        save(self, learner, streams, done, last=last)
        mine = {"learner": learner.state_dict(), "train": streams.train.state_dict(), "figures": figures}
        torch.save(mine, self.path.parent / f"rank{self.runtime.rank}.pt")
        if stop and done == stop[0]:
            raise _Stopped

    def seen(*args: Any) -> dict[str, float]:
        figures.append(evaluate(*args))
        return figures[-1]

    Checkpoints.save, RLTask.evaluate = watched, seen  # type: ignore[method-assign]
    for name in RUNS:
        root, made = Path(folder) / name, recipe(name)
        figures.clear()
        genotype = nas_apps.search(made, root / "whole")
        figures.clear()
        nas_apps.train(made, genotype, root / "trained")
        figures.clear()
        stop.append(STOP)
        try:
            nas_apps.search(made, root / "stopped")
        except _Stopped:
            stop.clear()
        nas_apps.search(made, root / "stopped", resume=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs by two ranks."""
    root = tmp_path_factory.mktemp("rl_ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    code = RANKS.format(tests=str(Path(__file__).parent), folder=str(root))
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
        for rank in ranks:
            _, error = rank.communicate(timeout=150)
            assert rank.returncode == 0, error
    finally:
        for rank in ranks:
            rank.kill()  # one that waits for the other's end
    return root


def of_ranks(run: Path) -> list[dict[str, Any]]:
    return [torch.load(run / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def leaves(state: Any, path: str = "") -> dict[str, Any]:
    """What is in a state, by its place, in a form that is equal when the bits are."""
    if isinstance(state, torch.Tensor):
        return {path: state.numpy().tobytes()}
    if isinstance(state, dict | list | tuple):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {place: leaf for key, value in pairs for place, leaf in leaves(value, f"{path}/{key}").items()}
    return {path: repr(state)}


def differ(first: Any, second: Any) -> list[str]:
    """Where two states do."""
    one, two = leaves(first), leaves(second)
    return sorted({*one} ^ {*two}) + [place for place in one if place in two and one[place] != two[place]]


@pytest.mark.parametrize("run", ["whole", "trained"])
@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_end_with_one_agent_and_say_the_same_of_it(name: str, run: str, folder: Path) -> None:
    first, second = of_ranks(folder / name / run)
    assert differ(first["learner"], second["learner"]) == []
    assert first["figures"]
    assert differ(first["figures"], second["figures"]) == []


@pytest.mark.parametrize("name", RUNS)
def test_each_rank_plays_games_of_its_own(name: str, folder: Path) -> None:
    state = checkpoint.read(folder / name / "whole" / "checkpoint.pt")
    for use in ("train", "valid"):
        first, second = state[use]
        assert {len(stream["env"]["env"]["right"]) for stream in (first, second)} == {2}  # of 4 environments
        different = differ(first, second)
        assert "/env/env/rng" in different
        assert any(place.startswith(("/observation", "/seen")) for place in different)
    if name == "ppo":
        assert "/recent" not in different  # what is logged is of all ranks
    assert bool(differ(state["train"], state["valid"])) == ("bilevel" in name)


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_that_are_stopped_go_on_to_the_bit(name: str, folder: Path) -> None:
    whole, stopped = (folder / name / run for run in ("whole", "stopped"))
    assert differ(*(checkpoint.read(run / "checkpoint.pt") for run in (whole, stopped))) == []
    for one, two in zip(of_ranks(whole), of_ranks(stopped), strict=True):
        assert differ(one, two) == []
    assert (whole / "metrics.jsonl").read_text() == (stopped / "metrics.jsonl").read_text()
