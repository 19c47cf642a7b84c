"""Recipes: YAML files and `key=value` overrides, checked whole before the first step."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from nas_apps.core import files
from nas_apps.core.errors import UserError, unknown
from nas_apps.core.parts.schedule import Unrolled
from nas_apps.core.phase import Phase
from nas_apps.core.refusals import refuse_search, search_space
from nas_apps.core.settings import convert, from_plain, hints_of, known, mapping, to_plain
from nas_apps.core.task import Task
from nas_apps.core.variants import VARIANTS, Variant

PARTS = ("relax", "edges", "widths", "wiring", "perturb", "schedule", "stop", "derive")


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

    A variant or part that a later source gives another name begins from its own defaults: what was set on the earlier
    one goes with it.

    >>> load([], ["task=toy", "variant=gdas", "search.epochs=3"]).search.epochs
    3
    """
    reads = [(str(path), partial(_file, Path(path))) for path in sources]
    reads += [(repr(text), partial(_override, text)) for text in overrides]
    merged: Any = OmegaConf.create({})
    for where, read in reads:
        try:
            merged = _over(merged, _named(read(), where))
        except (YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{where}: {_fault(error)}") from None
    try:
        return build(typing.cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True)))
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {_fault(error)}") from None


def build(data: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data; a UserError with the path and what is allowed for anything that is not right."""
    allowed = ["task", "variant", "search", "train", "seed", "device", "precision"]
    for key in data:
        if key not in allowed:
            raise unknown("recipe", key, allowed)
    task_type, task_name, settings = find_task(data.get("task"))
    task = from_plain(task_type, settings, "task", name=task_name)
    name, variant = _variant(data.get("variant", "darts"))
    nodes = {phase: dict(mapping(data.get(phase, {}), phase)) for phase in ("search", "train")}
    nodes["search"]["logits"] = _merged(variant.logits, nodes["search"].get("logits", {}))
    phases = {phase: _phase(task_type, phase, node) for phase, node in nodes.items()}
    hints = hints_of(Recipe)
    rest = {key: convert(hints[key], data[key], key) for key in ("seed", "device", "precision") if key in data}
    if isinstance(variant.schedule, Unrolled) and variant.schedule.exact and not task.twice_differentiable:
        raise UserError(
            f"variant.schedule: the loss of task {task_name!r} has no second derivative; "
            "allowed: variant.schedule.exact=false (the paper's difference)"
        )
    if phases["search"].drop_path:
        raise UserError(
            "search.drop_path: is of the final training alone; allowed: train.drop_path, variant.wiring.drop"
        )
    if task.on_policy and phases["train"].drop_path:
        raise UserError(
            "train.drop_path: an agent that learns on-policy would drop other things than it dropped when it acted; "
            "allowed here: 0"
        )
    if phases["train"].eigenvalue_every:
        raise UserError("train.eigenvalue_every: a final training has no logits; allowed: search.eigenvalue_every")
    for phase, asked in (("search", variant.schedule.searches), ("train", phases["train"].inherit is None)):
        if asked and phases[phase].epochs < 1:
            raise UserError(f"{phase}.epochs: got {phases[phase].epochs}; allowed: 1 and more")
    search_space(task, variant)
    refuse_search(variant, phases["search"])
    if not variant.schedule.searches:
        phases["search"] = dataclasses.replace(phases["search"], epochs=0)
    return Recipe(task, name, variant, phases["search"], phases["train"], **rest)


def find_task(node: Any) -> tuple[type[Task], str, dict[str, Any]]:
    """The task class a node names, its name, and its settings. Nothing is imported until it is asked for."""
    points = {point.name: point for point in entry_points(group="nas_apps.tasks")}
    settings = dict(node) if isinstance(node, Mapping) else {"name": node}
    name = known("task", settings.pop("name", None), points)
    try:
        return points[name].load(), name, settings
    except ModuleNotFoundError as error:
        raise UserError(f"task {name}: needs {error.name}, of an extra: pip install 'nas-apps[{name}]'") from None
    except UserError as error:
        raise UserError(f"task {name}: {error}") from None


def task_name(task: Task) -> str:
    """The name of a task's entry point."""
    where = f"{type(task).__module__}:{type(task).__qualname__}"
    return next((point.name for point in entry_points(group="nas_apps.tasks") if point.value == where), where)


def _variant(node: Any) -> tuple[str, Variant]:
    settings = dict(node) if isinstance(node, Mapping) else {"name": node}
    name = known("variant", settings.pop("name", "darts"), VARIANTS)
    row, fixed = to_plain(VARIANTS[name]), {key: getattr(VARIANTS[name], key) for key in ("cite", "logits")}
    for key in fixed:
        kept = row.pop(key)
        if settings.pop(key, kept) != kept:
            words = ", ".join(map(str, kept)) if isinstance(kept, list) else kept
            raise UserError(f"variant.{key}: goes with the name {name!r}; allowed: nothing, or {words}")
    for key, given in settings.items():
        if key not in row:
            raise unknown(f"variant ({name})", key, ["name", *row])
        row[key] = _merged(row[key], {"name": given} if isinstance(given, str) else given)
    return name, from_plain(Variant, row, "variant", name=name, fixed=fixed)


def _merged(base: Any, given: Any) -> Any:
    """`given` over `base`, table by table; a part of another name stands alone."""
    if not isinstance(base, Mapping) or not isinstance(given, Mapping):
        return given
    if given.get("name", base.get("name")) != base.get("name"):
        return given
    return {**base, **{key: _merged(base.get(key), value) for key, value in given.items()}}


def _phase(task: type[Task], name: str, node: Mapping[str, Any]) -> Phase:
    settings = dict(node)
    owners = {"network": task.network, "weights": task.weights, "data": task.batches}
    known_keys = {field.name for field in dataclasses.fields(Phase)} - {"name"}
    for key in settings:
        if key not in known_keys:
            raise unknown(name, key, known_keys)
    owned = {key: mapping(settings.pop(key, {}), f"{name}.{key}") for key in owners}
    built = {key: from_plain(kind, owned[key], f"{name}.{key}") for key, kind in owners.items()}
    phase: Phase = from_plain(Phase, settings, name, fixed={"name": name, **built})
    return phase


def _file(path: Path) -> Any:
    if not path.exists():
        raise UserError(f"{path}: no such recipe; allowed: YAML files, and overrides written key=value")
    return OmegaConf.create(files.read_text(path, "a recipe"))


def _override(text: str) -> Any:
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r}: an override is written key=value")
    return OmegaConf.from_dotlist([text])


def _over(merged: Any, node: Any) -> Any:
    both = OmegaConf.is_dict(merged.get("variant")) and OmegaConf.is_dict(node.get("variant"))
    for path in ("variant", *(f"variant.{part}" for part in PARTS)) if both else ():
        old, new = OmegaConf.select(merged, path), OmegaConf.select(node, path)
        named = OmegaConf.is_dict(old) and OmegaConf.is_dict(new) and "name" in old and "name" in new
        if named and old["name"] != new["name"]:
            OmegaConf.update(merged, path, {}, merge=False)
    return OmegaConf.unsafe_merge(merged, node)


def _fault(error: Exception) -> str:
    """What is wrong with some YAML, in one line."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"not YAML: {error.problem or error.context} (line {mark.line + 1}, column {mark.column + 1})"
    return str(error).splitlines()[0]


def _named(node: Any, where: str) -> Any:
    """`task: image` is short for `task: {name: image}`, and so are a variant and its parts."""
    if not OmegaConf.is_dict(node):
        raise UserError(f"{where}: a recipe is a table of keys")
    for key in ("task", "variant"):
        if isinstance(node.get(key), str):
            node[key] = {"name": node[key]}
    variant = node.get("variant")
    for key in PARTS:
        if OmegaConf.is_dict(variant) and isinstance(variant.get(key), str):
            variant[key] = {"name": variant[key]}
    return node
