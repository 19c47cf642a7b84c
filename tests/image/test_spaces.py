import pytest
import torch

from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random
from nas_apps.tasks.image.published import PUBLISHED
from nas_apps.tasks.image.spaces import SPACES, space_of


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("darts", [(14, 8), (14, 8)]),
        ("darts_no_none", [(14, 7), (14, 7)]),
        ("s1", [(14, 2), (14, 2)]),
        ("s2", [(14, 2), (14, 2)]),
        ("s3", [(14, 3), (14, 3)]),
        ("s4", [(14, 2), (14, 2)]),
        ("nasbench201", [(6, 5)]),
        ("nasbench1shot1_1", [(4, 3), (1, 5), (1, 3), (1, 4)]),
        ("nasbench1shot1_2", [(4, 3), (1, 5), (1, 2), (1, 3), (1, 4)]),
        ("nasbench1shot1_3", [(5, 3), (1, 6), (1, 2), (1, 3), (1, 4), (1, 5)]),
    ],
)
def test_spaces_have_the_papers_shapes(name: str, shapes: list[tuple[int, int]]) -> None:
    assert [choice.shape for choice in SPACES[name].choices().values()] == shapes


def test_darts_options_stand_in_the_order_of_its_code() -> None:
    assert SPACES["darts"].choices()["reduce.op"].rows[13] == (
        "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
        "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
    )  # fmt: skip


def test_edges_of_s1_have_their_own_options() -> None:
    choices = SPACES["s1"].choices()
    assert choices["normal.op"].rows[5] == ("max_pool_3x3", "skip_connect")
    assert choices["normal.op"].rows[13] == ("dil_conv_3x3", "dil_conv_5x5")
    assert choices["reduce.op"].rows[6] == ("max_pool_3x3", "sep_conv_3x3")


def test_edges_can_be_chosen_too() -> None:
    choices = SPACES["darts"].choices(edges=1)
    assert [choices[f"normal.edge.{target}"].shape for target in range(2, 6)] == [(1, 2), (1, 3), (1, 4), (1, 5)]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("edges", [False, True], ids=["ops", "ops_and_edges"])
def test_the_space_of_a_genotype_can_be_found(name: str, edges: bool) -> None:
    choices = SPACES[name].choices(edges=edges)
    genotype = Random()(choices, {}, torch.Generator().manual_seed(1))
    found = space_of(genotype)
    assert found.ops is SPACES[name].ops
    genotype.validate(found.choices(edges=edges))


def test_a_genotype_of_no_space_is_one_clear_error() -> None:
    odd = Genotype({**PUBLISHED["darts_v1"].kept, "normal.op": (("conv9",), *((),) * 13)})
    with pytest.raises(UserError, match=r"g\.json: normal\.op\[0\]: no option 'conv9' in \('none', "):
        space_of(odd, "g.json")
    with pytest.raises(UserError, match="genotype: of another space: it decides net.width"):
        space_of(Genotype({"net.width": (("8",),)}))
