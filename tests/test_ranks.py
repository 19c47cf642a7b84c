"""Two processes on half batches compute what one does on the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.diagnosis import read_history
from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.core.variants import VARIANTS

SMALL = ("search.epochs=3", "search.batch_size=16", "search.logits.lr=0.05", "train.epochs=2", "train.batch_size=16")
SEARCHING = [name for name, variant in VARIANTS.items() if variant.schedule.searches]

# Float64, so that what is left is the order of summation.
RANKS = """
import sys, torch
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.distributed.init_process_group("gloo")
sys.path.insert(0, {tests!r})
from test_ranks import everything
everything({folder!r})
"""


def everything(folder: str) -> None:
    """A search by every method, and a final training of each cell, in this process."""
    for variant in SEARCHING:
        latency = f"search.latency.file={Path(folder).parent / 'latency.safetensors'}"
        made = nas_apps.recipe("task=toy", "task.points=96", "device=cpu", f"variant={variant}", *SMALL, latency)
        genotype = nas_apps.search(made, f"{folder}/{variant}/search")
        nas_apps.train(made, genotype, f"{folder}/{variant}/train")
    eager = [f"variant.stop.{s}" for s in ("every=1", "window=1", "delta=1", "start=0", "factor=0.01", "cap=0.001")]
    for variant in ("darts_es", "darts_ada"):  # ended, and sent back
        made = nas_apps.recipe("task=toy", "task.points=96", "device=cpu", f"variant={variant}", *SMALL, *eager)
        nas_apps.search(made, f"{folder}/eager_{variant}/search")
    lost = nas_apps.Genotype({"cell.op": ((), (), (), (), ("linear",)), "gate": (("identity",),)})
    nas_apps.train(nas_apps.recipe("task=toy", "device=cpu", *SMALL), lost, f"{folder}/ignoring/train")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, measured: Path) -> tuple[Path, Path]:
    """The same runs by one process and by two."""
    root = tmp_path_factory.mktemp("ranks")
    (root / "latency.safetensors").write_bytes(measured.read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = RANKS.format(tests=str(Path(__file__).parent), folder=str(root / "two"))
    env = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code]
    ranks = [
        subprocess.Popen(command, env={**env, "RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE, text=True)
        for r in range(2)
    ]
    torch.set_default_dtype(torch.float64)
    try:
        everything(str(root / "one"))
    finally:
        torch.set_default_dtype(torch.float32)
    for rank in ranks:
        _, error = rank.communicate(timeout=100)
        assert rank.returncode == 0, error
    return root / "one", root / "two"


def close(a: object, b: object) -> None:
    if isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("stage", ["search", "train"])
@pytest.mark.parametrize("variant", SEARCHING)
def test_two_ranks_on_half_batches_are_one_on_the_whole(variant: str, stage: str, folders: tuple[Path, Path]) -> None:
    one, two = (checkpoint.read(folder / variant / stage / "checkpoint.pt")["learner"] for folder in folders)
    close(one, two)
    first, second = (folder / variant / stage / "genotype.json" for folder in folders)
    assert first.read_text() == second.read_text()


@pytest.mark.parametrize("variant", ["darts_es", "eager_darts_es", "eager_darts_ada"])
def test_two_ranks_see_the_eigenvalue_of_one_and_are_ended_and_sent_back_alike(
    variant: str, folders: tuple[Path, Path]
) -> None:
    one, two = (read_history(folder / variant / "search", 10**9) for folder in folders)
    assert len(one) == (2 if variant == "eager_darts_es" else 3)
    for a, b in zip(one, two, strict=True):
        figures = [{k: v for k, v in entry.items() if k.startswith("diagnosis/")} for entry in (a, b)]
        assert figures[1] == pytest.approx(figures[0], rel=1e-6, abs=1e-9)
    assert "diagnosis/eigenvalue" in one[0]
    states = [checkpoint.read(folder / variant / "search" / "checkpoint.pt")["learner"] for folder in folders]
    close(*states)
    assert states[0]["optimizer"]["param_groups"][0]["weight_decay"] == (0.001 if "ada" in variant else 3e-4)
    first, second = (folder / variant / "search" / "genotype.json" for folder in folders)
    assert first.read_text() == second.read_text()


def test_a_cell_that_leaves_parameters_without_a_gradient_trains_on_two_ranks(folders: tuple[Path, Path]) -> None:
    one, two = (checkpoint.read(folder / "ignoring" / "train" / "checkpoint.pt")["learner"] for folder in folders)
    close(one["objective"], two["objective"])


def test_a_run_of_two_ranks_is_not_taken_up_by_one(folders: tuple[Path, Path]) -> None:
    latency = f"search.latency.file={folders[1].parent / 'latency.safetensors'}"
    made = nas_apps.recipe("task=toy", "task.points=96", "device=cpu", *SMALL, latency)
    with pytest.raises(UserError, match="written by 2 processes; this run has 1"):
        nas_apps.search(made, folders[1] / "darts" / "search", resume=True)


def test_shares_make_the_whole_also_when_they_are_unequal() -> None:
    for number in (1, 5, 16):
        shares = [Runtime(torch.device("cpu"), rank, 3).share(number) for rank in range(3)]
        assert [i for share in shares for i in range(number)[share]] == list(range(number))
