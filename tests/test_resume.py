"""A run that was killed and started again ends as one that was not, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from nas_apps.core import checkpoint, files, runs
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.variants import VARIANTS

SEARCHING = [name for name, variant in VARIANTS.items() if variant.schedule.searches]


Stopping = Callable[[int], AbstractContextManager[None]]


def same(a: Path, b: Path) -> None:
    """Logits, weights, optimisers, streams and logs are bit-identical."""
    first, second = (checkpoint.read(folder / "checkpoint.pt") for folder in (a, b))
    assert equal(first, second)
    for name in ("metrics.jsonl", "choices.jsonl", "genotype.json"):
        if (a / name).exists():
            assert (a / name).read_bytes() == (b / name).read_bytes(), name


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


def kill_at_third_checkpoint(moment: str) -> None:
    """Make this process kill itself at the third checkpoint: before, in the middle of, or after its write."""
    write, seen = files.write, {"checkpoints": 0}

    def killing(path: Path, content: bytes) -> None:
        seen["checkpoints"] += path.name == "checkpoint.pt"
        if path.name == "checkpoint.pt" and seen["checkpoints"] == 3:
            if moment == "during":
                path.with_name(f".{path.name}.new").write_bytes(bytes(content)[: len(content) // 2])
            if moment == "after":
                write(path, content)
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    files.write = killing


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("variant", SEARCHING)
def test_a_search_killed_around_a_checkpoint_ends_as_if_it_had_not_been(
    recipe: Callable[..., Recipe], variant: str, moment: str, tmp_path: Path
) -> None:
    made = recipe(f"variant={variant}", "search.checkpoint_steps=2")
    runs.search(made, tmp_path / "whole")
    child = os.fork()
    if child == 0:
        kill_at_third_checkpoint(moment)
        runs.search(made, tmp_path / "killed")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (tmp_path / "killed" / "summary.json").exists()
    runs.search(made, tmp_path / "killed", resume=True)
    same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_a_process_killed_with_sigkill_at_any_moment_goes_on_with_the_same_command(
    delay: float, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "nas_apps", "search", "task=toy", "variant=gdas", "search.epochs=40",
               "search.batch_size=16", "search.checkpoint_steps=3", "search.log_steps=1", "--resume"]  # fmt: skip
    subprocess.run([*command, "--run", "whole"], cwd=tmp_path, check=True, capture_output=True)
    process = subprocess.Popen(
        [*command, "--run", "killed"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "summary.json").exists()
    subprocess.run([*command, "--run", "killed"], cwd=tmp_path, check=True, capture_output=True)
    same(tmp_path / "whole", tmp_path / "killed")


def test_a_final_training_with_dropped_paths_resumes_bit_identically(
    recipe: Callable[..., Recipe], stopping: Stopping, tmp_path: Path
) -> None:
    made = recipe("variant=random", "train.drop_path=0.3", "train.checkpoint_steps=2")
    genotype = runs.search(made, tmp_path / "search")
    runs.train(made, genotype, tmp_path / "whole")
    with stopping(5):  # a step after the checkpoint that it is taken up from
        runs.train(made, genotype, tmp_path / "killed")
    runs.train(made, genotype, tmp_path / "killed", resume=True)
    same(tmp_path / "whole", tmp_path / "killed")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


def test_a_finished_run_started_again_changes_nothing(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made = recipe()
    runs.search(made, tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file() and "tfevents" not in p.name}
    runs.search(made, tmp_path / "run", resume=True)
    after = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file() and "tfevents" not in p.name}
    assert before == after


def test_a_resume_under_another_recipe_is_refused_and_names_the_difference(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    runs.search(recipe(), tmp_path / "run")
    with pytest.raises(UserError, match="search.epochs is 4 there and 5 here"):
        runs.search(recipe("search.epochs=5"), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="variant.name is 'darts' there and 'gdas' here"):
        runs.search(recipe("variant=gdas"), tmp_path / "run", resume=True)
    runs.search(recipe("train.epochs=9"), tmp_path / "run", resume=True)  # no affair of the search's


def test_a_checkpoint_moved_in_from_another_recipe_is_refused(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    runs.search(recipe(), tmp_path / "a")
    runs.search(recipe("seed=1"), tmp_path / "b")
    (tmp_path / "a" / "checkpoint.pt").replace(tmp_path / "b" / "checkpoint.pt")
    with pytest.raises(UserError, match="written under another recipe"):
        runs.search(recipe("seed=1"), tmp_path / "b", resume=True)


def test_a_folder_with_a_run_or_with_other_files_is_not_written_into(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    runs.search(recipe(), tmp_path / "run")
    with pytest.raises(UserError, match="--resume"):
        runs.search(recipe(), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        runs.search(recipe(), tmp_path / "other", resume=True)
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_training_another_genotype_in_the_same_folder_is_refused(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made = recipe("variant=random")
    genotype = runs.search(made, tmp_path / "search")
    runs.train(made, genotype, tmp_path / "train")
    other: Genotype = runs.search(recipe("variant=random", "seed=1"), tmp_path / "other")
    with pytest.raises(UserError, match="trains another genotype"):
        runs.train(made, other, tmp_path / "train", resume=True)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign"])
def test_a_damaged_or_foreign_checkpoint_is_one_clear_line(
    recipe: Callable[..., Recipe], damage: str, tmp_path: Path
) -> None:
    made, path = recipe(), tmp_path / "run" / "checkpoint.pt"
    runs.search(made, tmp_path / "run")
    content = path.read_bytes()
    if damage == "foreign":
        torch.save({"state_dict": {"w": torch.zeros(2)}}, path)
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello\n" * 50}[damage])
    with pytest.raises(
        UserError, match=r"checkpoint.pt: (truncated, or not a checkpoint|not a checkpoint of nas_apps)"
    ):
        runs.search(made, tmp_path / "run", resume=True)


def test_a_checkpoint_that_would_run_code_is_not_run(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made, path = recipe(), tmp_path / "run" / "checkpoint.pt"
    runs.search(made, tmp_path / "run")

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    torch.save({"trap": Trap()}, path)
    with pytest.raises(UserError, match="not a checkpoint"):
        runs.search(made, tmp_path / "run", resume=True)
    assert not (tmp_path / "sprung").exists()


def test_a_torn_last_line_of_a_log_is_dropped_on_resume(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made = recipe()
    runs.search(made, tmp_path / "run")
    log = tmp_path / "run" / "metrics.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"step": 99, "epo')
    runs.search(made, tmp_path / "run", resume=True)
    assert log.read_text() == whole
    assert all(json.loads(line)["step"] for line in whole.splitlines())


def test_a_second_process_in_the_same_folder_is_refused(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    from nas_apps.core.folder import hold
    from nas_apps.core.runtime import Runtime

    made = recipe()
    with (
        hold(tmp_path / "run", Runtime(torch.device("cpu"))),
        pytest.raises(UserError, match="another process runs in it"),
    ):
        runs.search(made, tmp_path / "run")
    runs.search(made, tmp_path / "run")
