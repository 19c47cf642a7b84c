"""The network that classifies images: a stem, a chain of cells, a head. It is a timm model without needing timm."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nas_apps.core.errors import UserError, unknown

STEM = -1
"""Where a `Feature` is that comes out of the stem, before the cells."""


@dataclass(frozen=True)
class Network:
    """The settings of a network.

    channels: of the nodes of the first cells, or of the first cells' output in a final network of NAS-Bench-101. cells:
    in all, or in each of the three stages of NAS-Bench-201 and NAS-Bench-101. stem:
    "cifar" keeps the resolution; "imagenet" divides it by eight, "imagenet_search" too and is three times as wide
    (arXiv:1907.05737). affine: whether the norms of cells have weights; when not given, in a final training and not
    in a search. auxiliary: the weight of the auxiliary head's loss, 0 for no head. dropout: before the classifier.
    """

    channels: int = 16
    cells: int = 8
    stem: Literal["cifar", "imagenet", "imagenet_search"] = "cifar"
    affine: bool | None = None
    auxiliary: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, number, least in (("channels", self.channels, 2), ("cells", self.cells, 1)):
            if number < least:
                raise ValueError(f"{name}: at least {least}, got {number}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: in [0, 1), got {self.dropout}")
        if self.auxiliary < 0:
            raise ValueError(f"auxiliary: not negative, got {self.auxiliary}")

    def deeper(self, times: float) -> Network:
        """As many times the cells, and at least one."""
        return replace(self, cells=max(round(self.cells * times), 1))

    def sizes(self) -> Iterator[list[Network]]:
        """Any number of channels from two to four times as many."""
        yield [replace(self, channels=channels) for channels in range(2, 4 * self.channels + 1)]


def refuse_extras(settings: Network, space: str) -> None:
    """Refuse what networks of the benchmarks do not have."""
    if settings.stem != "cifar":
        raise UserError(f"network.stem: a network of the space {space} has the stem 'cifar', not {settings.stem!r}")
    if settings.auxiliary:
        raise UserError(f"network.auxiliary: a network of the space {space} has no auxiliary head; leave it at 0")


class Feature(NamedTuple):
    """A map worth taking out, the last of its resolution. cell: the index of the cell it comes from, or STEM."""

    cell: int
    channels: int
    reduction: int


@dataclass
class Skeleton:
    """The modules of a network.

    stem: image -> two states. cells: each called with the two states before it -> a state. tail: what the last state
    goes through before it is pooled. auxiliary: the index of a cell, and the head that learns from its state.
    """

    stem: nn.Module
    cells: list[nn.Module]
    tail: nn.Module
    features: list[Feature]
    auxiliary: tuple[int, nn.Module] | None = None


class Stem(nn.Module):
    """The two states that the first cell sees; one and the same where there is no second part."""

    def __init__(self, first: nn.Module, second: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.first(x)
        return state, state if self.second is None else self.second(state)


class ImageNetwork(nn.Module):
    """An image classifier, with the attributes and methods that timm and its users look for.

    Called, it gives logits. `num_classes` = 0 leaves the pooled features, and then `global_pool` = "" the last map.
    """

    auxiliary: nn.Module | None
    classifier: nn.Module
    global_pool: str

    def __init__(self, skeleton: Skeleton, *, in_chans: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.in_chans, self.drop_rate, self.grad_checkpointing = in_chans, drop_rate, False
        self._taps = [f.cell for f in skeleton.features]
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": channels, "reduction": reduction, "module": "stem.first" if cell == STEM else f"cells.{cell}"}
            for cell, channels, reduction in skeleton.features
        ]
        self.num_features = self.head_hidden_size = skeleton.features[-1].channels
        self.stem, self.cells, self.tail = skeleton.stem, nn.ModuleList(skeleton.cells), skeleton.tail
        self.reset_classifier(num_classes, "avg")
        self._auxiliary_cell, self.auxiliary = skeleton.auxiliary or (STEM, None)
        self.register_load_state_dict_pre_hook(_forget_auxiliary)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and in training mode those of the auxiliary head if there is one."""
        if self.auxiliary is None or not self.training:
            return self(x), None
        last, taken = self._run(x, (self._auxiliary_cell,))
        return self.forward_head(self.tail(last)), self.auxiliary(taken[self._auxiliary_cell])

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, `[B, num_features, H, W]`."""
        last: Tensor = self.tail(self._run(x)[0])
        return last

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits`, what the classifier sees."""
        if self.global_pool == "avg":
            x = x.mean((2, 3))
        x = functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of `feature_info` at `indices` (a number: the last ones), and before them the last map.

        With `norm`, the map of the last cell as the head sees it.
        """
        if output_fmt != "NCHW":
            raise unknown("output_fmt", output_fmt, ["NCHW"])
        taps = [self._taps[index] for index in self._indices(indices)]
        last, taken = self._run(x, taps, stop=max(taps) if stop_early else None)
        if norm and len(self.cells) - 1 in taken:
            taken[len(self.cells) - 1] = self.tail(taken[len(self.cells) - 1])
        maps = [taken[tap] for tap in sorted(taps)]
        return maps if intermediates_only else (self.tail(last), maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out the layers that the maps at `indices` do not need; returns the indices counted from 0."""
        take = self._indices(indices)
        end = self._taps[max(take)] + 1
        if prune_norm or end < len(self.cells):
            self.tail = nn.Identity()
        if prune_head or end < len(self.cells):
            self.num_features = self.head_hidden_size = self.feature_info[max(take)]["num_chs"]
            self.reset_classifier(0, "")
        self.cells = self.cells[:end]
        return take

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer for other classes; the auxiliary head, which knew the old ones, goes."""
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("avg", ""):
            raise unknown("global_pool", pool, ["avg", ""])
        if num_classes and not pool:
            raise UserError(f"global_pool: '' leaves a map, and {num_classes} classes need pooled features")
        self.num_classes, self.global_pool, self.auxiliary = num_classes, pool, None
        device = next(self.stem.parameters()).device
        self.classifier = nn.Linear(self.num_features, num_classes, device=device) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """What timm sorts parameters into layers by."""
        return {"stem": r"^stem", "blocks": r"^cells\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute cells again in the backward, instead of keeping what they computed."""
        self.grad_checkpointing = enable

    def _run(self, x: Tensor, taps: Collection[int] = (), stop: int | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        """The last state, and the states after the cells in `taps`."""
        before, last = self.stem(x)
        taken = {STEM: before} if STEM in taps else {}
        for index, cell in enumerate(self.cells):
            if stop is not None and index > stop:
                break
            if self.grad_checkpointing and torch.is_grad_enabled():
                state = checkpoint(cell, before, last, use_reentrant=False)
            else:
                state = cell(before, last)
            before, last = last, state
            if index in taps:
                taken[index] = state
        return last, taken

    def _indices(self, indices: int | Sequence[int] | None) -> list[int]:
        number = len(self._taps)
        if indices is None or isinstance(indices, int):
            indices = range(-(number if indices is None else indices), 0)
        take = [index + number if index < 0 else index for index in indices]
        if not take or not all(0 <= index < number for index in take):
            raise UserError(f"out_indices: {list(indices)}; this network has {number} maps to give, 0 to {number - 1}")
        return take


def _forget_auxiliary(network: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """An auxiliary head is there for training: a network without one takes the weights of a network with one."""
    if isinstance(network, ImageNetwork) and network.auxiliary is None:
        for name in [name for name in state if name.startswith(f"{prefix}auxiliary.")]:
            del state[name]
