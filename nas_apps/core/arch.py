"""The logits of a space, and the draw of mixing weights that a step computes under."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.wiring import Row
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.seeds import mix
from nas_apps.core.space import Space, decided, edge_choice, states

Active = Mapping[str, tuple[tuple[int, ...], ...]]
Tables = dict[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """The weights of one step.

    weights: per choice, `[R, O]`. active: per choice and row, the options whose weight may be other than zero; the
    others are not computed. progress: where in the run it was drawn. probed: per choice and row, the options that are
    not computed and whose weight gets a gradient all the same. noise: the seed it was drawn with.
    """

    weights: Mapping[str, Tensor]
    active: Active
    progress: Progress = DONE
    probed: Active = field(default_factory=dict)
    noise: int = 0

    def leaf(self, *, grad: bool = True) -> Draw:
        """The same weights, cut off from the logits; with `grad`, what a loss is differentiated with respect to."""
        return replace(self, weights={n: table.detach().requires_grad_(grad) for n, table in self.weights.items()})

    def at(self, tables: Mapping[str, Tensor]) -> Draw:
        """This draw with other weights in some tables."""
        return replace(self, weights={**self.weights, **tables})

    @cached_property
    def scalars(self) -> dict[str, tuple[tuple[Tensor, ...], ...]]:
        """The weights one by one, `[1]` each, taken apart once for all the cells that read them.

        Not scalars: a product of a scalar and a bfloat16 map is bfloat16, in which 1/8 and 1/8 + 0.0004 are the same.
        """
        return {name: tuple(row.chunk(row.numel()) for row in table.unbind()) for name, table in self.weights.items()}


class Arch(nn.Module):
    """Logits `[R, O]` for each choice of a space, and the draw that is in force.

    A super-net reads its weights from `current`, which exists only inside `with arch.using(draw)`: a forward, and the
    backward of a checkpointed one, under no draw is an error and never a default.

    Args:
        space: the choices.
        relax: for each kind of choice, how logits become weights.
        init_std: logits start as `init_std` * N(0, 1).
        seed: of the first logits and of all noise.
    """

    def __init__(self, space: Space, relax: Mapping[str, Relaxation], *, init_std: float = 1e-3, seed: int = 0) -> None:
        super().__init__()
        self.space, self.relax, self.seed = dict(space), dict(relax), seed
        rng = torch.Generator().manual_seed(seed)
        self._logits = nn.ParameterDict(
            {key_of(name): nn.Parameter(init_std * torch.randn(c.shape, generator=rng)) for name, c in space.items()}
        )
        self._current: Draw | None = None

    @property
    def logits(self) -> dict[str, nn.Parameter]:
        """The logits by the name of their choice."""
        return {name: self._logits[key_of(name)] for name in self.space}

    def draw(self, progress: Progress = DONE, *, cycle: int = 0, use: int = 0) -> Draw:
        """The weights for one cycle of a stream; the first of `draws`."""
        return self.draws(progress, cycle=cycle, use=use)[0]

    def draws(
        self, progress: Progress = DONE, *, cycle: int = 0, use: int = 0, samples: int = 1, learn: bool = False
    ) -> tuple[Draw, ...]:
        """Independent draws for one cycle of a stream: a function of logits, progress, seed and arguments alone.

        The noise is made on the CPU from (seed, use, cycle), so ranks, replays and resumed runs see the same draws.
        `use` tells streams apart: the draws of training and validation batches are independent. learn: whether the
        logits learn under them. Where one sample is several sub-graphs, each is a draw.
        """
        first = mix(self.seed, use, cycle)
        seeds = [first, *(mix(self.seed, use, cycle, sample) for sample in range(1, samples))]
        return self._drawn(self.logits, progress, seeds, learn)

    def redraw(self, draw: Draw, logits: Mapping[str, Tensor]) -> Draw:
        """What `draw` would be under other logits, at the same progress and with the same noise. Of several sub-graphs
        that are one sample, the first."""
        return self._drawn(logits, draw.progress, [draw.noise], bool(draw.probed))[0]

    def _drawn(
        self, logits: Mapping[str, Tensor], progress: Progress, seeds: Sequence[int], learn: bool
    ) -> tuple[Draw, ...]:
        sampled = [found for seed in seeds for found in self._sample(logits, progress, seed, learn)]
        sparse = [name for name, choice in self.space.items() if self.relax[choice.kind].sparse]
        run = _patterns([weights[name] for weights, _, _ in sampled for name in sparse])
        seen = _patterns([mask & (w[n] == 0) for w, masks, _ in sampled for n, mask in masks.items()])
        draws = []
        for weights, masks, noise in sampled:
            active = {n: next(run) if n in sparse else _all(c.shape) for n, c in self.space.items()}
            draws.append(Draw(weights, active, progress, {name: next(seen) for name in masks}, noise))
        return tuple(draws)

    def _sample(
        self, logits: Mapping[str, Tensor], progress: Progress, noise: int, learn: bool
    ) -> list[tuple[Tables, Tables, int]]:
        """The sub-graphs of one sample: weights, masks of what is probed, the seed of the noise."""
        rng = torch.Generator().manual_seed(noise)
        tables, masks = {}, {}
        for name, choice in self.space.items():
            relax, given = self.relax[choice.kind], logits[name]
            tables[name], mask = relax.gates(given, progress, rng) if learn else (relax(given, progress, rng), None)
            if mask is not None:
                masks[name] = mask
        number = max([1, *(len(table) for table in tables.values() if table.ndim > 2)])
        return [({n: t[k] if t.ndim > 2 else t for n, t in tables.items()}, masks, noise) for k in range(number)]

    def expected(self, progress: Progress = DONE) -> Draw:
        """The mean draw, without noise or gradient: what is logged."""
        with torch.no_grad():
            means = self.means(progress)
        sparse = [name for name, choice in self.space.items() if self.relax[choice.kind].sparse]
        run = dict(zip(sparse, _patterns([means[name] for name in sparse]), strict=True))
        return Draw(means, {n: run[n] if n in run else _all(c.shape) for n, c in self.space.items()}, progress)

    def scores(self) -> Tables:
        """What an architecture is derived from, `[R, O]` of each choice, on the CPU."""
        return {n: self.relax[c.kind].scores(self.logits[n].detach()).cpu() for n, c in self.space.items()}

    def means(self, progress: Progress = DONE) -> Tables:
        """The expected weights of each choice, `[R, O]`, differentiable in the logits."""
        return {name: self.relax[c.kind].mean(self.logits[name], progress) for name, c in self.space.items()}

    @contextmanager
    def using(self, draw: Draw) -> Iterator[Draw]:
        """Put `draw` in force. What is differentiated under it must be differentiated inside the block."""
        before, self._current = self._current, draw
        try:
            yield draw
        finally:
            self._current = before

    @property
    def current(self) -> Draw:
        """The draw in force; RuntimeError outside `using`."""
        if self._current is None:
            raise RuntimeError("the super-net was run under no draw: call it inside `with arch.using(arch.draw(...))`")
        return self._current

    def reader(self, name: str, row: int) -> Callable[[], Row]:
        """A function that returns one row of the draw in force."""

        def read() -> Row:
            draw = self.current
            probed = draw.probed[name][row] if name in draw.probed else ()
            return Row(draw.scalars[name][row], draw.active[name][row], draw.progress, probed)

        return read

    def sources(self, name: str) -> Callable[[], Row]:
        """A function that returns the weight of each state, from a choice of edges: where an option holds several
        states, the sum over those a state is in (arXiv:2011.11233, eq. 6)."""
        held, read = [states(option) for option in self.space[name].rows[0]], self.reader(name, 0)
        if all(len(group) == 1 for group in held):
            return read

        def summed() -> Row:
            row, found = read(), dict[int, Tensor]()
            assert row.weights is not None
            for k in row.active:
                for state in held[k]:
                    found[state] = found[state] + row.weights[k] if state in found else row.weights[k]
            zero = torch.zeros_like(row.weights[0])
            weights = tuple(found.get(state, zero) for state in range(max(map(max, held)) + 1))
            return Row(weights, tuple(sorted(found)), row.progress)

        return summed


def one_hot(space: Space, genotype: Genotype, *, like: Tensor | None = None) -> Draw:
    """The draw of a genotype: weight 1 for what it keeps, 0 and inactive for the rest."""
    like = torch.zeros(0) if like is None else like
    weights = {}
    for name, choice in decided(space).items():
        table = weights[name] = like.new_zeros(choice.shape)
        for row, options in enumerate(choice.rows):
            for option in genotype.kept[name][row]:
                table[row, options.index(option)] = 1
        dag = choice.dag
        for target in dag.targets() if dag else ():
            edge = edge_choice(name.removesuffix(".op"), target)
            if dag and edge in space:
                there = table[list(dag.into(target))].amax(-1)
                weights[edge] = torch.stack([there[list(states(o))].prod() for o in space[edge].rows[0]])[None]
    return Draw(weights, dict(zip(weights, _patterns(list(weights.values())), strict=True)))


def _patterns(tables: Sequence[Tensor]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """The columns of each row that are not zero, table by table. One copy to the host for all of them: the patterns of
    a step are read here and nowhere else."""
    flat = iter(torch.cat([table.detach().ne(0).flatten() for table in tables]).tolist() if tables else ())
    for table in tables:
        rows, columns = table.shape
        yield tuple(tuple(k for k in range(columns) if next(flat)) for _ in range(rows))


def _all(shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    return (tuple(range(shape[1])),) * shape[0]


def key_of(name: str) -> str:
    """The name of a choice as that of a parameter or a buffer, which may not hold a dot."""
    return name.replace(".", "/")
