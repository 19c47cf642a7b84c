"""A network made as large as another, so that the two can be compared."""

from __future__ import annotations

from dataclasses import replace

from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.price import derived
from nas_apps.core.task import Widens

FACTOR, HALVINGS = 8.0, 12


def widened_like(recipe: Recipe, genotype: Genotype, params: int) -> Recipe:
    """The recipe whose final network of `genotype` has about `params` parameters, as near as whole widths allow.

    Raises:
        UserError: the task's networks cannot be widened, or not as far.
    """
    network = recipe.train.network
    if not isinstance(network, Widens):
        raise UserError("train.network: the networks of this task have no width that could be changed")

    def size(times: float) -> int:
        phase = replace(recipe.train, network=network.wider(times))
        return sum(p.numel() for p in derived(recipe.task, genotype, phase)[0].parameters())

    narrow = wide = 1.0
    while size(wide) < params and wide < FACTOR:
        narrow, wide = wide, 2 * wide
    while size(narrow) > params and narrow > 1 / FACTOR:
        narrow, wide = narrow / 2, narrow
    if not size(narrow) <= params <= size(wide):
        raise UserError(
            f"train.network: {size(1.0):,} parameters with this cell, and {params:,} are asked for; allowed: what an "
            f"eighth to {FACTOR:g} times its width has"
        )
    for _ in range(HALVINGS):
        middle = (narrow + wide) / 2
        narrow, wide = (middle, wide) if size(middle) <= params else (narrow, middle)
    times = min((narrow, wide), key=lambda times: abs(size(times) - params))
    return replace(recipe, train=replace(recipe.train, network=network.wider(times)))
