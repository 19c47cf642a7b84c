"""What needs a CUDA device: run with `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.variants import VARIANTS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SMALL = ("task=image", "task.train_images=256", "search.epochs=2", "search.batch_size=32", "search.network.channels=8",
         "search.network.cells=3", "train.epochs=2", "train.network.channels=8", "train.network.cells=3")  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_method_searches_and_trains_on_cuda(variant: str, precision: str, tmp_path: Path) -> None:
    recipe = nas_apps.recipe(*SMALL, f"variant={variant}", "device=cuda", f"precision={precision}")
    genotype = nas_apps.search(recipe, tmp_path / "search")
    summary = nas_apps.train(recipe, genotype, tmp_path / "train")
    assert summary["metrics"]["loss"] > 0


def test_the_draws_on_cuda_are_those_on_the_cpu(tmp_path: Path) -> None:
    found = []
    for device in ("cpu", "cuda"):
        recipe = nas_apps.recipe(*SMALL, "variant=gdas", f"device={device}", "precision=fp32", "search.epochs=1")
        nas_apps.search(recipe, tmp_path / device)
        state = checkpoint.read(tmp_path / device / "checkpoint.pt")["learner"]["arch"]
        found.append(next(iter(state.values())))
    assert torch.allclose(*found, atol=1e-3)


def test_a_search_on_cuda_taken_up_again_ends_bit_identically(tmp_path: Path) -> None:
    recipe = nas_apps.recipe(*SMALL, "variant=pc_darts", "device=cuda", "precision=fp32")
    for name in ("a", "b"):
        nas_apps.search(recipe, tmp_path / name)
    first, second = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("a", "b"))
    assert first == second
