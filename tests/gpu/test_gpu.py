"""What needs a CUDA device: run with `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core.arch import Arch
from nas_apps.core.latency import measure
from nas_apps.core.refusals import search_space
from nas_apps.core.variants import VARIANTS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SMALL = ("task=image", "task.train_images=256", "search.epochs=2", "search.batch_size=32", "search.network.channels=8",
         "search.network.cells=3", "train.epochs=2", "train.network.channels=8", "train.network.cells=3")  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_method_searches_and_trains_on_cuda(variant: str, precision: str, tmp_path: Path) -> None:
    settings = (*SMALL, "device=cuda", f"precision={precision}", f"search.latency.file={tmp_path / 'latency'}")
    recipe = nas_apps.recipe(*settings, f"variant={variant}", "search.epochs=3")
    if variant == "la_darts":
        measure(recipe, tmp_path / "latency", cells=10)
    genotype = nas_apps.search(recipe, tmp_path / "search")
    summary = nas_apps.train(recipe, genotype, tmp_path / "train")
    assert summary["metrics"]["loss"] > 0


@pytest.mark.parametrize("variant", [name for name, v in VARIANTS.items() if v.schedule.searches])
def test_the_draws_on_cuda_are_those_on_the_cpu(variant: str) -> None:
    made = VARIANTS[variant]
    space = search_space(nas_apps.recipe("task=image").task, made)
    here, there = (Arch(space, made.relaxations, init_std=0.5, seed=1).to(device) for device in ("cpu", "cuda"))
    for cycle in range(20):
        first, second = here.draw(cycle=cycle), there.draw(cycle=cycle)
        assert first.active == second.active
        assert all(torch.allclose(table, second.weights[name].cpu()) for name, table in first.weights.items())


@pytest.mark.parametrize("stage", ["search", "train"])
def test_a_run_on_cuda_taken_up_again_ends_bit_identically(
    stage: str, stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    varied = ("train.drop_path=0.3", "train.network.dropout=0.1", "train.weights.ema=0.9")
    recipe = nas_apps.recipe(*SMALL, *varied, "variant=pc_darts", "device=cuda", "precision=fp32")
    found = recipe.task.find("pc_darts_cifar")

    def go(name: str, *, resume: bool = False) -> None:
        if stage == "search":
            nas_apps.search(recipe, tmp_path / name, resume=resume)
        else:
            nas_apps.train(recipe, found, tmp_path / name, resume=resume)

    go("whole")
    with stopping(4):
        go("stopped")
    go("stopped", resume=True)
    first, second = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped"))
    assert first == second
