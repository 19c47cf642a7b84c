"""Searched networks as a timm model: importing this module registers `nas_cell`.

`timm.create_model("nas_cell", genotype="genotype.json", num_classes=10)` is the plain network of `build_network`, so
that weights saved from the one load into the other, and timm's own scripts train and validate it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet  # what feature_cls="getter" stands for
from torch import nn

from nas_apps.core.cell import Fixed
from nas_apps.core.errors import UserError, unknown
from nas_apps.core.exported import load_weights
from nas_apps.core.files import read_text
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.drop import DropPath
from nas_apps.core.parts.wiring import Full
from nas_apps.tasks.image.network import ImageNetwork, Network, build_network
from nas_apps.tasks.image.published import PUBLISHED, from_arch_string
from nas_apps.tasks.image.spaces import SPACES, ImageSpace, space_of

_CIFAR: Mapping[str, Any] = {
    "input_size": (3, 32, 32),
    "num_classes": 10,
    "crop_pct": 1.0,
    "mean": (0.49139968, 0.48215827, 0.44653124),
    "std": (0.24703233, 0.24348505, 0.26158768),
}
_IMAGENET: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    "num_classes": 1000,
    "crop_pct": 0.875,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
_DATA = {"cifar": _CIFAR, "imagenet": _IMAGENET, "imagenet_search": _IMAGENET}
_SIZES = {("darts", "cifar"): (36, 20), ("darts", "imagenet"): (48, 14), ("nasbench201", "cifar"): (16, 5),
          ("nasbench1shot1", "cifar"): (128, 3)}  # fmt: skip
_SETTINGS = {"channels": "channels", "cells": "cells", "stem": "stem", "auxiliary": "auxiliary", "drop_rate": "dropout"}

default_cfgs = generate_default_cfgs({"nas_cell": {"first_conv": "stem.first.0", "classifier": "classifier", **_CIFAR}})


@register_model
def nas_cell(
    pretrained: bool = False,
    *,
    genotype: Genotype | str | Path | None = None,
    space: str | None = None,
    **settings: Any,
) -> nn.Module:
    """The network of a genotype; with `features_only`, its maps.

    Args:
        pretrained: take the weights that `pretrained_cfg_overlay={"file": ...}` names; there are none to download.
        genotype: one of ours, a file of one, the name of a published one, or a NAS-Bench-201 architecture string.
        space: the name of its space; found from the genotype when not given.
        settings: `channels`, `cells`, `stem` and `auxiliary` of `Network`, with the sizes of the papers when not given,
            and timm's `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`, `out_indices`.
    """
    found, where = _genotype(genotype), "genotype" if isinstance(genotype, Genotype) else str(genotype)
    if space is not None and space not in SPACES:
        raise unknown("space", space, SPACES)
    stem = settings.setdefault("stem", "cifar")
    if stem not in _DATA:
        raise unknown("stem", stem, _DATA)
    overlay = {**_data(stem, settings.get("in_chans", 3)), **(settings.pop("pretrained_cfg_overlay", None) or {})}
    if pretrained and not overlay.keys() & {"file", "url", "state_dict", "hf_hub_id"}:
        raise UserError("pretrained: nas_cell has no weights to download; give checkpoint_path=<file of weights>")
    network: nn.Module = build_model_with_cfg(
        _build,
        "nas_cell",
        pretrained,
        pretrained_cfg_overlay=overlay,
        feature_cfg={"feature_cls": _maps, "out_indices": None},
        found=found,
        space=space_of(found, where) if space is None else SPACES[space],
        **settings,
    )
    return network


def load_model(folder: Path) -> nn.Module:
    """The network that a training left in a folder, in evaluation mode on the CPU."""
    path = folder / "model.json"
    try:
        arguments = json.loads(read_text(path, "a trained network"))["create_model"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: not a network of this task; allowed: what a training of the task image left"
        ) from None
    network: nn.Module = timm.create_model(**{**arguments, "genotype": folder / arguments["genotype"]})
    load_weights(network, folder)
    return network.eval()


def _build(*, found: Genotype, space: ImageSpace, num_classes: int, in_chans: int, **given: Any) -> ImageNetwork:
    global_pool, drop_path = given.pop("global_pool", "avg"), given.pop("drop_path_rate", 0.0)
    for name in given:
        if name not in _SETTINGS:
            raise unknown("nas_cell", name, [*_SETTINGS, "drop_path_rate", "global_pool", "in_chans", "num_classes"])
    channels, cells = _SIZES.get((space.skeleton, given["stem"]), (Network.channels, Network.cells))
    fields = {"channels": channels, "cells": cells} | {_SETTINGS[name]: setting for name, setting in given.items()}
    fill = Fixed(space.choices(), found, Full(DropPath(drop_path)) if drop_path else None)
    network = build_network(space, fill, Network(**fields), in_chans=in_chans, num_classes=num_classes)
    if global_pool != "avg":
        network.reset_classifier(num_classes, global_pool)
    return network


def _data(stem: str, in_chans: int) -> dict[str, Any]:
    """What the images of a network look like; the means of colours where there are not three of them."""
    data = dict(_DATA[stem])
    if in_chans != 3:
        data |= {name: (fmean(data[name]),) * in_chans for name in ("mean", "std")}
        data["input_size"] = (in_chans, *data["input_size"][1:])
    return data


def _maps(network: ImageNetwork, *, out_indices: int | Sequence[int] | None) -> nn.Module:
    if out_indices is None:
        out_indices = len(network.feature_info)
    return FeatureGetterNet(network, out_indices if isinstance(out_indices, int) else tuple(out_indices))


def _genotype(given: Genotype | str | Path | None) -> Genotype:
    if given is None:
        raise UserError('genotype: none given; nas_cell needs genotype="<file>" or the name of a published one')
    if isinstance(given, Genotype):
        return given
    if isinstance(given, str) and given in PUBLISHED:
        return PUBLISHED[given]
    if isinstance(given, str) and given.startswith("|"):
        return from_arch_string(given)
    if Path(given).suffix != ".json" and not Path(given).exists():
        raise unknown("genotype", str(given), [*PUBLISHED, "<file>.json", "|op~0|+..."])
    return Genotype.load(Path(given))
