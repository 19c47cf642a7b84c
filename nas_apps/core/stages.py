"""How a search goes from one stage to the next: a narrower space, perhaps another network, what is carried over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.config import Recipe
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.parts.derive import heaviest
from nas_apps.core.progress import Span
from nas_apps.core.space import Choice, Space, narrowed
from nas_apps.core.stage import Stage
from nas_apps.core.task import Deepens


@dataclass(frozen=True)
class Part:
    """One stage of a search: its number, its settings, its epochs, and its recipe."""

    index: int
    stage: Stage
    span: Span
    recipe: Recipe


def parts_of(recipe: Recipe) -> list[Part]:
    """The stages of a recipe's search, which share its epochs evenly; one where the method has none."""
    stages, epochs = recipe.variant.stages or (Stage(),), recipe.search.epochs
    ends = [epochs * index // len(stages) for index in range(len(stages) + 1)]
    whole = epochs if any(stage.inherit for stage in stages) else None
    return [
        Part(index, stage, Span(ends[index], ends[index + 1], whole), _recipe(recipe, stage, ends[index : index + 2]))
        for index, stage in enumerate(stages)
    ]


def _recipe(recipe: Recipe, stage: Stage, ends: list[int]) -> Recipe:
    network = recipe.search.network
    if stage.deeper != 1 and isinstance(network, Deepens):
        network = network.deeper(stage.deeper)
    variant = replace(recipe.variant, stages=(), wiring=stage.wiring or recipe.variant.wiring)
    return replace(recipe, variant=variant, search=replace(recipe.search, epochs=ends[1] - ends[0], network=network))


def narrow(arch: Arch, number: int | None, must: Genotype | None = None) -> Space:
    """The space in which each row of operations keeps its `number` heaviest options, in their order.

    must: an architecture that is left in it whatever its options weigh.
    """
    weights = {name: table.tolist() for name, table in arch.scores().items()}

    def keep(name: str, row: int, options: tuple[str, ...]) -> tuple[str, ...]:
        first = () if must is None else must.kept[name][row]
        ranked = [math.inf if o in first else w for o, w in zip(options, weights[name][row], strict=True)]
        return heaviest(options, ranked, number or len(options))

    return narrowed(arch.space, keep)


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
        new.follow()


def _carry(old: Choice, logits: Tensor, new: Choice, into: Tensor) -> None:
    for r, (before, row) in enumerate(zip(old.rows, new.rows, strict=True)):
        into[r] = logits[r, [before.index(option) for option in row]]


def _grown(tensor: Tensor, shape: torch.Size) -> Tensor:
    for axis, size in enumerate(shape):
        tensor = tensor.index_select(axis, torch.arange(size, device=tensor.device) % tensor.shape[axis])
    return tensor
