"""A copy of the logits that stays behind, and the draw in force made again under it."""

from __future__ import annotations

import copy

import pytest
import torch

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.relax import RELAXATIONS
from nas_apps.core.parts.wiring import Full
from nas_apps.core.progress import Progress
from nas_apps.core.space import Choice

SPACE = {"a.op": Choice((("x", "y", "z"), ("x", "y", "z"))), "gate": Choice((("u", "v"),))}
MIDDLE = Progress(25, 50)


def arch(name: str = "softmax") -> Arch:
    return Arch(SPACE, {choice.kind: RELAXATIONS[name]() for choice in SPACE.values()}, init_std=1.0)


def move(made: Arch, by: float) -> None:
    with torch.no_grad():
        for number, logits in enumerate(made.logits.values(), 1):
            logits += by * torch.arange(logits.numel()).view_as(logits) * number


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("name", RELAXATIONS)
def test_under_logits_that_did_not_move_the_draw_is_the_one_in_force(name: str, learn: bool) -> None:  # noqa: FBT001
    made = arch(name)
    delayed = Mixed(made, Full()).delayed()
    with made.using(made.draws(MIDDLE, cycle=3, use=1, learn=learn)[0]) as draw, delayed.using():
        again = made.current
        assert (again.active, again.probed, again.progress) == (draw.active, draw.probed, MIDDLE)
        for choice, weights in draw.weights.items():
            assert torch.equal(again.weights[choice], weights)
            assert not again.weights[choice].requires_grad


def test_a_sampled_draw_is_the_same_sample_under_older_logits() -> None:
    made = arch("gumbel_softmax")
    delayed = Mixed(made, Full()).delayed()
    before = made.draw(MIDDLE, cycle=3)
    move(made, 0.3)
    with made.using(made.draw(MIDDLE, cycle=3)) as draw, delayed.using():
        assert all(torch.equal(made.current.weights[name], table) for name, table in before.weights.items())
        assert not any(torch.equal(made.current.weights[name], table) for name, table in draw.weights.items())
        assert made.current.noise == draw.noise


def test_it_stays_behind_until_it_catches_up() -> None:
    made = arch()
    delayed = Mixed(made, Full()).delayed()
    before = {name: logits.detach().softmax(-1) for name, logits in made.logits.items()}
    for caught in (False, True):
        move(made, 1.0)
        if caught:
            delayed.catch_up()
        with made.using(made.draw(MIDDLE)) as draw:
            with delayed.using():
                wanted = draw.weights if caught else before
                assert all(torch.equal(made.current.weights[name], wanted[name]) for name in SPACE)
            assert made.current is draw


def test_a_draw_that_is_not_of_the_logits_gives_way_to_one_that_is() -> None:
    made = arch()
    delayed = Mixed(made, Full()).delayed()
    odd = {name: torch.ones(choice.shape) for name, choice in SPACE.items()}
    with made.using(made.draw(MIDDLE).at(odd)), delayed.using():
        assert torch.equal(made.current.weights["gate"], made.logits["gate"].softmax(-1))


def test_its_state_is_the_copy_and_it_has_no_parameters() -> None:
    made = arch()
    delayed = Mixed(made, Full()).delayed()
    state = copy.deepcopy(delayed.state_dict())
    move(made, 1.0)
    delayed.catch_up()
    assert list(delayed.parameters()) == []
    assert {name: table.shape for name, table in state.items()} == {"a/op": (2, 3), "gate": (1, 2)}
    delayed.load_state_dict(state)
    with made.using(made.draw()), delayed.using():
        assert torch.equal(made.current.weights["gate"], state["gate"].softmax(-1))


def test_a_copy_of_it_follows_the_same_logits() -> None:
    made = arch()
    copied = copy.deepcopy(Mixed(made, Full()).delayed())
    move(made, 1.0)
    copied.catch_up()
    assert torch.equal(copied.get_buffer("gate"), made.logits["gate"])


def test_where_nothing_is_searched_nothing_happens() -> None:
    delayed = Fixed({"gate": Choice((("u", "v"),))}, Genotype({"gate": (("u",),)})).delayed()
    delayed.catch_up()
    with delayed.using():
        assert delayed.state_dict() == {}


def test_outside_a_draw_it_is_refused_as_any_use_is() -> None:
    with pytest.raises(RuntimeError, match="under no draw"), Mixed(arch(), Full()).delayed().using():
        pass
