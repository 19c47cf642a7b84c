"""A space as text: `space.json` in a run folder says what a genotype beside it was chosen from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nas_apps.core.errors import UserError
from nas_apps.core.files import read_text
from nas_apps.core.space import Choice, Dag, Space


def space_to_json(space: Space) -> str:
    """The space as text, one choice a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(_to_data(choice))}" for name, choice in space.items()]
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def space_from_json(text: str, where: str = "space") -> Space:
    """A space read from its text; a UserError that names the choice that is not one."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg} in line {error.lineno})") from None
    if not isinstance(data, dict) or not data:
        raise UserError(f"{where}: a space is a table of choices by name")
    return {name: _from_data(entry, f"{where}: {name}") for name, entry in data.items()}


def read_space(path: Path) -> Space:
    """Read a space file."""
    return space_from_json(read_text(path, "a space"), str(path))


def _to_data(choice: Choice) -> dict[str, Any]:
    dag = None if choice.dag is None else [choice.dag.inputs, choice.dag.nodes, choice.dag.keep]
    keep = {} if choice.keep is None else {"keep": choice.keep}
    tree = {} if choice.parents is None else {"parents": list(choice.parents)}
    return {"rows": [list(row) for row in choice.rows], "kind": choice.kind, "dag": dag, **keep, **tree}


def _from_data(entry: object, where: str) -> Choice:
    form = (
        '"rows": [[option, ...], ...], "kind": name, "dag": [inputs, nodes, keep] or null, '
        'and perhaps "keep": number, "parents": [number, ...]'
    )
    wrong = UserError(f"{where}: a choice has {form}")
    if not isinstance(entry, dict):
        raise wrong
    rows, kind, dag, keep = entry.get("rows"), entry.get("kind", "op"), entry.get("dag"), entry.get("keep")
    tree = entry.get("parents")
    if not isinstance(rows, list) or not isinstance(kind, str) or not (dag is None or _is_dag(dag)):
        raise wrong
    if type(keep) not in (int, type(None)) or not (tree is None or isinstance(tree, list)):
        raise wrong
    if tree is not None and not all(type(parent) is int for parent in tree):
        raise wrong
    if not all(isinstance(row, list) and all(isinstance(option, str) for option in row) for row in rows):
        raise wrong
    topology = None if dag is None else Dag(*dag)
    if topology is not None and len(rows) != len(topology.edges()):
        raise UserError(f"{where}: {len(rows)} rows for {len(topology.edges())} edges")
    try:
        return Choice(tuple(map(tuple, rows)), kind, topology, keep, None if tree is None else tuple(tree))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _is_dag(value: object) -> bool:
    """[inputs, nodes], and perhaps the edges kept, which may be null."""
    if not isinstance(value, list) or len(value) not in (2, 3):
        return False
    counts = value if value[-1] is not None else value[:-1]
    return len(counts) >= 2 and all(type(count) is int and 0 < count < 1000 for count in counts)
