"""TensorBoard reads the scalars of a run, and of one that was taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nas_apps.core.board import Board


def test_tensorboard_reads_what_was_added_and_forgets_what_a_resume_did_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, steps in enumerate(([1, 2, 3, 4], [3, 4, 5])):
        monkeypatch.setattr("time.time", lambda now=1e9 + number: now)
        board = Board(tmp_path, steps[0])
        for step in steps:
            board.add("train/loss", 10.0 * number + step, step)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(s.step, s.value) for s in read.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 13), (4, 14), (5, 15)]


def test_a_scalar_is_in_the_file_at_once(tmp_path: Path) -> None:
    board = Board(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_size
    board.add("train/loss", 1.0, 1)
    assert path.stat().st_size > before
