"""Latency on this machine: measured on networks of random cells, and a predictor fitted to it (arXiv:2001.06392)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nas_apps.core.arch import one_hot
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.folder import device_name, versions
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random
from nas_apps.core.phase import Latency
from nas_apps.core.predictor import Predictor, identity, read, write
from nas_apps.core.price import derived
from nas_apps.core.runtime import Runtime, start
from nas_apps.core.space import Space
from nas_apps.core.task import canonical

Clock = Callable[[nn.Module, tuple[object, ...]], float]
"""Called with a network and inputs of one item; returns milliseconds."""

EPOCHS, BATCH, RATE, RIDGE = 100, 32, 1e-3, 1.0


@dataclass(frozen=True)
class Stopwatch:
    """The median time of a forward in evaluation mode on a device, after some that warm up, in ms."""

    settings: Latency
    runtime: Runtime

    def __call__(self, network: nn.Module, inputs: tuple[object, ...]) -> float:
        device, batch = self.runtime.device, self.settings.batch_size
        network = network.to(device).eval()
        items = [x.repeat(batch, *[1] * (x.ndim - 1)).to(device) if isinstance(x, Tensor) else x for x in inputs]
        with torch.no_grad(), self.runtime.autocast():
            times = [self._once(network, items) for _ in range(self.settings.warmup + self.settings.repeats)]
        return median(times[self.settings.warmup :])

    def _once(self, network: nn.Module, items: list[object]) -> float:
        self._wait()
        begun = time.perf_counter()
        network(*items)
        self._wait()
        return 1000 * (time.perf_counter() - begun)

    def _wait(self) -> None:
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.runtime.device)


class Fit(NamedTuple):
    """A predictor, and how well it does on cells it did not learn from.

    error: mean absolute error over mean latency. tau: Kendall's, over the pairs of cells that differ in latency.
    """

    predictor: Predictor
    error: float
    tau: float


def measure(recipe: Recipe, out: Path, *, cells: int = 200, clock: Clock | None = None) -> dict[str, float]:
    """Measure networks of random cells as the final training builds them, and write a predictor of their latency.

    Args:
        cells: how many; a fifth of them is held out to judge the predictor.
        clock: what measures, when it is not the recipe's device.

    Returns:
        `error` and `tau` of the predictor; `min`, `median` and `max` of what was measured, in ms; and `noise`, by how
        much of itself a cell's latency differs when it is measured again at the end, the median over a tenth of them.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; allowed: another --out")
    if cells < 10:
        raise UserError(f"--cells: got {cells}; allowed: 10 and more")
    space, phase, settings = recipe.task.choices(), recipe.train, recipe.search.latency
    with start(recipe.device, recipe.precision) as runtime:
        found = random_cells(space, cells, partial(canonical, recipe.task))
        every = 0.1 if sys.stderr.isatty() else 30.0
        bar = tqdm(found, desc="measure", unit="network", mininterval=every, maxinterval=every, dynamic_ncols=True)
        watch = clock or Stopwatch(settings, runtime)
        times = [watch(*derived(recipe.task, genotype, phase)) for genotype in bar]
        again = [watch(*derived(recipe.task, genotype, phase)) for genotype in found[: max(len(found) // 10, 1)]]
        device = device_name(runtime.device)
    predictor, error, tau = fit(space, found, times)
    noise = median(abs(b - a) / max(a, 1e-9) for a, b in zip(times, again, strict=False))
    spread = {"min": min(times), "median": median(times), "max": max(times), "noise": noise}
    figures = {"error": error, "tau": tau, **spread}
    of = identity(space, asdict(phase.network), derived(recipe.task, found[0], phase)[1], settings.batch_size)
    told = {"device": device, "precision": recipe.precision, "cells": len(found), "figures": figures}
    write(out, predictor, of, {**told, "settings": asdict(settings), "versions": versions()})
    return figures


def load(recipe: Recipe) -> tuple[Predictor, str]:
    """The predictor that a recipe names, checked to be of its networks, and the device it was measured on."""
    path, space = recipe.search.latency.file, recipe.task.choices()
    if path is None:
        raise UserError("search.latency.file: not given; allowed, where latency counts: what nas-apps measure wrote")
    inputs = derived(recipe.task, random_cells(space, 1, partial(canonical, recipe.task))[0], recipe.train)[1]
    of = identity(space, asdict(recipe.train.network), inputs, recipe.search.latency.batch_size)
    predictor, about = read(Path(path), space, of)
    return predictor, str(about["device"])


def random_cells(
    space: Space, number: int, form: Callable[[Genotype], Genotype] = lambda genotype: genotype
) -> list[Genotype]:
    """Different genotypes drawn uniformly, in this form; fewer than asked for where the space hardly has as many."""
    found: dict[str, Genotype] = {}
    for seed in range(4 * number):
        genotype = form(Random()(space, {}, torch.Generator().manual_seed(seed)))
        found.setdefault(genotype.to_json(), genotype)
        if len(found) == number:
            break
    return list(found.values())


def fit(space: Space, cells: Sequence[Genotype], times: Sequence[float]) -> Fit:
    """Fit a predictor to four fifths of some measurements, in ms, and judge it on the rest. Repeats to the bit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = Predictor(space)
        inputs = torch.stack([predictor.encode(one_hot(space, cell).weights) for cell in cells])  # [N, inputs]
        ms = torch.tensor(times, dtype=torch.float64)
        order = torch.randperm(len(ms))
        learned, held = order[len(ms) // 5 :], order[: len(ms) // 5]
        _fit(predictor, inputs[learned], ms[learned])
    predictor.requires_grad_(False).eval()
    predicted = (predictor.standard(inputs[held]) * predictor.spread + predictor.mean).double()
    error = float((predicted - ms[held]).abs().sum() / ms[held].sum())
    return Fit(predictor, error, kendall(predicted, ms[held]))


def kendall(predicted: Tensor, measured: Tensor) -> float:
    """Of the pairs that differ in `measured`: the share in the same order in both, less the share in another."""
    pairs = torch.triu_indices(len(measured), len(measured), 1)
    a, b = ((x[pairs[0]] - x[pairs[1]]).sign() for x in (predicted, measured))
    return float((a * b).sum() / b.abs().sum().clamp_min(1))


def _fit(predictor: Predictor, inputs: Tensor, ms: Tensor) -> None:
    with torch.no_grad():
        predictor.mean.copy_(ms.mean())
        predictor.spread.copy_(ms.std().clamp_min(1e-9))
        target = ((ms - ms.mean()) / predictor.spread.double()).float()
        weight, bias = _ridge(_shared(predictor.space), inputs.double(), target.double())
        predictor.linear.weight.copy_(weight[None])
        predictor.linear.bias.copy_(bias)
        for p in predictor.regressor[-1].parameters():  # it begins as nothing
            p.zero_()
    optimizer = torch.optim.Adam(predictor.regressor.parameters(), RATE)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(inputs)), BATCH):
            optimizer.zero_grad()
            loss = (predictor.standard(inputs[batch]) - target[batch]).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _shared(space: Space) -> Tensor:
    """`[inputs, K]`: which of the K options by name, choice by choice, each input stands for."""
    names = [(name, option) for name, choice in space.items() for row in choice.rows for option in row]
    kinds = list(dict.fromkeys(names))
    shared = torch.zeros(len(names), len(kinds), dtype=torch.float64)
    shared[torch.arange(len(names)), torch.tensor([kinds.index(name) for name in names])] = 1
    return shared


def _ridge(shared: Tensor, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A linear fit whose rows lean towards one another: an option costs much the same on every edge of a cell."""
    features = torch.cat([inputs, inputs @ shared, torch.ones_like(target)[:, None]], 1)
    penalty = RIDGE * torch.eye(features.shape[1], dtype=features.dtype)
    penalty[-1, -1] = 0
    found = torch.linalg.solve(features.T @ features + penalty, features.T @ target)
    size = inputs.shape[1]
    return found[:size] + shared @ found[size:-1], found[-1:]
