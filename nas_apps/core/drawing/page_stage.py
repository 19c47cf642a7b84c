"""What there is to read in a run folder: stages, each with what its files say and which are absent or torn."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_apps.core.drawing.picture_weights import Matrix
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import FORMAT, VERSION, Genotype
from nas_apps.core.space import Space
from nas_apps.core.space_json import read_space
from nas_apps.core.summary import rank

FILES = ("recipe.yaml", "space.json", "genotype.json", "metrics.jsonl", "choices.jsonl", "summary.json")
OWN = ("recipe.yaml", "metrics.jsonl")
"""What a folder of stages has only if it is a stage itself: a summary and a genotype may be those of its stages."""
DEPTH = 3


@dataclass(frozen=True)
class Stage:
    """One search or training. `faults` says in words what could not be read."""

    name: str
    recipe: str
    space: Space | None
    genotype: Genotype | None
    metrics: tuple[Mapping[str, Any], ...]
    weights: Mapping[str, list[tuple[float, Matrix]]]
    summary: Mapping[str, Any]
    missing: tuple[str, ...]
    faults: tuple[str, ...]

    def table(self, key: str) -> Mapping[str, Any]:
        """A table of the summary; empty when it is not there."""
        value = self.summary.get(key)
        return value if isinstance(value, dict) else {}

    def told(self, key: str) -> str:
        """A word from the head of the summary or, failing that, of the recipe; empty when neither has it."""
        value = self.summary.get(key)
        if value is not None and not isinstance(value, dict | list):
            return str(value)
        found = re.search(rf"^{key}:[ \t]*(?:\n[ \t]+name:)?[ \t]*([^\s#{{].*?)[ \t]*$", self.recipe, re.MULTILINE)
        return found.group(1).strip("'\"") if found else ""

    @property
    def searched(self) -> bool:
        """Whether choices were made in this stage."""
        return bool(self.weights) or self.summary.get("stage") == "search"


def read_stages(folder: Path) -> list[Stage]:
    """The stages in a folder: itself if it is one, and those in folders under it.

    The method's own search and training come first, then searches before trainings, then by name.
    """
    found: list[Path] = []
    for path in reversed(list(_folders(folder, DEPTH))):  # what is inside a folder comes before it
        holds_stages = any(path in stage.parents for stage in found)
        if any((path / name).is_file() for name in (OWN if holds_stages else FILES)):
            found.append(path)
    stages = [_read(path, path.relative_to(folder).as_posix() if path != folder else _name(folder)) for path in found]
    return sorted(stages, key=lambda stage: (rank(stage.name.rpartition("/")[2]), not stage.searched, stage.name))


def finite(value: object) -> float:
    """A logged value as a number; not-a-number for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.nan


def _name(folder: Path) -> str:
    return folder.resolve().name


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth > 0 and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield from _folders(path, depth - 1)


def _read(folder: Path, name: str) -> Stage:
    faults: list[str] = []
    summary = _summary(folder / "summary.json", faults)
    searched = "search" in str(summary.get("stage", _name(folder)))
    expected = [file for file in FILES if searched or file != "choices.jsonl"]
    missing = tuple(file for file in expected if not (folder / file).is_file())
    space: Space | None = None
    genotype: Genotype | None = None
    try:
        if (folder / "space.json").is_file():
            space = read_space(folder / "space.json")
    except UserError as error:
        faults.append(_short(error, folder))
    try:
        if (folder / "genotype.json").is_file():
            genotype = Genotype.load(folder / "genotype.json")
        elif isinstance(summary.get("genotype"), dict):
            genotype = _genotype(summary["genotype"])
    except UserError as error:
        faults.append(_short(error, folder))
    metrics, weights = tuple(_lines(folder / "metrics.jsonl", faults)), _weights(folder / "choices.jsonl", faults)
    return Stage(
        name, _text(folder / "recipe.yaml", faults), space, genotype, metrics, weights, summary, missing, tuple(faults)
    )


def _genotype(told: dict[str, Any]) -> Genotype:
    """The genotype in a summary: its whole text as an object, or what it keeps alone."""
    whole = told if "format" in told else {"format": FORMAT, "version": VERSION, "kept": told}
    return Genotype.from_json(json.dumps(whole), "summary.json")


def _short(error: UserError, folder: Path) -> str:
    return str(error).replace(f"{folder}/", "")


def _text(path: Path, faults: list[str]) -> str:
    try:
        return path.read_bytes().decode(errors="replace") if path.is_file() else ""
    except OSError as error:
        faults.append(f"{path.name}: cannot read: {error.strerror}")
        return ""


def _summary(path: Path, faults: list[str]) -> dict[str, Any]:
    text = _text(path, faults)
    try:
        data = json.loads(text) if text else {}
    except ValueError:
        data = None
    if not isinstance(data, dict):
        faults.append(f"{path.name}: not a JSON object")
        return {}
    return data


def _lines(path: Path, faults: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file of lines; a line that is not one, such as a torn last line, is left out and reported."""
    torn = []
    for index, text in enumerate(_text(path, faults).splitlines(), 1):
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if isinstance(data, dict):
            yield data
        elif text.strip():
            torn.append(str(index))
    if torn:
        more = f" and {len(torn) - 5} more" if len(torn) > 5 else ""
        faults.append(f"{path.name}: left out, not whole: line {', '.join(torn[:5])}{more}")


def _weights(path: Path, faults: list[str]) -> dict[str, list[tuple[float, Matrix]]]:
    """The weights by choice: (epoch, [R, O]) of each epoch. A table of another shape than the first is left out."""
    history: dict[str, list[tuple[float, Matrix]]] = {}
    odd = 0
    for number, entry in enumerate(_lines(path, faults)):
        epoch, tables = finite(entry.get("epoch", number)), entry.get("weights")
        for name, rows in tables.items() if isinstance(tables, dict) else ():
            matrix = _matrix(rows)
            known = history.setdefault(name, [])
            if matrix and math.isfinite(epoch) and (not known or _shape(known[0][1]) == _shape(matrix)):
                known.append((epoch, matrix))
            else:
                odd += 1
    if odd:
        faults.append(f"{path.name}: left out, not a table of the first one's shape: {odd}")
    return {name: known for name, known in history.items() if known}


def _matrix(rows: object) -> Matrix | None:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        return None
    return [[finite(value) for value in row] for row in rows]


def _shape(matrix: Matrix) -> list[int]:
    return [len(row) for row in matrix]
