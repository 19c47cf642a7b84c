"""A look-up in a parquet or a csv gives the figures of the row that the arch string names."""

from __future__ import annotations

import csv
import sys
from itertools import product
from pathlib import Path

import pytest

from nas_apps.core.errors import UserError
from nas_apps.tasks.image.table import NUM_CELLS, Table, best

PARQUET = Path(__file__).parents[3] / "shared/data/nasbench201/nb201.parquet"
OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
TESTS = ("cifar10/test", "cifar100/test", "imagenet16-120/test")


def cell(*ops: str) -> str:
    a, b, c, d, e, f = ops
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


SKIP = cell(*["skip_connect"] * 6)
CONV = cell(*["nor_conv_3x3"] * 6)
HEADER = "arch,c10_test_200,c10_valid_200,c10_test_12,note,params_c10"
HAND = f"{HEADER}\n{SKIP},54.30,,30.5,all skip,73306\n{CONV},93.8,90.5,70.25,,1531546\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def parquet() -> Table:
    pytest.importorskip("pyarrow")
    if not PARQUET.is_file():
        pytest.skip(f"no {PARQUET}")
    return Table.load(PARQUET)


def test_the_best_accuracies_are_the_published_ones(parquet: Table) -> None:
    top = best(parquet)
    assert [round(top[name], 2) for name in TESTS] == [94.37, 73.51, 47.31]
    assert set(top) == {
        f"{data}/{part}" for data in ("cifar10", "cifar100", "imagenet16-120") for part in ("valid", "test")
    }


def test_known_cells_have_their_published_figures(parquet: Table) -> None:
    skip = parquet.look_up(SKIP)
    assert [round(skip[name], 2) for name in TESTS] == [54.30, 15.61, 16.32]
    conv, one = "nor_conv_3x3", "nor_conv_1x1"
    top = parquet.look_up(cell(conv, conv, conv, "skip_connect", conv, one))
    assert top["cifar10/test"] == best(parquet)["cifar10/test"]
    near = parquet.look_up(cell(conv, conv, one, "skip_connect", conv, conv))
    assert near["cifar10/test"] == pytest.approx(94.29, abs=0.005)
    for figures in (top, near):
        sizes = [figures[f"{data}/params"] for data in ("cifar10", "cifar100", "imagenet16-120")]
        assert sizes == [1_073_466, 1_079_316, 1_080_616]


def test_isomorphic_cells_have_rows_of_their_own(parquet: Table) -> None:
    none, skip, conv = "none", "skip_connect", "nor_conv_3x3"
    direct = cell(none, none, none, conv, none, none)
    through = cell(skip, none, none, none, conv, none)
    assert parquet.look_up(direct)["cifar10/params"] == parquet.look_up(through)["cifar10/params"]
    assert len(parquet.rows) == NUM_CELLS


@pytest.mark.parametrize("epochs", [12, 200])
def test_a_csv_of_the_parquet_gives_the_same_figures(tmp_path: Path, parquet: Table, epochs: int) -> None:
    rows = pytest.importorskip("pyarrow.parquet").read_table(PARQUET).slice(7000, 40).to_pylist()
    with (tmp_path / "nb201.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    full, table = Table.load(PARQUET, epochs=epochs), Table.load(tmp_path / "nb201.csv", epochs=epochs)
    assert [table.look_up(row["arch"]) for row in rows] == [full.look_up(row["arch"]) for row in rows]
    assert len(table.look_up(rows[0]["arch"])) == 12
    assert (table.look_up(rows[0]["arch"]) == parquet.look_up(rows[0]["arch"])) == (epochs == 200)


def test_a_csv_gives_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "hand.csv", HAND)
    table = Table.load(path)
    assert table.look_up(SKIP) == {"cifar10/test": 54.3, "cifar10/params": 73306}
    assert table.look_up(CONV) == {"cifar10/test": 93.8, "cifar10/valid": 90.5, "cifar10/params": 1531546}
    assert Table.load(path, epochs=12).look_up(CONV) == {"cifar10/test": 70.25, "cifar10/params": 1531546}


def test_a_parquet_gives_what_it_has(tmp_path: Path) -> None:
    arrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"arch": [SKIP, CONV], "c100_test_200": [None, 71], "flops_c100": [7783360, 229124608], "x": [b"", b"\0"]}
    pq.write_table(arrow.table(columns), tmp_path / "small.parquet")
    table = Table.load(tmp_path / "small.parquet")
    assert table.look_up(SKIP) == {"cifar100/flops": 7783360}
    assert table.look_up(CONV) == {"cifar100/test": 71, "cifar100/flops": 229124608}


def test_the_best_is_of_each_figure_and_of_all_cells(tmp_path: Path) -> None:
    archs = [cell(*ops) for ops in product(OPS, repeat=6)]
    lines = [f"{arch},{index / 200},{90 - index / 200},{index}" for index, arch in enumerate(archs)]
    header = "arch,c10_test_200,c100_test_200,params_c10"
    top = best(Table.load(write(tmp_path / "all.csv", "\n".join([header, *lines]))))
    assert top == {"cifar10/test": 78.12, "cifar100/test": 90}
    with pytest.raises(UserError, match=r"part\.csv: 15624 cells; .* all 15625"):
        best(Table.load(write(tmp_path / "part.csv", "\n".join([header, *lines[:-1]]))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"its columns are \[\] instead of arch and any of c10_valid_200"),
        ("name,c10_test_200\n", r"its columns are \['name', 'c10_test_200'\]"),
        ("arch,params_c10\n", r"instead of arch and any of .*in16_test_200; allowed: a parquet or csv"),
        ("{" + "x" * 300, "its columns are .{0,60} instead of arch"),
        (f"{HAND}{SKIP[:9]}", r"table\.csv:4: 1 fields; allowed: 6, as many as in the first line"),
        (f"{HEADER}\n{SKIP},high,,,,\n", r"table\.csv:2: c10_test_200 is 'high'; allowed: a number or nothing"),
        (f"{HAND}{SKIP},54.30,,30.5,,73306\n", r"3 rows of 2 cells; allowed: one row a cell"),
    ],
)
def test_a_csv_of_another_kind_says_where_and_what(tmp_path: Path, text: str, said: str) -> None:
    refused(write(tmp_path / "table.csv", text), said)


def refused(path: Path, said: str, epochs: int = 200) -> None:
    with pytest.raises(UserError, match=said) as error:
        Table.load(path, epochs=epochs)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) or epochs == 90


def test_files_of_another_kind_say_what_is_allowed(tmp_path: Path) -> None:
    allowed = r"allowed: a parquet or csv with a column arch, NAS-Bench-201-v1_\*\.pth, the folder NATS-tss-"
    refused(tmp_path / "none.parquet", rf"none\.parquet: cannot read a table: No such file or directory; {allowed}")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    refused(tmp_path / "image.png", rf"a file that starts with b'\\x89PNG.*'; {allowed}")
    refused(tmp_path, rf"a folder without meta\.pickle\.pbz2; {allowed}")
    refused(write(tmp_path / "t.csv", HAND), "epochs: no 90; allowed: 12, 200", epochs=90)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    arrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "small.parquet"
    pq.write_table(arrow.table({"arch": [SKIP], "c10_test_200": ["high"]}), path)
    refused(path, "ArrowInvalid")
    pq.write_table(arrow.table({"cell": [SKIP], "c10_test_200": [54.3]}), path)
    refused(path, r"its columns are \['cell', 'c10_test_200'\] instead of arch")
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, r"truncated, damaged or with foreign objects \(ArrowInvalid\)")


def test_a_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    refused(tmp_path / "t.parquet", r"needs pyarrow: pip install 'nas-apps\[image\]'")


def test_an_unknown_cell_says_what_a_cell_is(tmp_path: Path) -> None:
    path = write(tmp_path / "hand.csv", HAND)
    with pytest.raises(UserError) as error:
        Table.load(path).look_up("|conv~0|")
    assert str(error.value).startswith(f"{path}: no cell '|conv~0|' among its 2; a cell is |op~0|+|op~0|op~1|+")
