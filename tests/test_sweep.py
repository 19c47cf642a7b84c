"""Sweeps as a user runs them: trials in processes of their own, that fail, are killed, and are gone on with."""

from __future__ import annotations

import html.parser
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from nas_apps.core import runs
from nas_apps.core.errors import UserError
from nas_apps.core.sweep import Trial, plan
from nas_apps.core.sweep_run import Work, here, run

TOY = ("task=toy", "task.points=96", "search.epochs=2", "search.batch_size=16", "search.log_steps=1",
       "train.epochs=1", "train.batch_size=16", "train.log_steps=1")  # fmt: skip
SIX = (*TOY, "search.network.channels=6")  # which PC-DARTS' 4 parts do not divide
LONG = (*TOY, "search.epoch_steps=60", "search.checkpoint_steps=10")
with_image = pytest.mark.skipif(not (find_spec("timm") and find_spec("torchvision")), reason="needs nas-apps[image]")
Command = Callable[..., subprocess.CompletedProcess[str]]


def heard() -> None:
    """A process started in the background of a shell ignores interrupts, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def make(trials: list[Trial], *, train: bool = True) -> list[Trial]:
    """Run the stages of trials in this process, where a sweep finds them finished."""
    for trial in trials:
        genotype = runs.search(trial.recipe, trial.stage("search"))
        if train:
            runs.train(trial.recipe, genotype, trial.stage("train"))
    return trials


def results(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The trials in results.json by name."""
    return {trial["name"]: trial for trial in json.loads((folder / "results.json").read_text())["trials"]}


def times(folder: Path) -> dict[str, int]:
    """When each file was written last."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def children(parent: int) -> list[int]:
    """The processes that a process started."""
    return [int(pid) for path in Path(f"/proc/{parent}/task").glob("*/children") for pid in path.read_text().split()]


def until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Balanced(html.parser.HTMLParser):
    """Checks that elements close in order, and collects their names and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(key for key, _ in attrs)}
        self.open += [tag] if tag != "meta" else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(key for key, _ in attrs)}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# Trials that fail.


def test_a_trial_that_fails_stops_no_other_and_is_tried_again(nas_apps: Command, tmp_path: Path) -> None:
    command = ["sweep", *SIX, "--variants", "darts,pc_darts", "--seeds", "2", "--run", "s", "--jobs", "2"]
    done = nas_apps(*command)
    assert done.returncode == 1, done.stderr
    why = "search: variant.wiring.k: 4 does not divide the 6 channels of a cell"
    last = "nas-apps: 2 of 4 trials failed; the same command tries them again (s/table.md says why each did)"
    assert done.stderr.splitlines()[-1] == last
    assert "Traceback" not in done.stderr
    assert re.search(r"4/4 .*failed=2", done.stderr)
    table, path = done.stdout.rstrip("\n").rsplit("\n", 1)
    assert (table, path) == ((tmp_path / "s" / "table.md").read_text().rstrip("\n"), "s/sweep.html")
    assert re.search(r"^\| pc_darts \| +0 of 2 \| +- \|", table, re.MULTILINE)
    assert all(f"- pc_darts_seed{seed}: {why}" in table for seed in (0, 1))
    found = results(tmp_path / "s")
    assert {name: trial["status"] for name, trial in found.items()} == {
        "darts_seed0": "finished", "darts_seed1": "finished", "pc_darts_seed0": "failed", "pc_darts_seed1": "failed",
    }  # fmt: skip
    assert found["pc_darts_seed0"]["failure"] == why
    before = times(tmp_path / "s")
    assert nas_apps(*command).returncode == 1
    after = times(tmp_path / "s")
    assert {name: when for name, when in after.items() if name.startswith("darts_")} == {
        name: when for name, when in before.items() if name.startswith("darts_")
    }
    log = (tmp_path / "s" / "pc_darts_seed0" / "log.txt").read_text()
    assert log.count("$ nas-apps search") == 2


def test_a_process_that_is_killed_fails_its_trial_and_the_same_command_goes_on_to_the_bit(tmp_path: Path) -> None:
    trials = plan(LONG, tmp_path / "s")
    checkpoint = trials[0].stage("search") / "checkpoint.pt"

    def kill() -> None:
        until(checkpoint.exists)
        for child in children(os.getpid()):
            if b"nas_apps" in Path(f"/proc/{child}/cmdline").read_bytes():  # and not Python's resource tracker
                os.kill(child, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    broken = run(trials, tmp_path / "s", train=False)
    thread.join()
    assert broken.failures == {"darts_seed0": "search: ended by SIGKILL (log.txt has what it wrote)"}
    assert not (trials[0].stage("search") / "summary.json").exists()
    assert run(trials, tmp_path / "s", train=False).failures == {}
    runs.search(trials[0].recipe, tmp_path / "whole")
    for name in ("metrics.jsonl", "genotype.json", "choices.jsonl"):
        assert (trials[0].stage("search") / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_stopped_ends_its_processes_and_says_how_to_go_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nas_apps", "sweep", *LONG, "--seeds", "2", "--run", "s"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heard,
    )  # fmt: skip
    until((tmp_path / "s" / "darts_seed0" / "search" / "checkpoint.pt").exists)
    started = children(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "nas-apps: interrupted; the same command goes on with what is not finished"
    assert "Traceback" not in err
    assert len(started) == 1
    assert not Path(f"/proc/{started[0]}").exists()
    assert {trial["status"] for trial in results(tmp_path / "s").values()} == {"unfinished"}


def test_a_program_that_cannot_be_started_is_a_failed_trial(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    works = [
        Work("a", {"search": ("show", "task=toy")}, tmp_path / "file" / "log.txt", tmp_path, gpu=False),
        Work("b", {"search": ("show", "task=toy")}, tmp_path / "b" / "log.txt", tmp_path / "nowhere", gpu=False),
    ]
    ended = dict(over for batch in here(works, [{}]) for over in batch)
    assert ended["a"] == f"search: {tmp_path / 'file'}: cannot write: File exists"
    assert "nowhere" in (ended["b"] or "")


# What a sweep says.


def test_finished_trials_are_left_alone_and_the_table_is_of_all_searches(tmp_path: Path) -> None:
    trials = make(plan(TOY, tmp_path / "s", variants=("darts", "random"), seeds=(0, 1, 2)))
    assert run(trials, tmp_path / "s").failures == {}
    before = times(tmp_path / "s")
    text = run(trials, tmp_path / "s").text()
    after = times(tmp_path / "s")
    assert {name for name, when in after.items() if before[name] != when} <= {"results.json", "table.md", "sweep.html"}
    found = results(tmp_path / "s")
    for variant in ("darts", "random"):
        folders = [tmp_path / "s" / f"{variant}_seed{seed}" / "train" / "summary.json" for seed in range(3)]
        figures = [json.loads(path.read_text())["metrics"]["accuracy"] for path in folders]
        assert [found[f"{variant}_seed{seed}"]["metrics"]["accuracy"] for seed in range(3)] == figures
        told = f"{100 * fmean(figures):.2f} \u00b1 {100 * stdev(figures):.2f} %"
        assert re.search(rf"^\| {variant} +\| +3 \| +{told} \|", text, re.MULTILINE), text
    assert "accuracy: of the trained networks." in text
    assert found["random_seed0"]["genotype"] == json.loads((folders[0].parent / "summary.json").read_text())["genotype"]
    assert set(found["darts_seed0"]["seconds"]) == {"search", "train"}


def test_more_seeds_and_a_training_are_added_to_what_is_there(tmp_path: Path) -> None:
    make(plan(TOY, tmp_path / "s", seeds=(0,)), train=False)
    assert run(plan(TOY, tmp_path / "s", seeds=(0,)), tmp_path / "s", train=False).failures == {}
    trials = make(plan(TOY, tmp_path / "s", seeds=(1,)), train=False)
    trials = plan(TOY, tmp_path / "s", seeds=(0, 1))
    text = run(trials, tmp_path / "s", train=False).text()
    assert re.search(r"^\| darts +\| +2 \|", text, re.MULTILINE)
    assert "accuracy: evaluated in the search; nothing was trained." in text
    assert [list(trial.left(train=True, table=None)) for trial in trials] == [["train"], ["train"]]


def test_each_recipe_has_its_table_and_its_charts_in_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    for name, points in (("small", 48), ("large<b>", 96)):
        (tmp_path / f"{name}.yaml").write_text(f"task: {{name: toy, points: {points}}}\n")
    paths = [str(tmp_path / f"{name}.yaml") for name in ("small", "large<b>")]
    trials = plan(TOY[2:], tmp_path / "s", recipes=paths, variants=("darts", "random"), seeds=(0, 1))
    make(trials, train=False)
    text = run(trials, tmp_path / "s", train=False, command="nas-apps sweep <all>").text()
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["small", "large<b>"]
    page = (tmp_path / "s" / "sweep.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == ["small", "large&lt;b&gt;", "Trials", "Reproduce"]
    # A random cell is not evaluated before it is trained, so that it is in no chart.
    assert page.count("<title>Accuracy, a dot for each search</title>") == 2
    assert page.count("<title>Accuracy over parameters</title>") == 2
    assert page.count("<title>Accuracy, evaluated in the search</title>") == 2
    assert page.count("<circle") == 2 * (2 + 2)
    seen = Balanced(page).seen
    assert not seen & {"script", "link", "img", "iframe", "object", "src", "href", "xlink:href", "srcset", "onclick"}
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in page
    assert "@import" not in page
    assert "nas-apps sweep &lt;all&gt;" in page


def test_two_sweeps_do_not_run_in_one_folder(tmp_path: Path) -> None:
    import fcntl

    trials = make(plan(TOY, tmp_path / "s"), train=False)
    run(trials, tmp_path / "s", train=False)
    with (tmp_path / "s" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="s: another process runs in it"):
            run(trials, tmp_path / "s", train=False)


@with_image
def test_found_cells_are_looked_up_last_and_a_wrong_table_costs_no_search(tmp_path: Path) -> None:
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    cells = ("|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*row) for row in product(ops, repeat=6))
    (tmp_path / "right.csv").write_text(
        "arch,c10_test_200\n" + "".join(f"{cell},{90 + i % 7}\n" for i, cell in enumerate(cells))
    )
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    trials = make(plan(["task=image", "task.space=nasbench201", "variant=random"], tmp_path / "s"), train=False)
    failed = run(trials, tmp_path / "s", train=False, table=tmp_path / "wrong.csv").failures
    assert list(failed) == ["random_seed0"]
    assert failed["random_seed0"].startswith("table: ")
    assert "wrong.csv" in failed["random_seed0"]
    text = run(trials, tmp_path / "s", train=False, table=tmp_path / "right.csv").text()
    figure = results(tmp_path / "s")["random_seed0"]["metrics"]["table/cifar10/test"]
    assert figure in range(90, 97)
    assert re.search(rf"\| +{figure:.0f} \u00b1 - \|", text), text


# Ray.


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ray, that leaves nothing in the home of who runs the tests."""
    pytest.importorskip("ray", reason="needs nas-apps[sweep]")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.mark.usefixtures("ray_here")
def test_trials_on_ray_fail_alone_and_are_gone_on_with(nas_apps: Command, tmp_path: Path) -> None:
    command = ["sweep", *SIX, "--variants", "darts,pc_darts", "--run", "s", "--no-train", "--ray", "local"]
    done = nas_apps(*command)
    assert done.returncode == 1, done.stderr
    assert "- pc_darts_seed0: search: variant.wiring.k: 4 does not divide the 6 channels of a cell" in done.stdout
    found = results(tmp_path / "s")
    assert {name: trial["status"] for name, trial in found.items()} == {
        "darts_seed0": "finished", "pc_darts_seed0": "failed"
    }  # fmt: skip


@pytest.mark.usefixtures("ray_here")
def test_a_sweep_on_ray_that_is_stopped_ends_its_processes(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nas_apps", "sweep", *LONG, "search.epochs=2000", "--run", "s", "--ray", "local"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heard,
    )  # fmt: skip
    metrics = tmp_path / "s" / "darts_seed0" / "search" / "metrics.jsonl"
    until(metrics.exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    size = metrics.stat().st_size
    time.sleep(1)
    assert metrics.stat().st_size == size


def test_a_ray_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nas_apps.core.sweep_ray", raising=False)
    with pytest.raises(UserError, match=r"--ray: needs ray .*: pip install 'nas-apps\[sweep\]'"):
        run(plan(TOY, tmp_path / "s"), tmp_path / "s", ray="local")
    assert not (tmp_path / "s").exists()


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:9", "127.0.0.1:x"])
def test_a_cluster_that_is_not_there_is_one_line(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--ray: got .*; allowed: local, auto, HOST:PORT of a cluster"):
        run(plan(TOY, tmp_path / "s"), tmp_path / "s", ray=address)
    assert not (tmp_path / "s").exists()
