"""What the engine asks of a domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from nas_apps.core.cell import Fill
from nas_apps.core.genotype import Genotype
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Space

if TYPE_CHECKING:
    from nas_apps.core.price import Price

Batch = Any


class Outcome(NamedTuple):
    """What an objective returns for a batch.

    loss: a scalar, the mean over `weight` items. stats: scalars worth logging, means over the same items. weight: the
    number of items, by which accumulated batches and ranks are averaged. output: what a teacher is compared with.
    """

    loss: Tensor
    stats: Mapping[str, Tensor]
    weight: int
    output: Any = None


class Stream(Protocol):
    """An endless source of batches that can be stopped and taken up again.

    `cycle` is the number of the draw that the next batch is for: a data set advances it every batch, an actor every
    rollout. It never falls. Every rank reads the same cycle, and its own share of the batch.
    """

    @property
    def cycle(self) -> int: ...

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Streams(NamedTuple):
    """train: for the weights. valid: for the architecture, and where nothing else reads it, `train` itself. epoch:
    batches of `train` in one epoch."""

    train: Stream
    valid: Stream
    epoch: int


class Average(Protocol):
    """A running average of an objective's weights (timm's ModelEmaV3 is one)."""

    module: nn.Module

    def update(self, model: nn.Module) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class Optimisation(NamedTuple):
    """The optimiser of an objective's weights, what sets its rates at a point of the run, and the average if any."""

    optimizer: Optimizer
    set_rates: Callable[[Progress], None]
    average: Average | None = None


@runtime_checkable
class Deepens(Protocol):
    """Settings of a network that can have more cells."""

    def deeper(self, times: float) -> Any:
        """The same settings with as many times the cells."""
        ...


@runtime_checkable
class Resizes(Protocol):
    """Settings of a network that can be of other sizes."""

    def sizes(self) -> Iterator[list[Any]]:
        """The same settings in other sizes: rows of them, each from small to large, and those first that are most like
        these."""
        ...


@runtime_checkable
class Prices(Protocol):
    """A task whose networks' costs do not add up over options, and that has formulas for them."""

    def prices(self, phase: Phase) -> Mapping[str, Price]:
        """The prices `params` and `macs` of the networks that a phase builds, exact for every genotype."""
        ...


@runtime_checkable
class Canonical(Protocol):
    """A task in whose space some decisions can be of no account once others are made."""

    def canonical(self, genotype: Genotype) -> Genotype:
        """The one of the genotypes of the same network that searches end with: such rows keep nothing."""
        ...


@runtime_checkable
class Loads(Protocol):
    """A task whose trained networks can be used without its data."""

    def load(self, folder: Path) -> Any:
        """The network that `export` wrote into `folder` as its users have it, on the CPU, evaluating."""
        ...


class Task(Protocol):
    """A domain: its space, its networks, its data and what "better" means. A frozen dataclass; its fields are the
    keys under `task` in a recipe. It may be one that has `Prices`, and one whose genotypes are `Canonical`."""

    network: ClassVar[type]
    """The dataclass of a phase's network settings: the keys under `search.network` and `train.network`. It
    may be one that `Deepens`, and one that `Resizes`."""

    weights: ClassVar[type]
    """The dataclass of a phase's optimiser settings: the keys under `search.weights` and `train.weights`."""

    batches: ClassVar[type]
    """The dataclass of a phase's data settings: the keys under `search.data` and `train.data`."""

    goal: ClassVar[tuple[str, Literal["max", "min"]]]
    """The key of `evaluate`'s answer that counts, and which way is better."""

    twice_differentiable: ClassVar[bool]
    """Whether the loss has a second derivative (CTC's has not)."""

    classifies: ClassVar[bool]
    """Whether an outcome's output is logits of classes, in the last dimension, by which a network can be taught."""

    @property
    def on_policy(self) -> bool:
        """Whether a batch is good only for the network that made it, under the draw it acted under."""
        ...

    def choices(self, *, edges: int = 0) -> Space:
        """What may be chosen; with `edges` of 1 or 2, also which edges a node keeps, one by one or in pairs."""
        ...

    def build(self, fill: Fill, phase: Phase) -> nn.Module:
        """The objective of a phase: an nn.Module called as `objective(batch) -> Outcome`."""
        ...

    def optimisation(self, objective: nn.Module, phase: Phase) -> Optimisation:
        """How the weights of an objective are optimised."""
        ...

    def streams(self, objective: nn.Module, phase: Phase, runtime: Runtime, *, seed: int, halves: bool) -> Streams:
        """The batches of a phase; with `halves`, weights and architecture learn from disjoint data.

        The live objective is there for tasks whose data come from acting.
        """
        ...

    def evaluate(self, objective: nn.Module, phase: Phase, runtime: Runtime) -> dict[str, float]:
        """Figures of an objective on held-out data, in evaluation mode, the goal's among them.

        In a search this is data the search holds out, never the test set.
        """
        ...

    def example(self, objective: nn.Module, phase: Phase) -> tuple[nn.Module, tuple[object, ...]]:
        """The part of an objective whose costs count, and inputs of one item for it, on the CPU."""
        ...

    def data_facts(self) -> str:
        """The data in one line: what they are called, how many there are, of what size."""
        ...

    def find(self, name: str) -> Genotype:
        """The published genotype of this name; UserError, with those there are, for another."""
        ...

    def look_up(self, genotype: Genotype, table: Path) -> dict[str, float]:
        """What a table of known results says of a genotype; UserError where the domain has no such tables."""
        ...

    def export(self, objective: nn.Module, genotype: Genotype, phase: Phase, folder: Path) -> None:
        """Write the trained network into `folder`, in the form its domain loads (weights as safetensors)."""
        ...


def canonical(task: Task, genotype: Genotype) -> Genotype:
    """A genotype as the task writes it."""
    return task.canonical(genotype) if isinstance(task, Canonical) else genotype
