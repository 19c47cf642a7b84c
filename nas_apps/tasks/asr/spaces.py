"""The search spaces of speech encoders, and the hand-made blocks that are points of them.

"cell" is a free graph of operations, after the Darts-Conformer of arXiv:2104.02868, whose own operations, numbers of
nodes and edges are not public: ours are a choice. "module" keeps the sandwich of a Conformer block and chooses inside
each of its modules, after arXiv:2104.05390.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas_apps.core.bounds import COUNT, bounded
from nas_apps.core.errors import UserError, unknown
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import NONE, SKIP, Choice, Dag, Space, cell_choices, op_choice

Name = Literal["cell", "module"]

FEED_FORWARDS, ATTENTIONS = ("ffn_4", "ffn_8"), ("mhsa_4", "mhsa_8")
CONVOLUTIONS = ("conv_7", "conv_15", "conv_31")
OPS = (*FEED_FORWARDS, *ATTENTIONS, *CONVOLUTIONS, SKIP, NONE)
"""All operations there are."""

PLACES = (("ffn", 0), ("mhsa", 0), ("conv", 0), ("ffn", 1))
"""The modules of a Conformer block in their order: a choice, and which row of it."""

_KINDS = {"ffn": FEED_FORWARDS, "mhsa": ATTENTIONS, "conv": CONVOLUTIONS}


@dataclass(frozen=True)
class ASRSpace:
    """A search space.

    nodes: of a cell of the space "cell". keep: edges into each node of a derived cell. ops: the options of an edge; in
    the space "module", those of its kind and the skip are the options of a module.
    """

    name: Name = "cell"
    nodes: int = 4
    keep: int = 1
    ops: tuple[str, ...] = OPS

    def __post_init__(self) -> None:
        bounded(self, COUNT, "nodes", "keep")
        if self.name not in ("cell", "module"):
            raise unknown("space.name", self.name, ("cell", "module"))
        for op in self.ops:
            if op not in OPS:
                raise unknown("space.ops", op, OPS)
        if self.name == "module" and (self.nodes, self.keep) != (4, 1):
            raise UserError("space.nodes, space.keep: got others than 4 and 1; allowed: those, with the space 'module'")
        for kind, ops in _KINDS.items() if self.name == "module" else ():
            if not {*ops, SKIP} & {*self.ops}:
                raise UserError(f"space.ops: none for the module {kind}; allowed: one or more of {', '.join(ops)}")

    @property
    def dag(self) -> Dag:
        """The topology of a cell of the space "cell"."""
        return Dag(inputs=1, nodes=self.nodes, keep=self.keep)

    def choices(self, edges: int = 0) -> Space:
        """What may be chosen; with `edges`, also which edges a node keeps.

        >>> {name: choice.shape for name, choice in ASRSpace("module").choices().items()}
        {'ffn': (2, 3), 'mhsa': (1, 3), 'conv': (1, 4)}
        """
        if self.name == "cell":
            return cell_choices("cell", self.dag, (self.ops,) * len(self.dag.edges()), edges=edges)
        return {
            kind: Choice.uniform(tuple(op for op in self.ops if op in (*ops, SKIP)), 2 if kind == "ffn" else 1)
            for kind, ops in _KINDS.items()
        }


CONFORMERS = {"conformer": "conv_31", "conformer_15": "conv_15"}
"""Conformer blocks by name, with their convolution: of ESPnet's AISHELL recipes, the newer and that of 2020."""


def find(name: str, space: ASRSpace) -> Genotype:
    """A block by its name: feed-forward, attention, convolution, feed-forward.

    Its feed-forwards are 8 times as wide between (2048 for a width of 256) and its attention has 4 heads.
    """
    if name not in CONFORMERS:
        raise unknown("genotype", name, [*CONFORMERS, "<file>.json"])
    chain = ("ffn_8", "mhsa_4", CONFORMERS[name], "ffn_8")
    kept: dict[str, tuple[tuple[str, ...], ...]]
    if space.name == "module":
        kept = {kind: tuple((op,) for op, (k, _) in zip(chain, PLACES, strict=True) if k == kind) for kind in _KINDS}
    else:
        edges = Dag(inputs=1, nodes=len(chain)).edges()
        kept = {op_choice("cell"): tuple((chain[source],) if target == source + 1 else () for source, target in edges)}
    found = Genotype(kept, {"name": name, "paper": "arXiv:2005.08100"})
    return found.validate(space.choices(), f"genotype {name!r}, of 4 nodes")


def space_of(genotype: Genotype) -> ASRSpace:
    """The space with all operations that a genotype is of.

    >>> space_of(find("conformer", ASRSpace())) == ASRSpace()
    True
    """
    if set(genotype.kept) == set(_KINDS):
        return ASRSpace("module")
    rows, nodes = len(genotype.kept.get(op_choice("cell"), ())), 1
    while len(Dag(1, nodes).edges()) < rows:
        nodes += 1
    return ASRSpace(nodes=nodes)
