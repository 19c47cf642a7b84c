import pytest

from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.tasks.image.published import PUBLISHED, from_arch_string, from_notation, to_arch_string
from nas_apps.tasks.image.spaces import SPACES

BEST_CIFAR10 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_keep_two_edges_into_each_node(name: str) -> None:
    space = SPACES[name[:2] if name[1] in "1234" else "darts"]
    genotype = PUBLISHED[name].validate(space.choices())
    for rows in genotype.kept.values():
        assert all(len(row) <= 1 for row in rows)
        assert [sum(len(rows[edge]) for edge in space.dag.into(target)) for target in space.dag.targets()] == [2] * 4


def test_a_notation_puts_each_operation_on_its_edge() -> None:
    rows = PUBLISHED["darts_v2"].kept["normal.op"]
    assert rows[:2] == (("sep_conv_3x3",), ("sep_conv_3x3",))
    assert rows[5:9] == (("skip_connect",), ("sep_conv_3x3",), (), ())
    assert rows[9:] == (("skip_connect",), (), ("dil_conv_3x3",), (), ())


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("sep3@0 | skip@0", "normal: 2 nodes in 'sep3@0 | skip@0'; a cell has 4"),
        ("sep9@0 | | |", "normal: 'sep9@0': no 'sep9'; allowed: avg, dil3"),
        ("sep3@2 | | |", "normal: 'sep3@2': no state '2'; node 2 sees states 0 to 1"),
        ("sep3 | | |", "normal: 'sep3': no state ''"),
    ],
)
def test_a_notation_that_is_none_is_one_clear_error(cell: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        from_notation(cell, "| | |")
    assert str(error.value).startswith(message)


def test_architecture_strings_and_genotypes_are_the_same_thing() -> None:
    genotype = from_arch_string(BEST_CIFAR10)
    assert genotype.kept["cell.op"][2:4] == (("nor_conv_1x1",), ("skip_connect",))
    assert to_arch_string(genotype) == BEST_CIFAR10


def test_an_edge_that_is_gone_is_written_none() -> None:
    assert to_arch_string(Genotype({"cell.op": ((),) * 6})) == "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nor_conv_3x3",
        BEST_CIFAR10[:-1],
        BEST_CIFAR10.replace("~2", "~1"),
        BEST_CIFAR10.replace("skip_connect", "sep_conv_3x3"),
        BEST_CIFAR10 + "+" + BEST_CIFAR10,
    ],
)
def test_a_malformed_architecture_string_is_one_clear_error(text: str) -> None:
    with pytest.raises(UserError, match=r"^architecture '.*no"):
        from_arch_string(text)


def test_an_architecture_string_has_one_operation_an_edge() -> None:
    with pytest.raises(UserError, match=r"cell\.op\[0\] keeps"):
        to_arch_string(Genotype({"cell.op": (("none", "skip_connect"), *((),) * 5)}))


def test_only_points_of_its_space_have_an_architecture_string() -> None:
    with pytest.raises(UserError, match="of another space"):
        to_arch_string(PUBLISHED["darts_v1"])
