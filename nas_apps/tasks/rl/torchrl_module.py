"""The encoder of a run as a module of torchrl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas_apps.core.errors import require
from nas_apps.tasks.rl.export import load_encoder

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModule


def torchrl_module(run: Path | str, *, pretrained: bool = True) -> TensorDictModule:
    """Reads "observation", uint8 `[..., H, W, C]`, and writes "feature", for the heads of actor and critic to share."""
    require("tensordict", "torchrl", extra="rl")
    from tensordict.nn import TensorDictModule

    return TensorDictModule(load_encoder(run, pretrained=pretrained), ["observation"], ["feature"])
