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
    weight_decay: float = 1e-3
    clip: float | None = None
    """Bound on the norm of the logits' gradient; none by default."""
    init_std: float = 1e-3

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "lr", "weight_decay", "init_std")
        bounded(self, POSITIVE, "clip")
        bounded(self, BELOW_ONE, "betas")


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
