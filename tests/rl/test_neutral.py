"""The engine needs nothing of this task: it runs where the libraries of reinforcement learning are not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nas_apps

BLOCKED = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gym", "gym3", "gymnasium", "procgen", "tensordict", "torchrl"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocked())
"""
SEARCH = """
import nas_apps
from nas_apps.cli import main
nas_apps.search(nas_apps.recipe("task=toy", "task.points=24", "search.epochs=1", "search.batch_size=6"), sys.argv[1])
sys.argv[1:] = ["show", "task=rl"]
main()
"""


def test_a_search_runs_without_the_libraries_and_the_task_says_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BLOCKED + SEARCH, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tmp_path / "run" / "genotype.json").exists()
    assert done.returncode == 2
    assert "pip install 'nas-apps[rl]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_no_part_of_the_engine_asks_which_task_it_runs() -> None:
    kinds = "RLTask|ImageTask|ToyTask|ASRTask|SRTask"  # what else a task can do may be asked: a protocol of the core
    for path in (Path(nas_apps.__file__).parent / "core").rglob("*.py"):
        assert not re.search(rf"isinstance\([\w.]*task, (?!Canonical|Loads|Prices)|{kinds}", path.read_text()), path
