"""Settings as plain data: dataclasses and parts from what a recipe says, and written out again."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nas_apps.core.errors import UserError, unknown
from nas_apps.core.parts.derive import RULES, Rule
from nas_apps.core.parts.drop import DROPS, Drop
from nas_apps.core.parts.penalty import PENALTIES, Penalty
from nas_apps.core.parts.perturb import PERTURBATIONS, Perturbation
from nas_apps.core.parts.relax import RELAXATIONS
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.schedule import SCHEDULES, Schedule
from nas_apps.core.parts.stop import STOPS, StopRule
from nas_apps.core.parts.wiring import WIRINGS, Wiring

TABLES: dict[Any, Mapping[str, type]] = {
    Relaxation: RELAXATIONS,
    Wiring: WIRINGS,
    Drop: DROPS,
    Perturbation: PERTURBATIONS,
    Penalty: PENALTIES,
    Schedule: SCHEDULES,
    StopRule: STOPS,
    Rule: RULES,
}

_CHECKS = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
_WORDS = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", type(None): "null"}


def from_plain(
    kind: type, node: Mapping[str, Any], path: str, *, name: str | None = None, fixed: Mapping[str, Any] | None = None
) -> Any:
    """A dataclass from its fields as plain data; a UserError with the path and what is allowed for what is not right.

    Args:
        name: of the task, variant or part that the dataclass is, for what may be set on it.
        fixed: fields that the node does not set.
    """
    hints, fixed = hints_of(kind), fixed or {}
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init and field.name not in fixed}
    where, allowed = (path, fields or ["nothing"]) if name is None else (f"{path} ({name})", ["name", *fields])
    for key in node:
        if key not in fields:
            raise unknown(where, key, allowed)
    for key, field in fields.items():
        if key not in node and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{path}.{key}: not given; allowed: {in_words(hints[key])}")
    values = {key: convert(hints[key], value, f"{path}.{key}") for key, value in node.items()}
    try:
        return kind(**values, **fixed)
    except ValueError as error:
        raise UserError(f"{path}: {error}" if " " in str(error).split(":")[0] else f"{path}.{error}") from None


def convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as what `hint` says: a part by its name, a dataclass by its fields, anything else by pydantic."""
    kinds = _kinds(hint)
    if value is None and type(None) in kinds:
        return None
    items = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
    if items in TABLES or dataclasses.is_dataclass(items):
        if not isinstance(value, list | tuple):
            raise UserError(f"{path}: got {value!r}; allowed: {in_words(hint)}")
        return tuple(convert(items, item, f"{path}[{index}]") for index, item in enumerate(value))
    for kind in kinds:
        if kind in TABLES:
            return _part(TABLES[kind], value, path, ["null"] if type(None) in kinds else [])
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return from_plain(typing.cast(type, kind), value, path)
    try:
        if dataclasses.is_dataclass(hint) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError
        return TypeAdapter(hint, config=_CHECKS).validate_python(value)
    except (ValidationError, TypeError):
        raise UserError(f"{path}: got {value!r}; allowed: {in_words(hint)}") from None


def known(where: str, name: object, allowed: Collection[str], others: Iterable[str] = ()) -> str:
    """`name`, if it is one of `allowed`; `others` are what else the user could write."""
    if name is None:
        raise UserError(f"{where}: not given; allowed: {', '.join(sorted([*allowed, *others]))}")
    if not isinstance(name, str) or name not in allowed:
        raise unknown(where, name, [*allowed, *others])
    return name


def mapping(node: Any, path: str) -> Mapping[str, Any]:
    """`node`, if it is a table of keys."""
    if not isinstance(node, Mapping):
        raise UserError(f"{path}: got {node!r}; allowed: a table of keys")
    return node


def to_plain(value: Any) -> Any:
    """A value as plain data; a part with its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [name for table in TABLES.values() for name, kind in table.items() if kind is type(value)]
        data = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"name": names[0], **data} if names else data
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, tuple | list) else value


def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass' fields."""
    get: Callable[[Any], dict[str, Any]] = typing.get_type_hints
    return get(kind)


def in_words(hint: Any) -> str:
    """What a type takes, for a user.

    >>> in_words(int | None), in_words(tuple[float, float])
    ('an integer or null', 'a list of 2: a finite number, a finite number')
    """
    kinds, arguments = _kinds(hint), typing.get_args(hint)
    if len(kinds) > 1:
        return " or ".join(map(in_words, kinds))
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(str, arguments))
    if typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {in_words(arguments[0])}"
    if typing.get_origin(hint) is tuple:
        return f"a list of {len(arguments)}: {', '.join(map(in_words, arguments))}"
    if dataclasses.is_dataclass(hint):
        return f"a table of {', '.join(field.name for field in dataclasses.fields(hint))}"
    return _WORDS.get(hint) or ", ".join(TABLES.get(hint, [str(hint)]))


def _part(table: Mapping[str, type], value: Any, path: str, others: Iterable[str]) -> Any:
    settings = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = settings.pop("name", None)
    name = known(f"{path}.name", name, table) if name is None else known(path, name, table, others)
    return from_plain(table[name], settings, path, name=name)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
