import typing
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Random
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full, Partial
from nas_apps.core.space import NONE
from nas_apps.core.task import Deepens
from nas_apps.tasks.rl.cells import Output, RLCell
from nas_apps.tasks.rl.network import ActorCritic, DuelingC51, Encoder, Network, build_encoder
from nas_apps.tasks.rl.ops import NORMED, OPS
from nas_apps.tasks.rl.spaces import OP_SETS, RLSpace, find, space

OUTPUTS = typing.get_args(Output)
SIZE = (9, 13, 3)


def watched(size: tuple[int, int, int] = SIZE, num: int = 2) -> Tensor:
    return torch.randint(0, 256, (num, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def searched(space: RLSpace, settings: Network, size: tuple[int, int, int] = SIZE) -> tuple[Arch, Encoder]:
    arch = Arch(space.choices(), {"op": Softmax()}, init_std=0.5)
    return arch, build_encoder(Mixed(arch, Full()), space, settings, size)


def drawn(space: RLSpace, seed: int = 0) -> Genotype:
    return Random()(space.choices(), {}, torch.Generator().manual_seed(seed))


def fixed(space: RLSpace, settings: Network, size: tuple[int, int, int] = SIZE, seed: int = 0) -> Encoder:
    return build_encoder(Fixed(space.choices(), drawn(space, seed)), space, settings, size)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class Impala(nn.Module):
    """IMPALA-CNN written without cells."""

    def __init__(self, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.convs, before = nn.ModuleList(), 3
        for depth in depths:
            widths = [before, depth, depth, depth, depth]
            self.convs.extend(nn.Conv2d(width, depth, 3, padding=1) for width in widths)
            before = depth
        self.linear = nn.Linear(64 * before, 256)

    def forward(self, obs: Tensor) -> Tensor:
        x, convs = obs.permute(0, 3, 1, 2).float() / 255, iter(self.convs)
        for conv in convs:
            x = functional.max_pool2d(conv(x), 3, 2, 1)
            for _ in range(2):
                first, second = next(convs), next(convs)
                x = x + second(functional.relu(first(functional.relu(x))))
        return functional.relu(self.linear(functional.relu(x.flatten(1))))


def test_the_residual_block_in_the_skeleton_impala_is_the_impala_cnn() -> None:
    searched, size = space("micro"), (64, 64, 3)
    fill = Fixed(searched.choices(), find("impala", searched))
    encoder = build_encoder(fill, searched, Network((16, 32, 32), output="last_node"), size)
    other = Impala((16, 32, 32))
    assert count(encoder) == count(other) == 622_144
    assert count(ActorCritic(encoder, 15)) == 626_256
    assert len([m for m in encoder.modules() if isinstance(m, nn.Conv2d)]) == 15
    with torch.no_grad():
        for ours, theirs in zip(encoder.parameters(), other.parameters(), strict=True):
            theirs.copy_(ours)
    x = watched(size)
    assert encoder(x).shape == (2, encoder.features) == (2, 256)
    assert torch.allclose(encoder(x), other(x), atol=1e-6)
    with torch.no_grad():
        other.convs[-1].weight.add_(0.1)
    assert not torch.allclose(encoder(x), other(x), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "skeleton", "nodes", "width", "params"),
    [("classic", "standard", 4, 16, 1_844_688), ("micro", "impala", 4, 16, 412_928),
     ("classic", "standard", 1, 16, 422_544), ("classic", "standard", 4, 4, 165_876),
     ("micro", "standard", 2, 4, 70_224)],
)  # fmt: skip
def test_super_nets_have_the_weights_that_the_layout_of_the_released_code_gives(
    name: str, skeleton: typing.Literal["standard", "impala"], nodes: int, width: int, params: int
) -> None:
    assert count(searched(space(name, skeleton, nodes), Network((width,) * 3), (64, 64, 3))[1]) == params


LIMIT = [*product(["standard", "impala"], OUTPUTS, ["none", "batch"], [False]), ("impala", "concat", "none", True)]


@pytest.mark.parametrize(("skeleton", "output", "norm", "distinct"), LIMIT, ids=str)
def test_what_is_trained_is_what_was_searched(
    skeleton: typing.Literal["standard", "impala"],
    output: Output,
    norm: typing.Literal["none", "batch"],
    distinct: bool,
) -> None:
    s, settings = space("micro", skeleton, 3, distinct=distinct), Network((2, 4), output=output, norm=norm, features=8)
    arch, mixed = searched(s, settings)
    for seed in range(3):
        final = fixed(s, settings, seed=seed)
        assert not final.load_state_dict(mixed.state_dict(), strict=False).missing_keys
        for training in (True, False):
            with arch.using(one_hot(s.choices(), drawn(s, seed))):
                assert torch.equal(final.train(training)(watched()), mixed.train(training)(watched()))


def test_the_limit_of_sharp_logits_is_the_cell_that_they_say() -> None:
    s, settings = space("micro", nodes=3), Network((2, 4), features=8)
    arch, mixed = searched(s, settings)
    genotype = drawn(s)
    with torch.no_grad():
        for name, choice in s.choices().items():
            for row, kept in enumerate(genotype.kept[name]):
                arch.logits[name][row] = -1e4
                arch.logits[name][row, choice.rows[row].index(kept[0] if kept else NONE)] = 1e4
    final = fixed(s, settings)
    final.load_state_dict(mixed.state_dict(), strict=False)
    with arch.using(arch.draw()):
        assert torch.allclose(mixed(watched()), final(watched()), atol=1e-6)


def test_logits_are_shared_by_the_cells_of_a_kind_and_weights_by_none() -> None:
    for channels in ((2,), (2, 2, 2)):
        arch, mixed = searched(space("micro", "standard", 3), Network(channels))
        assert sorted(arch.logits) == ["normal.op", "reduce.op"]
        assert [table.shape for table in arch.logits.values()] == [(6, 5)] * 2
        cells = [module for module in mixed.modules() if isinstance(module, RLCell)]
        assert len(cells) == 3 * len(channels)
        assert len({id(p) for cell in cells for p in cell.parameters()}) == sum(len([*c.parameters()]) for c in cells)
        with arch.using(arch.draw()):
            rows = {
                kind: [cell.inner._rows[0]() for cell in cells[at::3]] for kind, at in (("reduce", 0), ("normal", 1))
            }
        for kind in rows.values():
            assert all(row.weights is kind[0].weights for row in kind)
        assert rows["reduce"][0].weights is not rows["normal"][0].weights


def test_none_takes_its_share_of_a_node() -> None:
    s = space("micro", nodes=1)
    arch = Arch(s.choices(), {"op": Softmax()}, init_std=0)
    cell = Mixed(arch, Full()).cell("normal", s.dag, OPS, OpArgs(4))
    x = torch.randn(2, 4, 6, 6)
    whole = sum(cell.edges["0"].ops[name](x) for name in OP_SETS["micro"])
    with arch.using(arch.draw()):
        assert torch.allclose(cell(x)[0], whole / 5, atol=1e-6)
    with torch.no_grad():
        arch.logits["normal.op"][0, -1] = 1e4
    with arch.using(arch.draw()):
        assert not cell(x)[0].any()


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_nodes_of_a_cell_become_one_map(output: Output) -> None:
    s = space("micro", nodes=3)
    inner = Fixed(s.choices(), drawn(s)).cell("normal", s.dag, OPS, OpArgs(4))
    cell, x = RLCell(inner, 4, 4, output), torch.randn(2, 4, 6, 6)
    first, second, third = inner(x)
    if cell.weight is not None:
        with torch.no_grad():
            cell.weight.copy_(torch.tensor([0.2, 0.3, 0.5]).log())
    expected = {
        "sum": first + second + third,
        "average": (first + second + third) / 3,
        "weighted_sum": 0.2 * first + 0.3 * second + 0.5 * third,
        "last_node": third,
        "concat": cell.join(torch.cat([first, second, third], 1)),
    }
    assert torch.allclose(cell(x), expected[output], atol=1e-6)
    assert isinstance(cell.match, nn.Identity)
    assert RLCell(inner, 3, 4, output)(x[:, :3]).shape == x.shape


def test_a_norm_makes_each_node_mean_0_and_deviation_1_in_training_and_evaluation() -> None:
    s = space("micro", nodes=3)
    arch = Arch(s.choices(), {"op": Softmax()})
    super_net = Mixed(arch, Full()).cell("normal", s.dag, NORMED, OpArgs(4))
    final = Fixed(s.choices(), Genotype({"normal.op": (("tanh",), ("conv_3x3",), (), (), (), (NONE,))}))
    cell = final.cell("normal", s.dag, NORMED, OpArgs(4))
    assert not [name for name in [*cell.state_dict(), *super_net.state_dict()] if "after" in name]
    for training in (True, False):
        x = 1 + torch.randn(8, 4, 6, 6)
        with arch.using(arch.draw()):
            states = [*super_net.train(training)(x), *cell.train(training)(x)]
        for state in states[:5]:
            assert torch.allclose(state.mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
            assert torch.allclose(state.std((0, 2, 3)), torch.ones(4), atol=1e-2)
        assert not states[5].any()  # a node without input


def test_features_depend_on_the_rest_of_the_batch_with_a_norm_alone() -> None:
    for norm in ("none", "batch"):
        encoder = fixed(space("classic"), Network((4, 4), norm=norm))
        assert torch.allclose(encoder(watched(num=4))[:2], encoder(watched(num=4)[:2]), atol=1e-6) == (norm == "none")


def test_a_norm_of_one_observation_that_ends_in_one_pixel_is_finite() -> None:
    encoder = fixed(space("micro"), Network((2, 2, 2), norm="batch"), (8, 8, 1))
    assert encoder(watched((8, 8, 1), 1)).isfinite().all()


@pytest.mark.parametrize("skeleton", ["standard", "impala"])
@pytest.mark.parametrize("size", [(8, 8, 1), (64, 64, 3), (9, 31, 4), (33, 8, 12)], ids=str)
def test_observations_of_any_size_become_features(
    skeleton: typing.Literal["standard", "impala"], size: tuple[int, int, int]
) -> None:
    settings = Network((2, 3, 3), features=7)
    encoder = fixed(space("classic", skeleton, 2), settings, size)
    maps = []
    for stage in encoder.stages:
        stage[0].register_forward_hook(lambda module, inputs, y: maps.append(tuple(y.shape[1:])))
    x = watched(size, 6)
    y = encoder(x)
    assert y.shape == (6, encoder.features) == (6, 7)
    assert maps == [(c, -(-size[0] // 2**k), -(-size[1] // 2**k)) for k, c in ((1, 2), (2, 3), (3, 3))]
    assert torch.allclose(encoder(x.unflatten(0, (2, 3))), y.unflatten(0, (2, 3)), atol=1e-6)
    assert torch.allclose(encoder(x[0]), y[0], atol=1e-6)


def test_observations_stay_channels_last_on_their_way() -> None:
    encoder = fixed(space("classic"), Network((4, 4)))
    seen = []
    for stage in encoder.stages:
        stage.register_forward_hook(
            lambda module, inputs, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
        )
    encoder(watched())
    assert seen == [True, True]


def test_pixels_are_divided_by_255() -> None:
    encoder = fixed(space("micro"), Network((2,)))
    entered = []
    encoder.stages.register_forward_hook(lambda module, inputs, y: entered.append(inputs[0]))
    encoder(watched())
    assert torch.equal(entered[0], watched().permute(0, 3, 1, 2).float() / 255)


def test_every_logit_and_weight_learns() -> None:
    arch, encoder = searched(space("classic", nodes=2), Network((4, 4), output="weighted_sum"))
    with arch.using(arch.draw()):
        ActorCritic(encoder, 3)(watched())[0].square().sum().backward()
    assert all(bool((table.grad != 0).all()) for table in arch.logits.values() if table.grad is not None)
    assert all(parameter.grad is not None for parameter in [*arch.parameters(), *encoder.parameters()])


def test_cells_of_two_kinds_take_turns() -> None:
    s = space("micro", nodes=1, distinct=True)
    kept = {"normal.op": (("tanh",),), "normal2.op": (("conv_3x3",),)}
    encoder = build_encoder(Fixed(s.choices(), Genotype(kept)), s, Network((2, 2), 3), SIZE)
    for stage in encoder.stages:
        assert [next(iter(cell.inner.edges["0"].ops)) for cell in stage[1:]] == ["tanh", "conv_3x3", "tanh"]


def test_a_deeper_network_has_more_cells_in_each_stage_under_the_names_they_had() -> None:
    settings = Network((2, 2))
    assert isinstance(settings, Deepens)
    assert [settings.deeper(times).cells for times in (0.1, 1, 2.2, 3.4)] == [1, 2, 4, 7]
    for name in ("classic", "micro"):
        small, large = fixed(space(name), settings), fixed(space(name), settings.deeper(2))
        shapes = {name: tensor.shape for name, tensor in large.state_dict().items()}
        assert all(shapes[name] == tensor.shape for name, tensor in small.state_dict().items())
        assert len(shapes) > len(small.state_dict())


def test_partial_channels_go_with_both_skeletons() -> None:
    for skeleton in ("standard", "impala"):
        s = space("micro", skeleton, 2)
        arch = Arch(s.choices(), {"op": Softmax()})
        encoder = build_encoder(Mixed(arch, Partial(2)), s, Network((4, 4)), SIZE)
        with arch.using(arch.draw()):
            assert encoder(watched()).shape == (2, 256)


def test_the_first_convolution_can_be_left_out() -> None:
    with_, without = (fixed(space("classic"), Network((4,), first_conv=first)) for first in (True, False))
    assert count(with_.stem) == 4 * 28
    assert count(without.stem) == 0
    assert without.stages[0][0].match.weight.shape == (4, 3, 1, 1)
    assert without(watched()).shape == (2, 256)


def test_a_policy_begins_nearly_uniform_and_values_small() -> None:
    network = ActorCritic(fixed(space("micro"), Network((4, 4))), 15)
    logits, value = network(watched())
    assert logits.shape == (2, 15)
    assert value.shape == (2, 1)
    assert (logits.softmax(-1) - 1 / 15).abs().max() < 1e-3
    assert 0.02 < network.value.weight.abs().max() <= 0.03
    gram = network.policy.weight @ network.policy.weight.T
    assert torch.allclose(gram, 1e-4 * torch.eye(15), atol=1e-8)
    assert not network.value.bias.any()


def test_the_distributions_of_returns_sum_to_1_and_advantages_to_the_value() -> None:
    network = DuelingC51(fixed(space("micro"), Network((4, 4))), 5, 11, 16)
    found = network(watched())
    assert found.shape == (2, 11, 5)
    assert torch.allclose(found.exp().sum(1), torch.ones(2, 5))
    last, before = network.advantage[-1], found.clone()
    with torch.no_grad():  # the same for all actions, which is the value's to say
        last.bias.view(11, 5).add_(torch.randn(11, 1))
    assert torch.allclose(network(watched()), before, atol=1e-5)
    with torch.no_grad():  # one action more
        last.bias.view(11, 5)[3, 2] += 2
    moved = (network(watched()) - before).abs().amax((0, 1))
    assert moved.argmax() == 2
    with torch.no_grad():
        network.value[-1].bias[0] += 3
    assert (network(watched())[:, 0] > before[:, 0]).all()


def test_mistakes_are_told_in_one_line() -> None:
    encoder = fixed(space("micro"), Network((2,)))
    for call, message in {
        lambda: encoder(watched().float()): "observations: got float32 [2, 9, 13, 3]; allowed: uint8 [..., 9, 13, 3]",
        lambda: encoder(watched((3, 9, 13))): "observations: got uint8 [2, 3, 9, 13]; allowed: uint8 [..., 9, 13, 3]",
        lambda: fixed(space("micro"), Network(first_conv=False)): "network.first_conv: got false; allowed: true, as ",
    }.items():
        with pytest.raises(UserError) as told:
            call()
        assert str(told.value).startswith(message)
    for settings, message in (({"channels": ()}, "channels: got none"), ({"channels": (4, 0)}, "channels: got 0"),
                              ({"features": 0}, "features: got 0"), ({"cells": 0}, "cells: got 0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Network(**settings)
