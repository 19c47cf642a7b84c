"""What an image classifier is trained for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.task import Outcome
from nas_apps.tasks.image.skeleton import ImageNetwork


class Classification(nn.Module):
    """Cross-entropy of a network's logits, and of its auxiliary head's in training.

    Args:
        auxiliary: the weight of the auxiliary loss (0.4 in arXiv:1806.09055).
        smoothing: label smoothing, in both.
    """

    def __init__(self, network: ImageNetwork, *, auxiliary: float = 0.0, smoothing: float = 0.0) -> None:
        super().__init__()
        self.network, self.auxiliary, self.smoothing = network, auxiliary, smoothing

    def forward(self, batch: tuple[Tensor, Tensor]) -> Outcome:
        """The outcome of images `[B, C, H, W]` with labels `[B]`, or `[B, classes]` where images were mixed."""
        images, labels = batch
        logits, auxiliary = self.network.forward_with_auxiliary(images)
        loss = self._loss(logits, labels)
        if auxiliary is not None:
            loss = loss + self.auxiliary * self._loss(auxiliary, labels)
        return Outcome(loss, {"accuracy": hits(logits, labels).mean()}, len(images), logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """1 for each image whose heaviest class is its (heaviest) label, else 0."""
    truth = labels if labels.ndim == 1 else labels.argmax(1)
    return torch.eq(logits.detach().argmax(1), truth).double()
