"""How a sweep is run: each stage of a trial in a process of its own, here or on a Ray cluster.

A process that crashes, or that the system kills, takes only its own trial along.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from nas_apps.core import sweep_table
from nas_apps.core.errors import UserError
from nas_apps.core.files import open_to_write
from nas_apps.core.folder import hold
from nas_apps.core.runtime import Runtime
from nas_apps.core.sweep import Trial, refuse

LOG = "log.txt"
POLL_SECONDS, STOP_SECONDS = 0.1, 30.0


@dataclass(frozen=True)
class Work:
    """What is left of a trial: the arguments of the command line for each stage, run in order in the folder `cwd`."""

    name: str
    stages: Mapping[str, tuple[str, ...]]
    log: Path
    cwd: Path
    gpu: bool


class Ended(NamedTuple):
    """A trial that is over, and in one line why it failed if it did."""

    name: str
    failure: str | None


Executor = Callable[[Sequence[Work]], Generator[list[Ended]]]
"""Runs trials, and says now and then which ended since; closing it ends those that run."""


def run(
    trials: Sequence[Trial],
    folder: Path,
    *,
    train: bool = True,
    table: Path | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    command: str | None = None,
) -> sweep_table.Results:
    """Run what is left of a sweep's trials, and leave results.json, table.md and sweep.html in `folder`.

    A trial that fails is told of in the results, and tried again by the next run.

    Args:
        table: accuracies by cell, to look every found cell up in.
        jobs: trials at a time; by default one for each CUDA device, or one; on Ray as many as there is room for.
        ray: the address of a Ray cluster that shares the file system, or `local`.
    """
    refuse(trials, folder, table)
    executor = _local(devices(trials), jobs) if ray is None else _ray(ray, jobs)
    with hold(folder, Runtime(torch.device("cpu"))):
        results = sweep_table.Results(trials, folder, train=train, table=table, command=command)
        results.write()
        works = [_work(trial, stages) for trial in trials if (stages := trial.left(train=train, table=table))]
        bar = tqdm(
            total=len(trials), initial=len(trials) - len(works), desc=folder.name, unit="trial", dynamic_ncols=True
        )
        with bar, closing(executor(works) if works else here((), ())) as rounds:
            for ended in rounds:
                for name, failure in ended:
                    results.end(name, failure)
                    bar.set_postfix(failed=len(results.failures), refresh=False)
                    bar.update()
                if sys.stderr.isatty():
                    bar.refresh()
    return results


def here(works: Sequence[Work], environments: Sequence[Mapping[str, str]]) -> Generator[list[Ended]]:
    """Run trials on this machine, one at a time in each of the environments."""
    waiting, free = list(works), list(environments)
    running: list[_Attempt] = []
    try:
        while waiting or running:
            while waiting and free:
                running.append(_Attempt(waiting.pop(0), free.pop(0)))
            over = [attempt for attempt in running if attempt.over()]
            running = [attempt for attempt in running if attempt not in over]
            free += [attempt.environment for attempt in over]
            yield [Ended(attempt.work.name, attempt.failure) for attempt in over]
            time.sleep(0 if over else POLL_SECONDS)
    finally:
        for attempt in running:
            attempt.stop()


def devices(trials: Sequence[Trial]) -> list[str]:
    """The CUDA devices to share out, as CUDA_VISIBLE_DEVICES calls them; none where a recipe names its own."""
    number = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if any(":" in trial.recipe.device for trial in trials):
        return []
    return visible.split(",")[:number] if visible else [str(index) for index in range(number)]


def environments(found: Sequence[str], jobs: int) -> list[dict[str, str]]:
    """What the processes of each job are told: threads that share the cores, and devices in turn."""
    threads = (
        {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}
    )
    own = [{"CUDA_VISIBLE_DEVICES": found[job % len(found)]} if len(found) > 1 else {} for job in range(jobs)]
    return [threads | device for device in own]


class _Attempt:
    """The processes of one trial, one after the other."""

    def __init__(self, work: Work, environment: Mapping[str, str]) -> None:
        self.work, self.environment = work, environment
        self.stages = list(work.stages)
        self.process: subprocess.Popen[bytes] | None = None
        self.failure: str | None = None

    def over(self) -> bool:
        """Whether it ended; begins its next stage when one has."""
        while self.process is None or self.process.poll() is not None:
            if self.process is not None:
                stage = self.stages.pop(0)
                self.failure = _failure(stage, self.process.returncode, self.work.log)
            if self.failure or not self.stages:
                return True
            try:
                self.process = self._begin(self.work.stages[self.stages[0]])
            except (OSError, UserError) as error:
                self.failure = f"{self.stages[0]}: {error}"
        return False

    def stop(self) -> None:
        """End the process that runs; its checkpoint is whole."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _begin(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nas_apps", *arguments]
        with open_to_write(self.work.log) as log:
            log.write(f"$ {shlex.join(['nas-apps', *arguments])}\n")
            log.flush()
            return subprocess.Popen(  # noqa: S603, our own command line
                command,
                cwd=self.work.cwd,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )


def _failure(stage: str, status: int, log: Path) -> str | None:
    """Why a process ended as it did: the last line it wrote, or the signal that ended it; None when it ended well."""
    if status == 0:
        return None
    if status < 0:
        return f"{stage}: ended by {signal.Signals(-status).name} ({log.name} has what it wrote)"
    text = log.read_text(errors="replace").replace("\r", "\n")
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return f"{stage}: {last.removeprefix('nas-apps: ')}"


def _work(trial: Trial, stages: Mapping[str, tuple[str, ...]]) -> Work:
    cwd = Path.cwd()
    return Work(trial.name, stages, cwd / trial.folder / LOG, cwd, gpu=trial.recipe.device != "cpu")


def _local(found: Sequence[str], jobs: int | None) -> Executor:
    most = jobs or max(1, len(found))
    return lambda works: here(works, environments(found, min(most, len(works))))


def _ray(address: str, jobs: int | None) -> Executor:
    try:
        from nas_apps.core import sweep_ray
    except ImportError as error:
        raise UserError(f"--ray: needs ray ({error}): pip install 'nas-apps[sweep]'") from None
    sweep_ray.connect(address)
    return lambda works: sweep_ray.on_ray(works, jobs or len(works))
