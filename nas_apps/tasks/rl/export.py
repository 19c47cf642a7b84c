"""Trained networks as two files, and back: weights as safetensors, and what rebuilds the network as JSON.

Reading them needs torch and this package: no library of environments or of reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nas_apps.core import exported
from nas_apps.core.cell import Fixed
from nas_apps.core.genotype import Genotype
from nas_apps.tasks.rl.network import ActorCritic, DuelingC51, Encoder, Network, build_encoder
from nas_apps.tasks.rl.spaces import RLSpace


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
    exported.write(folder, network, model, "rl")


def read(folder: Path | str) -> Model:
    """What model.json of a run says."""
    return exported.read(Path(folder), Model, "rl")


def load_policy(folder: Path | str, *, pretrained: bool = True) -> ActorCritic | DuelingC51:
    """The network of a run, on the CPU; without `pretrained`, its architecture with new weights."""
    network = read(folder).build()
    if pretrained:
        exported.load_weights(network, Path(folder))
    return network


def load_encoder(folder: Path | str, *, pretrained: bool = True) -> Encoder:
    """The encoder of a run's network: uint8 observations `[..., H, W, C]` to features."""
    return load_policy(folder, pretrained=pretrained).encoder
