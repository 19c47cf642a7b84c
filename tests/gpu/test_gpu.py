"""What needs a CUDA device: run with `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.arch import Arch
from nas_apps.core.config import Recipe
from nas_apps.core.latency import measure
from nas_apps.core.learners import search_learner
from nas_apps.core.progress import Progress
from nas_apps.core.refusals import search_space
from nas_apps.core.runtime import start
from nas_apps.core.variants import VARIANTS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SMALL = ("task=image", "task.train_images=256", "search.epochs=2", "search.batch_size=32", "search.network.channels=8",
         "search.network.cells=3", "train.epochs=2", "train.network.channels=8", "train.network.cells=3")  # fmt: skip
ACTING = ("epochs=3", "batch_size=64", "network.channels=[16,16]", "network.features=32", "log_steps=1",
          "checkpoint_steps=1", "data.episodes=8", "data.ppo.envs=16", "data.ppo.steps=16", "data.ppo.epochs=2",
          "data.rainbow.envs=16", "data.rainbow.replay=1000", "data.rainbow.warmup=256", "data.rainbow.hidden=16",
          "data.rainbow.n_step=3", "data.rainbow.target_every=3")  # fmt: skip
ALGORITHMS = {"ppo": (), "rainbow": ("search.epoch_steps=8", "train.epoch_steps=8")}


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


def acting(algorithm: str, *overrides: str) -> Recipe:
    """A recipe of an agent on CUDA, whose phases are 24 steps each, 8 to a rollout of PPO."""
    phases = [f"{phase}.{setting}" for phase in ("search", "train") for setting in ACTING]
    game = ("task=rl", "task.game=pattern_env:nas_apps/PatternLong-v0", f"task.algorithm={algorithm}", "device=cuda")
    return nas_apps.recipe(*game, "variant=rl_darts", *phases, *ALGORITHMS[algorithm], *overrides)


@pytest.mark.parametrize("variant", ["rl_darts", "darts", "gdas"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_agent_searched_on_cuda_and_taken_up_again_ends_bit_identically(
    algorithm: str,
    precision: str,
    variant: str,
    stopping: Callable[[int], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    recipe = acting(algorithm, f"variant={variant}", f"precision={precision}", "search.logits.lr=0.05")
    nas_apps.search(recipe, tmp_path / "whole")
    with stopping(13):  # in the middle of the second rollout
        nas_apps.search(recipe, tmp_path / "stopped")
    nas_apps.search(recipe, tmp_path / "stopped", resume=True)
    for name in ("metrics.jsonl", "choices.jsonl", "genotype.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "stopped" / name).read_text()
    whole, stopped = (checkpoint.read(tmp_path / name / "checkpoint.pt")["learner"] for name in ("whole", "stopped"))
    for part in ("objective", "arch"):
        assert all(torch.equal(value, stopped[part][name]) for name, value in whole[part].items())


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-3), ("bf16", 0.05)])
@pytest.mark.parametrize("variant", ["rl_darts", "darts", "gdas"])
def test_what_learns_on_cuda_is_what_acted(variant: str, precision: str, bound: float) -> None:
    """Observations 16 at a time and 64 at a time go through other kernels. With logits up to 2 a unit in the last place
    of bfloat16 is 1/128, and a ratio may be two of them and what features differ by away from 1; a quarter of the clip
    is what is allowed."""
    recipe = acting("ppo", f"variant={variant}", "search.logits.init_std=0.5")
    with start("cuda", precision) as runtime:
        learner, streams = search_learner(recipe, runtime)
        learner.begin(Progress(0, recipe.search.epochs))
        objective = learner.objective
        observation = streams.train.env.reset()[0]
        with torch.no_grad(), learner.arch.using(learner.arch.draw(learner.progress)), runtime.autocast():
            logits = objective.network(torch.from_numpy(observation).to(runtime.device))[0]
            objective.network.policy.weight *= 2 / logits.abs().max().float()
        batch, draws = learner.pull(streams.train, use=0, learn=True)
        with torch.no_grad(), learner.loss(batch, draws[0]) as outcome:
            log_p = outcome.output.log_softmax(-1).gather(1, batch["action"][:, None])[:, 0]
        assert outcome.output.abs().max() > 0.5
        assert batch["action_log_prob"].dtype == log_p.dtype == torch.float32
        assert ((log_p - batch["action_log_prob"]).exp() - 1).abs().max() < bound


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_agent_trained_on_cuda_is_loaded_on_the_cpu(algorithm: str, tmp_path: Path) -> None:
    from nas_apps.tasks.rl.export import load_policy

    recipe = acting(algorithm, "precision=bf16")
    genotype = nas_apps.search(recipe, tmp_path / "search")
    summary = nas_apps.train(recipe, genotype, tmp_path / "train")
    assert 0 <= summary["metrics"]["return"] <= 1
    assert nas_apps.evaluate(tmp_path / "train")["return"] == summary["metrics"]["return"]
    network = load_policy(tmp_path / "train")
    learned = checkpoint.read(tmp_path / "train" / "checkpoint.pt")["learner"]["objective"]
    assert {str(p.device) for p in network.parameters()} == {"cpu"}
    assert all(torch.equal(value, learned[f"network.{name}"]) for name, value in network.state_dict().items())
    observation = torch.randint(256, (32, *network.encoder.size), dtype=torch.uint8)
    with start("cuda", "fp32") as runtime, torch.no_grad():
        here = network(observation)
        there = network.to(runtime.device)(observation.to(runtime.device))
    for one, two in zip(here, there, strict=True):  # of PPO logits and values, of Rainbow item by item
        torch.testing.assert_close(two.cpu(), one, rtol=1e-3, atol=1e-4)
