"""CIFAR-10 and CIFAR-100 in their original python layout."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.arrays import Arrays, Half
from nas_apps.tasks.image.images import Constants


class _Layout(NamedTuple):
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str
    constants: Constants


_LAYOUTS = (
    _Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test_batch",
        "batches.meta",
        "labels",
        "label_names",
        ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    ),
    _Layout(
        "cifar-100-python",
        ("train",),
        "test",
        "meta",
        "fine_labels",
        "fine_label_names",
        ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ),
)

# What unpickling a batch needs, under every name that numpy 1, numpy 2 and both Pythons have written it.
_rebuild, _from_buffer = np.empty(0).__reduce__()[0], np.empty(0).__reduce_ex__(5)[0]
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _rebuild,
    ("numpy._core.multiarray", "_reconstruct"): _rebuild,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): str.encode,
}

# All that a file which is cut short or is something else can make an unpickler raise.
_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError, MemoryError, OSError)


class _Forbidden(Exception):
    """A pickle that asks for more than a batch of images needs."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that builds arrays, containers, numbers and strings, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise _Forbidden(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_cifar(path: Path) -> Arrays | None:
    """The data set at a path, which is the layout's own folder or the one that holds it; None where there is none."""
    found = [(layout, folder) for layout in _LAYOUTS if (folder := _folder(path, layout))]
    if len(found) > 1:
        names = " and ".join(layout.folder for layout, _ in found)
        raise UserError(f"{path}: holds {names}; give the path of one of them")
    return _read(*found[0]) if found else None


def _folder(path: Path, layout: _Layout) -> Path | None:
    if (path / layout.folder).is_dir():
        return path / layout.folder
    renamed = all((path / name).is_file() for name in (layout.train[0], layout.test))
    return path if path.name == layout.folder or renamed else None


def _read(layout: _Layout, folder: Path) -> Arrays:
    meta = _unpickle(folder / layout.meta)
    names = meta.get(layout.names)
    if not isinstance(names, list) or not names:
        raise UserError(f"{folder / layout.meta}: no list {layout.names!r}; found: {', '.join(sorted(meta))}")
    batches = [_batch(folder / name, layout.labels, len(names)) for name in layout.train]
    train = Half(torch.cat([batch.pixels for batch in batches]), torch.cat([batch.labels for batch in batches]))
    test = _batch(folder / layout.test, layout.labels, len(names))
    return Arrays(train, test, tuple(map(_text, names)), layout.constants)


def _batch(path: Path, key: str, num_classes: int) -> Half:
    batch = _unpickle(path)
    data, labels = batch.get("data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        found = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else "no array"
        raise UserError(f"{path}: 'data' is {found}; allowed: uint8 [N, 3072]")
    numbers = _whole_numbers(labels)
    if numbers is None or len(numbers) != len(data) or not len(data):
        found = f"{len(labels)} labels" if isinstance(labels, (list, np.ndarray)) else "no labels"
        raise UserError(f"{path}: {len(data)} images and {found} {key!r}; allowed: one number for each image")
    if numbers.min() < 0 or numbers.max() >= num_classes:
        raise UserError(f"{path}: {key!r} from {numbers.min()} to {numbers.max()}; allowed: 0 to {num_classes - 1}")
    pixels = np.array(data).reshape(-1, 3, 32, 32)
    return Half(torch.from_numpy(pixels), torch.from_numpy(numbers))


def _whole_numbers(labels: object) -> NDArray[np.int64] | None:
    whole = isinstance(labels, Sequence) and all(isinstance(label, (int, np.integer)) for label in labels)
    if whole or (isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and labels.ndim == 1):
        return np.asarray(labels, dtype=np.int64)
    return None


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; unpack the archive again") from None
    except _Forbidden as error:
        raise UserError(f"{path}: not a CIFAR file: its pickle asks for {error}, which was not run") from None
    except _BROKEN:
        raise UserError(f"{path}: cut short, or not a CIFAR file; unpack the archive again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a CIFAR file: it holds a {type(content).__name__}; allowed: a dict")
    return {_text(key): value for key, value in content.items()}


def _text(name: object) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)
