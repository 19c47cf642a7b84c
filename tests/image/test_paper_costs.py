"""Parameters and multiply-adds of published networks, to the unit. On the meta device: nothing is computed."""

from functools import cache

import pytest
import torch
from torch import nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.cost import Cost, cost, count_params
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full, Partial, Wiring
from nas_apps.tasks.image.network import Network, build_network
from nas_apps.tasks.image.published import PUBLISHED, from_arch_string
from nas_apps.tasks.image.spaces import SPACES, space_of

CIFAR = Network(channels=36, cells=20, auxiliary=0.4)
IMAGENET = Network(channels=48, cells=14, stem="imagenet", auxiliary=0.4)
PIXELS = {"cifar": 32, "imagenet": 224}


@cache
def final(name: str, settings: Network, num_classes: int) -> nn.Module:
    genotype = PUBLISHED[name] if name in PUBLISHED else from_arch_string(name)
    space = space_of(genotype)
    with torch.device("meta"):
        return build_network(space, Fixed(space.choices(), genotype), settings, num_classes=num_classes)


def super_net(name: str, settings: Network, wiring: Wiring, num_classes: int) -> nn.Module:
    arch = Arch(SPACES[name].choices(), {"op": Softmax()})
    with torch.device("meta"):
        return build_network(SPACES[name], Mixed(arch, wiring), settings, num_classes=num_classes)


def with_auxiliary(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@cache
def costs(name: str, stem: str) -> Cost:
    network = final(name, CIFAR if stem == "cifar" else IMAGENET, 10 if stem == "cifar" else 1000)
    return cost(network, torch.zeros(1, 3, PIXELS[stem], PIXELS[stem], device="meta"))


# CIFAR-10 without and with the auxiliary head, CIFAR-100 without, ImageNet without and with.
PARAMS = {
    "darts_v1": (3_169_414, 3_645_840, 3_221_344, 4_510_432, 5_771_208),
    "darts_v2": (3_349_342, 3_825_768, 3_401_272, 4_718_752, 5_979_528),
    "pc_darts_cifar": (3_634_678, 4_111_104, 3_686_608, 5_270_560, 6_531_336),
    "pc_darts_image": (3_721_510, 4_197_936, 3_773_440, 5_342_464, 6_603_240),
    "pdarts": (3_433_798, 3_910_224, 3_485_728, 4_944_352, 6_205_128),
    "sdarts_adv": (3_344_806, 3_821_232, 3_396_736, 4_768_864, 6_029_640),
    "sdarts_rs": (3_606_166, 4_082_592, 3_658_096, 5_120_320, 6_381_096),
    "ms_darts": (3_963_862, 4_440_288, 4_015_792, 5_578_624, 6_839_400),
    "gdas_v1": (3_368_782, 3_845_208, None, 4_969_216, 6_229_992),
    "drnas_cifar10": (4_099_294, 4_575_720, 4_151_224, 5_738_464, 6_999_240),
    "drnas_imagenet": (4_048_750, 4_525_176, 4_100_680, 5_726_368, 6_987_144),
}


@pytest.mark.parametrize("name", PARAMS)
def test_published_networks_have_the_papers_number_of_parameters(name: str) -> None:
    cifar, imagenet, cifar100 = final(name, CIFAR, 10), final(name, IMAGENET, 1000), PARAMS[name][2]
    assert (count_params(cifar), with_auxiliary(cifar)) == PARAMS[name][:2]
    assert (count_params(imagenet), with_auxiliary(imagenet)) == PARAMS[name][3:]
    if cifar100 is not None:
        assert with_auxiliary(final(name, Network(channels=36, cells=20), 100)) == cifar100


def test_the_auxiliary_head_for_cifar100_has_its_own_size() -> None:
    network = final("darts_v2", CIFAR, 100)
    assert with_auxiliary(network) - count_params(network) == 545_636


@pytest.mark.parametrize(
    ("name", "settings", "num_classes", "params"),
    [
        ("gdas_v1", Network(50, 14, "imagenet"), 1000, 5_345_075),
        ("darts_v2", Network(16, 8), 10, 246_106),
        ("darts_v2", Network(16, 20), 10, 710_682),
        ("pc_darts_cifar", Network(16, 8), 10, 335_738),
        ("pc_darts_cifar", Network(16, 20), 10, 788_218),
        ("s1_sdarts_adv", Network(36, 20), 10, 3_377_206),
        ("s1_sdarts_adv", Network(16, 20), 10, 724_986),
        ("s2_sdarts_adv", Network(36, 20), 10, 4_281_382),
        ("s2_sdarts_adv", Network(16, 20), 10, 914_362),
        ("s3_sdarts_adv", Network(36, 20), 10, 4_341_862),
        ("s3_sdarts_adv", Network(16, 20), 10, 928_442),
        ("s4_sdarts_adv", Network(36, 20), 10, 4_701_718),
        ("s4_sdarts_adv", Network(16, 20), 10, 1_007_738),
    ],
)
def test_networks_of_other_sizes_have_their_number_of_parameters(
    name: str, settings: Network, num_classes: int, params: int
) -> None:
    assert with_auxiliary(final(name, settings, num_classes)) == params


@pytest.mark.parametrize(
    ("name", "cifar", "imagenet"),
    [
        ("darts_v1", 500_987_520, 505_864_704),
        ("darts_v2", 528_359_040, 529_911_552),
        ("pc_darts_cifar", 556_670_592, 571_137_408),
        ("pc_darts_image", 570_466_944, 581_627_328),
        ("pdarts", 532_174_464, 542_819_328),
        ("sdarts_adv", 526_755_456, 531_567_360),
        ("gdas_v1", 519_428_736, None),
        ("ms_darts", None, 612_805_440),
    ],
)
def test_published_networks_have_the_papers_multiply_adds(name: str, cifar: int | None, imagenet: int | None) -> None:
    for stem, macs in (("cifar", cifar), ("imagenet", imagenet)):
        assert macs is None or costs(name, stem).macs == macs


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("pc_darts_image", 597_056_448),
        ("pc_darts_cifar", 585_945_600),
        ("pdarts", 557_119_488),
        ("darts_v2", 543_985_920),
    ],
)
def test_literature_macs_are_the_figures_that_papers_print(name: str, macs: int) -> None:
    assert costs(name, "imagenet").literature_macs == macs


@pytest.mark.parametrize(
    ("space", "settings", "wiring", "num_classes", "params"),
    [
        pytest.param("darts", (16, 8), Full(), 10, 1_930_618, id="darts"),
        pytest.param("darts_no_none", (16, 8), Full(), 10, 1_930_618, id="darts_without_none"),
        pytest.param("darts", (16, 5), Full(), 10, 1_275_834, id="pdarts_stage_1"),
        pytest.param("darts", (16, 20), Full(), 10, 4_548_730, id="darts_20_cells"),
        pytest.param("darts", (36, 20), Full(), 10, 19_932_310, id="darts_full_size"),
        pytest.param("darts", (8, 8), Full(), 10, 597_890, id="darts_8_channels"),
        pytest.param("darts", (4, 3), Full(), 10, 72_854, id="darts_tiny"),
        pytest.param("darts", (16, 8), Partial(4), 10, 299_578, id="pc_darts"),
        pytest.param("darts", (16, 8, "imagenet_search"), Partial(2), 1000, 956_512, id="pc_darts_imagenet"),
        pytest.param("nasbench201", (16, 5), Full(), 10, 1_692_826, id="nasbench201"),
    ],
)
def test_super_nets_have_the_papers_number_of_parameters(
    space: str, settings: tuple[int, int], wiring: Wiring, num_classes: int, params: int
) -> None:
    assert with_auxiliary(super_net(space, Network(*settings, affine=False), wiring, num_classes)) == params


def test_a_super_net_of_nasbench201_with_weights_in_its_norms_has_no_biases() -> None:
    assert with_auxiliary(super_net("nasbench201", Network(16, 5), Full(), 10)) == 1_699_546


BEST_CIFAR10 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.mark.parametrize(
    ("arch", "num_classes", "params"),
    [
        (BEST_CIFAR10, 10, 1_073_466),
        (BEST_CIFAR10, 100, 1_079_316),
        (BEST_CIFAR10, 120, 1_080_616),
        ("nor_conv_3x3", 10, 1_531_546),
        ("nor_conv_1x1", 10, 241_306),
        ("skip_connect", 10, 73_306),
        ("avg_pool_3x3", 10, 73_306),
        ("none", 10, 73_306),
    ],
)
def test_networks_of_nasbench201_have_the_benchmarks_number_of_parameters(
    arch: str, num_classes: int, params: int
) -> None:
    text = arch if "|" in arch else f"|{arch}~0|+|{arch}~0|{arch}~1|+|{arch}~0|{arch}~1|{arch}~2|"
    assert with_auxiliary(final(text, Network(16, 5), num_classes)) == params
