"""Which architecture a search ends with.

A rule is called as `rule(space, weights, rng)` with the expected weights `[R, O]` of each choice; returns a genotype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nas_apps.core.genotype import Genotype
from nas_apps.core.space import NONE, Choice, Space, decided, edge_choice

Rows = tuple[tuple[str, ...], ...]


class Rule(Protocol):
    """Turns weights into a genotype."""

    def __call__(self, space: Space, weights: Mapping[str, Tensor], rng: torch.Generator) -> Genotype:
        """The genotype; `rng` is for rules that draw."""
        ...


@dataclass(frozen=True)
class Strongest:
    """The heaviest option of each row, or as many as its choice keeps, and in a cell whose nodes keep k edges the k
    strongest into each.

    An edge is as strong as its heaviest option that is not "none", times its own weight where edges have one
    (arXiv:1806.09055, section 2.4; arXiv:1907.05737, eq. 4). Where every edge stays, "none" counts as an option
    (NAS-Bench-201). Ties go to the lower index.

    distinct: the edges kept come from different states, as in all papers but one; the code of arXiv:1910.04465 takes
    the k heaviest (edge, option) pairs, of which two may share an edge.

    >>> from nas_apps.core.space import Dag, cell_choices
    >>> space = cell_choices("c", Dag(1, 1), (("none", "conv"),))
    >>> Strongest()(space, {"c.op": torch.tensor([[0.4, 0.6]])}, torch.Generator()).kept["c.op"]
    (('conv',),)
    """

    distinct: bool = True

    def __call__(self, space: Space, weights: Mapping[str, Tensor], rng: torch.Generator) -> Genotype:
        kept: dict[str, Rows] = {}
        for name, choice in decided(space).items():
            if choice.dag is None or choice.dag.keep is None:
                rows = zip(choice.rows, weights[name].tolist(), strict=True)
                kept[name] = tuple(_heaviest(options, row, choice.keep or 1) for options, row in rows)
            else:
                kept[name] = self._cell(name, choice, weights)
        return Genotype(kept)

    def _cell(self, name: str, choice: Choice, weights: Mapping[str, Tensor]) -> Rows:
        dag, table = choice.dag, weights[name].tolist()
        assert dag is not None
        assert dag.keep is not None
        rows: list[tuple[str, ...]] = [()] * len(choice.rows)
        for target in dag.targets():
            edge = edge_choice(name.removesuffix(".op"), target)
            factors = weights[edge][0].tolist() if edge in weights else [1.0] * target
            found = []
            for index, factor in zip(dag.into(target), factors, strict=True):
                ranked = sorted(
                    ((o, w) for o, w in zip(choice.rows[index], table[index], strict=True) if o != NONE),
                    key=lambda p: -p[1],
                )
                found += [(w * factor, index, o) for o, w in ranked[: 1 if self.distinct else dag.keep]]
            for _, index, option in sorted(found, key=lambda f: -f[0])[: dag.keep]:
                rows[index] += (option,)
        return tuple(rows)


@dataclass(frozen=True)
class Random:
    """An architecture drawn uniformly from the space, whatever the weights: the baseline of arXiv:1902.07638.

    >>> from nas_apps.core.space import Dag, cell_choices
    >>> space = cell_choices("c", Dag(1, 1), (("conv",),))
    >>> Random()(space, {}, torch.Generator()).kept["c.op"]
    (('conv',),)
    """

    def __call__(self, space: Space, weights: Mapping[str, Tensor], rng: torch.Generator) -> Genotype:
        kept: dict[str, Rows] = {}
        for name, choice in decided(space).items():
            dag = choice.dag
            if choice.keep is not None:
                kept[name] = tuple(
                    _heaviest(row, torch.rand(len(row), generator=rng).tolist(), choice.keep) for row in choice.rows
                )
                continue
            if dag is None or dag.keep is None:
                kept[name] = tuple((_any(row, rng),) for row in choice.rows)
                continue
            rows: list[tuple[str, ...]] = [()] * len(choice.rows)
            for target in dag.targets():
                edges = dag.into(target)
                for pick in torch.randperm(len(edges), generator=rng)[: dag.keep].tolist():
                    index = edges[pick]
                    rows[index] = (_any(tuple(o for o in choice.rows[index] if o != NONE), rng),)
            kept[name] = tuple(rows)
        return Genotype(kept)


def _heaviest(options: tuple[str, ...], weights: list[float], number: int) -> tuple[str, ...]:
    """The heaviest options, in the order of the row."""
    best = sorted(range(len(options)), key=lambda k: -weights[k])[:number]
    return tuple(options[k] for k in sorted(best))


def _any(options: tuple[str, ...], rng: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (), generator=rng))]


RULES: dict[str, type[Rule]] = {"random": Random, "strongest": Strongest}
