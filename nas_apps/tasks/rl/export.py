"""Trained networks as two files, and back: weights as safetensors, and what rebuilds the network as JSON.

Reading them needs torch and this package: no library of environments or of reinforcement learning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nas_apps.core import files
from nas_apps.core.cell import Fixed
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.settings import from_plain, to_plain
from nas_apps.tasks.rl.network import ActorCritic, DuelingC51, Encoder, Network, build_encoder
from nas_apps.tasks.rl.spaces import RLSpace

FORMAT, VERSION = "nas_apps.rl", 1


@dataclass(frozen=True)
class Model:
    """All that a network is built from: what model.json holds.

    size: (H, W, C) of observations. atoms, hidden: of a network of Rainbow. kept: the genotype. about: what else a user
    of the network wants to know, such as the game and the returns that the atoms stand for.
    """

    algorithm: Literal["ppo", "rainbow"]
    size: tuple[int, int, int]
    actions: int
    space: RLSpace
    network: Network
    kept: dict[str, tuple[tuple[str, ...], ...]]
    atoms: int = 0
    hidden: int = 0
    about: dict[str, Any] | None = None

    def build(self) -> ActorCritic | DuelingC51:
        """The network, with the weights it begins with."""
        fill = Fixed(self.space.choices(), Genotype(self.kept))
        encoder = build_encoder(fill, self.space, self.network, self.size)
        if self.algorithm == "ppo":
            return ActorCritic(encoder, self.actions)
        return DuelingC51(encoder, self.actions, self.atoms, self.hidden)


def write(
    network: ActorCritic | DuelingC51,
    genotype: Genotype,
    space: RLSpace,
    settings: Network,
    folder: Path,
    *,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write model.safetensors and model.json; `about` is plain data that goes along."""
    about = None if about is None else dict(about)
    model = Model(
        size=network.encoder.size, space=space, network=settings, kept=dict(genotype.kept), about=about, **network.facts
    )
    text = json.dumps({"format": FORMAT, "version": VERSION, **to_plain(model)}, indent=1)
    files.write(folder / "model.safetensors", save(network.state_dict()))
    files.write_text(folder / "model.json", text + "\n")


def read(folder: Path | str) -> Model:
    """What model.json of a run says."""
    path = Path(folder) / "model.json"
    text = files.read_text(path, "a trained network")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise UserError(f'{path}: not a network of this task (no "format": "{FORMAT}")')
    if (version := data.pop("version", None)) != VERSION:
        raise UserError(f"{path}: version {version!r}; this release reads version {VERSION}")
    model: Model = from_plain(Model, data, str(path))
    return model


def load_policy(folder: Path | str, *, pretrained: bool = True) -> ActorCritic | DuelingC51:
    """The network of a run, on the CPU; without `pretrained`, its architecture with new weights."""
    network, path = read(folder).build(), Path(folder) / "model.safetensors"
    if pretrained:
        try:
            network.load_state_dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: cannot read the weights: {getattr(error, 'strerror', None) or error}") from None
        except RuntimeError:
            raise UserError(f"{path}: the weights of another network than the one in model.json") from None
    return network


def load_encoder(folder: Path | str, *, pretrained: bool = True) -> Encoder:
    """The encoder of a run's network: uint8 observations `[..., H, W, C]` to features."""
    return load_policy(folder, pretrained=pretrained).encoder
