"""Parameters and multiply-adds of published networks, to the unit. On the meta device: nothing is computed."""

import pytest
import torch

from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.cost import cost, count_params
from nas_apps.core.errors import UserError
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full
from nas_apps.tasks.sr.costs import prices
from nas_apps.tasks.sr.network import Network, Upscaler
from nas_apps.tasks.sr.published import PUBLISHED, agd, find, rrdb
from nas_apps.tasks.sr.spaces import SRSpace
from nas_apps.tasks.sr.tree import Tree

SIZE = (256, 256)
COUNTS = {
    "trilevel_a1": (335_427, 78_429_290_496),
    "trilevel_a2": (665_987, 88_818_581_504),
    "trilevel_b1": (234_192, 15_340_666_880),
    "trilevel_b2": (509_072, 33_351_008_256),
    "trilevel_b3": (264_496, 17_318_281_216),
    "agd_visual_body": (336_451, 67_222_110_208),
    "agd_psnr_body": (393_955, 70_990_692_352),
}


def space_of(name: str) -> SRSpace:
    return SRSpace(Tree("B" if name.startswith("trilevel_b") else "A"))


@pytest.mark.parametrize("name", COUNTS)
def test_published_networks_cost_what_the_tables_say(name: str) -> None:
    space, genotype = space_of(name), find(name, space_of(name))
    with torch.device("meta"):
        network = Upscaler(Fixed(space.choices(), genotype), space, Network(global_skip=False), 4)
        found = cost(network, torch.zeros(1, 3, *SIZE))
    assert (found.params, found.macs) == COUNTS[name]
    weights = one_hot(space.choices(), genotype).weights
    assert tuple(int(price(weights)) for price in prices(space, 4, SIZE).values()) == COUNTS[name]


def test_the_super_net_of_the_paper_has_28_million_parameters() -> None:
    space = SRSpace()
    arch = Arch(space.choices(), {kind: Softmax() for kind in ("exit", "op", "width")})
    with torch.device("meta"):
        assert count_params(Upscaler(Mixed(arch, Full()), space, Network(global_skip=False), 4)) == 28_409_648


def test_every_published_name_is_counted() -> None:
    assert set(PUBLISHED) == set(COUNTS)


def test_a_published_genotype_is_canonical() -> None:
    for name in PUBLISHED:
        assert space_of(name).canonical(find(name, space_of(name))) == find(name, space_of(name))


def test_the_rivals_cost_what_the_tables_say() -> None:
    assert rrdb(SIZE) == (16_697_987, 1_174_853_910_528)
    assert agd(COUNTS["agd_visual_body"], SIZE) == (410_307, 108_292_734_976)
    assert agd(COUNTS["agd_psnr_body"], SIZE) == (467_811, 112_061_317_120)


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("trilevel_a1", SRSpace()),
        ("trilevel_b2", SRSpace(Tree(cells=3, searched=2))),
        ("trilevel_b2", SRSpace(channels=32)),
        ("trilevel_b2", SRSpace(widths=(1.0,))),
        ("trilevel_b9", SRSpace()),
    ],
)
def test_a_published_genotype_of_another_space_is_refused_in_one_line(name: str, space: SRSpace) -> None:
    with pytest.raises(UserError, match=r"^genotype.*allowed: [^\n]*$"):
        find(name, space)
