"""A small recogniser, and features for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

BANDS = 80
TOKENS = ("<blank>", "<unk>", *"零一二三四五六七八九十百千万亿天地人和大", "<sos/eos>")


@pytest.fixture
def tokens() -> tuple[str, ...]:
    """Those of the recogniser, in ESPnet's order."""
    return TOKENS


@pytest.fixture
def recogniser() -> Callable[..., Any]:
    """ESPnet's model around a small Conformer, with other settings of what is around it."""
    pytest.importorskip("espnet2")
    from nas_apps.tasks.asr.model import Conformer, Model, build_conformer, build_model

    def make(**settings: Any) -> Any:
        small = {"decoder_blocks": 1, "heads": 2, "ff": 32, "normalize": "none"}
        encoder = build_conformer(Conformer(blocks=1, width=16, heads=2, ff=32, kernel=7), BANDS)
        statistics = settings.pop("statistics", None)
        return build_model(encoder, TOKENS, Model(**{**small, **settings}), statistics)

    return make


@pytest.fixture
def speech() -> Callable[..., dict[str, Tensor]]:
    """A batch of noise, of utterances of these many frames."""

    def make(*frames: int, characters: int = 5) -> dict[str, Tensor]:
        lengths = torch.tensor(frames)
        features = torch.randn(len(frames), max(frames), BANDS)
        features[torch.arange(max(frames)) >= lengths[:, None]] = 0
        text = torch.randint(2, len(TOKENS) - 1, (len(frames), characters))
        text[-1, -1] = -1
        counts = torch.full((len(frames),), characters)
        counts[-1] -= 1
        return {"speech": features, "speech_lengths": lengths, "text": text, "text_lengths": counts}

    return make
