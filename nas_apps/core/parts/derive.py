"""Which architecture a search ends with.

A rule is called as `rule(space, weights, rng)` with the expected weights `[R, O]` of each choice; returns a genotype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nas_apps.core.bounds import NOT_NEGATIVE, SHARE, bounded
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import NONE, SKIP, Choice, Space, decided, edge_choice, main_cell, states

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

    by: "edges" ranks edges by their own weight alone: with sampled edges, the cell is then the most probable one
    (arXiv:2011.11233, eq. 9). distinct: the edges kept come from different states, as in all papers but one; the code
    of arXiv:1910.04465 takes the k heaviest (edge, option) pairs, of which two may share an edge. max_skips: at most so
    many skips in the main cell; the weakest is taken out and the cell derived anew until that holds
    (arXiv:1904.12760, section 3.3).

    >>> from nas_apps.core.space import Dag, cell_choices
    >>> space = cell_choices("c", Dag(1, 1), (("none", "conv"),))
    >>> Strongest()(space, {"c.op": torch.tensor([[0.4, 0.6]])}, torch.Generator()).kept["c.op"]
    (('conv',),)
    """

    by: Literal["options", "edges"] = "options"
    distinct: bool = True
    max_skips: int | None = None

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "max_skips")

    def __call__(self, space: Space, weights: Mapping[str, Tensor], rng: torch.Generator) -> Genotype:
        kept: dict[str, Rows] = {}
        for name, choice in decided(space).items():
            table = weights[name].tolist()
            kept[name] = self._rows(name, choice, table, space, weights)
            while self.max_skips is not None and name == main_cell(space):
                skips = [
                    (table[r][choice.rows[r].index(SKIP)], r) for r, row in enumerate(kept[name]) if row == (SKIP,)
                ]
                others = [skip for skip in skips if skip[0] >= 0]  # not taken out yet: a row may have nothing else
                if len(skips) <= self.max_skips or not others:
                    break
                weakest = min(others)[1]
                table[weakest][choice.rows[weakest].index(SKIP)] = -1.0
                kept[name] = self._rows(name, choice, table, space, weights)
        return Genotype(kept)

    def _rows(
        self, name: str, choice: Choice, table: list[list[float]], space: Space, weights: Mapping[str, Tensor]
    ) -> Rows:
        dag = choice.dag
        if dag is None or dag.keep is None:
            return tuple(heaviest(o, w, choice.keep or 1) for o, w in zip(choice.rows, table, strict=True))
        rows: list[tuple[str, ...]] = [()] * len(choice.rows)
        for target in dag.targets():
            strengths = _edges(edge_choice(name.removesuffix(".op"), target), space, weights) or [1.0] * target
            found = []
            for index, strength in zip(dag.into(target), strengths, strict=True):
                ranked = _ranked(choice.rows[index], table[index])
                first = ranked[: 1 if self.distinct else dag.keep]
                found += [(strength if self.by == "edges" else w * strength, index, o) for o, w in first]
            for _, index, option in sorted(found, key=lambda f: -f[0])[: dag.keep]:
                rows[index] += (option,)
        return tuple(rows)


@dataclass(frozen=True)
class Threshold:
    """As `Strongest`, but only what weighs at least `least`: a node may keep fewer edges (arXiv:1911.12126).

    fewest: edges that a node keeps all the same, the strongest; 0 in the code of the paper, where a short search ends
    with an empty cell.

    >>> from nas_apps.core.space import Dag, cell_choices
    >>> space = cell_choices("c", Dag(1, 1, keep=1), (("none", "conv"),))
    >>> Threshold()(space, {"c.op": torch.tensor([[0.4, 0.6]])}, torch.Generator()).kept["c.op"]
    (('conv',),)
    """

    least: float = 0.85
    fewest: int = 1

    def __post_init__(self) -> None:
        bounded(self, SHARE, "least")
        bounded(self, NOT_NEGATIVE, "fewest")

    def __call__(self, space: Space, weights: Mapping[str, Tensor], rng: torch.Generator) -> Genotype:
        kept = dict(Strongest()(space, weights, rng).kept)
        for name, choice in decided(space).items():
            if choice.dag is None or choice.dag.keep is None:
                continue
            table, rows = weights[name].tolist(), list(kept[name])
            for target in choice.dag.targets():
                strengths = {i: table[i][choice.rows[i].index(rows[i][0])] for i in choice.dag.into(target) if rows[i]}
                for index in sorted(strengths, key=strengths.__getitem__, reverse=True)[self.fewest :]:
                    rows[index] = rows[index] if strengths[index] >= self.least else ()
            kept[name] = tuple(rows)
        return Genotype(kept)


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
                    heaviest(row, torch.rand(len(row), generator=rng).tolist(), choice.keep) for row in choice.rows
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


def _ranked(options: tuple[str, ...], weights: list[float]) -> list[tuple[str, float]]:
    """The options that are not "none" with their weights, the heaviest first."""
    return sorted(((o, w) for o, w in zip(options, weights, strict=True) if o != NONE), key=lambda pair: -pair[1])


def _edges(name: str, space: Space, weights: Mapping[str, Tensor]) -> list[float] | None:
    """How strong each state is as a source of a node: its weight; where options are pairs, 1 for those of the best."""
    if name not in weights:
        return None
    row = weights[name][0].tolist()
    options = space[name].rows[0] if name in space else map(str, range(len(row)))  # weights say more than the space
    held = [states(option) for option in options]
    best = held[row.index(max(row))]
    return row if len(best) == 1 else [float(state in best) for state in range(max(map(max, held)) + 1)]


def heaviest(options: tuple[str, ...], weights: list[float], number: int) -> tuple[str, ...]:
    """The heaviest options, in the order of the row."""
    best = sorted(range(len(options)), key=lambda k: -weights[k])[:number]
    return tuple(options[k] for k in sorted(best))


def _any(options: tuple[str, ...], rng: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (), generator=rng))]


RULES: dict[str, type[Rule]] = {"random": Random, "strongest": Strongest, "threshold": Threshold}
