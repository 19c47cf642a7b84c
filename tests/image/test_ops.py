import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.cost import count_params
from nas_apps.core.op import OpArgs, OpTable
from nas_apps.tasks.image.ops import DARTS_OPS, NASBENCH201_OPS, FactorizedReduce

TABLES = {"darts": DARTS_OPS, "nasbench201": NASBENCH201_OPS}
EVERY_OP = [pytest.param(table, name, id=f"{space}-{name}") for space, table in TABLES.items() for name in table]


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "stride", "counts"),
    [
        ("sep_conv_3x3", 1, (864, 3384, 5664)),
        ("sep_conv_5x5", 1, (1376, 4536, 7200)),
        ("dil_conv_3x3", 1, (432, 1692, 2832)),
        ("dil_conv_5x5", 1, (688, 2268, 3600)),
        ("skip_connect", 2, (288, 1368, 2400)),
        ("skip_connect", 1, (0, 0, 0)),
        ("max_pool_3x3", 2, (0, 0, 0)),
        ("avg_pool_3x3", 1, (0, 0, 0)),
        ("none", 2, (0, 0, 0)),
    ],
)
def test_operations_have_the_papers_number_of_weights(name: str, stride: int, counts: tuple[int, int, int]) -> None:
    assert tuple(count_params(DARTS_OPS[name](OpArgs(c, stride))) for c in (16, 36, 48)) == counts


@pytest.mark.parametrize(("table", "name"), EVERY_OP)
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "bare"])
def test_operations_keep_the_shape_but_for_the_stride_and_leave_their_input_alone(
    table: OpTable, name: str, affine: bool
) -> None:
    for stride, size in [(1, (7, 5)), (2, (8, 8)), (2, (7, 5)), (2, (1, 2))]:
        x = images(2, 8, *size)
        before = x.clone()
        y = table[name](OpArgs(8, stride, affine))(x)
        assert y.shape == (2, 8, *(-(-side // stride) for side in size))
        assert torch.equal(x, before)


@pytest.mark.parametrize(("table", "name"), EVERY_OP)
def test_norms_have_weights_in_derived_networks_alone(table: OpTable, name: str) -> None:
    for affine in (True, False):
        norms = [m for m in table[name](OpArgs(8, 2, affine)).modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(norm.affine == affine for norm in norms)


@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_darts_pools_are_normalised_in_the_super_net_alone(name: str) -> None:
    x = images(4, 8, 6, 6)
    derived, mixed = (DARTS_OPS[name](OpArgs(8, affine=affine)) for affine in (True, False))
    assert not list(derived.buffers())
    assert torch.allclose(mixed(x), functional.batch_norm(derived(x), None, None, training=True))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_average_pools_do_not_count_the_padding(table: OpTable) -> None:
    assert torch.equal(table["avg_pool_3x3"](OpArgs(1))(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_the_pool_of_nasbench201_is_never_normalised() -> None:
    assert not list(NASBENCH201_OPS["avg_pool_3x3"](OpArgs(8, affine=False)).buffers())


@pytest.mark.parametrize("name", ["nor_conv_1x1", "nor_conv_3x3"])
def test_convolutions_of_nasbench201_have_a_bias_where_norms_have_no_weights(name: str) -> None:
    for affine in (True, False):
        (conv,) = [m for m in NASBENCH201_OPS[name](OpArgs(4, affine=affine)).modules() if isinstance(m, nn.Conv2d)]
        assert (conv.bias is None) == affine


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_skip_is_an_identity(table: OpTable) -> None:
    assert type(table["skip_connect"](OpArgs(8))) is nn.Identity


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (5, 5)], ids=str)
def test_factorized_reduce_sees_every_pixel(size: tuple[int, int]) -> None:
    reduce = FactorizedReduce(1, 2, affine=False)
    for conv in (reduce.here, reduce.there):
        nn.init.ones_(conv.weight)
    x = torch.arange(1.0, 1 + size[0] * size[1]).reshape(1, 1, *size)
    padded = functional.pad(x, (0, 1, 0, 1))
    reduce.norm = nn.Identity()
    assert torch.equal(reduce(x)[:, :1], x[:, :, ::2, ::2])
    assert torch.equal(reduce(x)[:, 1:], padded[:, :, 1::2, 1::2][:, :, : -(-size[0] // 2), : -(-size[1] // 2)])


def test_noise_is_standard_normal_whatever_the_input() -> None:
    torch.manual_seed(0)
    x = torch.full((8, 8, 32, 32), 100.0, requires_grad=True)
    y = DARTS_OPS["noise"](OpArgs(8, 2))(x)
    assert not y.requires_grad
    assert abs(float(y.mean())) < 0.05
    assert abs(float(y.std()) - 1) < 0.05
    assert not torch.equal(y, DARTS_OPS["noise"](OpArgs(8, 2))(x))


def test_none_is_zero_even_for_inputs_that_are_not_finite() -> None:
    y = DARTS_OPS["none"](OpArgs(1, 2))(torch.tensor([[[[float("nan"), 1.0], [float("inf"), 2.0]]]]))
    assert torch.equal(y, torch.zeros(1, 1, 1, 1))


@pytest.mark.parametrize(("kernel", "reach"), [(3, 2), (5, 4)])
def test_dilated_convolutions_reach_twice_as_far(kernel: int, reach: int) -> None:
    op = DARTS_OPS[f"dil_conv_{kernel}x{kernel}"](OpArgs(1)).eval()
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1.0
    rows = op(x)[0, 0].abs().sum(1).nonzero().flatten().tolist()
    assert rows == list(range(7 - reach, 7 + reach + 1, 2))
