"""A genotype goes through its text unchanged, and what is not one, or not of a space, is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nas_apps.core.errors import UserError
from nas_apps.core.genotype import FORMAT, VERSION, Genotype
from nas_apps.core.parts.derive import RULES
from nas_apps.core.space import Choice, Dag, Space, cell_choices
from nas_apps.core.space_json import space_from_json, space_to_json

OPS = ("none", "skip_connect", "conv3")
SPACE: Space = {**cell_choices("cell", Dag(2, 2, keep=2), (OPS,) * 5), "gate": Choice((("on", "off"), ("on", "off")))}
KEPT = {"cell.op": (("conv3",), ("skip_connect",), (), ("conv3", "skip_connect"), ()), "gate": (("on",), ("off",))}


def text(**changes: Any) -> str:
    """The text of a genotype with other entries; None leaves one out."""
    data = {"format": FORMAT, "version": VERSION, "kept": {"a": [["b"]]}, "meta": {}, **changes}
    return json.dumps({key: value for key, value in data.items() if value is not None})


@pytest.mark.parametrize(
    "genotype",
    [
        Genotype(KEPT),
        Genotype(KEPT, {"task": "toy", "seed": 3, "note": None, "nested": {"a": [1, 2.5]}}),
        Genotype({}),
        Genotype({"a": ()}),
        Genotype({"a": ((), ())}),
        Genotype({'quote " back \\ slash': (("µ", "new\nline", "日本"),)}, {"ü": "\u0000"}),
    ],
    ids=["plain", "meta", "nothing", "no_rows", "empty_rows", "odd_names"],
)
def test_a_genotype_goes_through_its_text_and_through_a_file(genotype: Genotype, tmp_path: Path) -> None:
    genotype.save(tmp_path / "g.json")
    for again in (Genotype.from_json(genotype.to_json()), Genotype.load(tmp_path / "g.json")):
        assert again == genotype
        assert again.meta == genotype.meta
        assert list(again.kept) == list(genotype.kept)
        assert again.to_json() == genotype.to_json()


def test_the_text_is_json_that_says_what_it_is_and_has_a_row_a_line() -> None:
    written = Genotype(KEPT).to_json()
    data = json.loads(written)
    assert (data["format"], data["version"]) == ("nas_apps.genotype", 1)
    assert list(data) == ["format", "version", "kept", "meta"]
    assert '   ["conv3", "skip_connect"],\n   []\n' in written
    assert written.endswith("}\n")
    assert written.isascii()


def test_a_row_keeps_as_many_options_as_its_choice_says() -> None:
    space: Space = {"p": Choice((("0", "1", "2"),), "parent", keep=2)}
    Genotype({"p": (("2", "0"),)}).validate(space)
    for row in ((), ("1",), ("0", "1", "2")):
        with pytest.raises(UserError, match=rf"^g: p\[0\]: keeps {len(row)}; allowed: 2 options$"):
            Genotype({"p": (row,)}).validate(space, "g")
    for keep in (0, 4):
        with pytest.raises(ValueError, match=rf"^keep: 1 to 3, the options of a row, got {keep}$"):
            Choice((("0", "1", "2"),), "parent", keep=keep)


def test_the_options_of_a_tree_extend_options_before_them() -> None:
    rows = (("c", "cu", "cc"),)
    space: Space = {"exit": Choice(rows, "exit", parents=(-1, 0, 0)), "gate": SPACE["gate"]}
    assert space_from_json(space_to_json(space)) == space
    for parents, reason in (
        ((-1, 0), r"^parents: one for each of 3 options, got 2$"),
        ((-1, 1, 0), r"^parents\[1\]: an option before it, or -1, got 1$"),
        ((-2, 0, 0), r"^parents\[0\]: an option before it, or -1, got -2$"),
    ):
        with pytest.raises(ValueError, match=reason):
            Choice(rows, "exit", parents=parents)
    for wrong in ("7", '["a", 0, 0]', "[-1, 0]", "[-1, 0.5, 0]"):
        with pytest.raises(UserError, match=r"^s: exit: "):
            space_from_json(space_to_json(space).replace("[-1, 0, 0]", wrong), "s")


def test_the_text_of_a_space_says_what_its_rows_keep() -> None:
    space: Space = {"p": Choice((("0", "1", "2"),), "parent", keep=2), "gate": SPACE["gate"]}
    assert space_from_json(space_to_json(space)) == space
    for wrong in ('"2"', "9", "true"):
        with pytest.raises(UserError, match="^space: p: "):
            space_from_json(space_to_json(space).replace('"keep": 2', f'"keep": {wrong}'))


def test_where_a_genotype_came_from_takes_no_part_in_comparisons() -> None:
    assert Genotype(KEPT, {"seed": 1}) == Genotype(KEPT, {"seed": 2})
    assert Genotype(KEPT) != Genotype({**KEPT, "gate": (("off",), ("off",))})


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("keep", [2, None])
def test_what_a_rule_derives_is_of_its_space_with_or_without_choices_of_edges(rule: str, keep: int | None) -> None:
    dag = Dag(2, 3, keep=keep)
    rows = (OPS,) * len(dag.edges())
    space = cell_choices("c", dag, rows, edges=True)
    weights = {name: torch.rand(choice.shape) for name, choice in space.items()}
    found = RULES[rule]()(space, weights, torch.Generator().manual_seed(0))
    assert found.validate(space) is found
    assert found.validate(cell_choices("c", dag, rows)) is found
    assert Genotype.from_json(found.to_json()).validate(space) == found


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("", "g.json: not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("genotypes.DARTS", "g.json: not JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"a":\n\n1', "g.json: not JSON (Expecting ',' delimiter: line 3 column 2 (char 8))"),
        pytest.param("[" * 100_000, "g.json: not JSON (maximum recursion depth exceeded", id="too_deep"),
        pytest.param("9" * 5000, "g.json: not JSON (Exceeds the limit", id="too_long_a_number"),
        ("null", 'g.json: not a genotype (no "format": "nas_apps.genotype")'),
        ("[1]", 'g.json: not a genotype (no "format": "nas_apps.genotype")'),
        (text(format="nas_apps.checkpoint"), 'g.json: not a genotype (no "format": "nas_apps.genotype")'),
        (text(format=None), 'g.json: not a genotype (no "format": "nas_apps.genotype")'),
        (text(version=2), "g.json: genotype version 2; this release reads version 1"),
        (text(version="1"), "g.json: genotype version '1'; this release reads version 1"),
        (text(version=None), "g.json: genotype version None; this release reads version 1"),
        *[
            (text(**changes), 'g.json: "kept" is a table of rows of option names, "meta" an object')
            for changes in (
                {"kept": None}, {"kept": [["a"]]}, {"kept": {"a": "b"}}, {"kept": {"a": ["b"]}},
                {"kept": {"a": [["b", 1]]}}, {"kept": {"a": [None]}}, {"kept": {"a": {"b": []}}},
                {"meta": [1]}, {"meta": "x"},
            )
        ],
    ],
)  # fmt: skip
def test_a_text_that_is_not_a_genotype_is_refused_with_its_reason(written: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        Genotype.from_json(written, "g.json")
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"gate": None}, "g.json: of another space: it decides cell.op; this space decides cell.op, gate"),
        ({"x": ()}, "g.json: of another space: it decides cell.op, gate, x; this space decides cell.op, gate"),
        ({"cell.op": None, "gate": None}, "g.json: of another space: it decides nothing; this space decides"),
        ({"cell.op": KEPT["cell.op"][:4]}, "g.json: cell.op has 4 rows, this space 5"),
        ({"gate": ()}, "g.json: gate has 0 rows, this space 2"),
        ({"gate": (("on",), ("conv9",))}, "g.json: gate[1]: no option 'conv9' in ('on', 'off')"),
        ({"gate": (("on", "on"), ("off",))}, "g.json: gate[0]: keeps an option twice: on, on"),
    ],
)
def test_a_genotype_of_another_space_is_refused_with_choice_row_and_option(
    changes: dict[str, Any], complaint: str
) -> None:
    kept = {name: rows for name, rows in {**KEPT, **changes}.items() if rows is not None}
    with pytest.raises(UserError) as caught:
        Genotype(kept).validate(SPACE, "g.json")
    assert str(caught.value).startswith(complaint)


def test_edges_may_be_gone_or_hold_two_operations() -> None:
    assert Genotype(KEPT).validate(SPACE).kept == KEPT
    assert Genotype({**KEPT, "gate": (("on", "off"), ("on",))}).validate(SPACE)


def test_a_genotype_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Genotype(KEPT).kept = {}  # type: ignore[misc]


def test_a_genotype_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file/g.json: cannot write: "):
        Genotype(KEPT).save(tmp_path / "file" / "g.json")
