"""Single-DARTS (arXiv:2108.08128): one pass, both optimisers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.learner import Learner
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.schedule import Joint
from nas_apps.core.phase import Logits, Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Choice
from nas_apps.core.task import Optimisation, Outcome, Streams


class _Itself(Relaxation):
    def __call__(self, logits: Tensor, progress: Progress, rng: torch.Generator) -> Tensor:
        return logits * 1

    def mean(self, logits: Tensor, progress: Progress) -> Tensor:
        return logits


class _Product(nn.Module):
    """L = (a w - 1)^2 / 2."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.w, self.read = nn.Parameter(torch.tensor([0.5])), arch.reader("a", 0)

    def forward(self, batch: None) -> Outcome:
        return Outcome(0.5 * (self.read().weights[0] * self.w[0] - 1) ** 2, {}, 1)


class _Nothing:
    cycle = 0

    def __next__(self) -> None:
        return None


class _Forbidden(_Nothing):
    def __next__(self) -> None:
        raise AssertionError("a batch of the architecture's own was read")


@pytest.mark.usefixtures("double")
def test_both_step_with_the_gradients_of_one_pass_at_the_weights_before_the_step() -> None:
    arch = Arch({"a": Choice((("a",),))}, {"op": _Itself()})
    with torch.no_grad():
        arch.logits["a"].fill_(0.5)
    objective = _Product(arch)
    phase = Phase("search", None, None, logits=Logits(lr=0.1), clip=None)
    sgd = torch.optim.SGD(objective.parameters(), lr=0.1)
    learner = Learner(objective, arch, Optimisation(sgd, lambda progress: None), phase, Runtime(torch.device("cpu")))
    learner.logit_optimizer = torch.optim.SGD(learner.logits, lr=0.1)
    passes = {"forward": 0, "backward": 0}
    objective.register_forward_hook(lambda *_: passes.update(forward=passes["forward"] + 1))
    objective.w.register_hook(lambda grad: passes.update(backward=passes["backward"] + 1))
    Joint()(learner, Streams(_Nothing(), _Forbidden(), 1))
    assert passes == {"forward": 1, "backward": 1}
    assert objective.w.item() == pytest.approx(0.5375, abs=1e-12)
    assert learner.logits[0].item() == pytest.approx(0.5375, abs=1e-12)  # 0.5393047 had the weight stepped first


def test_the_gradient_of_the_logits_is_that_of_the_batch_at_the_weights_before(recipe, learner) -> None:  # noqa: ANN001
    made = recipe("variant=single_darts")
    taught, streams = learner(made)
    draw = taught.arch.draw(taught.progress, cycle=0, use=0)
    state = streams.train.state_dict()
    with taught.loss(next(streams.train), draw) as outcome:
        expected = torch.autograd.grad(outcome.loss, taught.logits)
    streams.train.load_state_dict(state)
    seen: list[Tensor] = []
    taught.logit_optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in taught.logits))
    made.variant.schedule(taught, streams)
    assert all(map(torch.equal, seen, expected))


def test_the_whole_training_set_is_there_for_both(recipe, learner) -> None:  # noqa: ANN001
    halves, whole = (learner(recipe(f"variant={name}"))[1].epoch for name in ("darts", "single_darts"))
    assert whole == 2 * halves
