"""The layouts in which NAS-Bench-201 (arXiv:2001.00326) and NATS-Bench (arXiv:2009.00437) are published.

Nothing of a user's file is executed: an archive is read with weights_only, a pickle by a reader that knows four names.
"""

from __future__ import annotations

import bz2
import pickle
import reprlib
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, final

import torch

from nas_apps.core.errors import UserError

Figures = dict[str, float]
Rows = tuple[Mapping[str, int], Callable[[int], Figures]]

# Training set and evaluated set of each accuracy. CIFAR-10's validation accuracy is of a training on half of the images
# ("cifar10-valid"), its test accuracy of a training on all of them. The other two data sets are trained on all images;
# x-valid and x-test are the halves of their test set (ori-test).
SETS = {
    "cifar10/valid": ("cifar10-valid", "x-valid"),
    "cifar10/test": ("cifar10", "ori-test"),
    "cifar100/valid": ("cifar100", "x-valid"),
    "cifar100/test": ("cifar100", "x-test"),
    "imagenet16-120/valid": ("ImageNet16-120", "x-valid"),
    "imagenet16-120/test": ("ImageNet16-120", "x-test"),
}
# What the training of so many epochs is called in NAS-Bench-201 and in NATS-Bench.
BUDGETS = {12: ("less", "12"), 200: ("full", "200")}
KINDS = "a parquet or csv with a column arch, NAS-Bench-201-v1_*.pth, the folder NATS-tss-v1_0-3ffb9-simple"

# A damaged pickle can fail at any step of its decoder.
_DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, struct.error, LookupError, TypeError, ValueError,
            AttributeError, AssertionError, ArithmeticError, MemoryError)  # fmt: skip


def another_kind(path: Path, got: str) -> UserError:
    """The error for a file that is no table."""
    return UserError(f"{path}: not a NAS-Bench-201 table: {got}; allowed: {KINDS}")


def damaged(path: Path, error: BaseException) -> UserError:
    """The error for a file that starts like a table and cannot be read to its end."""
    if isinstance(error, MemoryError):
        return UserError(f"{path}: does not fit in memory; allowed: {KINDS}")
    found = f"truncated, damaged or with foreign objects ({type(error).__name__})"
    if isinstance(error, (FileNotFoundError, PermissionError)):
        found = str(error.strerror)
    return UserError(f"{path}: cannot read a table: {found}; allowed: {KINDS}")


def archive(path: Path, epochs: int) -> Rows:
    """The rows of NAS-Bench-201-v1_*.pth: `meta_archs` are the cells' strings, `arch2infos` their records by index."""
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise damaged(path, error) from None
    archs, records = _fields(path, content, meta_archs=list, arch2infos=dict)
    figures = {row: _of_record(path, record, epochs) for row, record in records.items()}
    return {arch: row for row, arch in enumerate(archs) if row in figures}, figures.__getitem__


def folder(path: Path, epochs: int) -> Rows:
    """The rows of NATS-tss-v1_0-3ffb9-simple: a file with the strings of all cells, then one file a cell."""
    meta = path / "meta.pickle.pbz2"
    if not meta.is_file():
        raise another_kind(path, f"a folder without {meta.name}")
    (archs,) = _fields(meta, _unpickle(meta), meta_archs=list)

    def figures(row: int) -> Figures:
        file = path / f"{row:06d}.pickle.pbz2"
        return _of_record(file, _unpickle(file), epochs)

    return {arch: row for row, arch in enumerate(archs)}, figures


def _fields(path: Path, content: object, **kinds: type) -> list[Any]:
    """The fields of a dictionary that has them, each of its kind."""
    if not isinstance(content, dict):
        raise another_kind(path, f"holds a {type(content).__name__}, no table of {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise another_kind(path, f"no {kind.__name__} {name!r} among its keys {reprlib.repr(list(content))}")
    return [content[name] for name in kinds]


def _of_record(path: Path, record: Any, epochs: int) -> Figures:  # noqa: ANN401
    """The figures of one cell in either official layout, averaged over its seeds.

    A record maps a budget to `dataset_seed` (the seeds of each data set) and `all_results`, which maps (data set,
    seed) to one run: its `epochs`, `eval_acc1es` in percent by "set@epoch", and `params` and `flop` in millions.
    """
    figures: Figures = {}
    try:
        state = next(record[name] for name in BUDGETS[epochs] if name in record)
        results, seeds = state["all_results"], state["dataset_seed"]
        for name, (data, part) in SETS.items():
            runs = [results[data, seed] for seed in seeds.get(data, ())]
            last = [run["eval_acc1es"].get(f"{part}@{run['epochs'] - 1}") for run in runs]
            if last and None not in last:
                figures[name] = fmean(last)
            if runs and name.endswith("/test"):
                figures[name.replace("/test", "/params")] = float(round(fmean(run["params"] for run in runs) * 1e6))
                figures[name.replace("/test", "/flops")] = float(round(fmean(run["flop"] for run in runs) * 1e6))
    except (*_DAMAGED, StopIteration) as error:
        raise another_kind(path, f"a cell without a record of {epochs} epochs ({type(error).__name__})") from None
    return figures


@final
@dataclass
class _Dtype:
    """Stand-in for a numpy type in a pickle: its code and byte order."""

    code: str
    align: object = None
    copy: object = None
    order: str = "<"

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = str(state[1])


def _scalar(dtype: _Dtype, raw: bytes) -> float:
    """Stand-in for numpy's constructor of a scalar in a pickle."""
    code = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}[dtype.code]
    return float(struct.unpack(dtype.order + code, raw)[0])


# All that a file may name. Not numpy's own, whose types trust the state that they are given.
_STAND_INS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}


@final
class _Unpickler(pickle.Unpickler):
    """A reader of pickles that calls the stand-ins only; overriding `find_class` is the documented way to say so."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The stand-in for a name in a pickle."""
        if f"{module}.{name}" not in _STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _STAND_INS[f"{module}.{name}"]


def _unpickle(path: Path) -> object:
    try:
        with bz2.open(path) as file:
            return _Unpickler(file).load()
    except _DAMAGED as error:
        raise damaged(path, error) from None
