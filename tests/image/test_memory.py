"""What a super-net keeps for its backward, method by method: the super-net of DARTS, C16 L8, on images of CIFAR's size.

The figures of the specification are of the code of the papers. Bytes are counted by the benchmark of a search step.
"""

from collections.abc import Callable
from functools import cache
from statistics import mean
from types import ModuleType
from typing import Any

import pytest
import torch

from nas_apps.core.runtime import Runtime

SPEC_MB = 125.7
"""DARTS, per image."""
NONE_MB = 3.9
"""Of these, what `none` puts out on every edge: 28 maps of 65,536 bytes, 28 of 32,768, and so on."""
WITHIN = 0.15
IMAGES, DRAWS = 2, 24

Saved = Callable[..., list[float]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, search_step: ModuleType) -> Saved:
    """Megabytes per image that one forward keeps, draw by draw, under some overrides; by default one for the logits."""
    folder, runtime = tmp_path_factory.mktemp("images"), Runtime(torch.device("cpu"))
    settings = search_step.random_images(folder, batch_size=IMAGES)

    @cache
    def measure(*overrides: str, learn_arch: bool = True) -> list[float]:
        made: Any = search_step.method(runtime, *settings, *overrides)
        return [search_step.saved_by_forward(made, learn_arch=learn_arch) for _ in range(DRAWS if made.sampled else 1)]

    return measure


DARTS, PC2, PC4 = ("variant=darts",), ("variant=pc_darts", "variant.wiring.k=2"), ("variant=pc_darts",)
GDAS, GDAS_7 = ("variant=gdas",), ("variant=gdas", "task.space=darts_no_none")


def test_darts_keeps_what_the_papers_code_keeps_but_for_none(saved: Saved) -> None:
    (ours,) = saved(*DARTS)
    assert ours == pytest.approx(SPEC_MB - NONE_MB, rel=0.002)
    assert saved(*DARTS, "task.space=darts_no_none")[0] == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize(("overrides", "ratio"), [(PC2, 0.556), (PC4, 0.318), (GDAS_7, 0.176)])
def test_memory_relative_to_darts_is_the_specifications(saved: Saved, overrides: tuple[str, ...], ratio: float) -> None:
    assert mean(saved(*overrides)) / saved(*DARTS)[0] == pytest.approx(ratio, rel=WITHIN)


@pytest.mark.parametrize("overrides", [("variant=rome_v1",), ("variant=rome_v2",)])
def test_two_edges_a_node_and_one_operation_an_edge_keep_the_least(saved: Saved, overrides: tuple[str, ...]) -> None:
    assert mean(saved(*overrides)) / saved(*DARTS)[0] == pytest.approx(0.112, rel=WITHIN)
    assert mean(saved(*overrides)) < mean(saved(*GDAS))


def test_one_operation_an_edge_keeps_less_where_none_is_one_of_eight(saved: Saved) -> None:
    # The specification's 0.139 can only be of few draws: a mean of many is at least 7/8 of that of seven options.
    ratios = [megabytes / saved(*DARTS)[0] for megabytes in saved(*GDAS)]
    assert min(ratios) < 0.139 < max(ratios)
    assert 7 / 8 < mean(saved(*GDAS)) / mean(saved(*GDAS_7)) < 0.95


def test_methods_save_memory_in_the_order_of_the_papers(saved: Saved) -> None:
    figures = [mean(saved(*overrides)) for overrides in (GDAS, PC4, PC2, DARTS)]
    assert figures == sorted(figures)
    assert max(saved(*GDAS)) < saved(*PC4)[0]


def test_a_forward_for_the_weights_keeps_less_than_one_for_the_logits(saved: Saved) -> None:
    assert saved(*DARTS, learn_arch=False)[0] < 0.85 * saved(*DARTS)[0]
