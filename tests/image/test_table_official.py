"""A look-up in the official files averages over the seeds, and nothing in a file is executed.

The files are synthetic: a few cells with invented accuracies, in the layout of NAS-Bench-201-v1_*.pth and of
NATS-tss-v1_0-3ffb9-simple.
"""

from __future__ import annotations

import bz2
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.table import Table

A = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
B = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
UNSEEN = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
SIZES = {"cifar10-valid": 0.129306, "cifar10": 0.129306, "cifar100": 0.135156, "ImageNet16-120": 0.136456}
PARTS = {"cifar10-valid": ["x-valid", "ori-test"], "cifar10": ["ori-test"]}


def run(data: str, seed: int, epochs: int, last: float) -> dict[str, Any]:
    """One training, whose accuracy after the last epoch is `last`, 1 more and 2 more in its evaluated sets."""
    parts = PARTS.get(data, ["ori-test", "x-valid", "x-test"])
    accuracies = {f"{part}@{epochs - 1}": last + place for place, part in enumerate(parts)}
    accuracies |= {f"{parts[0]}@{epoch}": 1.0 for epoch in range(epochs - 1)}
    return {
        "name": data, "seed": f"{seed:04d}", "epochs": epochs, "net_state_dict": None, "latency": [np.float64(0.01)],
        "params": np.float64(SIZES[data]), "flop": 15.64737, "eval_names": parts, "eval_acc1es": accuracies,
        "train_times": OrderedDict((epoch, 7.0) for epoch in range(epochs)), "train_acc5es": None,
        "arch_config": {"channel": 16, "num_cells": 5, "class_num": 10},
    }  # fmt: skip


def state(index: int, epochs: int, seeds: dict[str, list[int]]) -> dict[str, Any]:
    """One cell at one budget, whose accuracy with seed 777 is 77.7 + index, and so on."""
    results = {
        (data, seed): run(data, seed, epochs, seed / 10 + index) for data, used in seeds.items() for seed in used
    }
    return {"arch_index": index, "arch_str": (A, B)[index], "all_results": results, "dataset_seed": seeds}


def records() -> list[dict[str, Any]]:
    """Two cells as in v1_0: the first with several seeds, the short budget on one data set only."""
    all_data = dict.fromkeys(SIZES, [777])
    several = all_data | {"cifar10": [777, 888], "cifar100": [777, 888, 999]}
    less = {"cifar10-valid": [111, 777]}
    return [{"full": state(i, 200, s), "less": state(i, 12, less)} for i, s in enumerate((several, all_data))]


def content() -> dict[str, Any]:
    return {
        "meta_archs": [A, B, UNSEEN], "total_archs": 3, "arch2infos": dict(enumerate(records())),
        "evaluated_indexes": [0, 1],
    }  # fmt: skip


def save_archive(path: Path, data: object, *, zipped: bool = False) -> Path:
    """Write as torch.save does now, or as it did when the official files were written, numpy's name included."""
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    if not zipped:
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    return path


def save_folder(path: Path) -> Path:
    path.mkdir()
    files = {"meta": {"meta_archs": [A, B, UNSEEN], "total_archs": 3, "arch2infos": None, "evaluated_indexes": set()}}
    for index, record in enumerate(records()):
        files[f"{index:06d}"] = OrderedDict({"12": record["less"], "200": record["full"]})
    for name, data in files.items():
        put(path / f"{name}.pickle.pbz2", data)
    return path


def put(path: Path, data: object) -> None:
    path.write_bytes(bz2.compress(pickle.dumps(data, protocol=4)))


@pytest.fixture(params=["official", "zip", "folder"])
def official(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        return save_folder(tmp_path / "NATS-tss-v1_0-3ffb9-simple")
    return save_archive(tmp_path / "NAS-Bench-201-v1_0-e61699.pth", content(), zipped=request.param == "zip")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


def test_figures_are_means_over_the_seeds_after_the_last_epoch(official: Path) -> None:
    table = Table.load(official)
    assert table.look_up(A) == pytest.approx(
        {
            "cifar10/valid": 77.7, "cifar10/test": (77.7 + 88.8) / 2,
            "cifar100/valid": (77.7 + 88.8 + 99.9) / 3 + 1, "cifar100/test": (77.7 + 88.8 + 99.9) / 3 + 2,
            "imagenet16-120/valid": 78.7, "imagenet16-120/test": 79.7,
            "cifar10/params": 129306, "cifar100/params": 135156, "imagenet16-120/params": 136456,
            "cifar10/flops": 15647370, "cifar100/flops": 15647370, "imagenet16-120/flops": 15647370,
        }
    )  # fmt: skip
    assert table.look_up(B)["cifar10/test"] == pytest.approx(78.7)


def test_the_short_budget_gives_what_the_file_has(official: Path) -> None:
    assert Table.load(official, epochs=12).look_up(A) == pytest.approx({"cifar10/valid": (11.1 + 77.7) / 2})


def test_a_cell_that_was_not_evaluated_is_an_error(official: Path) -> None:
    with pytest.raises(UserError, match=r"no cell .* among its 2; a cell is|000002\.pickle\.pbz2: .* No such file"):
        Table.load(official).look_up(UNSEEN)


@pytest.mark.parametrize("zipped", [True, False])
def test_an_archive_cut_anywhere_is_one_clear_line(tmp_path: Path, zipped: bool) -> None:
    path = save_archive(tmp_path / "cut.pth", content(), zipped=zipped)
    whole = path.read_bytes()
    for length in range(20, len(whole) - 200, len(whole) // 23):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pth: cannot read a table: truncated, damaged") as error:
            Table.load(path)
        assert "\n" not in str(error.value)


def test_a_cell_file_cut_anywhere_is_one_clear_line(tmp_path: Path) -> None:
    table = Table.load(save_folder(tmp_path / "simple"))
    path = tmp_path / "simple/000000.pickle.pbz2"
    whole = path.read_bytes()
    raw = bz2.decompress(whole)
    broken = [whole[:length] for length in range(0, len(whole) - 12, len(whole) // 9)]
    broken += [bz2.compress(raw[:length]) for length in range(0, len(raw), len(raw) // 23)]
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"000000\.pickle\.pbz2: cannot read a table: truncated, damaged"):
            table.look_up(A)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_an_archive_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_archive(tmp_path / "trap.pth", content() | {"total_archs": Trap()}, zipped=zipped)
    with pytest.raises(UserError, match=r"with foreign objects \(UnpicklingError\)"):
        Table.load(path)
    assert not (tmp_path / "trapped").exists()


def test_nothing_in_a_folder_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = Table.load(save_folder(tmp_path / "simple"))
    put(tmp_path / "simple/000000.pickle.pbz2", Trap())
    with pytest.raises(UserError, match=r"with foreign objects \(UnpicklingError\)"):
        table.look_up(A)
    put(tmp_path / "simple/meta.pickle.pbz2", {"meta_archs": np.zeros(3)})
    with pytest.raises(UserError, match=r"with foreign objects \(UnpicklingError\)"):
        Table.load(tmp_path / "simple")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1, 2], "holds a list, no table of meta_archs, arch2infos"),
        ({"state_dict": {}, "epoch": 3}, r"no list 'meta_archs' among its keys \['state_dict', 'epoch'\]"),
        ({"meta_archs": [A], "arch2infos": None}, "no dict 'arch2infos' among its keys"),
        ({"meta_archs": [A], "arch2infos": {0: {"full": 3}}}, r"without a record of 200 epochs \(TypeError\)"),
        ({"meta_archs": [A], "arch2infos": {0: {"90": {}}}}, r"without a record of 200 epochs \(StopIteration\)"),
    ],
)
def test_another_torch_file_says_what_it_holds(tmp_path: Path, data: object, said: str) -> None:
    with pytest.raises(UserError, match=rf"other\.pth: not a NAS-Bench-201 table: .*{said}.*; allowed: a parquet"):
        Table.load(save_archive(tmp_path / "other.pth", data))
