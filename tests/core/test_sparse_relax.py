"""Sparsemax and sparsestmax: the projections of arXiv:1602.02068 and arXiv:1903.03793, in closed form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nas_apps
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.parts.sparse import SparsestMax, sparsemax, sparsestmax
from nas_apps.core.progress import Progress, Ramp

pytestmark = pytest.mark.usefixtures("double")
SHALLOW = [1e-3, 2e-3, -1e-3, 5e-4]
VECTORS = [  # logits, radius, weights
    ([0.3, 0.2, 0.1], 0.0, [0.433333, 0.333333, 0.233333]),
    ([0.3, 0.2, 0.1], 0.141421, [0.433333, 0.333333, 0.233333]),
    ([0.3, 0.2, 0.1], 0.2, [0.474755, 0.333333, 0.191912]),
    ([0.3, 0.2, 0.1], 0.408248, [0.622008, 0.333333, 0.044658]),
    ([0.3, 0.2, 0.1], 0.5, [0.704124, 0.295876, 0.0]),
    ([0.3, 0.2, 0.1], 0.7, [0.902078, 0.097922, 0.0]),
    ([0.3, 0.2, 0.1], 0.816497, [1.0, 0.0, 0.0]),
    ([0.3, 0.2, 0.1], 0.95, [1.0, 0.0, 0.0]),
    ([0.8, 0.6, 0.1], 0.3, [0.6, 0.4, 0.0]),
    ([0.8, 0.6, 0.1], 0.5, [0.704124, 0.295876, 0.0]),
    ([0.8, 0.6, 0.1], 0.6, [0.810913, 0.189087, 0.0]),
    ([0.8, 0.6, 0.1], 0.7, [0.902078, 0.097922, 0.0]),
    ([0.8, 0.6, 0.1], 0.8, [0.986484, 0.013516, 0.0]),
    ([0.5, 0.4, 0.3, 0.2], 0.2, [0.4, 0.3, 0.2, 0.1]),
    ([0.5, 0.4, 0.3, 0.2], 0.3, [0.451246, 0.317082, 0.182918, 0.048754]),
    ([0.5, 0.4, 0.3, 0.2], 0.5, [0.622008, 0.333333, 0.044658, 0.0]),
    ([0.5, 0.4, 0.3, 0.2], 0.7, [0.846410, 0.153590, 0.0, 0.0]),
    ([0.5, 0.4, 0.3, 0.2], 0.866025403785, [1.0, 0.0, 0.0, 0.0]),
    ([2, 0, -1, 0.5, 1.9], 0.5, [0.55, 0.0, 0.0, 0.0, 0.45]),
    ([2, 0, -1, 0.5, 1.9], 0.7, [0.808221, 0.0, 0.0, 0.0, 0.191779]),
    ([2, 0, -1, 0.5, 1.9], 0.8, [0.912311, 0.0, 0.0, 0.0, 0.087689]),
    (SHALLOW, 0.0, [0.250375, 0.251375, 0.248375, 0.249875]),
    (SHALLOW, 0.1, [0.267321, 0.313509, 0.174944, 0.244226]),
    (SHALLOW, 0.3, [0.301962, 0.440526, 0.024833, 0.232679]),
    (SHALLOW, 0.6, [0.252171, 0.739144, 0.0, 0.008685]),
    (SHALLOW, 0.85, [0.013944, 0.986056, 0.0, 0.0]),
    ([0.2, 0.1], 0.0, [0.55, 0.45]),
    ([0.2, 0.1], 0.3, [0.712132, 0.287868]),
    ([0.2, 0.1], 0.707107, [1.0, 0.0]),
    ([0.5, 0.5, 0.1], 0.0, [0.466667, 0.466667, 0.066667]),
    ([0.5, 0.5, 0.1], 0.4, [0.496633, 0.496633, 0.006735]),
    ([0.5, 0.5, 0.1], 0.6, [0.810913, 0.189087, 0.0]),
    ([0.3, 0.3, 0.3, 0.3], 0.0, [0.25, 0.25, 0.25, 0.25]),
    ([0.3, 0.3, 0.3, 0.3], 0.3, [0.509808, 0.163397, 0.163397, 0.163397]),
]


def far(weights: Tensor) -> Tensor:
    """How far weights `[..., O]` are from the centre of the simplex."""
    return (weights - 1 / weights.shape[-1]).norm(dim=-1)


def corner(options: int) -> float:
    return math.sqrt((options - 1) / options)


@pytest.mark.parametrize(("logits", "radius", "expected"), VECTORS)
def test_the_vectors_of_the_definition(logits: list[float], radius: float, expected: list[float]) -> None:
    found = sparsestmax(torch.tensor(logits), radius)
    assert torch.allclose(found, torch.tensor(expected), atol=6e-7)
    assert [w == 0 for w in found.tolist()] == [w == 0 for w in expected]


@pytest.mark.parametrize(("radius", "expected"), [(0.3, 0.712132), (0.5, 0.853553), (0.8, 1.0)])
def test_the_codes_measure_the_radius_from_the_centre_of_what_sparsemax_left(radius: float, expected: float) -> None:
    found = sparsestmax(torch.tensor([0.8, 0.6, 0.1]), radius, "ssn")
    assert torch.allclose(found, torch.tensor([expected, 1 - expected, 0]), atol=6e-7)


def by_faces(z: Tensor, radius: float) -> float:
    """The least square distance from z to a feasible point, over all faces of the simplex."""
    options, best = len(z), math.inf
    for size in range(1, options + 1):
        for face in map(list, combinations(range(options), size)):
            rho = math.sqrt(max(radius**2 - 1 / size + 1 / options, 0.0))
            rest = z[face] - z[face].mean()
            points = [1 / size + rest]  # of the plane that the face lies in; then pushed out from its centre
            points += [1 / size + rho * rest / rest.norm()] if size > 1 else []
            for part in points:
                p = torch.zeros(options).index_add(0, torch.tensor(face), part)
                if (p >= -1e-12).all() and far(p) >= radius - 1e-9:
                    best = min(best, float((p - z).square().sum()))
    return best


@pytest.mark.parametrize("options", [2, 3, 4, 5, 6])
def test_no_face_of_the_simplex_has_a_nearer_point(options: int) -> None:
    for _ in range(40):
        z = torch.randn(options) * 10 ** float(torch.empty(()).uniform_(-3, 0.5))
        radius = corner(options) * float(torch.rand(())) * 0.999
        p = sparsestmax(z, radius)
        assert far(p) >= radius - 1e-9
        assert float((p - z).square().sum()) == pytest.approx(by_faces(z, radius), abs=1e-9)


def face_by_face(z: Tensor, radius: float) -> Tensor:
    """Sparsestmax as a walk: sparsemax, out from the centre of its face, and again where something turns negative."""
    p = sparsemax(z)
    while True:
        face = p > 0
        rho = math.sqrt(max(radius**2 - 1 / int(face.sum()) + 1 / len(z), 0.0))
        rest = torch.where(face, p - 1 / face.sum(), 0.0)
        if far(p) >= radius or int(face.sum()) == 1:
            return p
        p = torch.where(face, 1 / face.sum() + rho * rest / rest.norm(), 0.0)
        if (p >= 0).all():
            return p
        p = torch.where(face, sparsemax(torch.where(face, p, -100.0)), 0.0)


@pytest.mark.parametrize("options", [20, 55, 200])
def test_many_options_are_as_a_walk_from_face_to_face(options: int) -> None:
    for scale in (1e-3, 0.05, 1.0):
        z, radius = torch.randn(options) * scale, corner(options) * float(torch.rand(())) * 0.999
        assert torch.allclose(sparsestmax(z, radius), face_by_face(z, radius), atol=1e-12)


def test_float32_is_near_to_float64_at_logits_of_a_thousandth() -> None:
    z = 1e-3 * torch.randn(20, 55)
    assert (sparsestmax(z.float(), 0.5).double() - sparsestmax(z.float().double(), 0.5)).abs().max() < 1e-6


def test_radius_0_is_sparsemax_and_from_the_corner_on_the_largest_has_all() -> None:
    for options in (1, 2, 3, 4, 55):
        z = torch.randn(50, options)
        assert torch.equal(sparsestmax(z, 0.0), sparsemax(z))
        one_hot = torch.zeros_like(z).scatter(-1, z.argmax(-1, keepdim=True), 1.0)
        for radius in (corner(options), corner(options) + 1e-9, 1.0):
            assert torch.equal(sparsestmax(z.float(), radius), one_hot.float())


@pytest.mark.parametrize("radius", [0.05, 0.3, 0.6, 0.85])
def test_it_follows_permutations_shifts_and_where_it_is_pushed_out_scales(radius: float) -> None:
    z, order = torch.randn(200, 4) * 0.3, torch.tensor([2, 0, 3, 1])
    p = sparsestmax(z, radius)
    assert (far(p) >= radius - 1e-9).all()
    assert torch.allclose(p.sum(-1), torch.ones(200))
    assert (p >= 0).all()
    assert torch.allclose(sparsestmax(z[:, order], radius), p[:, order])
    assert torch.allclose(sparsestmax(z + 7.0, radius), p, atol=1e-9)
    pushed = (far(sparsemax(z)) < radius) & (far(sparsemax(0.5 * z)) < radius) & ((sparsemax(z) > 0).sum(-1) == 4)
    scaled = (sparsestmax(0.5 * z, radius) - p).abs().amax(-1) < 1e-9
    assert scaled[pushed].all()
    assert pushed.any()
    assert not scaled[far(sparsemax(z)) > radius].any()


def test_as_the_radius_grows_options_only_leave_and_the_largest_only_gains() -> None:
    z = torch.randn(300, 6) * 0.5
    path = torch.stack([sparsestmax(z, corner(6) * k / 39) for k in range(40)])
    assert (path[1:].count_nonzero(dim=-1) <= path[:-1].count_nonzero(dim=-1)).all()
    assert (path[1:].amax(-1) >= path[:-1].amax(-1) - 1e-12).all()


def jacobian(logits: list[float], radius: float) -> Tensor:
    found: Tensor = torch.autograd.functional.jacobian(lambda z: sparsestmax(z, radius), torch.tensor(logits))
    return found


def test_the_jacobian_has_the_values_of_the_formula() -> None:
    z = [0.5, 0.4, 0.3, 0.2]
    assert torch.allclose(jacobian(z, 0.1), torch.eye(4) - 0.25)
    top = [[0.402492, -0.536656, -0.134164, 0.268328], [-0.536656, 0.939149, -0.268328, -0.134164]]
    mirrored = [row[::-1] for row in top[::-1]]
    assert torch.allclose(jacobian(z, 0.3), torch.tensor(top + mirrored), atol=1e-6)
    three = torch.zeros(4, 4)
    three[:3, :3] = 0.481125 * torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
    assert torch.allclose(jacobian(z, 0.5), three, atol=2e-6)
    assert torch.allclose(jacobian(z, 0.7), torch.zeros(4, 4))


@pytest.mark.parametrize(
    ("radius", "expected"),
    [(0.0, [-1.333333, -0.333333, 1.666667]), (0.2, [0.235702, -0.471405, 0.235702]),
     (0.4, [0.471405, -0.942809, 0.471405]), (0.5, [0.0, 0.0, 0.0])],
)  # fmt: skip
def test_the_gradient_of_a_weighted_sum(radius: float, expected: list[float]) -> None:
    z = torch.tensor([0.3, 0.2, 0.1], requires_grad=True)
    (sparsestmax(z, radius) * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert torch.allclose(z.grad, torch.tensor(expected), atol=1e-6)


def test_the_rank_of_the_jacobian_falls_by_one_more_where_the_radius_pushes() -> None:
    ranks = [int(torch.linalg.matrix_rank(jacobian([0.5, 0.4, 0.3, 0.2], r), atol=1e-9)) for r in (0.1, 0.3, 0.5, 0.7)]
    assert ranks == [3, 2, 1, 0]  # of 4 options, of 4 pushed, of 3 pushed, of 2 pushed
    assert torch.linalg.matrix_rank(jacobian([0.2, 0.1], 0.05), atol=1e-9) == 1
    assert torch.linalg.matrix_rank(jacobian([0.2, 0.1], 0.3), atol=1e-9) == 0


@pytest.mark.parametrize("radius", [0.0, 0.2, 0.45, 0.8])
def test_its_gradient_is_that_of_differences(radius: float) -> None:
    for scale in (0.03, 1.0):
        z = (scale * torch.randn(5, 4)).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: sparsestmax(z, radius), (z,), eps=1e-8 * scale, atol=1e-5)


@pytest.mark.parametrize("mode", ["projection", "ssn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_are_finite_and_the_first_of_them_wins(mode: Any, dtype: torch.dtype) -> None:
    rows = [[0.3] * 4, [0.5, 0.5, 0.1, 0.1], [0.1, 0.5, 0.2, 0.5], [7.0, 7.0, -50.0, 7.0]]
    z = torch.tensor(rows, dtype=dtype, requires_grad=True)
    for radius in (0.3, 0.7, 0.85, 0.8661):
        p = sparsestmax(z, radius, mode)
        assert p.argmax(-1).tolist() == [0, 0, 1, 0]
        (slope,) = torch.autograd.grad((p * torch.tensor([1.0, 2.0, 4.0, 8.0])).sum(), z)
        assert p.isfinite().all()
        assert slope.isfinite().all()


def test_rows_of_any_number_of_options_are_one_hot_in_the_last_epoch_and_not_before() -> None:
    relax, rng = SparsestMax(), torch.Generator()
    for options in (2, 3, 4, 5, 55):
        z = 1e-3 * torch.randn(10, options, dtype=torch.float32)
        tables = [relax(z, Progress(epoch, 8), rng) for epoch in range(8)]
        assert torch.equal(tables[0], sparsemax(z))
        assert (tables[-2] == 1).sum() == 0
        assert torch.equal(tables[-1], torch.zeros_like(z).scatter(-1, z.argmax(-1, keepdim=True), 1.0))
    raw = SparsestMax(Ramp(0.0, 1.0), raw=True)
    assert torch.equal(raw(z, Progress(3, 8), rng), sparsestmax(z, 0.375))


def test_what_the_radius_has_decided_stays_decided() -> None:
    before = torch.tensor([[0.30, 0.29, 0.1, 0.0], [0.3, 0.2, 0.1, 0.0], [3.0, 0.2, 0.1, 0.0]])
    after = before + torch.tensor([-0.1, 0.1, 0.0, 0.0])
    for share, rests in ((0.0, [False, False, False]), (0.6, [True, False, False]), (1.0, [True, True, True])):
        relax, z = SparsestMax(share), after.clone()
        relax.settle(before, z, Progress(1, 2))
        assert [torch.equal(*rows) for rows in zip(z, before, strict=True)] == rests
        assert torch.equal(z[~torch.tensor(rests)], after[~torch.tensor(rests)])


def test_a_choice_of_two_is_told_to_the_user_once(
    recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_default_dtype(torch.float32)
    nas_apps.search(recipe("variant.relax=sparsest_max"), tmp_path / "run")
    told = "gate: 'sparsest_max' leaves no gradient to two options"
    assert told in capsys.readouterr().err
    nas_apps.search(recipe("variant.relax=sparsest_max"), tmp_path / "run", resume=True)
    assert told not in capsys.readouterr().err
    warnings = json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"]
    assert sum("leaves no gradient" in text for text in warnings) == 1  # the others have more options


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ("variant=darts", "variant.edges=sparsest_max"),
            "variant.edges: 1 edges a node are left in the end, and a node",
        ),
        (("variant=sdarts_rs", "variant.relax=sparsemax"), "variant.perturb: under exact zeros a row runs some"),
        (("variant=msg_das", "variant.relax=sparsest_max"), "variant.distill: the teacher is the super-net"),
        (("variant=darts", "variant.relax=sparsest_max", "variant.schedule.samples=2"), "draws without noise"),
        (("variant=rl_darts", "variant.relax=sparsest_max"), "search.logits.init_std: got 0.0, and of equal logits"),
    ],
)
def test_a_combination_that_means_nothing_is_refused(
    recipe: Callable[..., Recipe], overrides: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        recipe(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("variant=darts_2nd",),
        ("variant=pc_darts", "variant.edges=sparsemax"),
        ("variant=p_darts",),
        ("variant=darts", "search.budget.of=params", "search.budget.cap=800"),
    ],
)
def test_it_goes_with_the_other_parts(
    recipe: Callable[..., Recipe], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    torch.set_default_dtype(torch.float32)
    made = recipe(*overrides, "variant.relax=sparsest_max")
    nas_apps.search(made, tmp_path / "run")
    last = json.loads((tmp_path / "run" / "choices.jsonl").read_text().splitlines()[-1])["weights"]
    assert {w for row in last["cell.op"] for w in row} == {0.0, 1.0}
