"""The settings of a search or of a final training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nas_apps.core.bounds import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, bounded
from nas_apps.core.progress import Ramp


@dataclass(frozen=True)
class Logits:
    """How the logits are optimised: Adam, as in every method here (arXiv:1806.09055)."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-3
    clip: float | None = None
    """Bound on the norm of the logits' gradient; none by default."""
    init_std: float = 1e-3

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "lr", "weight_decay", "init_std")
        bounded(self, POSITIVE, "clip", "eps")
        bounded(self, BELOW_ONE, "betas")


@dataclass(frozen=True)
class Latency:
    """How the latency of a network is measured, and what predicts it.

    file: what `nas-apps measure` wrote. batch_size: items in one forward. warmup, repeats: forwards before the first
    that is timed, and those whose median counts.
    """

    file: str | None = None
    batch_size: int = 1
    warmup: int = 5
    repeats: int = 21

    def __post_init__(self) -> None:
        bounded(self, COUNT, "batch_size", "repeats")
        bounded(self, NOT_NEGATIVE, "warmup")


@dataclass(frozen=True)
class Budget:
    """What the network that the final training builds may cost: parameters, multiply-adds, or milliseconds of latency.

    target: the search is drawn to it, by a hinge of this `weight` on the logits' loss. cap: the architecture a search
    ends with never costs more.
    """

    of: Literal["params", "macs", "latency"]
    target: float | None = None
    weight: float = 1.0
    cap: float | None = None

    def __post_init__(self) -> None:
        bounded(self, POSITIVE, "target", "cap")
        bounded(self, NOT_NEGATIVE, "weight")
        if self.target is None and self.cap is None:
            raise ValueError("target: not given, and cap neither; allowed: one of them, or both")


@dataclass(frozen=True)
class Phase:
    """A search or a final training.

    network, weights and data are the task's own settings: its `network`, `weights` and `batches` dataclasses.
    """

    name: Literal["search", "train"]
    network: Any
    weights: Any
    data: Any = None
    epochs: int = 50
    epoch_steps: int | None = None
    """Steps in an epoch; as many as the training data have batches when not given."""
    batch_size: int = 64
    """Over all ranks."""
    clip: float | None = 5.0
    """Bound on the norm of the weights' gradient."""
    inherit: str | None = None
    """The folder of a search or of a training, whose weights the network begins with, by their names. Only in the final
    training; with it, 0 epochs evaluate and export the network as it was inherited."""
    drop_path: float | Ramp = 0.0
    """Probability of dropping an operation's output, a sample at a time; a number p is the ramp from 0 to p. Only in
    the final training."""
    log_steps: int = 10
    """Steps from one logged line to the next."""
    evaluate_every: int = 1
    """Epochs from one evaluation to the next; the last epoch is always evaluated."""
    eigenvalue_every: int | None = None
    """Epochs from one dominant eigenvalue of the validation loss in the logits to the next; none when not given. Only
    in a search."""
    checkpoint_steps: int | None = None
    """Steps from one checkpoint to the next; an epoch when not given."""
    logits: Logits = Logits()
    latency: Latency = Latency()
    """How latency is measured and predicted, where it counts. Only in a search."""
    budget: Budget | None = None
    """What the network that is searched may cost. Only in a search."""

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "epochs")
        bounded(self, POSITIVE, "clip")
        bounded(
            self,
            COUNT,
            "epoch_steps",
            "batch_size",
            "log_steps",
            "evaluate_every",
            "eigenvalue_every",
            "checkpoint_steps",
        )
        bounded(self, BELOW_ONE, "drop_path")
        if self.inherit is not None and self.name == "search":
            raise ValueError("inherit: a search begins anew; allowed: train.inherit")
        if self.budget is not None and self.name == "train":
            raise ValueError("budget: what is trained is given; allowed: search.budget")
        if self.latency != Latency() and self.name == "train":
            raise ValueError("latency: what is trained is given; allowed: search.latency")
        if self.budget is not None and self.budget.of == "latency" and self.latency.file is None:
            raise ValueError("latency.file: not given; allowed, for a budget of latency: what nas-apps measure wrote")
