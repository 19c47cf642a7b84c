"""Encoders of speech made of cells: ESPnet's Conformer encoder with other blocks in the place of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from nas_apps.core.bounds import BELOW_ONE, COUNT, bounded
from nas_apps.core.cell import Fill, Fixed
from nas_apps.core.errors import UserError, unknown
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs
from nas_apps.tasks.asr.cells import GraphCell, ModuleCell, Output
from nas_apps.tasks.asr.ops import LayerNorm, op_table
from nas_apps.tasks.asr.quiet import quiet
from nas_apps.tasks.asr.spaces import CONFORMERS, PLACES, ASRSpace, find, space_of
from nas_apps.tasks.asr.subsampling import SHORTEST, subsampled

with quiet():
    from espnet.nets.pytorch_backend.nets_utils import make_pad_mask
    from espnet.nets.pytorch_backend.transformer.embedding import RelPositionalEncoding
    from espnet.nets.pytorch_backend.transformer.subsampling import Conv2dSubsampling, TooShortUttError
    from espnet2.asr.encoder.abs_encoder import AbsEncoder


@dataclass(frozen=True)
class Network:
    """The settings of an encoder; as they are, those of ESPnet's larger AISHELL recipe (train_asr_conformer_e12_amp).

    width: of every frame, a multiple of 8. output: of a cell, its last node or the mean of its nodes, which the space
    "module" has not. position_dropout: of the frames and positions that reach the first cell. masked: in evaluation, an
    utterance's result is the same whatever it is padded to; without, it is what ESPnet 202511 computes, which depends
    on that. In training, batch norms see the padding either way.
    """

    cells: int = 12
    width: int = 256
    output: Output = "last"
    dropout: float = 0.1
    position_dropout: float = 0.1
    attention_dropout: float = 0.1
    masked: bool = True

    def __post_init__(self) -> None:
        bounded(self, COUNT, "cells", "width")
        bounded(self, BELOW_ONE, "dropout", "position_dropout", "attention_dropout")
        if self.width % 8:
            raise ValueError(f"width: got {self.width}; allowed: a multiple of 8")
        if self.output not in get_args(Output):
            raise unknown("output", self.output, get_args(Output))

    def deeper(self, times: float) -> Network:
        """As many times the cells, and at least one."""
        return replace(self, cells=max(round(self.cells * times), 1))

    def sizes(self) -> Iterator[list[Network]]:
        """As many cells, and then others from half to twice as many, the nearest first; each of widths from half to
        twice the width, in steps of 8."""
        widths = range(8 * -(-self.width // 16), 2 * self.width + 1, 8)
        for cells in sorted(range((self.cells + 1) // 2, 2 * self.cells + 1), key=lambda n: abs(n - self.cells)):
            yield [replace(self, cells=cells, width=width) for width in widths]


class CellEncoder(AbsEncoder):
    """Features `[B, T, F]` of lengths `[B]` to `[B, T', d]`, the lengths `[B]` of that, and None; T' is about T / 4.

    Args:
        input_size: F.
    """

    def __init__(self, fill: Fill, space: ASRSpace, settings: Network, input_size: int) -> None:
        super().__init__()
        if input_size < SHORTEST:
            raise UserError(f"input_size: got {input_size} features a frame; allowed: {SHORTEST} and more")
        width = settings.width
        positions = RelPositionalEncoding(width, settings.position_dropout)
        self.embed = Conv2dSubsampling(input_size, width, settings.dropout, positions)
        self.cells = nn.ModuleList(_cell(fill, space, settings) for _ in range(settings.cells))
        self.after_norm = LayerNorm(width)
        self._width, self._masked = width, settings.masked

    def output_size(self) -> int:
        """The width of a frame."""
        return self._width

    def forward(self, xs_pad: Tensor, ilens: Tensor, prev_states: None = None) -> tuple[Tensor, Tensor, None]:
        shortest = int(ilens.min()) if self._masked else xs_pad.shape[1]
        if shortest < SHORTEST:
            message = f"an utterance of {shortest} frames; allowed: {SHORTEST} and more"
            raise TooShortUttError(message, shortest, SHORTEST)
        if self._masked:
            (x, pos_emb), _ = self.embed(xs_pad, None)
            lengths = subsampled(ilens.to(x.device))
            mask = (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[:, None]  # [B, 1, T']
        else:
            (x, pos_emb), mask = self.embed(xs_pad, ~make_pad_mask(ilens)[:, None, :].to(xs_pad.device))
        for cell in self.cells:
            x = cell(x, mask, pos_emb)
        return self.after_norm(x), mask.squeeze(1).sum(1), None


class DartsConformerEncoder(CellEncoder):
    """The encoder of a genotype, as ESPnet builds it for `encoder: darts_conformer`.

    Args:
        genotype: the JSON text of one, the name of a hand-made block, or a file.
    """

    def __init__(
        self,
        input_size: int,
        genotype: str = "conformer",
        num_cells: int = 12,
        output_size: int = 256,
        cell_output: str = "last",
        dropout_rate: float = 0.1,
        positional_dropout_rate: float = 0.1,
        attention_dropout_rate: float = 0.1,
        masked: bool = True,
    ) -> None:
        found = read_genotype(genotype)
        space, output = space_of(found), cast(Output, cell_output)
        settings = Network(
            num_cells, output_size, output, dropout_rate, positional_dropout_rate, attention_dropout_rate, masked
        )
        super().__init__(Fixed(space.choices(), found), space, settings, input_size)


def encoder_conf(genotype: Genotype, settings: Network) -> dict[str, Any]:
    """What ESPnet's `encoder_conf` holds for an encoder of these settings."""
    return {
        "genotype": genotype.to_json(),
        "num_cells": settings.cells,
        "output_size": settings.width,
        "cell_output": settings.output,
        "dropout_rate": settings.dropout,
        "positional_dropout_rate": settings.position_dropout,
        "attention_dropout_rate": settings.attention_dropout,
        "masked": settings.masked,
    }


def read_genotype(given: str | Mapping[str, Any]) -> Genotype:
    """A genotype from its JSON, as text or as ESPnet's command line parses that; from the name of a hand-made block, or
    from a file."""
    if not isinstance(given, str):
        return Genotype.from_json(json.dumps(given), "encoder_conf.genotype")
    if given.lstrip().startswith("{"):
        return Genotype.from_json(given, "encoder_conf.genotype")
    if given in CONFORMERS:
        return find(given, ASRSpace())
    if Path(given).suffix != ".json" and not Path(given).exists():
        raise unknown("encoder_conf.genotype", given, [*CONFORMERS, "<file>.json", "the JSON text of a genotype"])
    return Genotype.load(Path(given))


def _cell(fill: Fill, space: ASRSpace, settings: Network) -> nn.Module:
    args = OpArgs(settings.width, axis=2)
    ops = op_table(dropout=settings.dropout, attention_dropout=settings.attention_dropout, masked=settings.masked)
    if space.name == "cell":
        return GraphCell(fill.cell("cell", space.dag, ops, args), settings.width, settings.output)
    if settings.output != "last":
        raise UserError(f"network.output: got {settings.output!r}; allowed: 'last', with the space 'module'")
    return ModuleCell([fill.mix(kind, row, ops, args) for kind, row in PLACES], settings.width)
