"""What the stages of a run amount to: one summary over those of its stages, and a table of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nas_apps.core import files
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import Space, decided
from nas_apps.core.space_json import read_space


def stages(folder: Path) -> dict[str, dict[str, Any]]:
    """The summaries of the stage folders in a run folder, by name; of the folder itself when it is one."""
    paths = sorted(folder.glob("*/summary.json"), key=lambda path: (rank(path.parent.name), path))
    found = {path.parent.name: _read(path) for path in paths}
    if not found and (folder / "summary.json").exists():
        found = {folder.name: _read(folder / "summary.json")}
    if not found:
        raise UserError(f"{folder}: no finished stage (no summary.json); allowed: the folder of a run, or of one stage")
    return found


def rank(stage: str) -> int:
    """Where a stage stands among those of a run: the method's own before what it is compared with."""
    return ("search", "train").index(stage) if stage in ("search", "train") else 2


def combine(folder: Path) -> Path:
    """Write the summary of a run over its stages, and return its path.

    The figures are those of the stage `train`, or of the only stage there is; the others are kept under `stages`.
    """
    parts = stages(folder)
    if list(parts) == [folder.name]:
        return folder / "summary.json"
    head = dict(parts.get("train") or parts.get("search") or next(iter(parts.values())))
    if "search" in parts:
        head["variant"] = parts["search"]["variant"]
    head["seconds"] = {name: part["seconds"][part["stage"]] for name, part in parts.items()}
    head["warnings"] = [f"{name}: {text}" for name, part in parts.items() for text in part.get("warnings", ())]
    head["stage"], head["stages"] = "all", parts
    path = folder / "summary.json"
    if path.exists():
        _read(path)  # refuses what is not ours, before it is written over
    files.write_text(path, json.dumps(head, indent=1) + "\n")
    return path


def overview(folder: Path) -> str:
    """What a run found and what that is worth, as text: the cell, and the trained networks side by side."""
    head = next((part for name, part in stages(folder).items() if name in ("train", "search", folder.name)), None)
    where = next((p for p in (folder / "train", folder / "search", folder) if (p / "space.json").exists()), None)
    cell = (
        "" if head is None or where is None else cell_text(read_space(where / "space.json"), _genotype(head)) + "\n\n"
    )
    return cell + table(folder)


def table(folder: Path) -> str:
    """The trained networks of a run side by side, as text."""
    trained = {name: part for name, part in stages(folder).items() if part["stage"] == "train"}
    if not trained:
        return "nothing is trained yet"
    rows = [["", *trained]]
    for group in ("metrics", "costs"):
        names = dict.fromkeys(name for part in trained.values() for name in part[group])
        rows += [[name, *(_number(part[group].get(name)) for part in trained.values())] for name in names]
    rows += [["seconds", *(f"{part['seconds']['train']:.1f}" for part in trained.values())]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )
    return "\n".join(lines)


def cell_text(space: Space, genotype: Genotype) -> str:
    """A genotype in words, a line a choice: `option@source` for the edges of a cell, nodes set apart by bars."""
    lines = []
    for name, choice in decided(space).items():
        rows = genotype.kept[name]
        if choice.dag is None:
            lines.append(f"{name}: {' '.join('+'.join(row) or '-' for row in rows)}")
            continue
        nodes = []
        for target in choice.dag.targets():
            into = zip(choice.dag.into(target), range(target), strict=True)
            nodes.append(" ".join(f"{option}@{source}" for index, source in into for option in rows[index]))
        lines.append(f"{name.removesuffix('.op')}: {' | '.join(nodes)}")
    return "\n".join(lines)


def _genotype(summary: dict[str, Any]) -> Genotype:
    return Genotype({name: tuple(tuple(row) for row in rows) for name, rows in summary["genotype"].items()})


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4f}"


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(files.read_text(path, "a summary"))
    except json.JSONDecodeError:
        data = {}
    if not isinstance(data, dict) or "stage" not in data:
        raise UserError(f"{path}: not a summary of nas_apps; move it away, and run its stage again with --resume")
    return data
