"""How the weights' rates go, and that they go on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_apps.core.progress import Progress
from nas_apps.core.task import Optimisation
from nas_apps.tasks.asr.optimisation import Weights, optimisation

HERE = Progress(3, 7)


def steps(made: Optimisation, parameter: nn.Parameter, number: int) -> list[float]:
    """The rates of steps on a gradient of ones."""
    rates = []
    for _ in range(number):
        made.set_rates(HERE)
        parameter.grad = torch.ones_like(parameter)
        made.optimizer.step()
        rates.append(made.optimizer.param_groups[0]["lr"])
    return rates


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, 1, bias=False)


def test_rates_are_those_of_espnets_schedule() -> None:
    pytest.importorskip("espnet2")
    from espnet2.schedulers.warmup_lr import WarmupLR

    ours, theirs = layer(), torch.optim.Adam(layer().parameters(), 0.02)
    rates = steps(optimisation(ours, Weights(lr=0.02, warmup_steps=7)), ours.weight, 40)
    schedule, expected = WarmupLR(theirs, 7), []
    for _ in range(40):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    assert rates == pytest.approx(expected)
    assert max(rates) == pytest.approx(0.02)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_run_takes_the_steps_of_an_unbroken_one(optimizer: str) -> None:
    settings = Weights(optimizer=optimizer, lr=0.1, warmup_steps=5)  # type: ignore[arg-type]
    whole, broken, after = layer(), layer(), layer()
    rates = steps(optimisation(whole, settings), whole.weight, 9)
    first = optimisation(broken, settings)
    steps(first, broken.weight, 4)
    second = optimisation(after, settings)
    after.load_state_dict(broken.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert steps(second, after.weight, 5) == rates[4:]
    assert torch.equal(after.weight, whole.weight)


def test_only_steps_count_and_not_looks_at_the_rate() -> None:
    module = layer()
    made = optimisation(module, Weights(lr=1.0, warmup_steps=10))
    for _ in range(3):
        made.set_rates(HERE)
    assert steps(made, module.weight, 2) == pytest.approx([0.1, 0.2])


def test_without_a_warm_up_the_rate_stays() -> None:
    module = layer()
    assert steps(optimisation(module, Weights(lr=0.3, warmup_steps=0)), module.weight, 3) == [0.3] * 3


def test_the_average_follows_the_weights_and_the_statistics_of_norms_and_goes_on_from_its_state() -> None:
    def run(made: Optimisation, module: nn.Module, first: int, number: int) -> None:
        for step in range(first, first + number):
            made.set_rates(HERE)
            made.optimizer.zero_grad()
            module(torch.full((4, 2), float(step)) + torch.arange(4.0)[:, None]).sum().backward()
            made.optimizer.step()
            assert made.average is not None
            made.average.update(module)

    def made() -> tuple[nn.Module, Optimisation]:
        module = nn.Sequential(layer(), nn.BatchNorm1d(1))
        return module, optimisation(module, Weights(lr=0.1, warmup_steps=0, ema=0.5))

    whole, stopped, gone_on = (made() for _ in range(3))
    run(whole[1], whole[0], 0, 4)
    run(stopped[1], stopped[0], 0, 2)
    gone_on[0].load_state_dict(stopped[0].state_dict())
    gone_on[1].optimizer.load_state_dict(stopped[1].optimizer.state_dict())
    assert stopped[1].average is not None
    assert gone_on[1].average is not None
    gone_on[1].average.load_state_dict(stopped[1].average.state_dict())
    run(gone_on[1], gone_on[0], 2, 2)
    average, after = whole[1].average, gone_on[1].average
    assert average is not None
    expected = average.module.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in after.module.state_dict().items())
    assert not torch.equal(expected["0.weight"], whole[0].state_dict()["0.weight"])
    assert not torch.equal(expected["1.running_mean"], whole[0].state_dict()["1.running_mean"])


@pytest.mark.parametrize(("name", "number"), [("lr", -1.0), ("warmup_steps", -1), ("momentum", 1.0), ("eps", 0.0)])
def test_numbers_out_of_bounds_are_refused(name: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: got {number}; allowed"):
        Weights(**{name: number})  # type: ignore[arg-type]
