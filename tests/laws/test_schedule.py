"""The laws of schedules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nas_apps.core.parts.schedule import SCHEDULES, FirstOrder, Joint, Schedule, Unrolled, WeightsOnly
from nas_apps.core.progress import Progress
from nas_apps.core.task import Streams


def steps(made, learner, schedule: Schedule, number: int = 3, **rates: float):  # noqa: ANN001, ANN201
    taught, streams = learner(made)
    for group in taught.logit_optimizer.param_groups:
        group["lr"] = rates.get("logits", group["lr"])
    taught.begin(Progress(9, 10))
    for group in taught.optimizer.param_groups:
        group["lr"] = rates.get("weights", group["lr"])
    for _ in range(number):
        schedule(taught, streams)
    return taught


def same(a: list[torch.Tensor], b: list[torch.Tensor], **tolerance: float) -> bool:
    compare = torch.equal if not tolerance else lambda x, y: torch.allclose(x, y, **tolerance)
    return all(compare(x, y) for x, y in zip(a, b, strict=True))


def test_joint_with_a_logit_rate_of_zero_trains_the_weights_alone(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=single_darts")
    joint, alone = (steps(made, learner, s, logits=0.0) for s in (Joint(), WeightsOnly()))
    assert same(joint.parameters, alone.parameters)
    assert same(joint.logits, alone.logits)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.usefixtures("double")
def test_without_a_weight_rate_the_look_ahead_is_the_first_order_step(recipe, learner, exact: bool) -> None:  # noqa: ANN001
    made = recipe("variant=darts")
    ahead, first = (steps(made, learner, s, weights=0.0) for s in (Unrolled(exact=exact), FirstOrder()))
    assert same(ahead.logits, first.logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", [FirstOrder(), Unrolled(), Unrolled(exact=False)], ids=["first", "exact", "fd"])
def test_the_weights_step_under_the_logits_as_the_architecture_left_them(recipe, learner, schedule: Schedule) -> None:  # noqa: ANN001
    made = recipe("variant=darts", "search.clip=null")
    taught, streams = learner(made)
    twin, _ = learner(made)
    state = streams.train.state_dict()
    batch = next(streams.train)
    streams.train.load_state_dict(state)
    seen: list[torch.Tensor] = []
    taught.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in taught.parameters))
    taught.begin(Progress(0, 10))
    schedule(taught, streams)
    twin.arch.load_state_dict(taught.arch.state_dict())
    with twin.loss(batch, twin.arch.draw()) as outcome:
        expected = torch.autograd.grad(outcome.loss, twin.parameters)
    assert same(seen, list(expected), atol=1e-7)


def test_a_search_that_waits_moves_no_logit(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=darts")
    before = learner(made)[0].logits
    for schedule in (FirstOrder(warmup=0.95), Unrolled(warmup=0.95), WeightsOnly()):
        assert same(steps(made, learner, schedule).logits, before)


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n not in ("no_search", "weights_only")])
def test_weights_and_logits_see_data_of_their_own_when_it_is_bilevel(recipe, learner, name: str) -> None:  # noqa: ANN001
    schedule = SCHEDULES[name]()
    taught, streams = learner(recipe("variant=darts"))
    pulled = {"train": 0, "valid": 0}

    class Counted:
        def __init__(self, stream, key: str) -> None:  # noqa: ANN001
            self.stream, self.key = stream, key

        @property
        def cycle(self) -> int:
            return self.stream.cycle

        def __next__(self):  # noqa: ANN204
            pulled[self.key] += 1
            return next(self.stream)

    counted = Streams(Counted(streams.train, "train"), Counted(streams.valid, "valid"), streams.epoch)
    taught.begin(Progress(9, 10))
    schedule(taught, counted)
    assert pulled == {"train": 1, "valid": int(schedule.bilevel)}


def test_the_logits_gradient_can_be_bounded(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=darts")
    taught, streams = learner(replace(made, search=replace(made.search, logits=replace(made.search.logits, clip=1e-6))))
    seen: list[float] = []
    norm = lambda *_: seen.append(torch.cat([p.grad.flatten() for p in taught.logits]).norm().item())  # noqa: E731
    taught.logit_optimizer.register_step_pre_hook(norm)
    taught.begin(Progress(0, 1))
    FirstOrder()(taught, streams)
    assert seen[0] == pytest.approx(1e-6, rel=1e-3)
