"""A predictor of latency, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nas_apps.core import files
from nas_apps.core.errors import UserError
from nas_apps.core.space import Space, decided
from nas_apps.core.space_json import space_to_json

FORMAT, VERSION = "nas_apps.latency", 1
HIDDEN = (256, 256, 256)


class Predictor(nn.Module):
    """Milliseconds of the network of a genotype, from its one-hot weights `[..., R, O]` (arXiv:2001.06392).

    The tables of all choices side by side, an edge that is gone a row of zeros, go into a regressor of three hidden
    layers. Depth, width and encoding are a reconstruction. Unlike the paper's, the regressor only adds to a linear fit:
    latency is nearly a sum over the options kept, which hundreds of measurements then suffice for.
    """

    discrete = True
    mean: Tensor
    spread: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = decided(space)
        inputs = sum(rows * options for rows, options in (choice.shape for choice in self.space.values()))
        layers = [layer for pair in pairwise((inputs, *HIDDEN)) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.regressor = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
        self.linear = nn.Linear(inputs, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Milliseconds `[...]`."""
        return self.standard(self.encode(weights)) * self.spread + self.mean

    def encode(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Weights as the regressor's inputs, `[..., inputs]`."""
        return torch.cat([weights[name].flatten(-2) for name in self.space], -1).to(self.mean)

    def standard(self, inputs: Tensor) -> Tensor:
        """Latencies `[...]` as fractions of their spread over the cells measured, from their mean."""
        total: Tensor = self.linear(inputs) + self.regressor(inputs)
        return total.squeeze(-1)

    @property
    def reference(self) -> float:
        """The mean of the cells measured, which were drawn uniformly from the space, in ms."""
        return float(self.mean)

    @property
    def options(self) -> dict[str, Tensor]:
        """What each option adds in the linear fit, in ms: `[R, O]` for each choice."""
        flat = (self.linear.weight.detach()[0] * self.spread).double().cpu()
        shapes = [choice.shape for choice in self.space.values()]
        parts = torch.split(flat, [rows * options for rows, options in shapes])
        return {name: part.view(shape) for name, part, shape in zip(self.space, parts, shapes, strict=True)}


def identity(space: Space, network: Mapping[str, Any], inputs: tuple[object, ...], batch_size: int) -> dict[str, Any]:
    """What a predictor is of: it says nothing of networks of which any of this differs."""
    shapes = [list(x.shape) for x in inputs if isinstance(x, Tensor)]
    data = {"space": json.loads(space_to_json(decided(space))), "network": network, "input": shapes}
    plain: dict[str, Any] = json.loads(json.dumps({**data, "batch_size": batch_size}))
    return plain


def write(path: Path, predictor: Predictor, of: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Write a predictor: safetensors, with what it is of and what is told of it (device, versions, errors) as JSON."""
    about = {"format": FORMAT, "version": VERSION, "of": of, **told}
    files.write(path, save(predictor.state_dict(), {"nas_apps": json.dumps(about)}))


def read(path: Path, space: Space, of: Mapping[str, Any]) -> tuple[Predictor, dict[str, Any]]:
    """The predictor in a file, frozen, and what is told of it; a UserError if it is of anything but `of`."""
    about, state = _read(path)
    for key in of:
        there, here = about["of"].get(key), of[key]
        if there != here:
            words = f": {key} {there} there and {here} here" if key != "space" else ""
            raise UserError(
                f"{path}: measured on networks of another {key}{words}; allowed: what nas-apps measure wrote for this"
            )
    predictor = Predictor(space)
    predictor.load_state_dict(state)
    return predictor.requires_grad_(False).eval(), about


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("nas_apps", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except (OSError, SafetensorError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a whole safetensors file"
        reason = reason if path.exists() else "no such file"
        raise UserError(f"{path}: cannot read a latency file: {reason}; allowed: what nas-apps measure wrote") from None
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise UserError(f"{path}: not a latency file of version {VERSION}; allowed: what nas-apps measure wrote")
    return about, state
