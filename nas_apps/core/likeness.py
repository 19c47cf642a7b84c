"""A network made as large as another, so that the two can be compared."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import Any

from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.price import derived
from nas_apps.core.task import Resizes

NEAR, MOST = 0.03, 0.1
"""How far from as large a network is near enough not to look for another shape, and how far it may be; as shares."""


def resized_like(recipe: Recipe, genotype: Genotype, params: int) -> Recipe:
    """The recipe whose final network of `genotype` has about `params` parameters, in the first of
    the shapes it can have that comes near enough, or else as near as its sizes allow.

    Raises:
        UserError: the task's networks have one size, or none of their sizes is near.
    """
    network = recipe.train.network
    if not isinstance(network, Resizes):
        raise UserError("train.network: the networks of this task are of one size")

    def size(settings: Any) -> int:
        built, _ = derived(recipe.task, genotype, replace(recipe.train, network=settings))
        return sum(p.numel() for p in built.parameters())

    found: dict[Any, int] = {}
    for row in network.sizes():
        at = min(bisect_left(row, params, key=size), len(row) - 1)
        found |= {settings: size(settings) for settings in row[max(at - 1, 0) : at + 1]}
        best = min(found, key=lambda settings: abs(found[settings] - params))
        if abs(found[best] - params) <= NEAR * params:
            break
    if abs(found[best] - params) > MOST * params:
        raise UserError(
            f"train.network: {params:,} parameters are asked for, and {found[best]:,} are the nearest with this cell; "
            "allowed: a train.network whose size is nearer to that"
        )
    return replace(recipe, train=replace(recipe.train, network=best))
