"""The tree of exits, and the space over it."""

import pytest

from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.tasks.sr.network import up_factor
from nas_apps.tasks.sr.spaces import EXIT, OP, WIDTH, SRSpace
from nas_apps.tasks.sr.tree import Tree

LEAVES = (6, 11, 15, 18, 20, 26, 30, 33, 35, 40, 43, 45, 49, 51, 54)
SMALL = SRSpace(Tree(cells=3, ups=1, searched=2), channels=16, ops_per_cell=2)


def leaves(tree: Tree) -> tuple[int, ...]:
    inner = {node.parent for node in tree.nodes}
    return tuple(n for n in range(len(tree.nodes)) if n not in inner)


def cells(tree: Tree, node: int) -> list[int]:
    return [cell for n in tree.path(node) for cell in tree.nodes[n].cells]


def test_the_tree_of_the_paper_has_55_nodes_35_cells_20_ups_and_15_leaves() -> None:
    tree = Tree()
    assert (len(tree.nodes), tree.num_cells) == (55, 35)
    assert sum(not node.cells for node in tree.nodes) == 20
    assert leaves(tree) == LEAVES


@pytest.mark.parametrize(
    ("node", "path", "numbers"),
    [(36, "ccc", [0, 1, 16]), (47, "ccccu", [0, 1, 16, 26]), (53, "cccccu", [0, 1, 16, 26, 32])],
)
def test_cells_have_the_numbers_of_the_released_code(node: int, path: str, numbers: list[int]) -> None:
    assert Tree().nodes[node].path == path
    assert cells(Tree(), node) == numbers


def test_only_a_node_with_all_ups_is_an_exit_of_the_variant_a() -> None:
    tree = Tree("A")
    assert len(tree.exits) == 35
    assert {tree.nodes[n].path.count("u") for n in tree.exits} == {2}
    assert len(Tree("B").exits) == 55


@pytest.mark.parametrize("sizes", [(1, 0, 0), (1, 2, 0), (3, 1, 2), (4, 0, 3), (4, 2, 1), (6, 3, 5)])
def test_a_tree_of_any_size_holds_every_order_of_layers_once(sizes: tuple[int, int, int]) -> None:
    tree = Tree("B", *sizes)
    paths = [node.path for node in tree.nodes]
    assert len(set(paths)) == len(paths) == tree.size
    fixed = sizes[0] - sizes[2]
    assert all(path.startswith("c" * fixed) for path in paths)
    assert all(path.count("c") <= sizes[0] and path.count("u") <= sizes[1] for path in paths)
    assert sorted(cell for node in tree.nodes for cell in node.cells) == list(range(tree.num_cells))
    for n, node in enumerate(tree.nodes):
        assert node.parent < n
        assert [node.path] == [paths[n]] if node.parent < 0 else paths[node.parent] == node.path[:-1]
        assert len(cells(tree, n)) == node.path.count("c")


def test_exits_form_a_tree_of_options() -> None:
    choice = SMALL.choices()[EXIT]
    assert choice.rows == (("c", "cu", "cuc", "cucc", "cc", "ccu", "ccuc", "ccc", "cccu"),)
    assert choice.parents == (-1, 0, 1, 2, 0, 4, 5, 4, 7)
    row, parents = (
        SRSpace(Tree("A", 3, 1, 2)).choices()[EXIT].rows[0],
        SRSpace(Tree("A", 3, 1, 2)).choices()[EXIT].parents,
    )
    assert (row, parents) == (("cu", "cuc", "cucc", "ccu", "ccuc", "cccu"), (-1, 0, 1, -1, 3, -1))


def test_the_space_of_the_paper_has_its_sizes() -> None:
    space = SRSpace().choices()
    assert {name: choice.shape for name, choice in space.items()} == {EXIT: (1, 55), OP: (175, 4), WIDTH: (140, 5)}
    assert SRSpace().width_options == (24, 32, 40, 56, 64)
    assert SRSpace(channels=32, widths=(1 / 3, 1)).width_options == (16, 32)  # 8 is less than 90 % of 10.7


def test_one_width_is_no_choice() -> None:
    assert WIDTH not in SRSpace(channels=8).choices()
    assert WIDTH not in SRSpace(widths=(0.5,)).choices()


def of_small(path: str) -> Genotype:
    ops = tuple((("conv1", "conv3", "residual", "separable")[k % 4],) for k in range(SMALL.tree.num_cells * 2))
    widths = tuple((("8", "16")[k % 2],) for k in range(SMALL.tree.num_cells))
    return Genotype({EXIT: ((path,),), OP: ops, WIDTH: widths})


def test_a_genotype_keeps_what_is_on_its_path_and_no_more() -> None:
    found = SMALL.canonical(of_small("cuc"))  # cells 0 and 2: cell 1 is that of "cc"
    assert [row for row, kept in enumerate(found.kept[OP]) if kept] == [0, 1, 4, 5]
    assert [row for row, kept in enumerate(found.kept[WIDTH]) if kept] == [0, 2]
    assert SMALL.canonical(found) == found
    assert Genotype.from_json(found.to_json()).validate(SMALL.choices()) == found


@pytest.mark.parametrize("name", [EXIT, OP, WIDTH])
def test_a_place_on_the_path_that_keeps_two_options_or_none_is_refused(name: str) -> None:
    full = of_small("cuc").kept
    for kept in ((), SMALL.choices()[name].rows[0][:2]):
        broken = Genotype({**full, name: (kept, *full[name][1:])})
        with pytest.raises(UserError, match=rf"^genotype: {name}\[0\]: keeps {len(kept)}; allowed: one option"):
            SMALL.canonical(broken)


@pytest.mark.parametrize(("variant", "scale", "ups"), [("A", 4, 1), ("A", 2, 2), ("A", 3, 2), ("A", 2, 0), ("B", 5, 1)])
def test_a_scale_that_no_exit_has_is_refused_in_one_line(variant: str, scale: int, ups: int) -> None:
    with pytest.raises(UserError, match=rf"^scale: got {scale}.*; allowed") as caught:
        up_factor(Tree(variant, ups=ups), scale)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sizes", [{"cells": 0}, {"ups": -1}, {"searched": 5}, {"cells": 31, "searched": 30, "ups": 10}, {"variant": "C"}]
)
def test_trees_that_cannot_be_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Tree(**sizes)  # type: ignore[arg-type]
