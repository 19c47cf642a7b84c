"""The encoder of a run as a features extractor of Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.tasks.rl.export import load_encoder

try:
    from gymnasium import spaces
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ModuleNotFoundError as error:
    raise UserError(f"sb3: needs {error.name}, which is not installed: pip install stable-baselines3") from None


class CellExtractor(BaseFeaturesExtractor):
    """Images `[B, C, H, W]` of 0 to 255, as Stable-Baselines3 gives them, to features.

    The encoder divides by 255 itself, so the policy must not: see `policy_kwargs`.

    Args:
        run: the folder of a training, with model.json.
        pretrained: begin with its weights, or with new ones.
    """

    def __init__(self, observation_space: spaces.Space[Any], run: Path | str, pretrained: bool = True) -> None:
        encoder = load_encoder(run, pretrained=pretrained)
        height, width, channels = encoder.size
        allowed = spaces.Box(0, 255, (channels, height, width), np.uint8)
        if observation_space != allowed:
            raise UserError(f"observation_space: got {observation_space}; allowed: {allowed}, as {run} was trained on")
        super().__init__(observation_space, encoder.features)
        self.encoder = encoder

    def forward(self, observations: Tensor) -> Tensor:
        features: Tensor = self.encoder(observations.permute(0, 2, 3, 1).to(torch.uint8))
        return features


def policy_kwargs(run: Path | str, *, pretrained: bool = True) -> dict[str, Any]:
    """What `policy_kwargs` of PPO or A2C has to be.

    The heads stand on the features themselves, and pixels are divided once, by the encoder. ortho_init is off, since it
    would draw the weights of the extractor anew, the trained ones too.
    """
    return {
        "features_extractor_class": CellExtractor,
        "features_extractor_kwargs": {"run": str(run), "pretrained": pretrained},
        "normalize_images": False,
        "net_arch": [],
        "ortho_init": False,
    }
