"""What was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_apps.core.errors import UserError
from nas_apps.core.files import read_text, write_text
from nas_apps.core.space import Space, decided

FORMAT, VERSION = "nas_apps.genotype", 1


@dataclass(frozen=True)
class Genotype:
    """The options kept in each row of each choice: data, never code.

    A row that keeps nothing is an edge that is gone; a row that keeps two options has both. `meta` says where the
    genotype came from (recipe, step, metric) and takes no part in comparisons.

    >>> g = Genotype({"cell.op": (("conv",), ())})
    >>> Genotype.from_json(g.to_json()) == g
    True
    """

    kept: Mapping[str, tuple[tuple[str, ...], ...]]
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def validate(self, space: Space, where: str = "genotype") -> Genotype:
        """Itself, if it is of `space`; a UserError that names choice, row and option otherwise."""
        if set(self.kept) != set(decided(space)):
            raise UserError(
                f"{where}: of another space: it decides {', '.join(sorted(self.kept)) or 'nothing'}; "
                f"this space decides {', '.join(sorted(decided(space)))}"
            )
        for name, rows in self.kept.items():
            options = space[name].rows
            if len(rows) != len(options):
                raise UserError(f"{where}: {name} has {len(rows)} rows, this space {len(options)}")
            for index, row in enumerate(rows):
                for option in row:
                    if option not in options[index]:
                        raise UserError(f"{where}: {name}[{index}]: no option {option!r} in {options[index]}")
                if len(set(row)) < len(row):
                    raise UserError(f"{where}: {name}[{index}]: keeps an option twice: {', '.join(row)}")
                if space[name].keep not in (None, len(row)):
                    raise UserError(f"{where}: {name}[{index}]: keeps {len(row)}; allowed: {space[name].keep} options")
        return self

    def to_json(self) -> str:
        """The genotype as text, one row a line."""
        rows = {
            name: "[\n   " + ",\n   ".join(json.dumps(list(row)) for row in rows) + "\n  ]"
            for name, rows in self.kept.items()
        }
        kept = ",\n  ".join(f"{json.dumps(name)}: {text}" for name, text in rows.items())
        head = f'"format": {json.dumps(FORMAT)},\n "version": {VERSION}'
        return f'{{{head},\n "kept": {{\n  {kept}\n }},\n "meta": {json.dumps(dict(self.meta))}}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "genotype") -> Genotype:
        """A genotype read from its text; a UserError for text of another kind or version."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UserError(f'{where}: not a genotype (no "format": "{FORMAT}")')
        if data.get("version") != VERSION:
            raise UserError(f"{where}: genotype version {data.get('version')!r}; this release reads version {VERSION}")
        kept, meta = data.get("kept"), data.get("meta", {})
        if not isinstance(kept, dict) or not isinstance(meta, dict) or not all(map(_is_rows, kept.values())):
            raise UserError(f'{where}: "kept" is a table of rows of option names, "meta" an object')
        return cls({name: tuple(tuple(row) for row in rows) for name, rows in kept.items()}, meta)

    def save(self, path: Path) -> None:
        """Write the genotype, whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Genotype:
        """Read a genotype file."""
        return cls.from_json(read_text(path, "a genotype"), str(path))


def _is_rows(rows: object) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, list) and all(isinstance(option, str) for option in row) for row in rows
    )
