"""How a search goes from one stage to the next: a narrower space, perhaps another network, what is carried over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.config import Recipe
from nas_apps.core.learner import Learner
from nas_apps.core.parts.derive import heaviest
from nas_apps.core.space import Choice, Space, narrowed
from nas_apps.core.stage import Stage


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a recipe's search; one where the method has none."""
    return recipe.variant.stages or (Stage(),)


def first_epochs(recipe: Recipe) -> list[int]:
    """The epochs at which the stages begin, and that at which the last one ends."""
    number = len(stages_of(recipe))
    return [recipe.search.epochs * index // number for index in range(number + 1)]


def stage_recipe(recipe: Recipe, index: int) -> Recipe:
    """The recipe of one stage: its epochs, wiring and depth."""
    stage, epochs, network = stages_of(recipe)[index], first_epochs(recipe), recipe.search.network
    if stage.deeper != 1 and hasattr(network, "deeper"):
        network = network.deeper(stage.deeper)
    variant = recipe.variant if stage.wiring is None else replace(recipe.variant, wiring=stage.wiring)
    search = replace(recipe.search, epochs=epochs[index + 1] - epochs[index], network=network)
    return replace(recipe, variant=variant, search=search)


def narrow(arch: Arch, number: int | None) -> Space:
    """The space in which each row of operations keeps its `number` heaviest options, in their order."""
    weights = {name: table.tolist() for name, table in arch.expected().weights.items()}
    return narrowed(arch.space, lambda name, r, options: heaviest(options, weights[name][r], number or len(options)))


def rows_of(space: Space) -> dict[str, list[list[str]]]:
    """The options of a space's rows, as plain data."""
    return {name: [list(row) for row in choice.rows] for name, choice in space.items()}


def with_rows(space: Space, rows: Mapping[str, list[list[str]]]) -> Space:
    """A space with the rows that `rows_of` gave."""
    return narrowed(space, lambda name, r, _: tuple(rows[name][r]))


def hand_over(old: Learner, new: Learner) -> None:
    """Logits by their options, and weights by their names: those that are still there go on.

    Where a tensor has grown, what is new are copies of what was there, taken in turn; the code of arXiv:2006.10355
    draws them. Optimisers start anew.
    """
    with torch.no_grad():
        for name, choice in new.arch.space.items():
            _carry(old.arch.space[name], old.arch.logits[name], choice, new.arch.logits[name])
        before = old.objective.state_dict()
        for name, tensor in new.objective.state_dict().items():
            if name in before and before[name].ndim == tensor.ndim:
                tensor.copy_(_grown(before[name], tensor.shape))


def _carry(old: Choice, logits: Tensor, new: Choice, into: Tensor) -> None:
    for r, (before, row) in enumerate(zip(old.rows, new.rows, strict=True)):
        into[r] = logits[r, [before.index(option) for option in row]]


def _grown(tensor: Tensor, shape: torch.Size) -> Tensor:
    for axis, size in enumerate(shape):
        tensor = tensor.index_select(axis, torch.arange(size, device=tensor.device) % tensor.shape[axis])
    return tensor
