from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402
from timm.data import resolve_data_config  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402

from nas_apps.core.cell import Fixed  # noqa: E402
from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.core.parts.derive import Random  # noqa: E402
from nas_apps.tasks.image import timm_model  # noqa: E402, F401
from nas_apps.tasks.image.network import ImageNetwork, Network, build_network  # noqa: E402
from nas_apps.tasks.image.published import PUBLISHED  # noqa: E402
from nas_apps.tasks.image.spaces import SPACES  # noqa: E402

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SMALL = {"channels": 4, "cells": 3}


def create(genotype: Any = "darts_v2", **settings: Any) -> ImageNetwork:
    return timm.create_model("nas_cell", genotype=genotype, **{**SMALL, **settings})


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_timm_knows_the_model() -> None:
    assert timm.is_model("nas_cell")
    assert "nas_cell" not in timm.list_models(pretrained=True)


def test_a_genotype_can_be_a_name_a_file_a_string_or_itself(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    PUBLISHED["darts_v2"].save(path)
    networks = [create("darts_v2"), create(path), create(str(path)), create(PUBLISHED["darts_v2"])]
    assert len({tuple(network.state_dict()) for network in networks}) == 1
    assert create(ARCH, cells=1).num_features == 16


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("edges", [False, True], ids=["ops", "ops_and_edges"])
def test_genotypes_of_every_space_make_models(space: str, edges: bool) -> None:
    genotype = Random()(SPACES[space].choices(edges=edges), {}, torch.Generator().manual_seed(0))
    for given in (None, space):
        assert create(genotype, space=given, num_classes=5)(images(2, 3, 8, 8)).shape == (2, 5)


def test_sizes_are_the_papers_when_none_are_given() -> None:
    with torch.device("meta"):
        cifar = timm.create_model("nas_cell", genotype="darts_v2")
        imagenet = timm.create_model("nas_cell", genotype="darts_v2", stem="imagenet")
        small = timm.create_model("nas_cell", genotype=ARCH)
    counts = [sum(p.numel() for p in network.parameters()) for network in (cifar, imagenet, small)]
    assert counts == [3_349_342, 4_718_752, 1_073_466]


def test_the_model_is_the_plain_network(tmp_path: Path) -> None:
    space, x = SPACES["darts"], images(2, 3, 8, 8)
    fill = Fixed(space.choices(), PUBLISHED["darts_v2"])
    plain = build_network(space, fill, Network(4, 3, auxiliary=0.4), num_classes=7)
    plain(x)  # moves the running means
    weights = str(tmp_path / "weights.safetensors")
    save_file(plain.state_dict(), weights)
    for auxiliary in (0.0, 0.4):
        model = create(num_classes=7, auxiliary=auxiliary, checkpoint_path=weights).eval()
        assert torch.equal(model(x), plain.eval()(x))
    backbone = create(features_only=True, pretrained=True, pretrained_cfg_overlay={"file": weights}).eval()
    assert torch.equal(backbone(x)[-1], plain.forward_features(x))


def test_heads_can_be_taken_apart_and_replaced() -> None:
    network = create(num_classes=7).eval()
    x = images(2, 3, 12, 10)
    last = network.forward_features(x)
    assert last.shape == (2, network.num_features, 3, 3)
    assert torch.equal(network.forward_head(last), network(x))
    assert network.forward_head(last, pre_logits=True).shape == (2, network.head_hidden_size)
    network.reset_classifier(3)
    assert network.get_classifier().out_features == network.num_classes == network(x).shape[1] == 3
    network.reset_classifier(0)
    assert network(x).shape == (2, network.num_features)
    network.reset_classifier(0, "")
    assert torch.equal(network(x), last)


def test_models_without_classes_give_features() -> None:
    assert create(num_classes=0)(images(2, 3, 8, 8)).shape == (2, 64)
    assert create(num_classes=0, global_pool="")(images(2, 3, 8, 8)).shape == (2, 64, 2, 2)


@pytest.mark.parametrize(
    ("settings", "reductions"),
    [
        ({}, [1, 2, 4]),
        ({"cells": 2}, [2, 4]),
        ({"cells": 8}, [1, 2, 4]),
        ({"stem": "imagenet"}, [4, 8, 16, 32]),
        ({"genotype": ARCH}, [1, 2, 4]),
    ],
    ids=["cifar", "two_cells", "eight_cells", "imagenet", "nasbench201"],
)
def test_features_are_a_map_for_each_resolution(settings: dict[str, Any], reductions: list[int]) -> None:
    network = create(features_only=True, **settings)
    maps = network(images(2, 3, 64, 32))
    assert network.feature_info.reduction() == reductions
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert [(64 // m.shape[2], 32 // m.shape[3]) for m in maps] == [(r, r) for r in reductions]


@pytest.mark.parametrize("feature_cls", ["getter", "hook"])
def test_features_can_be_picked(feature_cls: str) -> None:
    torch.manual_seed(0)
    whole = create(cells=6).eval()
    for indices in [(0,), (1, 2), (-1,), (0, -2)]:
        torch.manual_seed(0)
        some = create(cells=6, features_only=True, out_indices=indices, feature_cls=feature_cls).eval()
        _, maps = whole.forward_intermediates(images(2, 3, 16, 16))
        for index, picked in zip(indices, some(images(2, 3, 16, 16)), strict=True):
            assert torch.equal(picked, maps[index])


def test_layers_after_the_last_map_are_left_out() -> None:
    assert len(create(cells=6, features_only=True, out_indices=(0,)).model.cells) == 2
    assert len(create(cells=6, features_only=True, out_indices=(0,), stem="imagenet").model.cells) == 0


def test_intermediate_maps_end_with_what_the_head_sees() -> None:
    network = create(ARCH, cells=1).eval()
    last, maps = network.forward_intermediates(images(2, 3, 8, 8), 2, norm=True)
    assert len(maps) == 2
    assert torch.equal(last, maps[-1])
    early = network.forward_intermediates(images(2, 3, 8, 8), [0], stop_early=True, intermediates_only=True)
    assert [tuple(m.shape) for m in early] == [(2, 4, 8, 8)]


def test_rates_reach_the_network() -> None:
    network = create(drop_rate=0.5, drop_path_rate=0.5)
    x = images(4, 3, 8, 8)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
    assert network.drop_rate == 0.5


@pytest.mark.parametrize("settings", [{"layer_decay": 0.7}, {"weight_decay": 0.05}], ids=str)
def test_timms_training_script_finds_what_it_asks_for(settings: dict[str, float]) -> None:
    network = create(in_chans=1, num_classes=3)
    optimizer = create_optimizer_v2(network, "sgd", lr=0.1, momentum=0.9, **settings)
    network.set_grad_checkpointing(True)
    network(images(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    data = resolve_data_config({}, model=network)
    assert data["input_size"] == (1, 32, 32)


def test_data_settings_follow_the_stem() -> None:
    assert create(stem="imagenet").default_cfg["input_size"] == (3, 224, 224)
    assert create().pretrained_cfg["mean"] == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"genotype": "darts_v3"}, "genotype: no 'darts_v3'; allowed: .*darts_v2"),
        ({"genotype": "missing.json"}, r"missing\.json: cannot read a genotype"),
        ({"genotype": None}, "genotype: none given"),
        ({"genotype": "|conv~0|"}, "architecture '|conv~0|': not of the form"),
        ({"space": "nasbench201"}, "genotype: of another space"),
        ({"space": "mars"}, "space: no 'mars'; allowed: darts"),
        ({"stem": "big"}, "stem: no 'big'; allowed: cifar"),
        ({"wings": 2}, "nas_cell: no 'wings'; allowed: auxiliary"),
        ({"pretrained": True}, "pretrained: nas_cell has no weights to download"),
        ({"global_pool": "max", "num_classes": 0}, "global_pool: no 'max'; allowed: , avg"),
        ({"global_pool": ""}, "global_pool: '' leaves a map"),
        ({"features_only": True, "out_indices": (3,)}, r"out_indices: \[3\]; this network has 3 maps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_clear_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        create(**settings)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_genotype_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text('{"normal": []}')
    with pytest.raises(UserError, match=r"g\.json: not a genotype"):
        create(path)
