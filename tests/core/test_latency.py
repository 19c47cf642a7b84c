"""Measuring latency, predicting it, and the file that keeps the predictor, on synthetic devices: exact and fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core import latency
from nas_apps.core.arch import one_hot
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.latency import Stopwatch, fit, kendall, random_cells
from nas_apps.core.parts.derive import Random
from nas_apps.core.phase import Latency
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Choice, Dag, Space, cell_choices
from nas_apps.tasks.toy import Scaled

SPACE = {
    **cell_choices(
        "normal", Dag(2, 4, keep=2), (("none", "max", "avg", "skip", "conv3", "conv5", "dil3", "dil5"),) * 14
    ),
    "gate": Choice((("skip", "conv3"),)),
}


def additive(space: Space, seed: int) -> float:
    """2 ms for a convolution, 0 for anything else."""
    kept = Random()(space, {}, torch.Generator().manual_seed(seed)).kept
    return 2.0 * sum("conv" in option or "dil" in option for rows in kept.values() for row in rows for option in row)


def convolutions(network: nn.Module, _: tuple[object, ...]) -> float:
    """The same device for the toy's networks."""
    return 2.0 * sum(isinstance(module, Scaled) for module in network.modules())


@pytest.fixture
def file(recipe: Callable[..., Recipe], tmp_path: Path) -> Path:
    latency.measure(recipe(), tmp_path / "latency.safetensors", cells=40, clock=convolutions)
    return tmp_path / "latency.safetensors"


def test_where_latency_adds_up_two_hundred_cells_predict_it() -> None:
    cells = [Random()(SPACE, {}, torch.Generator().manual_seed(seed)) for seed in range(200)]
    found = fit(SPACE, cells, [additive(SPACE, seed) for seed in range(200)])
    assert found.error < 0.01
    assert found.tau >= 0.9
    new = Random()(SPACE, {}, torch.Generator().manual_seed(999))
    assert float(found.predictor(one_hot(SPACE, new).weights)) == pytest.approx(additive(SPACE, 999), rel=0.03)


def test_what_does_not_add_up_is_learned_beyond_the_linear_fit() -> None:
    """Two convolutions into the same node overlap: a device on which the linear fit alone is far off."""
    space = cell_choices("c", Dag(1, 3), (("skip", "conv"),) * 6)
    cells = [Random()(space, {}, torch.Generator().manual_seed(seed)) for seed in range(400)]

    def overlapping(rows: tuple[tuple[str, ...], ...]) -> float:
        return 5.0 + sum(("conv",) in rows[first:last] for first, last in ((0, 1), (1, 3), (3, 6)))

    times = [overlapping(cell.kept["c.op"]) for cell in cells]
    found = fit(space, cells, times)
    inputs = torch.stack([found.predictor.encode(one_hot(space, cell).weights) for cell in cells])
    ms = torch.tensor(times)
    linear = found.predictor.linear(inputs)[:, 0] * found.predictor.spread + found.predictor.mean
    assert found.error < 0.01
    assert (linear - ms).abs().mean() / ms.mean() > 0.03


def test_a_fit_repeats_to_the_bit_and_leaves_the_random_numbers_alone() -> None:
    cells = [Random()(SPACE, {}, torch.Generator().manual_seed(seed)) for seed in range(20)]
    before = torch.get_rng_state()
    first, again = (fit(SPACE, cells, list(map(float, range(20)))).predictor.state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.usefixtures("double")
def test_the_gradient_of_a_prediction_is_right() -> None:
    cells = [Random()(SPACE, {}, torch.Generator().manual_seed(seed)) for seed in range(20)]
    predictor = fit(SPACE, cells, [additive(SPACE, seed) for seed in range(20)]).predictor.double()
    logits = [torch.randn(c.shape, requires_grad=True) for c in SPACE.values()]

    def predicted(*tables: Tensor) -> Tensor:
        return predictor({name: table.softmax(-1) for name, table in zip(SPACE, tables, strict=True)})

    assert torch.autograd.gradcheck(predicted, logits)


def test_ranks_are_compared_over_the_pairs_that_differ() -> None:
    measured = torch.tensor([1.0, 2.0, 2.0, 3.0])
    assert kendall(torch.tensor([1.0, 2.0, 5.0, 6.0]), measured) == 1
    assert kendall(-measured, measured) == -1
    assert kendall(torch.tensor([1.0, 2.0, 6.0, 5.0]), measured) == pytest.approx(3 / 5)


def test_a_file_gives_back_the_predictor_frozen(recipe: Callable[..., Recipe], file: Path) -> None:
    made = recipe(f"search.latency.file={file}")
    predictor, device = latency.load(made)
    space = made.task.choices()
    cells = random_cells(space, 40)
    again = fit(
        space, cells, [2.0 * 2 * sum(r[0] in ("linear", "tanh") for r in c.kept["cell.op"] if r) for c in cells]
    )
    weights = one_hot(space, cells[0]).weights
    assert torch.equal(predictor(weights), again.predictor(weights))
    assert not any(p.requires_grad for p in predictor.parameters())
    assert not predictor.training
    assert device.startswith("cpu")


def test_what_was_measured_is_told(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    told = latency.measure(recipe(), tmp_path / "latency.safetensors", cells=100, clock=convolutions)
    assert (told["min"], told["max"], told["noise"]) == (0.0, 16.0, 0.0)
    assert told["min"] < told["median"] < told["max"]
    assert told["error"] < 0.02
    assert told["tau"] > 0.98


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["train.network.channels=5"],
            "of another network: network {'channels': 8, 'cells': 2} there and {'channels': 5",
        ),
        (["search.latency.batch_size=2"], "of another batch_size: batch_size 1 there and 2 here"),
    ],
)
def test_a_file_of_other_networks_is_refused(
    recipe: Callable[..., Recipe], file: Path, settings: list[str], words: str
) -> None:
    with pytest.raises(UserError) as error:
        latency.load(recipe(f"search.latency.file={file}", *settings))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_another_space_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="measured on networks of another space; allowed"):
        latency.load(load([], ["task=image", "task.train_images=40", f"search.latency.file={file}"]))


def test_what_is_no_latency_file_is_refused(recipe: Callable[..., Recipe], file: Path, tmp_path: Path) -> None:
    torn, text, other = tmp_path / "torn", tmp_path / "text", tmp_path / "other"
    torn.write_bytes(file.read_bytes()[:5000])
    text.write_text("latency")
    from safetensors.torch import save

    other.write_bytes(save({"x": torch.zeros(1)}))
    for path, words in ((torn, "whole safetensors"), (text, "whole safetensors"), (other, "not a latency file"),
                        (tmp_path / "none", "no such file"), (tmp_path, "allowed")):  # fmt: skip
        with pytest.raises(UserError, match=words) as error:
            latency.load(recipe(f"search.latency.file={path}"))
        assert str(path) in str(error.value)


def test_nothing_is_measured_over_a_file_that_is_there_nor_on_too_few_cells(
    recipe: Callable[..., Recipe], file: Path, tmp_path: Path
) -> None:
    before = file.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        latency.measure(recipe(), file, clock=convolutions)
    with pytest.raises(UserError, match="cells: got 9; allowed: 10 and more"):
        latency.measure(recipe(), tmp_path / "new", cells=9, clock=convolutions)
    assert file.read_bytes() == before


def test_a_stopwatch_warms_up_and_runs_batches_in_evaluation_mode() -> None:
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[int, ...]] = []

        def forward(self, x: Tensor, name: str) -> Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            self.calls.append((*x.shape, len(name)))
            return x

    network, settings = Watched(), Latency(batch_size=4, warmup=2, repeats=3)
    ms = Stopwatch(settings, Runtime(torch.device("cpu")))(network, (torch.zeros(1, 3), "ab"))
    assert network.calls == [(4, 3, 2)] * 5
    assert ms > 0


def test_random_cells_differ_and_are_fewer_where_the_space_is_small() -> None:
    cells = random_cells(SPACE, 50)
    assert len({cell.to_json() for cell in cells}) == 50
    assert len(random_cells({"c": Choice((("a", "b"),))}, 50)) == 2


def test_settings_of_measurements_are_checked() -> None:
    with pytest.raises(ValueError, match="batch_size: got 0"):
        replace(Latency(), batch_size=0)
