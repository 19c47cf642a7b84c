"""A whole task in one file: points of a plane, sorted by a cell of four smooth operations.

It runs in milliseconds, has no batch norm (so that two ranks compute what one does) and a smooth loss (so that second
derivatives can be compared): the tests' task, and a template for a new one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core import files
from nas_apps.core.bounds import COUNT, NOT_NEGATIVE, TWO, bounded
from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs, OpTable, Zero
from nas_apps.core.order import Order
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress, Ramp
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.core.space import Choice, Dag, Space, cell_choices
from nas_apps.core.task import Optimisation, Outcome, Streams

DAG = Dag(inputs=2, nodes=2, keep=2)


class Scaled(nn.Module):
    """A linear layer and what follows it."""

    def __init__(self, channels: int, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.after = nn.Linear(channels, channels), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.linear(x))


OPS: OpTable = {
    "none": lambda args: Zero(),
    "skip_connect": lambda args: nn.Identity(),
    "linear": lambda args: Scaled(args.channels, nn.Identity()),
    "tanh": lambda args: Scaled(args.channels, torch.tanh),
}
GATES: OpTable = {"identity": lambda args: nn.Identity(), "sine": lambda args: _Sine()}


class _Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


@dataclass(frozen=True)
class Network:
    """channels: of every state. cells: how many are stacked."""

    channels: int = 8
    cells: int = 2

    def __post_init__(self) -> None:
        bounded(self, COUNT, "channels", "cells")

    def deeper(self, times: float) -> Network:
        """As many times the cells, and at least one."""
        return replace(self, cells=max(round(self.cells * times), 1))

    def sizes(self) -> Iterator[list[Network]]:
        """Any number of channels up to eight times as many."""
        yield [replace(self, channels=channels) for channels in range(1, 8 * self.channels + 1)]


@dataclass(frozen=True)
class Weights:
    """SGD with momentum, its rate on a cosine from lr to 0."""

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 3e-4

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "lr", "momentum", "weight_decay")


@dataclass(frozen=True)
class Batches:
    """The points are served as they are: nothing to set."""


class ToyNet(nn.Module):
    """Points `[B, 2]` to the logits of `classes`."""

    def __init__(self, fill: Fill, settings: Network, classes: int) -> None:
        super().__init__()
        args = OpArgs(settings.channels)
        self.stem = nn.Linear(2, settings.channels)
        self.cells = nn.ModuleList(fill.cell("cell", DAG, OPS, args) for _ in range(settings.cells))
        self.gate = fill.mix("gate", 0, GATES, OpArgs(DAG.nodes * settings.channels))
        self.head = nn.Linear(DAG.nodes * settings.channels, classes)
        self.squeeze = nn.ModuleList(
            nn.Linear(DAG.nodes * settings.channels, settings.channels) for _ in self.cells[1:]
        )

    def forward(self, x: Tensor) -> Tensor:
        before = now = self.stem(x)  # [B, C]
        for index, cell in enumerate(self.cells):
            out = torch.cat(cell(before, now), 1)  # [B, nodes * C]
            if index < len(self.squeeze):
                before, now = now, self.squeeze[index](out)
        logits: Tensor = self.head(self.gate(out))
        return logits


class ToyObjective(nn.Module):
    """Cross-entropy of the network's logits."""

    def __init__(self, network: ToyNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        logits = self.network(x)
        accuracy = (logits.detach().argmax(1) == y).double().mean()
        return Outcome(functional.cross_entropy(logits, y), {"accuracy": accuracy}, len(y), logits)


class _Points:
    def __init__(self, data: tuple[Tensor, Tensor], order: Order, runtime: Runtime) -> None:
        self.data, self.order, self.runtime = data, order, runtime

    @property
    def cycle(self) -> int:
        return self.order.served

    def __next__(self) -> tuple[Tensor, Tensor]:
        items = next(self.order)
        mine = items[self.runtime.share(len(items))]
        return self.data[0][mine].to(self.runtime.device), self.data[1][mine].to(self.runtime.device)

    def state_dict(self) -> dict[str, Any]:
        return self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.order.load_state_dict(state)


@dataclass(frozen=True)
class ToyTask:
    """Which of `classes` arms of a spiral a point belongs to."""

    points: int = 512
    classes: int = 3
    noise: float = 0.05

    network: ClassVar[type] = Network
    weights: ClassVar[type] = Weights
    batches: ClassVar[type] = Batches
    goal: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    twice_differentiable: ClassVar[bool] = True
    classifies: ClassVar[bool] = True
    on_policy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        bounded(self, TWO, "points", "classes")
        bounded(self, NOT_NEGATIVE, "noise")

    def choices(self, *, edges: int = 0) -> Space:
        rows = (tuple(OPS),) * len(DAG.edges())
        return {**cell_choices("cell", DAG, rows, edges=edges), "gate": Choice((tuple(GATES),))}

    def build(self, fill: Fill, phase: Phase) -> ToyObjective:
        return ToyObjective(ToyNet(fill, phase.network, self.classes))

    def optimisation(self, objective: nn.Module, phase: Phase) -> Optimisation:
        s = phase.weights
        sgd = torch.optim.SGD(objective.parameters(), s.lr, s.momentum, weight_decay=s.weight_decay)
        rate = Ramp(s.lr, 0.0, "cosine")

        def set_rates(progress: Progress) -> None:
            sgd.param_groups[0]["lr"] = rate(progress)

        return Optimisation(sgd, set_rates)

    def streams(self, objective: nn.Module, phase: Phase, runtime: Runtime, *, seed: int, halves: bool) -> Streams:
        data = self._data(0)
        items = torch.arange(self.points)
        parts = items.chunk(2) if halves else (items, items)
        orders = [Order(part, phase.batch_size, mix(seed, use)) for use, part in enumerate(parts)]
        train, valid = (_Points(data, order, runtime) for order in orders)
        return Streams(train, valid, orders[0].epoch_batches)

    def evaluate(self, objective: nn.Module, phase: Phase, runtime: Runtime) -> dict[str, float]:
        x, y = self._data(1 if phase.name == "search" else 2)
        objective.eval()
        with torch.no_grad():
            outcome = objective((x.to(runtime.device), y.to(runtime.device)))
        return {"loss": float(outcome.loss), "accuracy": float(outcome.stats["accuracy"])}

    def example(self, objective: nn.Module, phase: Phase) -> tuple[nn.Module, tuple[object, ...]]:
        return objective.get_submodule("network"), (torch.zeros(1, 2),)

    def data_facts(self) -> str:
        return f"{self.points} points of a plane on {self.classes} arms of a spiral"

    def find(self, name: str) -> Genotype:
        raise UserError(f"genotype: no file {name!r}; task toy has no published ones")

    def look_up(self, genotype: Genotype, table: Path) -> dict[str, float]:
        raise UserError(f"{table}: task toy has no tables of known results")

    def export(self, objective: nn.Module, genotype: Genotype, phase: Phase, folder: Path) -> None:
        files.write(folder / "model.safetensors", save(objective.state_dict()))

    def _data(self, part: int) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(part)
        y = torch.arange(self.points) % self.classes
        r = torch.rand(self.points, generator=rng).sqrt()
        angle = 2 * math.pi * (y / self.classes + r) + self.noise * torch.randn(self.points, generator=rng)
        return torch.stack([r * angle.cos(), r * angle.sin()], 1), y
