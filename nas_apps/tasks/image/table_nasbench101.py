"""The accuracies of NAS-Bench-101 (arXiv:1902.09635), looked up in the file of its authors that the user gives.

The file is a TFRecord: before each record its length in 8 bytes and 4 bytes of checksum, after it 4 more. A record is a
JSON list of fingerprint, epochs, matrix, operations, and the figures of one training as a protocol buffer in base64. It
is read without TensorFlow; checksums are not looked at.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.nasbench101 import Graph

KINDS = "nasbench_only108.tfrecord or nasbench_full.tfrecord of NAS-Bench-101"
EPOCHS = 108
LONGEST = 1 << 20
"""Bytes of a record; those of the benchmark have some hundred."""

_DAMAGED = (ValueError, LookupError, TypeError, struct.error)


def look_up(path: Path, graph: Graph) -> dict[str, float]:
    """The figures of a cell, which are those of any isomorphic one.

    They are `cifar10/valid` and `cifar10/test`, the accuracies in percent at the end of 108 epochs, the mean of the
    trainings there are (three in the benchmark), and `params`. The file is gone through once; only the records of the
    cell are decoded.
    """
    name = graph.fingerprint()
    start, trainings, number = f'["{name}"'.encode(), [], 0
    for number, record in enumerate(_records(path), 1):
        if not record.startswith(start):
            continue
        try:
            _, epochs, _, _, figures = json.loads(record)
            if epochs == EPOCHS:
                trainings.append(_figures(b64decode(figures)))
        except _DAMAGED as error:
            raise _another_kind(path, f"record {number} is damaged ({type(error).__name__})") from None
    if not trainings:
        raise UserError(f"{path}: no cell {name} of {EPOCHS} epochs among its {number} records; allowed: {KINDS}")
    return {figure: fmean(training[figure] for training in trainings) for figure in trainings[0]}


def _records(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while head := file.read(12):
                length = int.from_bytes(head[:8], "little")
                if length > LONGEST:
                    raise _another_kind(path, f"no record starts at byte {file.tell() - len(head)}")
                record = file.read(length + 4)
                if len(record) != length + 4:
                    raise _another_kind(path, f"its last record is cut off at byte {file.tell()}")
                if not record.startswith(b'["'):
                    raise _another_kind(path, f"a record starts with {record[:16]!r}")
                yield record[:-4]
    except OSError as error:
        raise _another_kind(path, error.strerror or type(error).__name__) from None


def _figures(message: bytes) -> dict[str, float]:
    """The figures of a ModelMetrics: field 1, an evaluation at the start, halfway and at the end; field 2, parameters.

    In an evaluation, fields 4 and 5 are the validation and the test accuracy, 0 to 1.
    """
    evaluations = [value for number, value in _fields(message) if number == 1]
    params = dict(_fields(message))[2]
    last = dict(_fields(evaluations[2]))
    return {"cifar10/valid": 100 * last[4], "cifar10/test": 100 * last[5], "params": float(params)}


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer in its wire format: number, and an integer, a double or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
        elif kind == 1:
            yield number, struct.unpack_from("<d", message, at)[0]
            at += 8
        elif kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field goes on after the end")
            yield number, message[at : at + length]
            at += length
        else:
            raise ValueError(f"no field of ModelMetrics is of the wire type {kind}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """An integer in groups of 7 bits, the low ones first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _another_kind(path: Path, got: str) -> UserError:
    return UserError(f"{path}: not a NAS-Bench-101 table: {got}; allowed: {KINDS}")
