"""The stop rules of RobustDARTS (arXiv:1909.09656) and DARTS+ (arXiv:1909.06035), against the numbers of their code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nas_apps.core.parts.stop import EIGENVALUE, SKIPS, EigenvalueStop, RankStability, SkipCount, Verdict
from nas_apps.core.space import Choice, Dag, Space, cell_choices

CURVES: dict[str, Callable[[int], float]] = {
    "constant": lambda e: 0.1,
    "ramp": lambda e: 0.1 * 1.10 ** max(e - 20, 0),
    "linear": lambda e: 0.1 + 0.01 * max(e - 20, 0),
    "step of 1.5": lambda e: 0.1 * (1.5 if e >= 24 else 1),
    "step of 1.25": lambda e: 0.1 * (1.25 if e >= 24 else 1),
}


def first(rule: EigenvalueStop, curve: Callable[[int], float], epochs: int = 50) -> tuple[int, int] | None:
    """The epoch at which a search of 50 is ended, and the one whose cell it gets."""
    for now in range(epochs - 1):
        history = [{"epoch": e, EIGENVALUE: curve(e)} for e in range(now + 1) if e % rule.every == 0]
        if history[-1]["epoch"] < now:
            history.append({"epoch": now})
        verdict = rule(history, {})
        if verdict is not None:
            assert verdict.at == now
            return now, verdict.epoch
    return None


@pytest.mark.parametrize(
    ("every", "curve", "expected"),
    [
        (1, "constant", None),
        (1, "ramp", (25, 19)),
        (1, "linear", (26, 20)),
        (1, "step of 1.5", (27, 21)),
        (1, "step of 1.25", None),
        (2, "constant", None),
        (2, "ramp", (28, 16)),
        (2, "linear", (28, 16)),
        (2, "step of 1.5", (30, 18)),
        (2, "step of 1.25", None),
    ],
)
def test_the_eigenvalue_rule_stops_where_the_code_of_the_paper_does_and_returns_the_same_epoch(
    every: int, curve: str, expected: tuple[int, int] | None
) -> None:
    assert first(EigenvalueStop(every=every), CURVES[curve]) == expected


def test_the_eigenvalue_rule_never_returns_a_cell_from_before_its_start() -> None:
    def doubling(epoch: int) -> float:
        return 2.0**epoch

    assert first(EigenvalueStop(every=1), doubling) == (16, 10)
    assert first(EigenvalueStop(every=2), doubling) == (22, 10)
    assert first(EigenvalueStop(every=1, start=0), doubling) == (6, 0)  # three eigenvalues make the first mean


def test_the_eigenvalue_rule_reads_its_own_epochs_alone_when_more_are_there() -> None:
    history = [{"epoch": e, EIGENVALUE: 1e9 if e % 2 else CURVES["ramp"](e)} for e in range(29)]
    assert EigenvalueStop(every=2)(history, {}) == EigenvalueStop(every=2)(history[::2], {})
    assert EigenvalueStop(every=2)(history[:28], {}) is None


def test_eigenvalues_of_zero_or_not_finite_stop_nothing() -> None:
    assert first(EigenvalueStop(every=1), lambda e: 0.0) is None
    assert first(EigenvalueStop(every=1), lambda e: float("nan")) is None


def weights(*rows: list[float]) -> dict[str, list[list[float]]]:
    return {"normal.op": [list(row) for row in rows]}


def test_two_skips_in_the_normal_cell_end_a_search_and_those_of_the_reduction_cell_do_not() -> None:
    def at(epoch: int, normal: int, reduce: int) -> dict[str, object]:
        return {"epoch": epoch, "weights": weights([epoch, 0.0]),
                SKIPS + "normal.op": normal, SKIPS + "reduce.op": reduce}  # fmt: skip

    calm = [at(0, 0, 8), at(1, 1, 8)]
    assert SkipCount()(calm, {}) is None
    assert SkipCount()([*calm, at(2, 2, 0)], {}) == Verdict(2, 2, "normal.op: 2 skip connections")
    assert SkipCount(3)([*calm, at(2, 2, 0)], {}) is None
    rest = [{**at(e, 5, 5), "weights": weights([0.0])} for e in range(3)]
    assert SkipCount()(rest, {}) is None  # the logits of a warm-up are as they began
    assert SkipCount()(rest[:1], {}) is None


RANKED: Space = cell_choices("normal", Dag(1, 1), (("none", "conv", "skip_connect", "linear"),))


def ranks(*convs: float) -> list[dict[str, object]]:
    """Epochs of one edge, in which `conv` has these weights and `linear` 0.3; the others swap all the time."""
    return [{"epoch": e, "weights": weights([0.2 + e % 2, c, 0.7 - e % 2, 0.3])} for e, c in enumerate(convs)]


def test_a_ranking_of_the_learnable_options_that_is_the_same_for_ten_epochs_ends_a_search() -> None:
    rule = RankStability()
    assert rule(ranks(*[0.4] * 10), RANKED) is None
    verdict = rule(ranks(*[0.4] * 11), RANKED)
    assert verdict is not None
    assert (verdict.at, verdict.epoch) == (10, 10)
    assert rule(ranks(*[0.2], *[0.4] * 10), RANKED) is None
    assert rule(ranks(*[0.2], *[0.4] * 11), RANKED) is not None
    assert rule(ranks(*[0.4] * 10, 0.2), RANKED) is None
    assert RankStability(3)(ranks(*[0.4] * 4), RANKED) is not None


def test_a_ranking_of_logits_that_rest_or_of_one_learnable_option_ends_nothing() -> None:
    still = [{"epoch": e, "weights": weights([0.2, 0.4, 0.1, 0.3])} for e in range(20)]
    assert RankStability()(still, RANKED) is None
    alone: Space = {"normal.op": Choice((("none", "skip_connect", "noise", "conv"),))}
    assert RankStability()(ranks(*[0.4] * 20), alone) is None
