"""RL-DARTS (arXiv:2106.02229): one pass, one optimiser over weights and logits, one bound on their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nas_apps.core.config import Recipe
from nas_apps.core.learner import Learner
from nas_apps.core.progress import Progress


def after(learner: Learner, step: Callable[[], Any], steps: int = 5) -> list[torch.Tensor]:
    for index in range(steps):
        learner.begin(Progress(index, steps))
        step()
    return [p.detach().clone() for p in (*learner.parameters, *learner.logits)]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("clip", [1e9, 0.05])
def test_two_optimisers_and_one_bound_are_one_optimiser_over_all(
    clip: float, recipe: Callable[..., Recipe], learner: Callable[[Recipe], Any]
) -> None:
    made = recipe("variant=rl_darts", f"search.clip={clip}", "search.logits.lr=0.01")
    ours, streams = learner(made)
    ours.optimizer = torch.optim.Adam(ours.parameters, 0.01, eps=1e-5)
    found = after(ours, lambda: made.variant.schedule(ours, streams))

    other, batches = learner(made)
    both = [*other.parameters, *other.logits]
    adam = torch.optim.Adam(both, 0.01, eps=1e-5)

    def step() -> None:
        batch, (draw,) = other.pull(batches.train, use=0)
        adam.zero_grad()
        with other.loss(batch, draw) as outcome:
            outcome.loss.backward()
        nn.utils.clip_grad_norm_(both, clip)
        adam.step()

    expected = after(other, step)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found, expected, strict=True))
    apart = recipe(
        "variant=rl_darts", f"search.clip={clip}", "search.logits.lr=0.01", "variant.schedule.one_norm=false"
    )
    third, more = learner(apart)
    third.optimizer = torch.optim.Adam(third.parameters, 0.01, eps=1e-5)
    differs = after(third, lambda: apart.variant.schedule(third, more))
    assert all(torch.equal(a, b) for a, b in zip(found, differs, strict=True)) == (clip == 1e9)


def test_logits_start_at_zero_and_do_not_decay(recipe: Callable[..., Recipe], learner: Callable[[Recipe], Any]) -> None:
    taught, _ = learner(recipe("variant=rl_darts", "search.logits={}"))
    assert all((logits == 0).all() for logits in taught.logits)
    settings = taught.phase.logits
    assert (settings.weight_decay, settings.betas, settings.eps) == (0.0, (0.9, 0.999), 1e-5)
