"""Every stop rule, and searches that are ended or sent back by one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

import nas_apps
from nas_apps.core import checkpoint, files, runs, watch
from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.config import Recipe
from nas_apps.core.diagnosis import read_history
from nas_apps.core.drawing.page import report_page
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.logs import read_lines, seconds
from nas_apps.core.parts.stop import STOPS
from nas_apps.core.variants import VARIANTS
from nas_apps.testing import _equal

SEARCHING = [name for name, v in VARIANTS.items() if v.schedule.searches and not v.stages]
EAGER = ("variant.stop=eigenvalue", "variant.stop.every=1", "variant.stop.window=1", "variant.stop.delta=1",
         "variant.stop.start=0", "variant.stop.factor=0.001", "search.checkpoint_steps=2")  # fmt: skip
"""A rule that finds any eigenvalue too large for the one of the epoch before."""
ADAPTING = (*EAGER, "variant.stop.adapt=3", "variant.stop.cap=0.0015")


def same(a: Path, b: Path) -> None:
    """The two folders hold the same run, to the bit."""
    assert _equal(checkpoint.read(a / "checkpoint.pt"), checkpoint.read(b / "checkpoint.pt"))
    names = ("metrics.jsonl", "choices.jsonl", "warnings.jsonl", "genotype.json")
    for name in names:
        assert (a / name).exists() == (b / name).exists()
        assert not (a / name).exists() or (a / name).read_bytes() == (b / name).read_bytes(), name
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (a, b)]
    assert len({json.dumps({**s, "seconds": 0, "command": ""}) for s in summaries}) == 1


@pytest.mark.parametrize("name", list(STOPS))
def test_a_rule_says_nothing_of_a_search_that_has_not_begun_or_was_not_watched(name: str) -> None:
    assert STOPS[name]()([], {}) is None
    assert STOPS[name]()([{"epoch": 0, "weights": {}}, {"epoch": 1, "weights": {}}], {}) is None


@pytest.mark.parametrize("setting", ["every=0", "factor=-1", "adapt=1", "cap=0", "epochs=5"])
def test_settings_of_a_rule_that_mean_nothing_are_one_line(recipe: Callable[..., Recipe], setting: str) -> None:
    with pytest.raises(UserError, match=rf"variant.stop.*{setting.partition('=')[0]}.*allowed"):
        recipe("variant.stop=eigenvalue", f"variant.stop.{setting}")


@pytest.mark.parametrize("variant", SEARCHING)
def test_every_method_is_ended_early_and_says_so(
    recipe: Callable[..., Recipe], variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, run = recipe(f"variant={variant}", *EAGER, "variant.stop.adapt=null", "search.epochs=8"), tmp_path / "run"
    found = nas_apps.search(made, run)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["stopped"]["at"] == 1
    assert summary["stopped"]["epoch"] == 0
    assert summary["steps"] == 2 * found.meta["steps"]
    assert found.meta["epoch"] == 0
    assert found == Genotype.load(run / "genotypes" / "epoch_000.json") == Genotype.load(run / "genotype.json")
    assert [entry["epoch"] for entry in read_history(run, 10**9)] == [0, 1]
    last = [line for line in read_lines(run / "metrics.jsonl") if "evaluation/loss" in line][0]
    assert summary["metrics"]["loss"] == last["evaluation/loss"]  # of the epoch whose cell it is
    derived = nas_apps.derive(run)
    assert (derived, derived.meta) == (found, found.meta)
    said = next(text for text in summary["warnings"] if text.startswith("epoch 1: the mean dominant eigenvalue"))
    assert said.endswith("the search ends with the cell of epoch 0")
    assert said in capsys.readouterr().err
    assert said in report_page(run).replace("&#x27;", "'")
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("rule", ["skip_count", "rank_stability"])
def test_the_rules_of_darts_plus_end_a_search_where_never_warns_that_they_would_have(
    recipe: Callable[..., Recipe], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("search.epochs=30", "search.epoch_steps=2", "search.logits.lr=0.2", "search.evaluate_every=30")
    nas_apps.search(recipe(*base), tmp_path / "never")
    warned = [line for line in read_lines(tmp_path / "never" / "warnings.jsonl") if line["about"] == rule]
    assert len(warned) == 1
    assert capsys.readouterr().err.count(warned[0]["message"]) == 1
    assert f"variant.stop={rule} would have ended the search" in warned[0]["message"]
    assert warned[0]["message"] in json.loads((tmp_path / "never" / "summary.json").read_text())["warnings"]
    found = nas_apps.search(recipe(*base, f"variant.stop={rule}"), tmp_path / "obeyed")
    summary = json.loads((tmp_path / "obeyed" / "summary.json").read_text())
    assert summary["steps"] == warned[0]["step"] < 60
    epoch = summary["stopped"]["epoch"]
    assert found == Genotype.load(tmp_path / "never" / "genotypes" / f"epoch_{epoch:03d}.json")
    assert warned[0]["message"].startswith(f"epoch {epoch}: {summary['stopped']['reason']}")


def test_the_eigenvalue_is_asked_under_never_when_it_is_there(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    from nas_apps.core.watch import EigenvalueStop, ask

    made = recipe("search.eigenvalue_every=1", "search.epochs=30", "search.epoch_steps=1", "search.logits.lr=0.05")
    nas_apps.search(made, tmp_path / "run")
    history = read_history(tmp_path / "run", 10**9)
    fires = [ask(EigenvalueStop(1), history[: n + 1], {}, 30) for n in range(30)]
    said = [
        line["message"] for line in read_lines(tmp_path / "run" / "warnings.jsonl") if line["about"] == "eigenvalue"
    ]
    assert any(fires)
    assert [f"epoch {v.at}: {v.reason}" for v in fires if v][:1] == [
        m.rpartition(": variant.stop=eig")[0] for m in said
    ]


def test_the_last_epoch_is_no_place_to_stop(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    nas_apps.search(recipe(*EAGER, "search.epochs=2"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stopped"] is None


@pytest.mark.parametrize("settings", [EAGER, ADAPTING], ids=["stopped", "sent back"])
@pytest.mark.parametrize("variant", ["darts_2nd", "gdas"])
def test_a_search_that_is_stopped_or_sent_back_resumes_to_the_bit_from_any_step(
    recipe: Callable[..., Recipe],
    stopping: Callable[[int], AbstractContextManager[None]],
    variant: str,
    settings: tuple[str, ...],
    tmp_path: Path,
) -> None:
    made = recipe(f"variant={variant}", *settings)
    runs.search(made, tmp_path / "whole")
    for step in (1, 3, 5):
        with stopping(step):
            runs.search(made, tmp_path / f"killed{step}")
        runs.search(made, tmp_path / f"killed{step}", resume=True)
        same(tmp_path / "whole", tmp_path / f"killed{step}")
    runs.search(made, tmp_path / "whole", resume=True)  # finished: nothing is said or done again
    same(tmp_path / "whole", tmp_path / "killed1")


@pytest.mark.parametrize("moment", ["keep", "before", "during", "after"])
def test_a_search_killed_while_it_is_sent_back_ends_as_if_it_had_not_been(
    recipe: Callable[..., Recipe], moment: str, tmp_path: Path
) -> None:
    made = recipe(*ADAPTING)
    runs.search(made, tmp_path / "whole")
    child = os.fork()
    if child == 0:
        kill_when_sent_back(moment)
        runs.search(made, tmp_path / "killed")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    runs.search(made, tmp_path / "killed", resume=True)
    same(tmp_path / "whole", tmp_path / "killed")


def kill_when_sent_back(moment: str) -> None:
    """Make this process kill itself around the first checkpoint that it writes after it went back, or when it keeps
    the state of the first epoch."""
    write, go_back, gone = files.write, Checkpoints.go_back, []

    def going(self: Checkpoints, *given: object) -> int:
        gone.append(1)
        return go_back(self, *given)  # type: ignore[arg-type]

    def killing(path: Path, content: bytes) -> None:
        now = path.name.startswith("epoch_000.pt") if moment == "keep" else bool(gone) and path.name == "checkpoint.pt"
        if now and moment == "during":
            path.with_name(f".{path.name}.new").write_bytes(bytes(content)[:100])
        if now and moment in ("after", "keep"):
            write(path, content)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    files.write, Checkpoints.go_back = killing, going


def test_a_search_sent_back_goes_on_with_three_times_the_decay_up_to_the_cap_and_is_not_stopped_there(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[tuple[int, dict[str, torch.Tensor]]] = []
    go_back = Checkpoints.go_back

    def going(self: Checkpoints, learner, streams, epoch: int) -> int:  # noqa: ANN001
        done = go_back(self, learner, streams, epoch)
        came.append((done, {k: v.clone() for k, v in learner.objective.state_dict().items()}))
        assert learner.optimizer.param_groups[0]["weight_decay"] == 3e-4  # as it was kept
        return done

    monkeypatch.setattr(Checkpoints, "go_back", going)
    run = tmp_path / "run"
    nas_apps.search(recipe(*ADAPTING), run)
    state = checkpoint.read(run / "checkpoint.pt")
    assert state["learner"]["optimizer"]["param_groups"][0]["weight_decay"] == 0.0015
    assert [done for done, _ in came] == [3, 3]  # to 9e-4, and to the cap
    assert _equal(came[0][1], came[1][1])
    messages = [line["message"] for line in read_lines(run / "warnings.jsonl")]
    assert [m.rpartition("with ")[2] for m in messages[:2]] == ["weight decay 0.0009", "weight decay 0.0015"]
    assert [entry["epoch"] for entry in read_history(run, 10**9)] == [0, 1, 2, 3]
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["stopped"], summary["steps"]) == (None, 12)
    assert len([line for line in read_lines(run / "timing.jsonl") if line["epoch"] == 0]) == 3  # the time is not lost
    assert summary["seconds"]["search"] == seconds(run)
    assert (
        nas_apps.derive(run) == Genotype.load(run / "genotype.json") == Genotype.load(run / "genotypes/epoch_003.json")
    )


def test_only_the_checkpoints_that_a_search_may_be_sent_back_to_are_kept(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    calm = ("variant.stop=eigenvalue", "variant.stop.every=2", "variant.stop.window=1", "variant.stop.adapt=3")
    once = ("variant.stop.delta=1", "variant.stop.cap=9e-4")
    made = recipe(*calm, *once, "search.epochs=8", "search.epoch_steps=1", "variant.stop.start=99")
    nas_apps.search(made, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "epoch_004.pt",
        "epoch_006.pt",
    ]


def test_a_search_that_was_sent_back_can_at_once_be_sent_back_further(
    recipe: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def eigenvalue(learner: Learner, *_: object, **__: object) -> float:
        sent_back = learner.optimizer.param_groups[0]["weight_decay"] > 4e-4
        return 2.0 if learner.progress.epoch >= (5 if sent_back else 8) else 1.0

    monkeypatch.setattr(watch, "dominant_eigenvalue", eigenvalue)
    eager = ("variant.stop.every=1", "variant.stop.window=1", "variant.stop.delta=4", "variant.stop.start=1")
    made = recipe("variant=darts_ada", *eager, "search.epochs=10", "search.epoch_steps=1", "variant.stop.cap=2.7e-3")
    nas_apps.search(made, tmp_path / "run")
    told = capsys.readouterr().err
    assert "epoch 8: " in told
    assert "back to epoch 4, with weight decay 0.0009" in told
    assert "epoch 5: " in told
    assert "back to epoch 1, with weight decay 0.0027" in told
