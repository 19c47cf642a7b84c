"""The laws of penalties: every part in the table is held to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nas_apps.core.arch import Arch
from nas_apps.core.errors import UserError
from nas_apps.core.extras import Extras
from nas_apps.core.parts.penalty import PENALTIES, DirichletKL, Penalty, Seen, ZeroOne, total
from nas_apps.core.parts.relax import Sigmoid, Softmax
from nas_apps.core.price import Additive
from nas_apps.core.progress import Progress, Ramp
from nas_apps.core.space import Choice

RELAX = {"zero_one": "sigmoid", "dirichlet_kl": "dirichlet"}  # those that go with one relaxation alone
ALIKE = {name: kind for name, kind in PENALTIES.items() if name != "order"}  # whatever the options are; see test_order
ALL = pytest.mark.parametrize("name", list(ALIKE))
KIND = pytest.mark.parametrize("penalty", [kind() for kind in ALIKE.values()], ids=list(ALIKE))


SPACE = {"a": Choice.uniform(tuple("wxyz"), 3), "b": Choice.uniform(tuple("yz"), 2)}


def seen(scale: float = 1.0) -> Seen:
    logits = {name: (scale * torch.randn(c.shape)).requires_grad_() for name, c in SPACE.items()}
    means = {name: table.sigmoid() for name, table in logits.items()}
    price = Additive(SPACE, 1.0, {name: torch.rand(c.shape, dtype=torch.float64) for name, c in SPACE.items()})
    return Seen(logits, means, Progress(1, 2), {"params": price}, torch.Generator().manual_seed(0))


def turned(what: Seen) -> Seen:
    """The same with rows, options and tables in another order."""
    logits, means = ({n: t.flip((0, 1)) for n, t in reversed(tables.items())} for tables in (what.logits, what.means))
    space = {n: replace(c, rows=tuple(row[::-1] for row in c.rows[::-1])) for n, c in reversed(SPACE.items())}
    costs = {name: table.flip((0, 1)) for name, table in reversed(what.prices["params"].options.items())}
    return what._replace(logits=logits, means=means, prices={"params": Additive(space, 1.0, costs)})


@KIND
@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_it_is_a_finite_scalar_with_a_finite_gradient(penalty: Penalty, scale: float) -> None:
    what = seen(scale=scale)
    y = penalty(what)
    assert y.shape == ()
    assert y.isfinite()
    for grad in torch.autograd.grad(y, list(what.logits.values())):
        assert grad.isfinite().all()


@KIND
def test_every_logit_is_reached(penalty: Penalty) -> None:
    what = seen()
    for grad in torch.autograd.grad(penalty(what), list(what.logits.values())):
        assert (grad != 0).all()


@KIND
def test_its_gradient_is_that_of_differences(penalty: Penalty) -> None:
    what = seen()

    def at(*tables: Tensor) -> Tensor:
        names = dict(zip(what.logits, tables, strict=True))
        return penalty(what._replace(logits=names, means={n: t.sigmoid() for n, t in names.items()}))

    inputs = tuple(table.detach().double().requires_grad_() for table in what.logits.values())
    assert torch.autograd.gradcheck(at, inputs)


@KIND
def test_the_order_of_options_and_of_tables_does_not_matter(penalty: Penalty) -> None:
    what = seen()
    torch.testing.assert_close(penalty(turned(what)), penalty(what))


def test_penalties_are_weighed_and_added_and_told_apart() -> None:
    what, one = seen(), DirichletKL(weight=0.5)
    whole, parts = total((one, DirichletKL(weight=Ramp(0.0, 4.0)), DirichletKL(weight=0.0)), what)
    assert whole.item() == pytest.approx((0.5 + 2.0) * one(what).item())
    assert list(parts) == ["dirichlet_kl", "dirichlet_kl_1"]
    assert total((DirichletKL(weight=0.0),), what) == (None, {})


@ALL
def test_the_step_of_the_logits_has_its_gradient_and_the_weights_have_none(recipe, learner, name: str) -> None:  # noqa: ANN001
    made = recipe("variant=darts", f"variant.relax={RELAX.get(name, 'softmax')}", f"variant.penalties=[{name}]",
                  "search.logits.init_std=0.5")  # fmt: skip
    taught, streams = learner(made)
    taught.begin(Progress(5, 10))
    grads, _ = taught.arch_gradients(*taught.pull(streams.valid, use=1))
    before = [p.detach().clone() for p in taught.parameters]
    got: list[Tensor] = []
    taught.logit_optimizer.register_step_pre_hook(lambda *_: got.extend(p.grad.clone() for p in taught.logits))
    stats = taught.arch_step(grads)
    assert list(stats) == [f"penalty/{name}"]
    assert not stats[f"penalty/{name}"].requires_grad
    assert not torch.equal(got[0], grads[0])
    assert all(map(torch.equal, before, taught.parameters))
    assert all(p.grad is None for p in [*taught.parameters, *taught.logits])


@ALL
def test_with_weight_0_the_search_is_that_without_it_to_the_bit(searched, name: str) -> None:  # noqa: ANN001
    base = ("variant=darts", f"variant.relax={RELAX.get(name, 'softmax')}", "search.logits.init_std=0.5")
    zero, none, on = (
        searched(*base, f"variant.penalties={p}") for p in (f"[{{name: {name}, weight: 0}}]", "[]", f"[{name}]")
    )
    assert all(map(torch.equal, zero, none))
    assert not all(map(torch.equal, on, none))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("variant=darts", "variant.penalties=[zero_one]"), "'zero_one' pushes sigmoids apart"),
        (("variant=darts", "variant.penalties=[dirichlet_kl]"), "'dirichlet_kl' compares Dirichlet laws"),
        (("variant=rome_v1", "variant.penalties=[{name: cost, of: latency}]"), "drawn edge by edge"),
    ],
)
def test_a_penalty_that_means_nothing_is_refused(recipe, overrides: tuple[str, ...], reason: str) -> None:  # noqa: ANN001
    with pytest.raises(UserError, match=reason):
        recipe(*overrides)


def test_a_penalty_on_sigmoids_leaves_out_the_parents_that_are_weighed_by_a_softmax() -> None:
    space = {"a": Choice.uniform(("x", "y"), 2), "p": Choice((("0", "1", "2"),), "parent", keep=2)}
    arch = Arch(space, {"op": Sigmoid(), "parent": Softmax()})
    penalty, _ = Extras(penalties=(ZeroOne(),)).penalty(arch, Progress(0, 1), 0)
    assert penalty is not None
    slopes = torch.autograd.grad(penalty, [arch.logits["a"], arch.logits["p"]], materialize_grads=True)
    assert slopes[0].any()
    assert not slopes[1].any()
