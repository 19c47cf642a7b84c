import pytest
import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.space import NONE, SKIP, Space
from nas_apps.tasks.rl.ops import OPS
from nas_apps.tasks.rl.spaces import OP_SETS, RLSpace, find, space

ALL = [
    *((name, skeleton, False) for name in OP_SETS for skeleton in ("standard", "impala")),
    ("micro", "impala", True),
]
IDS = [f"{name}-{skeleton}{'-distinct' * distinct}" for name, skeleton, distinct in ALL]


def derived(choices: Space, logits: dict[str, Tensor]) -> Genotype:
    """What a search ends with at hand-made logits."""
    arch = Arch(choices, {"op": Softmax()})
    with torch.no_grad():
        for name, table in logits.items():
            arch.logits[name].copy_(table)
    return Strongest()(choices, arch.expected().weights, torch.Generator())


@pytest.mark.parametrize(("name", "skeleton", "distinct"), ALL, ids=IDS)
def test_every_edge_of_every_cell_chooses_among_the_operations_of_the_set(
    name: str, skeleton: str, distinct: bool
) -> None:
    choices = space(name, skeleton, 3, distinct=distinct).choices()
    cells = ["normal.op", "reduce.op"] if skeleton == "standard" else ["normal.op", "normal2.op"][: 1 + distinct]
    assert list(choices) == cells
    for choice in choices.values():
        assert choice.rows == (OP_SETS[name],) * 6
        assert choice.rows[0][-2:] == (SKIP, NONE)


def test_the_order_of_the_two_sets_of_the_paper_is_the_column_order_of_its_logits() -> None:
    convs = ("conv_3x3_relu", "dil_conv_3x3_relu", "conv_5x5_relu", "dil_conv_5x5_relu")
    assert space("classic") == RLSpace((*convs, SKIP, NONE), "standard")
    assert space("micro") == RLSpace(("conv_3x3", "relu", "tanh", SKIP, NONE), "impala")


@pytest.mark.parametrize("size", [(64, 64), (9, 7), (1, 1)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted(OPS))
def test_an_operation_halves_a_map_and_rounds_up(name: str, stride: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size).contiguous(memory_format=torch.channels_last)
    y = OPS[name](OpArgs(4, stride))(x)
    assert y.shape == (2, 4, *(-(-length // stride) for length in size))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert y.isfinite().all()


def test_every_set_has_only_operations_that_there_are() -> None:
    assert all(set(ops) <= set(OPS) for ops in OP_SETS.values())


def test_what_has_no_stride_is_pooled_first_and_the_border_does_not_count_zeros() -> None:
    x = torch.ones(1, 2, 5, 5)
    for name, expected in (("relu", 1.0), (SKIP, 1.0), ("tanh", torch.tanh(torch.tensor(1.0)).item()), (NONE, 0.0)):
        assert torch.allclose(OPS[name](OpArgs(2, 2))(x), torch.full((1, 2, 3, 3), expected)), name


def test_a_convolution_sees_as_far_as_its_name_says() -> None:
    x = torch.zeros(1, 2, 15, 15, requires_grad=True)
    reach = {"conv_3x3": 1, "conv_5x5": 2, "dil_conv_3x3": 2, "dil_conv_5x5": 4, "dep_conv_3x3": 1, "dep_conv_5x5": 2,
             "dep_sep_conv_3x3": 1, "dep_sep_conv_5x5": 2}  # fmt: skip
    for name, distance in reach.items():
        (grad,) = torch.autograd.grad(OPS[name](OpArgs(2))(x)[0, 0, 7, 7], x)
        seen = grad[0].abs().amax(0).nonzero()
        assert seen.min() == 7 - distance, name
        assert seen.max() == 7 + distance, name
        assert len(seen) == (5 if "5x5" in name else 3) ** 2, name
        assert bool(grad[0, 1].any()) == (not name.startswith("dep_conv")), name
    assert all(bool((OPS[f"{name}_relu"](OpArgs(2))(torch.randn(1, 2, 8, 8)) >= 0).all()) for name in reach)


def test_none_is_never_kept_and_an_edge_is_as_strong_as_the_best_of_the_rest() -> None:
    choices = space("micro", nodes=2).choices()
    #        conv_3x3 relu tanh skip none
    table = [[0.0, 1.0, 0.0, 0.0, 9.0],  # into node 1, nearly all of it none
             [0.0, 0.0, 2.0, 0.0, 0.0],
             [0.0, 0.0, 0.0, 3.0, 2.0]]  # fmt: skip
    assert derived(choices, {"normal.op": torch.tensor(table)}).kept["normal.op"] == (("relu",), ("tanh",), (SKIP,))


def test_a_node_keeps_its_two_strongest_edges_and_the_first_node_its_only_one() -> None:
    choices = space("classic").choices()
    logits = torch.zeros(10, 6)
    logits[:, 1] = torch.tensor([1.0, 1.0, 2.0, 3.0, 1.0, 2.0, 1.0, 4.0, 2.0, 3.0])
    logits[7, 5] = 8.0  # most of this edge is none: what is left of it is weak
    for cell in ("normal.op", "reduce.op"):
        kept = derived(choices, {cell: logits}).kept[cell]
        assert [index for index, row in enumerate(kept) if row] == [0, 1, 2, 3, 5, 8, 9]
        assert {row for row in kept if row} == {("dil_conv_3x3_relu",)}


def test_ties_go_to_the_lower_index() -> None:
    choices = space("micro").choices()
    kept = derived(choices, {"normal.op": torch.zeros(10, 5)}).kept["normal.op"]
    assert [index for index, row in enumerate(kept) if row] == [0, 1, 2, 3, 4, 6, 7]
    assert {row for row in kept if row} == {("conv_3x3",)}


@pytest.mark.parametrize(("name", "skeleton", "distinct"), ALL, ids=IDS)
def test_a_constant_added_to_a_row_changes_nothing(name: str, skeleton: str, distinct: bool) -> None:
    choices = space(name, skeleton, distinct=distinct).choices()
    rng = torch.Generator().manual_seed(3)
    logits = {n: torch.randn(choice.shape, generator=rng) for n, choice in choices.items()}
    moved = {n: table + torch.randn(len(table), 1, generator=rng) for n, table in logits.items()}
    found = derived(choices, logits)
    assert derived(choices, moved) == found
    assert Genotype.from_json(found.to_json()).validate(choices) == found
    assert derived(choices, {n: -table for n, table in logits.items()}) != found


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_a_random_cell_has_one_or_two_inputs_a_node_and_never_none(nodes: int) -> None:
    searched = space("classic", nodes=nodes)
    for seed in range(5):
        found = Random()(searched.choices(), {}, torch.Generator().manual_seed(seed)).validate(searched.choices())
        for rows in found.kept.values():
            for target in searched.dag.targets():
                assert sum(bool(rows[index]) for index in searched.dag.into(target)) == min(2, target)
            assert (NONE,) not in rows


@pytest.mark.parametrize("edges", [1, 2])
def test_edges_can_be_chosen_too(edges: int) -> None:
    choices = space("micro", nodes=3).choices(edges)
    options = {name: choice.rows[0] for name, choice in choices.items() if choice.kind == "edge"}
    pairs = {"normal.edge.1": ("0",), "normal.edge.2": ("0+1",), "normal.edge.3": ("0+1", "0+2", "1+2")}
    assert options == (pairs if edges == 2 else {f"normal.edge.{t}": tuple("012"[:t]) for t in (1, 2, 3)})


def test_the_residual_block_is_a_point_of_micro_for_each_kind_of_cell() -> None:
    for distinct in (False, True):
        searched = space("micro", distinct=distinct)
        found = find("impala", searched)
        assert found.validate(searched.choices()).meta["name"] == "impala"
        assert sum(map(len, found.kept["normal.op"])) == 5


def test_mistakes_are_told_in_one_line() -> None:
    for call, message in {
        lambda: space("tiny"): "space: no 'tiny'; allowed: classic, debug_3x3_relu",
        lambda: space("micro", "resnet"): "skeleton: no 'resnet'; allowed: impala, standard",
        lambda: space("classic", distinct=True): "distinct: got true; allowed: false with the skeleton 'standard'",
        lambda: RLSpace(("conv_9x9",), "impala"): "space.ops: no 'conv_9x9'; allowed: ",
        lambda: find("imapla", space("micro")): r"genotype: no 'imapla'; allowed: <file>.json, impala",
        lambda: find("impala", space("micro", nodes=3)): "genotype 'impala', of 4 nodes of the space 'micro': ",
        lambda: find("impala", space("classic")): "genotype 'impala', of 4 nodes of the space 'micro': ",
    }.items():
        with pytest.raises(UserError) as told:
            call()
        assert str(told.value).startswith(message)
        assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="nodes: got 0; allowed: 1 and more"):
        space("micro", nodes=0)
