"""A look-up in NAS-Bench-101 averages the trainings of a cell, read from a file in the layout of its authors.

The files are synthetic: a few cells with invented accuracies, written as TFRecords of JSON and protocol buffers.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from pathlib import Path

import pytest
import torch

from nas_apps.core import runs
from nas_apps.core.config import load
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random
from nas_apps.tasks.image.nasbench101 import Graph, graph_of
from nas_apps.tasks.image.spaces import SPACES
from nas_apps.tasks.image.table_nasbench101 import look_up

ALLOWED = "allowed: nasbench_only108.tfrecord or nasbench_full.tfrecord of NAS-Bench-101"


def drawn(number: int, seed: int) -> Genotype:
    return Random()(SPACES[f"nasbench1shot1_{number}"].choices(), {}, torch.Generator().manual_seed(seed))


def cell(number: int, seed: int) -> Graph:
    return graph_of(SPACES[f"nasbench1shot1_{number}"], drawn(number, seed))


A, B = cell(1, 0), cell(3, 1)


def varint(value: int) -> bytes:
    groups = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def evaluation(epoch: float, accuracy: float) -> bytes:
    """An EvaluationData: train, validation and test accuracy are `accuracy`, 0.01 less and 0.02 less."""
    numbers = (epoch, 1000.0, accuracy, accuracy - 0.01, accuracy - 0.02)
    doubles = b"".join(bytes([number << 3 | 1]) + struct.pack("<d", v) for number, v in enumerate(numbers, 1))
    return doubles + b"\x32\x03abc"  # field 6, a path


def metrics(accuracy: float, epochs: float, params: int) -> bytes:
    """A ModelMetrics, evaluated at the start, halfway and at the end."""
    parts = [evaluation(0, 0.1), evaluation(epochs / 2, 0.5), evaluation(epochs, accuracy)]
    message = b"".join(b"\x0a" + varint(len(part)) + part for part in parts)
    return message + b"\x10" + varint(params) + b"\x19" + struct.pack("<d", 1234.5)


def record(graph: Graph, accuracy: float, *, epochs: int = 108, params: int = 8_555_530) -> bytes:
    matrix = "".join(str(bit) for row in graph.matrix for bit in row)
    figures = b64encode(metrics(accuracy, epochs, params)).decode()
    return json.dumps([graph.fingerprint(), epochs, matrix, ",".join(graph.ops), figures]).encode()


def framed(*records: bytes) -> bytes:
    return b"".join(struct.pack("<Q", len(r)) + b"\0sum" + r + b"sum\0" for r in records)


RECORDS = [record(B, 0.5), record(A, 0.95), record(A, 0.93, params=8_555_530), record(A, 0.94), record(B, 0.7)]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "nasbench_only108.tfrecord"
    path.write_bytes(content)
    return path


def test_the_figures_are_means_in_percent_over_the_trainings_of_the_cell(tmp_path: Path) -> None:
    path = write(tmp_path, framed(*RECORDS))
    assert look_up(path, A) == pytest.approx({"cifar10/valid": 93, "cifar10/test": 92, "params": 8_555_530})
    assert look_up(path, B) == pytest.approx({"cifar10/valid": 59, "cifar10/test": 58, "params": 8_555_530})


def test_only_trainings_of_108_epochs_count(tmp_path: Path) -> None:
    shorter = [record(A, 0.2, epochs=epochs) for epochs in (4, 12, 36)]
    assert look_up(write(tmp_path, framed(*shorter, *RECORDS)), A)["cifar10/test"] == pytest.approx(92)
    with pytest.raises(UserError, match=f"no cell {A.fingerprint()} of 108 epochs among its 3 records; {ALLOWED}"):
        look_up(write(tmp_path, framed(*shorter)), A)


def test_a_run_looks_its_own_cell_up(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        made = load([], ["task=image", f"task.space=nasbench1shot1_{number}"])
        path = write(tmp_path, framed(*RECORDS, record(cell(number, 7), 0.9)))
        figures = made.task.look_up(drawn(number, 7), path)
        assert figures == pytest.approx({"cifar10/valid": 89, "cifar10/test": 88, "params": 8_555_530})


def test_a_run_folder_keeps_what_was_looked_up(tmp_path: Path) -> None:
    import nas_apps

    tiny = ["search.epochs=0", "search.network.cells=1", "task.train_images=64", "device=cpu", "variant=random"]
    made = load([], ["task=image", "task.space=nasbench1shot1_2", *tiny])
    genotype = nas_apps.search(made, tmp_path / "run")
    path = write(tmp_path, framed(record(graph_of(SPACES["nasbench1shot1_2"], genotype), 0.9)))
    figures = runs.look_up(tmp_path / "run", path)
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert {f"table/{name}": value for name, value in figures.items()}.items() <= kept.items()


def test_a_space_of_no_benchmark_is_refused(tmp_path: Path) -> None:
    made = load([], ["task=image", "task.space=s1"])
    with pytest.raises(UserError, match=r"a table of a benchmark's cells, and this run's space is 's1'$"):
        made.task.look_up(Genotype({}), write(tmp_path, framed(*RECORDS)))


def without(part: bytes) -> bytes:
    """A's record with a damaged figure."""
    name, epochs, matrix, ops, _ = json.loads(RECORDS[1])
    return json.dumps([name, epochs, matrix, ops, b64encode(part).decode()]).encode()


WHOLE = metrics(0.9, 108, 5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no cell .* among its 0 records"),
        (framed(*RECORDS)[:-5], "its last record is cut off at byte"),
        (framed(*RECORDS)[:20], "its last record is cut off at byte 20"),
        (framed(b'{"a": 1}'), r"a record starts with b'\{\"a\": 1\}"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "no record starts at byte 0"),
        (framed(RECORDS[1][:-9]), r"record 1 is damaged \(JSONDecodeError\)"),
        (framed(RECORDS[0], json.dumps([A.fingerprint(), 108]).encode()), r"record 2 is damaged \(ValueError\)"),
        (framed(without(b"")), r"record 1 is damaged \(KeyError\)"),
        (framed(without(WHOLE[:40])), r"record 1 is damaged \(ValueError\)"),
        (framed(without(WHOLE[:-3])), r"record 1 is damaged \(error\)"),
        (framed(without(b"\x10\x80")), r"record 1 is damaged \(IndexError\)"),
        (framed(without(b"\x13" + WHOLE)), r"record 1 is damaged \(ValueError\)"),
    ],
    ids=["empty", "cut", "short", "json", "png", "text", "list", "nothing", "field", "double", "varint", "wire_type"],
)
def test_a_file_of_another_kind_or_damaged_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=said) as error:
        look_up(path, A)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith(ALLOWED)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"missing: not a NAS-Bench-101 table: No such file or directory; {ALLOWED}"):
        look_up(tmp_path / "missing", A)
    with pytest.raises(UserError, match="Is a directory"):
        look_up(tmp_path, A)
