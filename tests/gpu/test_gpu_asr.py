"""Speech on a CUDA device: run with `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch import Tensor

import nas_apps
from nas_apps.core.arch import one_hot
from nas_apps.core.cell import Fixed
from nas_apps.core.config import Recipe
from nas_apps.core.inherit import take
from nas_apps.core.learners import search_learner
from nas_apps.core.parts.derive import Random
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import start

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
PHASE = ("network.encoder.cells=1", "network.encoder.width=32", "network.model.decoder_blocks=1",
         "network.model.heads=2", "network.model.ff=32", "batch_size=4", "epochs=2", "data.most=2",
         "log_steps=1")  # fmt: skip
BASE = Path(__file__).parents[2] / "recipes" / "conf" / "asr" / "aishell" / "base.yaml"
GIB = 2**30


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spoken")


@pytest.fixture
def small(cache: Path) -> Callable[..., Recipe]:
    phases = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE]
    mini = ("task=asr", "task.mini.speakers=[2,1,1]", "task.mini.utterances=[6,2,2]", f"task.cache={cache}")
    return lambda *given: nas_apps.recipe(*mini, "task.nodes=2", "device=cuda", *phases, *given)


def speech(utterances: int, frames: int, tokens: int, device: torch.device) -> dict[str, Tensor]:
    """A batch of noise, of utterances that get shorter."""
    rng = torch.Generator().manual_seed(0)
    lengths = torch.linspace(frames, frames // 2, utterances).long()
    features = torch.randn(utterances, frames, 80, generator=rng)
    features[torch.arange(frames) >= lengths[:, None]] = 0
    text = torch.randint(2, tokens - 1, (utterances, 20), generator=rng)
    batch = {"speech": features, "speech_lengths": lengths, "text": text, "text_lengths": torch.full((utterances,), 20)}
    return {name: entry.to(device) for name, entry in batch.items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("space", ["cell", "module"])
def test_the_super_net_at_one_hot_weights_is_the_derived_recogniser(
    space: str, precision: str, small: Callable[..., Recipe]
) -> None:
    recipe = small(f"task.space={space}", "task.nodes=4")
    choices = recipe.task.choices()
    with start("cuda", precision) as runtime, torch.no_grad():
        learner, _ = search_learner(recipe, runtime)
        objective = learner.objective.eval()
        batch = speech(3, 120, len(recipe.task.source().tokens), runtime.device)
        for seed in range(4):
            genotype = Random()(choices, {}, torch.Generator().manual_seed(seed))
            derived = recipe.task.build(Fixed(choices, genotype), recipe.search)
            assert take(objective.state_dict(), derived).missing is None
            derived.to(runtime.device).eval()
            draw = one_hot(choices, genotype, like=learner.logits[0])
            with learner.arch.using(draw), runtime.autocast():
                mixed, alone = objective(batch), derived(batch)
            if precision == "fp32":
                assert torch.equal(mixed.output, alone.output)
            else:  # weights are not rounded, so what they are times of is wider than in the derived network
                torch.testing.assert_close(mixed.output.float(), alone.output.float(), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("variant", ["darts", "gdas", "pc_darts"])
def test_a_step_under_bfloat16_moves_weights_and_logits(variant: str, small: Callable[..., Recipe]) -> None:
    recipe = small(f"variant={variant}", "search.logits.lr=0.05")
    with start("cuda", "bf16") as runtime:
        learner, streams = search_learner(recipe, runtime)
        learner.begin(Progress(1, 2))
        before = [p.detach().clone() for p in (*learner.parameters, *learner.logits)]
        stats = recipe.variant.schedule(learner, streams)
        after = [*learner.parameters, *learner.logits]
        assert all(torch.isfinite(value) for value in stats.values())
        assert {p.dtype for p in after} == {torch.float32}
        assert all(p.isfinite().all() for p in after)
        logits = len(learner.logits)
        for old, new in ((before[:-logits], after[:-logits]), (before[-logits:], after[-logits:])):
            assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_a_search_on_cuda_taken_up_again_ends_as_one_that_was_not_stopped(
    small: Callable[..., Recipe], stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    """Not to the bit: the backward of CTC on CUDA adds in an order of its own."""
    recipe = small("variant=darts", "search.checkpoint_steps=1", "precision=fp32")
    nas_apps.search(recipe, tmp_path / "whole")
    with stopping(1):
        nas_apps.search(recipe, tmp_path / "stopped")
    nas_apps.search(recipe, tmp_path / "stopped", resume=True)
    whole, stopped = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["learner"] for name in ("whole", "stopped")
    )
    for name, value in whole["arch"].items():
        torch.testing.assert_close(stopped["arch"][name], value, rtol=1e-3, atol=1e-4)


def test_a_step_of_the_recipe_s_search_fits(cache: Path) -> None:
    """Its super-net, 32 utterances of ten seconds; a method that runs one operation an edge needs far less."""
    bytes_held = {}
    for variant in ("darts", "gdas"):
        recipe = nas_apps.recipe(str(BASE), f"task.cache={cache}", f"variant={variant}", "search.batch_size=4",
                                 "task.mini.speakers=[2,1,1]", "task.mini.utterances=[6,2,2]")  # fmt: skip
        with start("cuda", "bf16") as runtime:
            learner, _ = search_learner(recipe, runtime)
            learner.begin(Progress(10, 20))
            batch = speech(32, 1000, len(recipe.task.source().tokens), runtime.device)
            torch.cuda.reset_peak_memory_stats()
            learner.weight_step(batch, learner.arch.draws(learner.progress, cycle=0, use=0, samples=1, learn=False))
            bytes_held[variant] = torch.cuda.max_memory_allocated()
    assert bytes_held["darts"] < 32 * GIB
    assert bytes_held["gdas"] < 0.5 * bytes_held["darts"]
