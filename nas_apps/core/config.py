"""Recipes: YAML files and `key=value` overrides, checked whole before the first step."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError
from yaml import YAMLError

from nas_apps.core import files
from nas_apps.core.errors import UserError, unknown
from nas_apps.core.parts.derive import RULES, Rule
from nas_apps.core.parts.relax import RELAXATIONS, Relaxation
from nas_apps.core.parts.schedule import SCHEDULES, Schedule, Unrolled
from nas_apps.core.parts.wiring import WIRINGS, Wiring
from nas_apps.core.phase import Phase
from nas_apps.core.task import Task
from nas_apps.core.variants import VARIANTS, Variant

TABLES: dict[Any, Mapping[str, type]] = {Relaxation: RELAXATIONS, Wiring: WIRINGS, Schedule: SCHEDULES, Rule: RULES}


@dataclass(frozen=True)
class Recipe:
    """A task, a method and the sizes of its two phases: all that a run depends on.

    device: auto, cpu, cuda, cuda:N. precision: auto is bfloat16 on CUDA where it has it, float32 elsewhere.
    """

    task: Task
    variant_name: str
    variant: Variant
    search: Phase
    train: Phase
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def plain(self) -> dict[str, Any]:
        """The recipe as plain data, every default written out: what `recipe.yaml` in a run folder holds."""
        data = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        data["task"] = {"name": task_name(self.task), **data["task"]}
        data["variant"] = {"name": data.pop("variant_name"), **data["variant"]}
        for phase in ("search", "train"):
            data[phase].pop("name")
        return data


def load(sources: Sequence[str | Path], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of some YAML files, the later over the earlier, and `key=value` overrides over them all.

    >>> load([], ["task=toy", "variant=gdas", "search.epochs=3"]).search.epochs
    3
    """
    merged: Any = OmegaConf.create({})
    for source in sources:
        try:
            node = OmegaConf.create(files.read_text(Path(source), "a recipe"))
            merged = OmegaConf.unsafe_merge(merged, _named(node, str(source)))
        except (YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r}: an override is written key=value")
        try:
            merged = OmegaConf.unsafe_merge(merged, _named(OmegaConf.from_dotlist([override]), override))
        except (YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{override!r}: {' '.join(str(error).split())}") from None
    return build(typing.cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True)))


def build(data: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data; a UserError with the path and what is allowed for anything that is not right."""
    allowed = ["task", "variant", "search", "train", "seed", "device", "precision"]
    for key in data:
        if key not in allowed:
            raise unknown("recipe", key, allowed)
    task_type, task_node = find_task(_mapping(data.get("task"), "task"))
    task = _dataclass(task_type, task_node, "task")
    name, variant = _variant(_mapping(data.get("variant", {"name": "darts"}), "variant"))
    phases = {phase: _phase(task_type, phase, _mapping(data.get(phase, {}), phase)) for phase in ("search", "train")}
    rest = {key: _convert(hint, data[key], key) for key, hint in _hints(Recipe).items() if key in data and key in allowed[4:]}
    if isinstance(variant.schedule, Unrolled) and variant.schedule.exact and not task.twice_differentiable:
        raise UserError(
            f"variant.schedule: the loss of task {task_node_name(data)!r} has no second derivative; "
            "allowed: variant.schedule.exact=false (the paper's difference)"
        )
    if phases["search"].drop_path:
        raise UserError("search.drop_path: paths are dropped in the final training alone; allowed: train.drop_path")
    if not variant.schedule.searches:
        phases["search"] = dataclasses.replace(phases["search"], epochs=0)
    return Recipe(task, name, variant, phases["search"], phases["train"], **rest)


def find_task(node: Mapping[str, Any]) -> tuple[type[Task], dict[str, Any]]:
    """The task class a node names, and its settings without the name. Nothing is imported until it is asked for."""
    points = {point.name: point for point in entry_points(group="nas_apps.tasks")}
    name = node.get("name")
    if name not in points:
        raise unknown("task", name, points)
    try:
        task = points[name].load()
    except ModuleNotFoundError as error:
        raise UserError(f"task {name}: needs {error.name}, of an extra: pip install 'nas-apps[{name}]'") from None
    return task, {key: value for key, value in node.items() if key != "name"}


def task_name(task: Task) -> str:
    """The name of a task's entry point."""
    where = f"{type(task).__module__}:{type(task).__qualname__}"
    return next((point.name for point in entry_points(group="nas_apps.tasks") if point.value == where), where)


def task_node_name(data: Mapping[str, Any]) -> str:
    """The name a recipe gives its task."""
    return str(data["task"]["name"])


def _variant(node: Mapping[str, Any]) -> tuple[str, Variant]:
    settings = dict(node)
    name = settings.pop("name", "darts")
    if name not in VARIANTS:
        raise unknown("variant", name, VARIANTS)
    row = to_plain(VARIANTS[name])
    for key, given in settings.items():
        if key not in row:
            raise unknown("variant", key, row)
        given = {"name": given} if isinstance(given, str) else given
        base = row[key]
        same = isinstance(base, Mapping) and isinstance(given, Mapping) and given.get("name", base["name"]) == base["name"]
        row[key] = {**base, **given} if same else given
    return name, _dataclass(Variant, row, "variant")


def _phase(task: type[Task], name: str, node: Mapping[str, Any]) -> Phase:
    settings = dict(node)
    owners = {"network": task.network, "weights": task.weights, "data": task.batches}
    owned = {key: _mapping(settings.pop(key, {}), f"{name}.{key}") for key in owners}
    built = {key: _dataclass(kind, owned[key], f"{name}.{key}") for key, kind in owners.items()}
    fixed = {"name": name, **built}
    known = {field.name for field in dataclasses.fields(Phase)} - {"name"}
    for key in settings:
        if key not in known:
            raise unknown(name, key, known)
    phase: Phase = _dataclass(Phase, settings, name, fixed)
    return phase


def _dataclass(kind: type, node: Mapping[str, Any], path: str, fixed: Mapping[str, Any] | None = None) -> Any:
    hints = _hints(kind)
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    for key in node:
        if key not in fields:
            raise unknown(path, key, fields)
    values = {key: _convert(hints[key], value, f"{path}.{key}") for key, value in node.items()}
    try:
        return kind(**values, **(fixed or {}))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}" if " " in str(error).split(":")[0] else f"{path}.{error}") from None


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as what `hint` says: a part by its name, a dataclass by its fields, anything else by pydantic."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind in TABLES:
            return _part(TABLES[kind], {"name": value} if isinstance(value, str) else _mapping(value, path), path)
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return _dataclass(typing.cast(type, kind), value, path)
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{path}: got {value!r}; {error.errors()[0]['msg']}") from None


def _part(table: Mapping[str, type], node: Mapping[str, Any], path: str) -> Any:
    settings = dict(node)
    name = settings.pop("name", None)
    if name not in table:
        raise unknown(path, name, table)
    return _dataclass(table[name], settings, path)


def to_plain(value: Any) -> Any:
    """A value as plain data; a part with its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [name for table in TABLES.values() for name, kind in table.items() if kind is type(value)]
        data = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"name": names[0], **data} if names else data
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _named(node: Any, where: str) -> Any:
    """`task: image` is short for `task: {name: image}`, and so are a variant and its parts."""
    if not OmegaConf.is_dict(node):
        raise UserError(f"{where}: a recipe is a table of keys")
    for key in ("task", "variant"):
        if isinstance(node.get(key), str):
            node[key] = {"name": node[key]}
    variant = node.get("variant")
    for key in ("relax", "edges", "wiring", "schedule", "derive"):
        if OmegaConf.is_dict(variant) and isinstance(variant.get(key), str):
            variant[key] = {"name": variant[key]}
    return node


def _mapping(node: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(node, Mapping):
        raise UserError(f"{path}: got {node!r}; allowed: a table of keys")
    return node


def _hints(kind: type) -> dict[str, Any]:
    get: Callable[[Any], dict[str, Any]] = typing.get_type_hints
    return get(kind)
