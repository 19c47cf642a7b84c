"""The logs of a run folder: lines of JSON, each with the step it belongs to."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nas_apps.core import files

LOGS = ("metrics.jsonl", "choices.jsonl", "timing.jsonl", "warnings.jsonl")


def add_line(path: Path, step: int, what: Mapping[str, Any]) -> None:
    """Add a line to a log."""
    files.append_text(path, json.dumps({"step": step, **what}) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that was torn by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            line = json.loads(text)
            lines += [line] if isinstance(line, dict) and "step" in line else []
    return lines


def last_figures(folder: Path, step: float = math.inf) -> dict[str, float]:
    """The figures of a stage's last evaluation, up to a step."""
    lines = [
        {k.removeprefix("evaluation/"): v for k, v in line.items() if k.startswith("evaluation/")}
        for line in read_lines(folder / "metrics.jsonl")
        if line["step"] <= step
    ]
    return next((line for line in reversed(lines) if line), {})


def seconds(folder: Path, after: int = 0) -> float:
    """The time a stage took, over all its processes, after a step; what a kill threw away is not in it."""
    return float(sum(line["seconds"] for line in read_lines(folder / "timing.jsonl") if line["step"] > after))


def warnings(folder: Path) -> list[str]:
    """What was said of a stage, in the order of its steps."""
    return [str(line["message"]) for line in read_lines(folder / "warnings.jsonl")]


def warn(folder: Path, step: int, about: str, message: str) -> None:
    """Say something of a run, to its user and in its folder; of one thing only once in a run."""
    if all(line["about"] != about for line in read_lines(folder / "warnings.jsonl")):
        add_line(folder / "warnings.jsonl", step, {"about": about, "message": message})
        say(message)


def say(message: str) -> None:
    """A line to the user, beside a progress bar."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def cut(folder: Path, step: int) -> None:
    """Leave out of the logs what lies after a step."""
    for path in (folder / name for name in LOGS):
        if path.exists():
            kept = [json.dumps(line) for line in read_lines(path) if line["step"] <= step]
            files.write_text(path, "".join(line + "\n" for line in kept))
