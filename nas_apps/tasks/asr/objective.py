"""What a recogniser is trained for: the loss of ESPnet's model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas_apps.core.task import Outcome
from nas_apps.tasks.asr.model import ESPnetASRModel

AUGMENT = "augment"
"""The entry of a batch that says whether its features are masked, in training mode; they are where there is none."""


class SpeechObjective(nn.Module):
    """The share of CTC and of the decoder with smoothed labels (arXiv:1609.06773), as `ESPnetASRModel.forward` has it.

    The weights learn from masked features, the architecture from features as they are: those of batches
    that say so. There is no second derivative: CTC has none.
    """

    def __init__(self, network: ESPnetASRModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Mapping[str, Any]) -> Outcome:
        """The outcome of "speech" `[B, T, mel bands]` with "text" `[B, L]`, padded with -1, and the lengths `[B]` of
        both. accuracy: of the decoder's next character while it is shown those before, over a batch's characters; the
        output is the logits of the same, `[characters and ends, tokens]`."""
        network, masks = self.network, self.network.specaug
        given = {name: batch[name] for name in ("speech_lengths", "text", "text_lengths")}
        network.specaug = masks if batch.get(AUGMENT, True) else None
        said: list[Tensor] = []
        hook = network.decoder.register_forward_hook(lambda module, given, result: said.append(result[0]))
        try:
            loss, stats, _ = network(batch["speech"].clone(), **given)  # masks and means are written into what it gets
        finally:
            network.specaug = masks
            hook.remove()
        names = {"ctc_loss": "loss_ctc", "attention_loss": "loss_att", "accuracy": "acc"}
        found = {name: stats[theirs].squeeze() for name, theirs in names.items()}
        (logits,), places = said, batch["text_lengths"] + 1  # of the end too
        real = torch.arange(logits.shape[1], device=places.device) < places[:, None]
        return Outcome(loss.squeeze(), found, len(batch["speech"]), logits[real])
