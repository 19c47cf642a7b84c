"""The whole task: searches, trainings, resumes, in both algorithms."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.config import Recipe, load
from nas_apps.core.drawing.page import report_page
from nas_apps.core.errors import UserError
from nas_apps.core.latency import measure
from nas_apps.core.space import decided
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.rl.export import load_policy
from nas_apps.tasks.rl.procgen_env import ProcgenEnv
from nas_apps.tasks.rl.returns import RewardNormaliser
from nas_apps.tasks.rl.rollouts import Rollouts

SMALL = ("task=rl", "task.game=pattern_env:nas_apps/PatternLong-v0", "task.nodes=2")
PHASE = {
    "ppo": ("epochs=3", "batch_size=16", "network.channels=[4]", "network.features=8", "network.cells=1",
            "log_steps=1", "data.episodes=4", "data.ppo.envs=4", "data.ppo.steps=8", "data.ppo.epochs=2"),
    "rainbow": ("epochs=3", "epoch_steps=4", "batch_size=16", "network.channels=[4]", "network.features=8",
                "network.cells=1", "log_steps=1", "data.episodes=4", "data.rainbow.envs=4", "data.rainbow.replay=200",
                "data.rainbow.warmup=32", "data.rainbow.hidden=8", "data.rainbow.n_step=3",
                "data.rainbow.target_every=3"),
}  # fmt: skip


def small(algorithm: str, *overrides: str) -> Recipe:
    phases = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE[algorithm]]
    return load([], [*SMALL, f"task.algorithm={algorithm}", *phases, *overrides])


def same(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two states differ."""
    if isinstance(a, dict):
        return [d for key in a for d in same(a[key], b[key], f"{path}.{key}")] if a.keys() == b.keys() else [path]
    if isinstance(a, list | tuple):
        pairs = zip(a, b, strict=False)
        return [d for k, (x, y) in enumerate(pairs) for d in same(x, y, f"{path}[{k}]")] if len(a) == len(b) else [path]
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)) else [path]
    return [] if a == b or a != a else [path]  # noqa: PLR0124, not a number is not itself


@pytest.mark.parametrize("variant", ["rl_darts", "darts", "gdas"])
@pytest.mark.parametrize("algorithm", PHASE)
def test_a_search_that_ends_anywhere_goes_on_to_the_bit(
    algorithm: str, variant: str, stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    made = small(algorithm, f"variant={variant}", "search.checkpoint_steps=1", "search.logits.lr=0.05")
    nas_apps.search(made, tmp_path / "whole")
    for step in (1, 3, 6):
        child = os.fork()  # what goes on is another process than what stopped
        if child == 0:
            with stopping(step):
                nas_apps.search(made, tmp_path / f"stopped{step}")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        nas_apps.search(made, tmp_path / f"stopped{step}", resume=True)
        states = [checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("whole", f"stopped{step}")]
        assert same(*states) == []
        for name in ("metrics.jsonl", "choices.jsonl", "genotype.json"):
            assert (tmp_path / "whole" / name).read_text() == (tmp_path / f"stopped{step}" / name).read_text()


@pytest.mark.parametrize("left_out", ["env", "normaliser", "nothing"])
def test_a_resume_without_the_games_or_the_normaliser_would_be_noticed(
    left_out: str,
    stopping: Callable[[int], AbstractContextManager[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("procgen")
    made = small("ppo", "variant=rl_darts", "task.game=starpilot", "task.skeleton=standard", "search.epochs=6",
                 "search.data.ppo.epochs=1", "search.data.ppo.steps=24", "search.evaluate_every=6",
                 "search.data.episodes=2")  # fmt: skip
    nas_apps.search(made, tmp_path / "whole")
    with stopping(18):
        nas_apps.search(made, tmp_path / "stopped")
    if left_out == "env":
        monkeypatch.setattr(ProcgenEnv, "set_state", lambda *_: None)
    if left_out == "normaliser":
        monkeypatch.setattr(RewardNormaliser, "load_state_dict", lambda *_: None)
    nas_apps.search(made, tmp_path / "stopped", resume=True)
    states = [checkpoint.read(tmp_path / name / "checkpoint.pt")["learner"] for name in ("whole", "stopped")]
    assert (same(*states) == []) == (left_out == "nothing")


def test_a_game_with_levels_is_played_on_those_of_the_training_and_on_others(tmp_path: Path) -> None:
    pytest.importorskip("procgen")
    made = small("ppo", "variant=random", "task.game=coinrun", "task.skeleton=standard", "train.epochs=1",
                 "train.data.episodes=2", "train.network.channels=[2,2,2]")  # fmt: skip
    summary = nas_apps.train(made, nas_apps.search(made, tmp_path / "search"), tmp_path / "train")
    names = ("return", "return_se", "normalised", "train_return", "train_return_se", "train_normalised")
    assert set(names) <= summary["metrics"].keys()
    assert summary["metrics"]["normalised"] == pytest.approx((summary["metrics"]["return"] - 5) / 5)


def test_the_state_of_training_levels_is_refused_by_test_levels() -> None:
    pytest.importorskip("procgen")
    task = small("ppo", "variant=rl_darts", "task.game=coinrun").task
    train, test = (task._env(2, seed=1, levels=levels) for levels in ((0, 200), (200, 1000)))
    with pytest.raises(UserError, match="levels"):
        test.set_state(train.get_state())


@pytest.mark.parametrize("algorithm", PHASE)
def test_a_cell_is_trained_exported_and_evaluated_anew(algorithm: str, tmp_path: Path) -> None:
    made = small(algorithm, "variant=rl_darts")
    genotype = nas_apps.search(made, tmp_path / "search")
    summary = nas_apps.train(made, genotype, tmp_path / "train")
    assert {"return", "return_se"} <= summary["metrics"].keys()
    assert "train_return" not in summary["metrics"]  # this game has no levels: there would be nothing else to play
    again = nas_apps.evaluate(tmp_path / "train")
    assert again["return"] == summary["metrics"]["return"]
    network = nas_apps.load(tmp_path / "train")
    assert type(network) is type(load_policy(tmp_path / "train"))
    assert sum(p.numel() for p in network.parameters()) == summary["costs"]["params"]
    state = checkpoint.read(tmp_path / "train" / "checkpoint.pt")["learner"]["objective"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[f"network.{name}"])


def test_strengths_are_those_of_the_logits_and_are_shown_with_the_cells_along_the_way(tmp_path: Path) -> None:
    made = small("ppo", "variant=rl_darts", "search.logits.lr=0.05")
    nas_apps.search(made, tmp_path / "search")
    lines = [json.loads(line)["weights"] for line in (tmp_path / "search" / "choices.jsonl").read_text().splitlines()]
    for weights in lines:
        assert all(sum(row) == pytest.approx(1.0) for row in weights["normal.op"])
    logits = checkpoint.read(tmp_path / "search" / "checkpoint.pt")["learner"]["arch"]["_logits.normal/op"]
    assert torch.allclose(torch.tensor(lines[-1]["normal.op"]), logits.softmax(-1))
    assert (logits != 0).any()
    page = report_page(tmp_path)
    assert "normal.op, mean over edges" in page
    assert "Cells derived along the search" not in page
    for epoch in (0, 2):
        genotype = nas_apps.Genotype.load(tmp_path / "search" / "genotypes" / f"epoch_{epoch:03d}.json")
        nas_apps.train(made, genotype, tmp_path / f"epoch_{epoch:03d}_train")
    assert "Cells derived along the search" in report_page(tmp_path)


@pytest.fixture(scope="module")
def latency(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What predicts the latency of the small networks."""
    out = tmp_path_factory.mktemp("latency") / "latency.safetensors"
    measure(small("ppo", "variant=darts"), out, cells=10)
    return out


REFUSED = {
    "ppo": {"rome_v1": "samples", "rome_v2": "samples", "msg_das": "sub-graphs", "p_darts": "drop", "rapdarts": "drop"},
    "rainbow": {},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", PHASE)
def test_every_method_searches_or_is_refused_with_the_reason(
    algorithm: str, variant: str, latency: Path, tmp_path: Path
) -> None:
    given = [f"variant={variant}", "search.data.episodes=2", f"search.latency.file={latency}"]
    if variant in ("darts_2nd", "darts_es", "darts_ada"):
        with pytest.raises(UserError, match=r"^variant.schedule: the look-ahead"):
            nas_apps.search(small(algorithm, *given), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        given += ["search.weights.optimizer=sgd"]
    if variant in REFUSED[algorithm]:
        with pytest.raises(UserError, match=REFUSED[algorithm][variant]):
            small(algorithm, *given)
        return
    made = small(algorithm, *given)
    genotype = nas_apps.search(made, tmp_path / "run")
    assert genotype.kept.keys() == decided(made.task.choices()).keys()
    if VARIANTS[variant].schedule.searches:
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert {"train/loss", "train/return", "evaluation/return"} <= {
            key for line in lines for key in json.loads(line)
        }


def test_a_target_network_keeps_its_logits_between_updates() -> None:
    from nas_apps.core.learners import search_learner
    from nas_apps.core.progress import Progress
    from nas_apps.core.runtime import Runtime

    made = small("rainbow", "variant=rl_darts", "search.logits.lr=0.1")
    learner, streams = search_learner(made, Runtime(torch.device("cpu")))
    learner.begin(Progress(0, 1))
    kept = []
    for _ in range(7):
        made.variant.schedule(learner, streams)
        delayed = next(iter(learner.objective.delayed.buffers()))
        kept.append((delayed.clone(), learner.logits[0].detach().clone()))
    assert all(torch.equal(kept[k][0], kept[0][0]) for k in range(3))
    assert torch.equal(kept[3][0], kept[2][1])  # before the fourth batch it caught up with what the third left
    assert torch.equal(kept[6][0], kept[5][1])
    assert not torch.equal(kept[2][1], kept[0][1])


def test_what_a_user_sets_wrong_is_one_line() -> None:
    for given, words in {
        "task.space=tiny": "task.space: no 'tiny'; allowed:",
        "task.nodes=0": "task.nodes: got 0; allowed: 1 and more",
        "task.algorithm=dqn": "task.algorithm: got 'dqn'; allowed: ppo, rainbow",
        "search.data.ppo.clip=0": "search.data.ppo.clip: got 0",
        "search.data.rainbow.atoms=1": "search.data.rainbow.atoms: got 1; allowed: 2 and more",
        "search.network.channels=[]": "search.network.channels: got none",
    }.items():
        with pytest.raises(UserError, match="^" + words.replace("[", r"\[")):
            small("ppo", "variant=rl_darts", given)
    with pytest.raises(UserError, match=r"^train.drop_path: an agent that learns on-policy would drop other things"):
        small("ppo", "variant=rl_darts", "train.drop_path=0.1")
    assert small("rainbow", "variant=rl_darts", "train.drop_path=0.1").train.drop_path == 0.1
    with pytest.raises(UserError, match=r"^task.start_level: got 2147483200; allowed: 0 to"):  # that of unseen levels
        small("ppo", "variant=rl_darts", "task.game=coinrun", "task.start_level=2147483000")


def test_a_rollout_is_in_the_checkpoint_only_while_it_is_needed() -> None:
    from nas_apps.core.learners import search_learner
    from nas_apps.core.runtime import Runtime

    learner, streams = search_learner(small("ppo", "variant=rl_darts"), Runtime(torch.device("cpu")))
    assert isinstance(streams.train, Rollouts)
    sizes = []
    for _ in range(streams.epoch):
        learner.pull(streams.train, use=0)
        sizes.append(len(streams.train.state_dict()["rollout"]))
    assert sizes == [6, 6, 6, 0]
