"""Weights of a super-net, or of a network of another size, for the network of a genotype, by their names, so that
nothing has to be trained anew."""

from __future__ import annotations

from collections.abc import Mapping
from operator import lt
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_apps.core import checkpoint
from nas_apps.core.config import Recipe, task_name
from nas_apps.core.errors import UserError
from nas_apps.core.folder import read_recipe
from nas_apps.core.learner import Learner


class Taken(NamedTuple):
    """How many of a network's parameters another one had, of how many; the first that it had not."""

    number: int
    total: int
    missing: str | None


def take(weights: Mapping[str, Tensor], network: nn.Module) -> Taken:
    """Copy what has the same name, of a larger tensor its first entries along each axis: a narrower convolution is a
    slice of a wider one."""
    names = {name for name, _ in network.named_parameters()}
    number = total = 0
    missing = None
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            size, there = tensor.numel() if name in names else 0, weights.get(name)
            total += size
            if there is None or there.ndim != tensor.ndim or any(map(lt, there.shape, tensor.shape)):
                missing = missing or (name if size else None)
                continue
            tensor.copy_(there[tuple(map(slice, tensor.shape))])
            number += size
    return Taken(number, total, missing)


def inherit(recipe: Recipe, learner: Learner) -> str | None:
    """Let a final training begin with the weights of the search, or of the training, that its recipe names; what is to
    be said of that.

    Raises:
        UserError: the folder is not that of a run of this task, or none of its weights is of this network.
    """
    folder = Path(str(recipe.train.inherit))
    of, here = task_name(read_recipe(folder).task), task_name(recipe.task)
    if of != here:
        raise UserError(f"train.inherit: {folder} holds a run of task {of}; allowed: one of task {here}")
    taken = take(_weights(checkpoint.read(folder / "checkpoint.pt")["learner"]), learner.objective)
    if not taken.number:
        raise UserError(
            f"train.inherit: no weight of this network is in {folder}, by name and size; allowed: a run whose "
            f"network is at least as large (the first that is not there: {taken.missing})"
        )
    learner.follow()
    if taken.number == taken.total:
        return None
    share = f"{taken.number:,} of {taken.total:,} parameters are those of {folder}"
    return f"{share}, and the others begin anew (the first is {taken.missing})"


def _weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that count: the running average where there is one."""
    kept = state.get("average", state["objective"])
    return {name.removeprefix("module."): tensor for name, tensor in kept.items()}
