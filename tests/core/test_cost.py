import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.cost import Cost, cost, count_macs, count_params


def by_hand(layer: nn.Module, x: Tensor) -> int:
    """Multiply-adds as the number of products of a weight and an input: with all of both at 1, they add up."""
    ones = layer.double()
    for p in ones.parameters():
        nn.init.ones_(p)
    return int(ones(torch.ones_like(x, dtype=torch.float64)).sum())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        pytest.param(nn.Conv2d(4, 6, 3, bias=False), (1, 4, 9, 7), id="conv2d"),
        pytest.param(nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2, bias=False), (1, 4, 9, 8), id="grouped"),
        pytest.param(nn.Conv2d(6, 6, 5, groups=6, bias=False), (1, 6, 9, 9), id="depthwise"),
        pytest.param(nn.Conv1d(4, 8, 3, groups=4, bias=False), (1, 4, 11), id="conv1d"),
        pytest.param(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), (1, 4, 5, 6), id="transposed"),
        pytest.param(nn.ConvTranspose1d(4, 6, 4, stride=2, bias=False), (1, 4, 5), id="transposed_1d"),
        pytest.param(nn.Linear(5, 3, bias=False), (1, 7, 5), id="linear_at_seven_places"),
    ],
)
def test_macs_are_the_products_that_a_layer_adds_up(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    assert count_macs(layer, x) == by_hand(layer, x)


def test_literature_macs_add_two_for_a_norm_and_one_for_a_relu() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    assert cost(network, torch.zeros(1, 3, 5, 5)) == Cost(24 + 16, 25 * 24, 25 * 24 + 3 * 25 * 8)


def test_parameters_of_auxiliary_heads_do_not_count() -> None:
    network = nn.ModuleDict({"body": nn.Linear(3, 2), "auxiliary_head": nn.Linear(3, 9)})
    assert count_params(network) == 8


def test_a_layer_counts_as_often_as_it_is_called() -> None:
    layer = nn.Linear(4, 4)
    assert count_macs(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4)) == 32
    assert count_params(nn.Sequential(layer, layer)) == 20


def test_counting_leaves_the_module_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
    network[1].eval()
    flags = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = torch.get_rng_state()
    cost(network, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(not module._forward_hooks for module in network.modules())
    assert torch.equal(before, torch.get_rng_state())


def test_random_layers_do_not_move_the_random_state() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.randn_like(x)

    before = torch.get_rng_state()
    cost(Noisy(), torch.zeros(1, 3))
    assert torch.equal(before, torch.get_rng_state())


def test_a_forward_that_fails_leaves_no_hooks() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        cost(layer, torch.zeros(1, 5))
    assert layer.training
    assert not layer._forward_hooks


def test_networks_can_be_counted_without_memory() -> None:
    with torch.device("meta"):
        assert cost(nn.Linear(10**6, 10**6), torch.zeros(1, 10**6)).macs == 10**12
