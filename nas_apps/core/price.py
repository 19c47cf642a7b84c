"""What an architecture costs, before it is built: a cost for each option of each decision.

The network that counts is the one the final training builds: its width, its depth, norms with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Cell, Fixed, Mixed
from nas_apps.core.cost import calls, cost, count_params
from nas_apps.core.delayed import Delayed
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs, OpTable
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full, Row
from nas_apps.core.phase import Latency, Phase
from nas_apps.core.space import NONE, Choice, Dag, Space, decided, op_choice, widened
from nas_apps.core.task import Prices, Task

Weights = Mapping[str, Tensor]
Resource = Literal["params", "macs", "latency"]


class Price(Protocol):
    """What the network that some weights stand for costs, in its own unit; differentiable."""

    @property
    def space(self) -> Space:
        """The decided choices whose weights it reads."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether it is only true of cells as they are derived, a few edges of one option each."""
        ...

    @property
    def reference(self) -> float:
        """The cost of the mean architecture of the space, which a scale-free cost is relative to."""
        ...

    def __call__(self, weights: Weights) -> Tensor:
        """The cost `[...]` of weights `[..., R, O]`: a genotype's own at its one-hot weights."""
        ...


@dataclass(frozen=True)
class Additive:
    """A cost that adds up: `constant` for what is always there, and `options` `[R, O]` for what is chosen."""

    space: Space
    constant: float
    options: Mapping[str, Tensor]

    discrete = False

    @property
    def reference(self) -> float:
        uniform = {name: torch.ones(choice.shape, dtype=torch.float64) for name, choice in self.space.items()}
        return float(self(expectation(self.space, uniform)))

    def __call__(self, weights: Weights) -> Tensor:
        parts = [(weights[name].double() * table.to(weights[name].device)).sum((-2, -1))
                 for name, table in self.options.items()]  # fmt: skip
        return torch.stack(parts).sum(0) + self.constant


@dataclass(frozen=True)
class Narrowed:
    """A price for the weights of a narrower space: the rows of a choice have some of the options they had."""

    price: Price
    space: Space

    @property
    def discrete(self) -> bool:
        return self.price.discrete

    @property
    def reference(self) -> float:
        return self.price.reference

    def __call__(self, weights: Weights) -> Tensor:
        return self.price(widened(weights, self.space, self.price.space))


def expectation(space: Space, means: Weights) -> dict[str, Tensor]:
    """The weights of the architecture that some means promise: the odds of each option, times the share of edges kept.

    A cell whose nodes keep k edges is not the cell of all edges: its odds are scaled by kept / all edges (8 / 14 in a
    cell of arXiv:1806.09055), and "none", which it cannot keep, is left out of them.
    """
    found = {}
    for name, choice in decided(space).items():
        chances, dag = odds(choice, means[name]), choice.dag
        if dag is not None and dag.keep is not None:
            chances = chances * (sum(min(dag.keep, target) for target in dag.targets()) / len(choice.rows))
        found[name] = chances
    return found


def odds(choice: Choice, table: Tensor) -> Tensor:
    """Weights `[R, O]` as the odds of the options that can be kept: rows add up to 1."""
    if choice.dag is not None and choice.dag.keep is not None:
        table = table * table.new_tensor([[option != NONE for option in row] for row in choice.rows])
    return table / table.sum(-1, keepdim=True)


def derived(task: Task, genotype: Genotype, phase: Phase) -> tuple[nn.Module, tuple[object, ...]]:
    """The network of a genotype at the sizes of a phase, as a final training builds it, and inputs of one item."""
    phase = _trained(phase)
    with torch.random.fork_rng(devices=[]):
        return task.example(task.build(Fixed(task.choices(), genotype), phase), phase)


def describe(task: Task, genotype: Genotype, phase: Phase) -> dict[str, float]:
    """Costs of the network of a genotype: `params`, `macs` and `literature_macs`."""
    network, inputs = derived(task, genotype, phase)
    return asdict(cost(network, *inputs))


def tables(task: Task, phase: Phase) -> dict[str, Additive]:
    """The prices `params` and `macs` of the networks that a phase builds, exact for every genotype of the space.

    The network is built once with every candidate, and run once on one item; what all cells that share a decision
    cost adds up.
    """
    phase, space = _trained(phase), task.choices()
    arch = Arch(space, {choice.kind: Softmax() for choice in space.values()})
    fill = _Recording(arch)
    with torch.random.fork_rng(devices=[]), arch.using(arch.expected()):
        network, inputs = task.example(task.build(fill, phase), phase)
        found = calls(network, *inputs)
    counted = {id(module) for module in network.modules()}
    candidates = [(place, op) for place, op in fill.candidates if id(op) in counted]
    owners = {id(layer): place for place, op in candidates for layer in op.modules()}
    params = [(place, count_params(op)) for place, op in candidates]
    macs = [(owners[id(call.layer)], call.macs) for call in found if id(call.layer) in owners]
    totals = count_params(network), sum(call.macs for call in found)
    return {"params": _table(space, params, totals[0]), "macs": _table(space, macs, totals[1])}


def prices_of(task: Task, phase: Phase) -> Mapping[str, Price]:
    """The prices `params` and `macs` of the networks that a phase builds: the task's own, or `tables`."""
    return task.prices(_trained(phase)) if isinstance(task, Prices) else tables(task, phase)


def slopes(price: Price) -> dict[str, Tensor]:
    """What each option of each decision adds to the cost of the mean architecture, `[R, O]`: its table, if
    that is a cost that adds up."""
    ones = {name: torch.ones(choice.shape, dtype=torch.float64) for name, choice in price.space.items()}
    uniform = {name: table.requires_grad_() for name, table in expectation(price.space, ones).items()}
    found = torch.autograd.grad(price(uniform), list(uniform.values()), materialize_grads=True)
    return dict(zip(uniform, found, strict=True))


def _trained(phase: Phase) -> Phase:
    return replace(phase, name="train", budget=None, latency=Latency())


Place = tuple[str, int, int]  # a choice, a row and an option


class _Recording:
    """Fills with every candidate, and remembers what each is a candidate for."""

    def __init__(self, arch: Arch) -> None:
        self._space, self._mixed = arch.space, Mixed(arch, Full())
        self.candidates: list[tuple[Place, nn.Module]] = []

    def cell(self, name: str, dag: Dag, ops: OpTable, args: OpArgs) -> Cell:
        cell = self._mixed.cell(name, dag, ops, args)
        for index, edge in cell.edges.items():
            self._note(op_choice(name), int(index), edge)
        return cell

    def mix(self, name: str, row: int, ops: OpTable, args: OpArgs) -> nn.Module:
        place = self._mixed.mix(name, row, ops, args)
        self._note(name, row, place.get_submodule("edge"))
        return place

    def options(self, name: str, row: int) -> tuple[int, ...]:
        return self._mixed.options(name, row)

    def weights(self, name: str, row: int) -> Callable[[], Row]:
        return self._mixed.weights(name, row)

    def delayed(self) -> Delayed:
        return self._mixed.delayed()

    def _note(self, name: str, row: int, edge: nn.Module) -> None:
        for column, option in enumerate(self._space[name].rows[row]):
            self.candidates.append(((name, row, column), edge.get_submodule(f"ops.{option}")))


def _table(space: Space, costs: list[tuple[Place, int]], total: int) -> Additive:
    options = {name: torch.zeros(choice.shape, dtype=torch.float64) for name, choice in space.items()}
    for (name, row, column), number in costs:
        options[name][row, column] += number
    return Additive(space, total - sum(number for _, number in costs), options)
