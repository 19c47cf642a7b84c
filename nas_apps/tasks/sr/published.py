"""Published up-samplers of scale 4, and what others than these cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas_apps.core.errors import UserError, unknown
from nas_apps.core.genotype import Genotype
from nas_apps.tasks.sr.spaces import EXIT, OP, OPS, WIDTH, SRSpace

WIDTHS = (24, 32, 40, 56, 64)


@dataclass(frozen=True)
class _Encoding:
    """An architecture as the released code writes it: for each cell of the path, a digit for each operation and one for
    each width."""

    paper: str
    variant: Literal["A", "B"]
    path: str
    ops: str
    widths: str


_TRILEVEL, _AGD = "arXiv:2101.06658", "arXiv:2006.08198"
_AGD_OPS = ("00000 33212 00000 13332 00000", "33332 32001 00000 33332 00000")
_TABLE = {
    "trilevel_a1": _Encoding(_TRILEVEL, "A", "cccucu", "01001 33312 00103 11011", "4000 1140 4421 0411"),
    "trilevel_a2": _Encoding(_TRILEVEL, "A", "cccccuu", "33333 01313 33323 33322 13332", "3042 4440 1122 2242 2000"),
    "trilevel_b1": _Encoding(_TRILEVEL, "B", "ccc", "30333 30131 20000", "1102 0300 4000"),
    "trilevel_b2": _Encoding(_TRILEVEL, "B", "cccccu", "00330 32311 10103 33113 31111", "1040 1232 4401 4300 1440"),
    "trilevel_b3": _Encoding(_TRILEVEL, "B", "ccuu", "00020 33110", "2033 4310"),
    "agd_visual_body": _Encoding(_AGD, "A", "cccccuu", _AGD_OPS[0], "0000 0040 0000 1100 0000"),
    "agd_psnr_body": _Encoding(_AGD, "A", "cccccuu", _AGD_OPS[1], "1130 0110 0000 1300 0000"),
}
PUBLISHED = tuple(_TABLE)
"""Architectures that have a name. Those of AutoGAN-Distiller are without its two convolutions that our networks lack,
one after the cells and one before the last."""


def find(name: str, space: SRSpace) -> Genotype:
    """The published genotype of this name, as one of `space`: that of the paper, or one it is part of."""
    if name not in _TABLE:
        raise unknown("genotype", name, [*PUBLISHED, "<file>.json"])
    if (space.channels, space.ops_per_cell, space.width_options) != (64, 5, WIDTHS):
        raise UserError(
            f"genotype {name!r}: of 64 channels, 5 operations a cell, widths {WIDTHS}; allowed: a space as it"
        )
    code, tree = _TABLE[name], space.tree
    numbers = {node.path: n for n, node in enumerate(tree.nodes)}
    if tree.variant != code.variant or code.path not in numbers or numbers[code.path] not in tree.exits:
        raise UserError(
            f"genotype {name!r}: ends at {code.path} of a tree of the variant {code.variant}; allowed: such"
        )
    cells = [cell for n in tree.path(numbers[code.path]) for cell in tree.nodes[n].cells]
    rows: dict[str, list[tuple[str, ...]]] = {c: [()] * len(choice.rows) for c, choice in space.choices().items()}
    rows[EXIT] = [(code.path,)]
    for cell, ops, widths in zip(cells, code.ops.split(), code.widths.split(), strict=True):
        for row, digit in zip(space.rows(OP, cell), ops, strict=True):
            rows[OP][row] = (OPS[int(digit)],)
        for row, digit in zip(space.rows(WIDTH, cell), widths, strict=True):
            rows[WIDTH][row] = (str(WIDTHS[int(digit)]),)
    found = Genotype({c: tuple(kept) for c, kept in rows.items()}, {"name": name, "paper": code.paper})
    return found.validate(space.choices(), f"genotype {name!r}")


def rrdb(size: tuple[int, int], *, blocks: int = 23, channels: int = 64, growth: int = 32) -> tuple[int, int]:
    """Parameters and multiply-adds of the RRDB network of scale 4 (arXiv:1809.00219) for an image of `size`, (H, W)."""
    dense = [(channels + k * growth, growth if k < 4 else channels) for k in range(5)]
    small = [(3, channels), *dense * 3 * blocks, (channels, channels)]
    large = [(channels, channels, 4), (channels, channels, 16), (channels, channels, 16), (channels, 3, 16)]
    return _convs([(*pair, 1) for pair in small] + large, size)


def agd(body: tuple[int, int], size: tuple[int, int], *, channels: int = 64) -> tuple[int, int]:
    """Parameters and multiply-adds of an AutoGAN-Distiller network (arXiv:2006.08198), given those of its body."""
    params, macs = _convs([(channels, channels, 1), (channels, channels, 16)], size)
    return body[0] + params, body[1] + macs


def _convs(layers: list[tuple[int, int, int]], size: tuple[int, int]) -> tuple[int, int]:
    """Of 3x3 convolutions with biases: channels in and out, and how many pixels out for one of the image."""
    params = sum((9 * inputs + 1) * outputs for inputs, outputs, _ in layers)
    return params, sum(9 * inputs * outputs * grown for inputs, outputs, grown in layers) * size[0] * size[1]
