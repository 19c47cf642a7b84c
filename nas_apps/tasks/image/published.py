"""Architectures of the literature, and the notations they are written in.

A DARTS cell is written node by node, `op@state` for each edge that stays: "sep3@1 sep3@0 | skip@0 sep3@1 | ...". States
0 and 1 are the cell's inputs, 2 to 5 its nodes.
"""

from __future__ import annotations

import re

from nas_apps.core.errors import UserError, unknown
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import NONE, op_choice
from nas_apps.tasks.image.spaces import OPS_BY_SHORT_NAME, SPACES, Rows


def from_notation(normal: str, reduce: str, **meta: object) -> Genotype:
    """The genotype of a pair of DARTS cells.

    >>> from_notation("sep3@0 skip@1 | | |", "| | |").kept["normal.op"][:3]
    (('sep_conv_3x3',), ('skip_connect',), ())
    """
    cells = {"normal": normal, "reduce": reduce}
    return Genotype({op_choice(name): _rows(text, name) for name, text in cells.items()}, meta)


def _rows(text: str, where: str) -> Rows:
    dag = SPACES["darts"].dag
    nodes = text.split("|")
    if len(nodes) != dag.nodes:
        raise UserError(f"{where}: {len(nodes)} nodes in {text!r}; a cell has {dag.nodes}, with | between them")
    rows: list[tuple[str, ...]] = [()] * len(dag.edges())
    for target, node in zip(dag.targets(), nodes, strict=True):
        for pair in node.split():
            op, _, source = pair.partition("@")
            if op not in OPS_BY_SHORT_NAME:
                raise unknown(f"{where}: {pair!r}", op, OPS_BY_SHORT_NAME)
            if source not in map(str, range(target)):
                raise UserError(f"{where}: {pair!r}: no state {source!r}; node {target} sees states 0 to {target - 1}")
            rows[dag.into(target)[int(source)]] += (OPS_BY_SHORT_NAME[op],)
    return tuple(rows)


def from_arch_string(text: str) -> Genotype:
    """The genotype that NAS-Bench-201 writes as |op~0|+|op~0|op~1|+|op~0|op~1|op~2|.

    >>> from_arch_string("|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|").kept["cell.op"][-2:]
    (('none',), ('skip_connect',))
    """
    space, where = SPACES["nasbench201"], f"architecture {text!r}"
    ops, wanted = tuple(re.findall(r"\w+(?=~)", text)), ("op",) * len(space.dag.edges())
    if len(ops) != len(wanted) or _arch_string(ops) != text.strip():
        raise UserError(f"{where}: not of the form {_arch_string(wanted)}")
    return Genotype({op_choice("cell"): tuple((op,) for op in ops)}).validate(space.choices(), where)


def to_arch_string(genotype: Genotype) -> str:
    """The string of a point of the NAS-Bench-201 space.

    >>> to_arch_string(Genotype({"cell.op": (("none",),) * 6}))
    '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """
    space = SPACES["nasbench201"]
    rows = genotype.validate(space.choices()).kept[op_choice("cell")]
    for index, row in enumerate(rows):
        if len(row) > 1:
            raise UserError(f"genotype: cell.op[{index}] keeps {row}; an architecture string has one operation an edge")
    return _arch_string(tuple(row[0] if row else NONE for row in rows))


def _arch_string(ops: tuple[str, ...]) -> str:
    dag = SPACES["nasbench201"].dag
    nodes = [[f"{ops[index]}~{source}" for source, index in enumerate(dag.into(target))] for target in dag.targets()]
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


_TABLE: dict[str, tuple[str, str, str]] = {  # name -> paper, normal cell, reduction cell
    "darts_v1": (
        "arXiv:1806.09055",
        "sep3@1 sep3@0 | skip@0 sep3@1 | skip@0 sep3@1 | sep3@0 skip@2",
        "max@0 max@1 | skip@2 max@0 | max@0 skip@2 | skip@2 avg@0",
    ),
    "darts_v2": (
        "arXiv:1806.09055",
        "sep3@0 sep3@1 | sep3@0 sep3@1 | sep3@1 skip@0 | skip@0 dil3@2",
        "max@0 max@1 | skip@2 max@1 | max@0 skip@2 | skip@2 max@1",
    ),
    "pc_darts_cifar": (
        "arXiv:1907.05737",
        "sep3@1 skip@0 | sep3@0 dil3@1 | sep5@0 sep3@1 | avg@0 dil3@1",
        "sep5@1 max@0 | sep5@1 sep5@2 | sep3@0 sep3@3 | sep3@1 sep3@2",
    ),
    "pc_darts_image": (
        "arXiv:1907.05737",
        "skip@1 sep3@0 | sep3@0 skip@1 | sep3@1 sep3@3 | sep3@1 dil5@4",
        "sep3@0 skip@1 | dil5@2 max@1 | sep3@2 sep3@1 | sep5@0 sep3@3",
    ),
    "pdarts": (
        "arXiv:1904.12760",
        "skip@0 dil3@1 | skip@0 sep3@1 | sep3@1 sep3@3 | sep3@0 dil5@4",
        "avg@0 sep5@1 | sep3@0 dil5@2 | max@0 dil3@1 | dil3@1 dil5@3",
    ),
    "sdarts_adv": (
        "arXiv:2002.05283",
        "sep3@0 sep3@1 | sep3@1 skip@0 | sep5@0 dil3@3 | dil3@4 skip@0",
        "max@0 sep5@1 | skip@2 max@0 | skip@3 skip@2 | skip@2 sep5@4",
    ),
    "sdarts_rs": (
        "arXiv:2002.05283",
        "sep3@1 sep3@0 | sep5@1 skip@0 | sep3@3 skip@1 | sep3@1 dil3@2",
        "max@0 sep3@1 | skip@2 max@0 | dil5@3 max@0 | sep3@2 sep5@3",
    ),
    "ms_darts": (
        "arXiv:2108.09996",
        "sep3@1 sep3@0 | skip@0 sep3@2 | sep3@0 sep3@1 | sep3@0 dil3@3",
        "sep3@0 avg@1 | sep3@0 sep3@2 | max@0 dil3@3 | sep3@3 skip@2",
    ),
    "gdas_v1": (
        "arXiv:1910.04465",
        "skip@0 skip@1 | skip@0 sep5@2 | sep3@3 skip@0 | sep5@4 sep3@3",
        "sep5@0 sep3@1 | sep5@2 sep5@1 | dil5@2 sep3@1 | sep5@0 sep5@1",
    ),
    "drnas_cifar10": (
        "arXiv:2006.10355",
        "sep3@0 sep5@1 | sep3@1 sep3@2 | skip@0 sep3@1 | sep3@2 dil5@3",
        "max@0 sep5@1 | dil5@2 sep5@1 | sep5@1 dil5@3 | skip@4 sep5@1",
    ),
    "drnas_imagenet": (
        "arXiv:2006.10355",
        "sep3@1 sep3@0 | sep3@0 sep3@1 | sep3@0 dil3@3 | skip@0 sep3@1",
        "max@0 sep3@1 | sep3@0 skip@2 | sep3@0 sep3@2 | sep3@3 sep3@1",
    ),
    "s1_sdarts_adv": (
        "arXiv:2002.05283",
        "dil5@1 dil3@0 | sep3@1 skip@2 | sep3@2 dil3@3 | sep3@0 dil3@2",
        "max@0 dil3@1 | dil5@2 max@0 | dil5@3 dil3@2 | dil5@4 dil5@2",
    ),
    "s2_sdarts_adv": (
        "arXiv:2002.05283",
        "sep3@1 skip@0 | sep3@2 sep3@0 | sep3@3 sep3@2 | sep3@4 sep3@1",
        "skip@0 skip@1 | sep3@0 sep3@2 | sep3@3 sep3@0 | sep3@4 sep3@3",
    ),
    "s3_sdarts_adv": (
        "arXiv:2002.05283",
        "sep3@1 sep3@0 | sep3@0 sep3@2 | sep3@1 sep3@0 | sep3@1 skip@0",
        "sep3@1 sep3@0 | sep3@2 sep3@0 | sep3@2 sep3@0 | sep3@1 sep3@3",
    ),
    "s4_sdarts_adv": (
        "arXiv:2002.05283",
        "sep3@1 sep3@0 | sep3@2 sep3@1 | sep3@3 sep3@2 | sep3@3 sep3@4",
        "sep3@1 sep3@0 | sep3@2 sep3@1 | sep3@2 sep3@3 | sep3@3 sep3@4",
    ),
}

PUBLISHED: dict[str, Genotype] = {
    name: from_notation(normal, reduce, name=name, paper=paper) for name, (paper, normal, reduce) in _TABLE.items()
}
"""Architectures by name: points of the space "darts", and for s1_ to s4_ of the spaces of that name. They were searched
on CIFAR-10, but for pc_darts_image and drnas_imagenet."""
