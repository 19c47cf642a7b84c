"""The laws of perturbations: every part in the table is held to them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.parts.noise import uniform
from nas_apps.core.parts.perturb import PERTURBATIONS, Adversarial, MeanShift, Perturbation, clip_rows
from nas_apps.core.progress import Progress, Ramp

ALL = pytest.mark.parametrize("kind", PERTURBATIONS.values(), ids=PERTURBATIONS)
MIDDLE = Progress(5, 10)


class Bowl:
    """A smooth loss of two tables together."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        self.a, self.b = torch.randn(6, 4, generator=rng), torch.randn(2, 3, generator=rng)

    def _loss(self, tables: Mapping[str, Tensor]) -> Tensor:
        return (self.a * tables["a"]).sum().sin() * 3 + ((self.b * tables["b"]).sum() - tables["a"].square().sum()) ** 2

    def loss(self, tables: Mapping[str, Tensor]) -> float:
        assert set(tables) == {"a", "b"}
        return float(self._loss(tables))

    def slopes(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: table.detach().requires_grad_() for name, table in tables.items()}
        grads = torch.autograd.grad(self._loss(leaves), list(leaves.values()))
        return dict(zip(leaves, grads, strict=True))


def tables(seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: (2 * torch.randn(shape, generator=rng)).softmax(-1) for name, shape in (("a", (6, 4)), ("b", (2, 3)))}


def moved(part: Perturbation, seed: int = 0, progress: Progress = MIDDLE) -> Mapping[str, Tensor]:
    return part(tables(), Bowl(), progress, torch.Generator().manual_seed(seed))


@ALL
@pytest.mark.parametrize("epsilon", [0.0, Ramp(0.0, 0.0)], ids=["0", "a ramp of 0"])
def test_at_radius_0_it_is_the_identity(kind: type, epsilon: float | Ramp) -> None:
    found = moved(kind(epsilon=epsilon))
    assert all(torch.equal(found[name], table) for name, table in tables().items())


@ALL
def test_it_moves_every_table_and_keeps_names_and_shapes(kind: type) -> None:
    found = moved(kind(epsilon=0.2))
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in tables().items()}
    assert not any(torch.equal(found[name], table) for name, table in tables().items())


@ALL
def test_it_leaves_what_it_is_given_as_it_was(kind: type) -> None:
    given = tables()
    kind(epsilon=0.2)(given, Bowl(), MIDDLE, torch.Generator())
    assert all(torch.equal(given[name], table) for name, table in tables().items())


@pytest.mark.parametrize("kind", [k for k in PERTURBATIONS.values() if k is not MeanShift])
def test_the_result_is_on_the_simplex(kind: type) -> None:
    for seed in range(10):
        for table in moved(kind(epsilon=0.5), seed).values():
            assert (table >= 0).all()
            assert torch.allclose(table.sum(-1), torch.ones(len(table)))


def test_the_mean_shift_alone_leaves_the_simplex_and_stays_in_the_box_of_its_steps() -> None:
    part = MeanShift(epsilon=0.2, steps=2)
    found = moved(part)
    assert not torch.allclose(found["a"].sum(-1), torch.ones(6), atol=1e-3)
    assert all((found[name] - table).abs().max() <= 2 * 0.2 + 1e-6 for name, table in tables().items())


@ALL
def test_the_radius_bounds_how_far_a_weight_moves_before_rows_are_divided(kind: type) -> None:
    small, large = (max((moved(kind(epsilon=e))[n] - t).abs().max() for n, t in tables().items()) for e in (0.01, 0.3))
    assert small < 0.04  # two steps of 0.01, or one and the division
    assert large > 0.1


def test_an_attack_raises_the_loss() -> None:
    surface, before = Bowl(), Bowl().loss(tables())
    losses = [surface.loss(moved(Adversarial(epsilon=0.1), seed)) for seed in range(20)]
    assert all(loss >= before for loss in losses)
    assert sum(loss > before for loss in losses) > 15


@ALL
def test_the_same_noise_gives_the_same_bits_and_other_noise_others(kind: type) -> None:
    first, again, other = (moved(kind(epsilon=0.2), seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@ALL
def test_its_radius_is_that_of_the_point_of_the_run(kind: type) -> None:
    late, constant = (moved(kind(epsilon=e), progress=Progress(5, 10)) for e in (Ramp(0.0, 0.4), 0.2))
    assert all(torch.equal(late[name], constant[name]) for name in late)
    early = moved(kind(epsilon=Ramp(0.0, 0.4)), progress=Progress(0, 10))
    assert all(torch.equal(early[name], table) for name, table in tables().items())


@ALL
def test_a_weight_step_under_it_touches_no_logit(recipe, learner, kind: type) -> None:  # noqa: ANN001
    name = next(name for name, part in PERTURBATIONS.items() if part is kind)
    taught, streams = learner(recipe("variant=darts", f"variant.perturb={name}"))
    before = [p.detach().clone() for p in taught.logits]
    taught.begin(MIDDLE)
    taught.weight_step(*taught.pull(streams.train, use=0))
    assert all(map(torch.equal, before, taught.logits))
    assert all(p.grad is None for p in taught.logits)


@pytest.mark.parametrize("settings", ["epsilon=-0.1", "steps=0", "samples=0", "bandwidth=0"])
def test_settings_out_of_bounds_are_refused(recipe, settings: str) -> None:  # noqa: ANN001
    with pytest.raises(UserError, match=rf"variant.perturb.{settings.split('=')[0]}: got .*; allowed: "):
        recipe("variant=ms_darts", f"variant.perturb.{settings}")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("variant=gdas",), "under exact zeros a row runs some of its options"),
        (("variant=fair_darts",), "neighbours are sought on the simplex"),
        (("variant=single_darts",), "'joint' steps weights and logits with one pass"),
    ],
)
def test_a_perturbation_of_what_it_cannot_mean_is_refused(recipe, overrides: tuple[str, ...], reason: str) -> None:  # noqa: ANN001
    with pytest.raises(UserError, match=reason):
        recipe(*overrides, "variant.perturb=random_smoothing")


def test_noise_is_uniform_in_its_radius() -> None:
    noise = uniform(torch.zeros(200, 200), 0.3, torch.Generator().manual_seed(0))
    assert noise.abs().max() <= 0.3
    assert noise.mean().item() == pytest.approx(0, abs=0.004)
    assert noise.var().item() == pytest.approx(0.3**2 / 3, rel=0.02)
    shares = torch.histc(noise, 6, -0.3, 0.3) / noise.numel()
    assert shares.tolist() == pytest.approx([1 / 6] * 6, abs=0.006)


def test_rows_on_the_simplex_are_left_there_and_others_end_there() -> None:
    on = tables()["a"]
    assert torch.allclose(clip_rows(on), on)
    off = clip_rows(torch.randn(500, 4) - 1)
    assert (off >= 0).all()
    assert torch.allclose(off.sum(-1), torch.ones(500))
