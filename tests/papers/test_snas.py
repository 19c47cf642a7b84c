"""SNAS (arXiv:1812.09926): the limits of the concrete law, and one pass for weights and logits."""

from __future__ import annotations

import pytest
import torch

from nas_apps.core.parts.noise import gumbel
from nas_apps.core.parts.relax import GumbelOneHot, GumbelSoftmax
from nas_apps.core.parts.schedule import Joint
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.variants import VARIANTS

P = [0.6, 0.3, 0.1]


def drawn(temperature: float, draws: int = 40_000) -> torch.Tensor:
    logits = torch.tensor(P).log() + 1.5
    return GumbelSoftmax(temperature)(logits.expand(draws, 3), DONE, torch.Generator().manual_seed(1))


def test_a_weight_is_the_softmax_of_log_p_and_noise_over_the_temperature() -> None:
    logits = torch.randn(5, 4)
    noise = gumbel(logits, torch.Generator().manual_seed(3))
    expected = ((logits.softmax(-1).log() + noise) / 0.7).softmax(-1)
    torch.testing.assert_close(GumbelSoftmax(0.7)(logits, DONE, torch.Generator().manual_seed(3)), expected)


def test_as_the_temperature_falls_a_draw_becomes_one_hot() -> None:
    spread = [(1 - drawn(temperature).amax(-1)).mean().item() for temperature in (10.0, 1.0, 0.1, 0.01, 0.001)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 1e-3
    logits = torch.randn(500, 4)
    cold, hard = (
        relax(logits, DONE, torch.Generator().manual_seed(2)) for relax in (GumbelSoftmax(1e-4), GumbelOneHot())
    )
    assert torch.equal(cold.argmax(-1), hard.argmax(-1))
    assert (cold - hard).abs().amax(-1).median() < 1e-6


def test_as_the_temperature_rises_a_draw_becomes_uniform() -> None:
    assert (drawn(1000.0) - 1 / 3).abs().max() < 0.01


def test_the_largest_weight_is_an_options_as_often_as_its_probability_says_at_any_temperature() -> None:
    for temperature in (0.03, 1.0, 5.0):
        share = torch.nn.functional.one_hot(drawn(temperature).argmax(-1), 3).float().mean(0)
        assert share.tolist() == pytest.approx(P, abs=0.008)


def test_the_mean_draw_is_the_softmax_only_in_the_limit_of_no_temperature() -> None:
    means = {t: drawn(t).mean(0) for t in (0.01, 1.0)}
    assert means[0.01].tolist() == pytest.approx(P, abs=0.008)
    assert means[1.0].tolist() == pytest.approx(P, abs=0.1)
    assert (means[1.0] - torch.tensor(P)).abs().max() > 0.03


def test_every_operation_runs_and_its_logit_has_a_gradient(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=snas")
    taught, streams = learner(made)
    taught.begin(Progress(9, 10))
    batch, (draw,) = taught.pull(streams.train, use=0, learn=True)
    assert all(active == (0, 1, 2, 3) for active in draw.active["cell.op"])
    grads, _ = taught.arch_gradients(batch, (draw,))
    assert all((grad != 0).all() for grad in grads)


def test_the_temperature_falls_from_1_towards_3_hundredths() -> None:
    temperature = VARIANTS["snas"].relax.temperature
    assert temperature(Progress(0, 150)) == 1
    assert temperature(Progress(75, 150)) == pytest.approx(0.515)
    assert temperature(Progress(149, 150)) == pytest.approx(0.03, abs=0.007)


def test_weights_and_logits_learn_from_one_pass_over_training_data(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=snas")
    assert made.variant.schedule == Joint()
    taught, streams = learner(made)
    calls: list[bool] = []
    taught.objective.register_forward_hook(lambda *_: calls.append(True))
    taught.begin(Progress(0, 10))
    served = streams.valid.cycle
    made.variant.schedule(taught, streams)
    assert len(calls) == 1
    assert streams.valid.cycle == served
