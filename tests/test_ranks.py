"""Two processes on half batches compute what one does on the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas_apps.core import checkpoint
from nas_apps.core.variants import VARIANTS

SEARCHING = [name for name, variant in VARIANTS.items() if variant.schedule.searches]

# Float64, and the same first steps: what is left is the order of summation.
RANK = """
import sys, torch
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
import nas_apps
from nas_apps.core.genotype import Genotype
folder, *overrides = sys.argv[1:]
recipe = nas_apps.recipe("task=toy", "task.points=96", "search.batch_size=16", "train.batch_size=16", "device=cpu", *overrides)
if "search" in folder:
    nas_apps.search(recipe, folder)
else:
    nas_apps.train(recipe, Genotype.load(f"{folder}.json"), folder)
"""


def launch(ranks: int, folder: Path, *overrides: str) -> dict:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", RANK, str(folder), *overrides], env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                         stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]  # fmt: skip
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    return checkpoint.read(folder / "checkpoint.pt")["learner"]


def close(a: object, b: object) -> None:
    if isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("variant", SEARCHING)
def test_a_search_on_two_ranks_is_that_on_one(variant: str, tmp_path: Path) -> None:
    settings = (f"variant={variant}", "search.epochs=3", "search.logits.lr=0.05", "search.log_steps=1")
    one, two = (launch(ranks, tmp_path / f"search{ranks}", *settings) for ranks in (1, 2))
    close(one, two)
    assert (tmp_path / "search1" / "genotype.json").read_text() == (tmp_path / "search2" / "genotype.json").read_text()


def test_a_final_training_on_two_ranks_is_that_on_one(tmp_path: Path) -> None:
    launch(1, tmp_path / "search1", "search.epochs=1")
    for ranks in (1, 2):
        (tmp_path / f"train{ranks}.json").write_text((tmp_path / "search1" / "genotype.json").read_text())
    one, two = (launch(ranks, tmp_path / f"train{ranks}", "train.epochs=3") for ranks in (1, 2))
    close(one["objective"], two["objective"])


def test_shares_make_the_whole_also_when_they_are_unequal() -> None:
    from nas_apps.core.runtime import Runtime

    for number in (1, 5, 16):
        shares = [Runtime(torch.device("cpu"), rank, 3).share(number) for rank in range(3)]
        assert [i for share in shares for i in range(number)[share]] == list(range(number))


def test_a_run_of_two_ranks_is_not_taken_up_by_one(tmp_path: Path) -> None:
    launch(2, tmp_path / "search", "search.epochs=1")
    code = RANK.replace("nas_apps.search(recipe, folder)", "nas_apps.search(recipe, folder, resume=True)")
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "search"), "search.epochs=1"],
                             capture_output=True, text=True, check=False)  # fmt: skip
    assert "written by 2 processes; this run has 1" in process.stderr
