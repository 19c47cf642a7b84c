"""Super-resolution on a CUDA device: run with `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core.arch import one_hot
from nas_apps.core.cell import Fixed
from nas_apps.core.config import Recipe
from nas_apps.core.inherit import take
from nas_apps.core.learners import search_learner
from nas_apps.core.parts.derive import Random
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import start

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
PHASE = ("batch_size=8", "data.side=16", "epochs=4", "epoch_steps=2", "log_steps=1", "evaluate_every=4")
GIB = 2**30


def of_size(cache: Path, *given: str, large: bool = False) -> Recipe:
    """A recipe on the photographs; of the paper's size when `large`."""
    sizes = ("task.tree.cells=3", "task.tree.ups=1", "task.tree.searched=2", "task.ops_per_cell=3", "task.scale=2")
    phases = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE]
    common = ("task=sr", f"task.cache={cache}", "variant=trilevel", "device=cuda", "search.logits.lr=0.05")
    return nas_apps.recipe(*common, *(() if large else sizes), *phases, *given)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photographs")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("large", [False, True])
def test_the_super_net_at_one_hot_weights_is_the_derived_network_bit_for_bit(
    large: bool, precision: str, cache: Path
) -> None:
    recipe = of_size(cache, large=large)
    space, x = recipe.task.choices(), torch.rand(2, 3, 31, 40)
    with start("cuda", precision) as runtime, torch.no_grad():
        learner, _ = search_learner(recipe, runtime)
        objective = learner.objective.eval()
        for seed in range(4):
            genotype = recipe.task.canonical(Random()(space, {}, torch.Generator().manual_seed(seed)))
            derived = recipe.task.build(Fixed(space, genotype), recipe.train)
            assert take(objective.state_dict(), derived).missing is None
            derived.to(runtime.device).eval()
            draw = one_hot(space, genotype, like=learner.logits[0])
            with learner.arch.using(draw), runtime.autocast():
                mixed, alone = objective.network(x.to(runtime.device)), derived.network(x.to(runtime.device))
            assert torch.equal(mixed, alone)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_lost_between_a_trilevel_search_and_its_network_on_cuda(
    precision: str, cache: Path, tmp_path: Path
) -> None:
    recipe = of_size(cache, f"precision={precision}")
    genotype = nas_apps.search(recipe, tmp_path / "search")
    train = replace(recipe.train, inherit=str(tmp_path / "search"), epochs=0)
    nas_apps.train(replace(recipe, train=train), genotype, tmp_path / "train")
    with start("cuda", precision) as runtime, torch.no_grad(), runtime.autocast():
        learner, _ = search_learner(recipe, runtime)
        learner.load_state_dict(torch.load(tmp_path / "search" / "checkpoint.pt", weights_only=True)["learner"])
        network, x = nas_apps.load(tmp_path / "train").network.to(runtime.device), torch.rand(1, 3, 40, 52)
        with learner.arch.using(learner.arch.expected()):
            mixed = learner.objective.eval().network(x.to(runtime.device))
        assert torch.equal(mixed, network(x.to(runtime.device)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", ["trilevel", "darts", "gdas"])
def test_a_search_on_cuda_taken_up_again_ends_bit_identically(
    variant: str,
    precision: str,
    cache: Path,
    stopping: Callable[[int], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    recipe = of_size(cache, f"variant={variant}", f"precision={precision}", "search.checkpoint_steps=1")
    nas_apps.search(recipe, tmp_path / "whole")
    with stopping(5):
        nas_apps.search(recipe, tmp_path / "stopped")
    nas_apps.search(recipe, tmp_path / "stopped", resume=True)
    for name in ("metrics.jsonl", "choices.jsonl", "genotype.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "stopped" / name).read_text()


@pytest.mark.parametrize("variant", ["trilevel", "darts", "gdas"])
def test_a_step_under_bfloat16_moves_weights_and_logits(variant: str, cache: Path) -> None:
    recipe = of_size(cache, f"variant={variant}")
    with start("cuda", "bf16") as runtime:
        learner, streams = search_learner(recipe, runtime)
        learner.begin(Progress(1, 4))
        before = [p.detach().clone() for p in (*learner.parameters, *learner.logits)]
        stats = recipe.variant.schedule(learner, streams)
        after = [*learner.parameters, *learner.logits]
        assert all(torch.isfinite(value) for value in stats.values())
        assert {p.dtype for p in after} == {torch.float32}
        assert all(p.isfinite().all() for p in after)
        logits = len(learner.logits)
        for old, new in ((before[:-logits], after[:-logits]), (before[-logits:], after[-logits:])):
            assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))


def peak(recipe: Recipe, precision: str, epoch: int) -> int:
    """The most bytes that are held in a step at this of 100 epochs."""
    with start("cuda", precision) as runtime:
        learner, streams = search_learner(recipe, runtime)
        learner.begin(Progress(epoch, 100))
        torch.cuda.reset_peak_memory_stats()
        recipe.variant.schedule(learner, streams)
        return torch.cuda.max_memory_allocated()


def test_a_search_of_the_paper_s_size_fits_and_gets_smaller(cache: Path) -> None:
    """On the CPU a forward at all three widths keeps 1.6 GB for each patch of 32 x 32 at first, and 0.11 GB at 0.9."""
    recipe = of_size(cache, "search.batch_size=16", "search.data.side=32", "search.data.per_image=16", large=True)
    first = {precision: peak(recipe, precision, 0) for precision in ("fp32", "bf16")}
    assert 16 * 1.6e9 < first["fp32"] < 40 * GIB
    assert first["bf16"] < 0.75 * first["fp32"]
    assert peak(recipe, "fp32", 90) < 0.25 * first["fp32"]
