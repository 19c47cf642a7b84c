"""Networks that act: an encoder of cells (arXiv:2106.02229), and the heads of two algorithms on it.

Layers begin as torch begins them, but for the heads of `ActorCritic`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas_apps.core.bounds import COUNT, bounded
from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs
from nas_apps.tasks.rl.cells import Output, RLCell
from nas_apps.tasks.rl.ops import NORMED, OPS
from nas_apps.tasks.rl.spaces import RLSpace


@dataclass(frozen=True)
class Network:
    """The settings of a network.

    channels: of each stage, which halves the resolution. cells: that keep it, in each stage. output: how the nodes of a
    cell become one map. norm: "batch" is a norm after each node's sum by the statistics of the batch, without weights,
    which the released code means to have; "none" is what it computes, its norm being frozen at mean 0 and deviation 1.
    features: of an observation. first_conv: whether the skeleton "standard" begins with a 3x3 convolution.
    """

    channels: tuple[int, ...] = (16, 32, 32)
    cells: int = 2
    output: Output = "concat"
    norm: Literal["none", "batch"] = "none"
    features: int = 256
    first_conv: bool = True

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels: got none; allowed: one number and more")
        bounded(self, COUNT, "channels", "cells", "features")

    def deeper(self, times: float) -> Network:
        """As many times the cells, and at least one a stage."""
        return replace(self, cells=max(round(self.cells * times), 1))

    def sizes(self) -> Iterator[list[Network]]:
        """From an eighth to eight times the channels."""
        widths = (2 ** (k / 24) for k in range(-72, 73))
        yield [replace(self, channels=tuple(max(round(c * times), 1) for c in self.channels)) for times in widths]


class Encoder(nn.Module):
    """Observations `[..., H, W, C]`, uint8, to features `[..., features]`; any number of axes before the three."""

    def __init__(self, stem: nn.Module, stages: list[nn.Module], size: tuple[int, int, int], head: nn.Linear) -> None:
        super().__init__()
        self.size, self.features = size, head.out_features
        self.stem, self.stages = stem, nn.Sequential(*stages)
        self.head = nn.Sequential(nn.Flatten(), nn.ReLU(), head, nn.ReLU())

    def forward(self, obs: Tensor) -> Tensor:
        if obs.dtype != torch.uint8 or obs.shape[-3:] != self.size:
            got = f"{str(obs.dtype).removeprefix('torch.')} {list(obs.shape)}"
            raise UserError(f"observations: got {got}; allowed: uint8 [..., {', '.join(map(str, self.size))}]")
        x = obs.reshape(-1, *self.size).permute(0, 3, 1, 2) / 255  # [B, C, H, W], channels last in memory
        y: Tensor = self.head(self.stages(self.stem(x)))
        return y.reshape(*obs.shape[:-3], self.features)


def build_encoder(fill: Fill, space: RLSpace, settings: Network, size: tuple[int, int, int]) -> Encoder:
    """The encoder of a space for observations of `size`, (H, W, C)."""
    if not settings.first_conv and space.skeleton == "impala":
        raise UserError("network.first_conv: got false; allowed: true, as the skeleton 'impala' has no other beginning")
    height, width, before = size
    stem: nn.Module = nn.Identity()
    if space.skeleton == "standard" and settings.first_conv:
        stem = nn.Conv2d(before, settings.channels[0], 3, padding=1)
        before = settings.channels[0]
    stages = []
    for channels in settings.channels:
        stages.append(_stage(fill, space, settings, before, channels))
        before, height, width = channels, -(-height // 2), -(-width // 2)
    return Encoder(stem, stages, size, nn.Linear(before * height * width, settings.features))


def _stage(fill: Fill, space: RLSpace, settings: Network, before: int, channels: int) -> nn.Module:
    """What halves the resolution, and the cells after it. Their places have the same names however many there are."""
    ops = NORMED if settings.norm == "batch" else OPS

    def cell(name: str, inputs: int, stride: int = 1) -> nn.Module:
        inner = fill.cell(name, space.dag, ops, OpArgs(channels, stride))
        return RLCell(inner, inputs, channels, settings.output)

    if space.skeleton == "standard":
        halving, kinds = cell("reduce", before, 2), ["normal"]
    else:
        halving = nn.Sequential(nn.Conv2d(before, channels, 3, padding=1), nn.MaxPool2d(3, 2, 1))
        kinds = list(space.cells)
    return nn.Sequential(halving, *(cell(name, channels) for name in islice(cycle(kinds), settings.cells)))


class ActorCritic(nn.Module):
    """Observations to the logits of a policy, `[..., A]`, and the value of the state, `[..., 1]`.

    The value begins with weights from U(-0.03, 0.03), as the code of arXiv:2106.02229 has it; the policy close to
    uniform, with orthogonal weights of gain 0.01, as most implementations of PPO do.
    """

    def __init__(self, encoder: Encoder, actions: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.policy, self.value = nn.Linear(encoder.features, actions), nn.Linear(encoder.features, 1)
        nn.init.orthogonal_(self.policy.weight, 0.01)
        nn.init.uniform_(self.value.weight, -0.03, 0.03)
        for head in (self.policy, self.value):
            nn.init.zeros_(head.bias)

    @property
    def facts(self) -> dict[str, Any]:
        """What it is built from beside its encoder."""
        return {"algorithm": "ppo", "actions": self.policy.out_features}

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(obs)
        return self.policy(features), self.value(features)


class DuelingC51(nn.Module):
    """Observations to the log-probabilities of each action's return, `[..., atoms, A]`: a value and the advantages less
    their mean (arXiv:1511.06581) over the atoms of a distribution (arXiv:1707.06887)."""

    def __init__(self, encoder: Encoder, actions: int, atoms: int, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.atoms, self.actions, self.hidden = atoms, actions, hidden
        self.value = _two_layers(encoder.features, hidden, atoms)
        self.advantage = _two_layers(encoder.features, hidden, atoms * actions)

    @property
    def facts(self) -> dict[str, Any]:
        """What it is built from beside its encoder."""
        return {"algorithm": "rainbow", "actions": self.actions, "atoms": self.atoms, "hidden": self.hidden}

    def forward(self, obs: Tensor) -> Tensor:
        features = self.encoder(obs)
        advantage = self.advantage(features).unflatten(-1, (self.atoms, self.actions))  # [..., atoms, A]
        logits = self.value(features).unsqueeze(-1) + advantage - advantage.mean(-1, keepdim=True)
        y: Tensor = logits.log_softmax(-2)
        return y


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
