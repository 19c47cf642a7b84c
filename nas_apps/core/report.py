"""What a run writes while it goes on: metrics, weights of its choices, the genotype of each epoch, a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from nas_apps.core import logs
from nas_apps.core.diagnosis import read_history
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Space, widened


class Report:
    """The log of one stage.

    metrics.jsonl and choices.jsonl hold nothing that depends on the clock, and on resume are cut back to the step of
    the checkpoint, so that an interrupted run ends with the same files as an unbroken one.

    Args:
        derive: the genotype at this moment, for a search.
        log_steps: steps from one logged line to the next.
        space: that of the weights that are logged, where the search goes on in a narrower one.
    """

    def __init__(
        self,
        folder: Path,
        runtime: Runtime,
        *,
        log_steps: int,
        derive: Callable[[], Genotype] | None,
        goal: str,
        space: Space | None = None,
    ) -> None:
        self.folder, self.runtime, self.log_steps, self.derive, self.goal = folder, runtime, log_steps, derive, goal
        self.space = space
        self._bar: tqdm[Any] | None = None
        self._board: Any = None
        self._since = time.monotonic()
        self._shown: dict[str, str] = {}
        self.history: list[dict[str, Any]] = []
        """What a stop rule looks at, on the rank that writes."""

    def begin(self, start: int, steps: int) -> None:
        """Take up the log after `start` steps of `steps`."""
        self._since, self._steps = time.monotonic(), steps
        if not self.runtime.leads:
            return
        logs.cut(self.folder, start)
        self.history = read_history(self.folder, start)
        if start < steps:
            from nas_apps.core.board import Board  # slow to import, and only a run needs it

            self._board = Board(self.folder, start + 1)
            bar = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}] {postfix}"
            every = 0.1 if sys.stderr.isatty() else 30.0  # a log file gets a line now and then, not a film
            self._bar = tqdm(
                total=steps,
                initial=start,
                desc=self.folder.name,
                unit="step",
                dynamic_ncols=True,
                bar_format=bar,
                mininterval=every,
                maxinterval=every,
            )

    def step(self, done: int, epoch: int, stats: Mapping[str, Tensor]) -> None:
        """Log a step; the figures are read from the device only when a line is due."""
        if self._bar is not None:
            self._bar.update()
        if done % self.log_steps == 0 and stats:
            values = {name: float(value) for name, value in stats.items()}
            _refuse_lost(done, values)
            self._line(done, epoch, values)

    def epoch(self, done: int, epoch: int, learner: Learner, figures: Mapping[str, float]) -> None:
        """Log the end of an epoch: figures, weights of the choices, genotype."""
        _refuse_lost(done, figures)
        if not self.runtime.leads:
            return
        if figures:
            self._line(done, epoch, figures)
        if self.derive is not None:
            arch = learner.arch
            means = arch.expected(learner.progress).weights
            wide = widened(means, arch.space, self.space or arch.space)
            weights = {name: table.tolist() for name, table in wide.items()}
            logs.add_line(self.folder / "choices.jsonl", done, {"epoch": epoch, "weights": weights})
            self.derive().save(self.folder / "genotypes" / f"epoch_{epoch:03d}.json")
            self.history.append({"step": done, "epoch": epoch, "weights": weights, **figures})
        now = time.monotonic()
        logs.add_line(self.folder / "timing.jsonl", done, {"epoch": epoch, "seconds": round(now - self._since, 3)})
        self._since = now

    def go_back(self, step: int, epoch: int) -> None:
        """Take up the log after `step` again; of what came after it, the time it took is kept."""
        self.end()
        lost = logs.seconds(self.folder, after=step) if self.runtime.leads else 0.0
        self.begin(step, self._steps)
        if self.runtime.leads:
            logs.add_line(self.folder / "timing.jsonl", step, {"epoch": epoch, "seconds": round(lost, 3)})

    def end(self) -> None:
        """Close what is open, once or twice."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, done: int, epoch: int, values: Mapping[str, float]) -> None:
        if not self.runtime.leads:
            return
        logs.add_line(self.folder / "metrics.jsonl", done, {"epoch": epoch, **values})
        for name, value in values.items():
            self._board.add(name, value, done)
        self._shown |= {
            name.replace("evaluation/", "evaluation "): f"{value:.4g}"
            for name, value in values.items()
            if name.endswith(("/loss", f"/{self.goal}"))
        }
        if self._bar is not None:
            self._bar.set_postfix(self._shown, refresh=False)


def _refuse_lost(done: int, values: Mapping[str, float]) -> None:
    lost = next((name for name, value in values.items() if name.endswith("/loss") and not isfinite(value)), None)
    if lost:
        raise UserError(f"{lost} is {values[lost]} at step {done}; a lower weights.lr or logits.lr may keep it finite")
