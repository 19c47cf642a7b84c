"""The accuracies of NAS-Bench-201 (arXiv:2001.00326), looked up in a file that the user gives."""

from __future__ import annotations

import csv
import math
import reprlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import final

from nas_apps.core.errors import UserError, unknown
from nas_apps.tasks.image.table_official import BUDGETS, SETS, Figures, Rows, another_kind, archive, damaged, folder

NUM_CELLS = 5**6

# How the columns of a parquet or csv call the data sets.
_SHORT = {"cifar10": "c10", "cifar100": "c100", "imagenet16-120": "in16"}
_CELL = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2| of none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3"


@final
@dataclass(frozen=True)
class Table:
    """NAS-Bench-201's cells, each with its figures after one training budget.

    Figures are `{cifar10,cifar100,imagenet16-120}/{valid,test,params,flops}`: accuracies in percent (0 to 100), the
    mean over the benchmark's seeds after the last epoch, then the number of parameters and of operations. Operations
    are as the file counts them: the official files count convolutions and the classifier, a parquet may add
    normalisation. A figure that the file does not have is left out.
    """

    path: Path
    rows: Mapping[str, int]
    figures: Callable[[int], Figures]

    @classmethod
    def load(cls, path: Path, *, epochs: int = 200) -> Table:
        """The table in a parquet, a csv, the official archive or a NATS-Bench folder.

        Parquet and csv have a column `arch` and any of `{c10,c100,in16}_{valid,test}_{12,200}` in percent,
        `params_{c10,c100,in16}` and `flops_{c10,c100,in16}`. The official archive is read whole: about 12 minutes and
        40 GB of memory for v1_1. Of a NATS-Bench folder only the cells looked up are read.
        """
        if epochs not in BUDGETS:
            raise unknown("epochs", epochs, map(str, BUDGETS))
        if path.is_dir():
            return cls(path, *folder(path, epochs))
        try:
            with path.open("rb") as file:
                head = file.read(16)
        except OSError as error:
            raise damaged(path, error) from None
        for start, read in _STARTS.items():
            if head.startswith(start):
                return cls(path, *read(path, epochs))
        try:
            return cls(path, *_csv(path, epochs))
        except (UnicodeDecodeError, csv.Error):
            raise another_kind(path, f"a file that starts with {head!r}") from None

    def look_up(self, arch_string: str) -> Figures:
        """The figures of a cell, by its exact official string: isomorphic cells have rows of their own."""
        if arch_string not in self.rows:
            raise UserError(f"{self.path}: no cell {arch_string!r} among its {len(self.rows)}; a cell is {_CELL}")
        return self.figures(self.rows[arch_string])


def best(table: Table) -> Figures:
    """The highest value of each accuracy in the benchmark, whichever cell has it.

    It reads every cell, which takes minutes for a NATS-Bench folder.
    """
    if len(table.rows) != NUM_CELLS:
        raise UserError(f"{table.path}: {len(table.rows)} cells; the best of the benchmark needs all {NUM_CELLS}")
    top: Figures = {}
    for row in table.rows.values():
        for name, value in table.figures(row).items():
            if name in SETS:
                top[name] = max(value, top.get(name, value))
    return top


def _columns(path: Path, present: Sequence[str], epochs: int) -> dict[str, str]:
    """The column of each figure that a file with the columns `present` has."""
    columns = {name: f"{_SHORT[name.split('/')[0]]}_{name.split('/')[1]}_{epochs}" for name in SETS}
    costs = {f"{data}/{cost}": f"{cost}_{short}" for data, short in _SHORT.items() for cost in ("params", "flops")}
    if "arch" not in present or not set(columns.values()) & set(present):
        needed = f"arch and any of {', '.join(columns.values())}"
        raise another_kind(path, f"its columns are {reprlib.repr(list(present))} instead of {needed}")
    return {name: column for name, column in (columns | costs).items() if column in present}


def _columnar(path: Path, archs: Sequence[str], columns: Mapping[str, Sequence[float]]) -> Rows:
    def figures(row: int) -> Figures:
        values = {name: column[row] for name, column in columns.items()}
        return {name: value for name, value in values.items() if not math.isnan(value)}

    rows = {arch: row for row, arch in enumerate(archs)}
    if len(rows) != len(archs):
        raise UserError(f"{path}: {len(archs)} rows of {len(rows)} cells; allowed: one row a cell")
    return rows, figures


def _parquet(path: Path, epochs: int) -> Rows:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(f"{path}: a parquet needs pyarrow: pip install 'nas-apps[image]', or give a csv") from None
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow.names, epochs)
            table = file.read(columns=["arch", *columns.values()])
        archs = table["arch"].cast("string").to_pylist()
        numbers = {name: table[column].cast("double").fill_null(math.nan) for name, column in columns.items()}
    except (arrow.ArrowException, OSError) as error:
        raise damaged(path, error) from None
    return _columnar(path, archs, {name: array("d", column.to_pylist()) for name, column in numbers.items()})


def _csv(path: Path, epochs: int) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        columns = _columns(path, header, epochs)
        archs: list[str] = []
        numbers = {name: array("d") for name in columns}
        for line in filter(None, lines):
            where = f"{path}:{lines.line_num}"
            if len(line) != len(header):
                raise UserError(f"{where}: {len(line)} fields; allowed: {len(header)}, as many as in the first line")
            archs.append(line[header.index("arch")])
            for name, column in columns.items():
                numbers[name].append(_number(where, column, line[header.index(column)]))
    return _columnar(path, archs, numbers)


def _number(where: str, column: str, text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise UserError(f"{where}: {column} is {text!r}; allowed: a number or nothing") from None


# How the files start that are no text: parquet, and torch.save's two containers (the official files have the older).
_STARTS: dict[bytes, Callable[[Path, int], Rows]] = {
    b"PAR1": _parquet,
    b"PK\x03\x04": archive,
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19": archive,
}
