"""A network of others whose enlargements are learned from, instead of the images themselves (arXiv:2101.06658)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nas_apps.core.errors import UserError, require


class Teacher:
    """The network whose weights are in a file, such as an RRDB of ESRGAN (arXiv:1809.00219): what it is, spandrel finds
    out from their names and shapes. It does not learn, and is no part of the network that learns from it.

    Called with images `[B, 3, H, W]` of 0 to 1 on any device, it gives those `[B, 3, scale * H, scale * W]`.
    """

    def __init__(self, path: Path | str, scale: int) -> None:
        require("spandrel", extra="teacher")
        import spandrel

        path = Path(path)
        weights = _weights(path)
        try:
            found = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(weights))
        except spandrel.UnsupportedModelError:
            raise UserError(f"teacher: {path}: of no network that spandrel {spandrel.__version__} knows") from None
        except Exception:  # of a file that only looks like one it knows, it is any kind
            raise UserError(f"teacher: {path}: the weights of no whole network") from None
        shape = (found.input_channels, found.output_channels)
        if found.scale != scale or shape != (3, 3):
            raise UserError(
                f"teacher: {path}: {found.architecture.name} of scale {found.scale}, {shape[0]} channels in and "
                f"{shape[1]} out; allowed: scale {scale}, 3 channels"
            )
        self._network = found.eval()

    def __call__(self, lr: Tensor) -> Tensor:
        self._network.to(lr.device)
        with torch.autocast(lr.device.type, enabled=False):
            enlarged: Tensor = self._network(lr.float())
        return enlarged.clone()  # of what was inferred itself, autograd takes no notice


def _weights(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"teacher: {path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # what torch raises for bytes it does not know is any of a dozen kinds
        raise UserError(f"teacher: {path}: truncated, or no file of weights") from None
    if not isinstance(found, dict):
        raise UserError(f"teacher: {path}: holds a {type(found).__name__}; allowed: a dictionary of weights")
    return found
