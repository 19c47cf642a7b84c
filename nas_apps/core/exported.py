"""A trained network as two files, and back: weights as safetensors, and what rebuilds the network as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from nas_apps.core import files
from nas_apps.core.errors import UserError
from nas_apps.core.settings import from_plain, to_plain

T = TypeVar("T")
VERSION = 1


def write(folder: Path, network: nn.Module, facts: Any, task: str) -> None:
    """Write model.safetensors, and model.json with `facts`, the dataclass that the network is rebuilt from."""
    text = json.dumps({"format": f"nas_apps.{task}", "version": VERSION, **to_plain(facts)}, indent=1)
    files.write(folder / "model.safetensors", save(network.state_dict()))
    files.write_text(folder / "model.json", text + "\n")


def read(folder: Path, kind: type[T], task: str) -> T:
    """What model.json of a run says."""
    path = folder / "model.json"
    text = files.read_text(path, "a trained network")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict) or data.pop("format", None) != f"nas_apps.{task}":
        raise UserError(f'{path}: not a network of this task (no "format": "nas_apps.{task}")')
    if (version := data.pop("version", None)) != VERSION:
        raise UserError(f"{path}: version {version!r}; this release reads version {VERSION}")
    found: T = from_plain(kind, data, str(path))
    return found


def load_weights(network: nn.Module, folder: Path) -> None:
    """Put the weights in model.safetensors of a run into the network that its model.json rebuilds."""
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot read the weights: {getattr(error, 'strerror', None) or error}") from None
    except RuntimeError:
        raise UserError(f"{path}: the weights of another network than the one in model.json") from None
