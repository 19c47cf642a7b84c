"""The methods, a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nas_apps.core.parts.derive import Random, Rule, Strongest, Threshold
from nas_apps.core.parts.distill import Distill
from nas_apps.core.parts.drop import DropBlock, SkipDropout
from nas_apps.core.parts.penalty import Cost, Order, Penalty, ZeroOne
from nas_apps.core.parts.perturb import Adversarial, MeanShift, Perturbation, RandomSmoothing
from nas_apps.core.parts.relax import (
    BinaryGate,
    Dirichlet,
    GumbelOneHot,
    GumbelRanks,
    GumbelSoftmax,
    GumbelTopK,
    Sigmoid,
    Softmax,
)
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.schedule import FirstOrder, Joint, NoSearch, Schedule, Unrolled
from nas_apps.core.parts.sparse import Sparsemax, SparsestMax
from nas_apps.core.parts.stop import EigenvalueStop, Never, StopRule
from nas_apps.core.parts.wiring import AuxSkip, Full, Partial, Wiring
from nas_apps.core.refusals import refuse
from nas_apps.core.stage import Stage


@dataclass(frozen=True)
class Variant:
    """A method: one part on each axis.

    relax: how logits of operations become weights. edges: the same for the edges into a node, or None when an edge
    has no weight of its own (and for the parents of a node, where a space decides those); edge_set: how many edges
    an option of theirs holds, 2 where pairs are chosen. widths: the same for the width of a convolution, where a space
    decides that; as operations when not given. none: whether "none" is an option while searching, in cells
    that cannot end with it. wiring: how the candidates of an edge are run. perturb: what the weights learn under
    instead of the mixing weights. penalties: what is added to the logits' loss; distill: to the weights'. schedule:
    who learns from which batch. stages: of a search that narrows its space as it goes on. stop: when it ends before its
    last epoch. derive: which architecture it ends with.

    logits: settings of `search.logits` that a recipe need not give. cite: arXiv ids of what it is made of.

    Raises:
        ValueError: for parts that mean nothing together, with the reason.
    """

    relax: Relaxation = Softmax()
    edges: Relaxation | None = None
    widths: Relaxation | None = None
    edge_set: Literal[1, 2] = 1
    none: bool = True
    wiring: Wiring = Full()
    perturb: Perturbation | None = None
    penalties: tuple[Penalty, ...] = ()
    distill: Distill | None = None
    schedule: Schedule = FirstOrder()
    stages: tuple[Stage, ...] = ()
    stop: StopRule = Never()
    derive: Rule = Strongest()
    logits: Mapping[str, Any] = field(default_factory=dict, metadata={"fixed": True})
    cite: tuple[str, ...] = field(default=(), metadata={"fixed": True})

    def __post_init__(self) -> None:
        refuse(self)

    @property
    def relaxations(self) -> Mapping[str, Relaxation]:
        """The relaxation of each kind of choice. A node has several parents, so they are never sampled one by one:
        where operations are, parents have the soft weights of the same draw, as in the code of arXiv:2001.10422. Nor
        are all but one of them pruned away."""
        edges = {} if self.edges is None else {"edge": self.edges}
        parents = self.edges or self.relax
        if isinstance(parents, GumbelOneHot | GumbelTopK | GumbelRanks):
            parents = GumbelSoftmax(parents.temperature)
        elif isinstance(parents, BinaryGate):
            parents = GumbelSoftmax(1.0)
        elif isinstance(parents, SparsestMax):
            parents = Sparsemax()
        return {
            "op": self.relax,
            "parent": parents if parents.simplex else Softmax(),
            "exit": _alone(self.relax),
            "width": _alone(self.widths or self.relax),
            **edges,
        }


def _alone(relax: Relaxation) -> Relaxation:
    """The nearest relaxation under which options of a row compete, one net at a time, and nothing that is not run is
    evaluated: for where a network ends, and for its widths."""
    if isinstance(relax, GumbelTopK | GumbelRanks):
        return GumbelOneHot(relax.temperature)
    if isinstance(relax, BinaryGate):
        return GumbelOneHot()
    return relax if relax.simplex else Softmax()


_STILL = {"betas": [0.0, 0.999], "weight_decay": 0.0}
_P_STAGES = (
    Stage(),
    Stage(keep=5, deeper=2.2, wiring=Full(SkipDropout(0.4))),
    Stage(keep=3, deeper=3.4, wiring=Full(SkipDropout(0.7))),
)
_SAMPLED = FirstOrder(samples=7, weight_gradients="sum")

VARIANTS: dict[str, Variant] = {
    "darts": Variant(cite=("1806.09055",)),
    "darts_2nd": Variant(schedule=Unrolled(), cite=("1806.09055",)),
    "darts_es": Variant(schedule=Unrolled(), stop=EigenvalueStop(), cite=("1909.09656", "1806.09055")),
    "darts_ada": Variant(schedule=Unrolled(), stop=EigenvalueStop(adapt=3.0), cite=("1909.09656", "1806.09055")),
    "pc_darts": Variant(
        edges=Softmax(),
        wiring=Partial(4),
        schedule=FirstOrder(warmup=0.3),
        logits={"lr": 6e-4},
        cite=("1907.05737", "1806.09055"),
    ),
    "sdarts_rs": Variant(none=False, perturb=RandomSmoothing(), cite=("2002.05283", "1806.09055")),
    "sdarts_adv": Variant(none=False, perturb=Adversarial(), cite=("2002.05283", "1806.09055")),
    "ms_darts": Variant(
        perturb=MeanShift(), schedule=FirstOrder(warmup=0.125), cite=("2108.09996", "2002.05283", "1806.09055")
    ),
    "single_darts": Variant(schedule=Joint(), cite=("2108.08128", "1806.09055")),
    "rl_darts": Variant(
        schedule=Joint(one_norm=True),
        logits={"lr": 5e-4, "betas": [0.9, 0.999], "eps": 1e-5, "weight_decay": 0.0, "init_std": 0.0},
        cite=("2106.02229", "1806.09055"),
    ),
    "gdas": Variant(relax=GumbelOneHot(), schedule=FirstOrder(weights_first=True), cite=("1910.04465", "1806.09055")),
    "rome_v1": Variant(
        relax=GumbelOneHot(),
        edges=GumbelOneHot(),
        edge_set=2,
        none=False,
        schedule=_SAMPLED,
        derive=Strongest(by="edges"),
        cite=("2011.11233", "1910.04465", "1806.09055"),
    ),
    "rome_v2": Variant(
        relax=GumbelOneHot(),
        edges=GumbelTopK(2),
        none=False,
        schedule=_SAMPLED,
        derive=Strongest(by="edges"),
        cite=("2011.11233", "1910.04465", "1806.09055"),
    ),
    "msg_das": Variant(
        relax=GumbelRanks(2),
        wiring=Full(DropBlock()),
        distill=Distill(),
        cite=("2107.04324", "1910.04465", "1810.12890"),
    ),
    "proxylessnas": Variant(
        relax=BinaryGate(),
        schedule=FirstOrder(warmup=0.25, weights_first=True, every=5),
        logits={"lr": 1e-3, **_STILL},
        cite=("1812.00332", "1806.09055"),
    ),
    "snas": Variant(
        relax=GumbelSoftmax(), schedule=Joint(), logits={"init_std": 0.01}, cite=("1812.09926", "1806.09055")
    ),
    "p_darts": Variant(
        wiring=Full(SkipDropout(0.1)),
        schedule=FirstOrder(warmup=0.4),
        stages=_P_STAGES,
        derive=Strongest(max_skips=2),
        logits={"lr": 6e-4, "clip": 5.0},
        cite=("1904.12760", "1806.09055"),
    ),
    "fair_darts": Variant(
        relax=Sigmoid(),
        none=False,
        penalties=(ZeroOne(),),
        derive=Threshold(),
        logits={"lr": 3e-3, "betas": [0.9, 0.999], "init_std": 0.0},
        cite=("1911.12126", "1806.09055"),
    ),
    "dr_nas": Variant(
        relax=Dirichlet(),
        none=False,
        wiring=Partial(4),
        schedule=FirstOrder(warmup=0.4),
        stages=(Stage(), Stage(keep=4, wiring=Partial(2), inherit=True)),
        logits={"lr": 6e-4},
        cite=("2006.10355", "1907.05737", "1806.09055"),
    ),
    "la_darts": Variant(
        edges=Softmax(),
        wiring=Partial(4),
        schedule=FirstOrder(warmup=0.3),
        penalties=(Cost("latency", weight=0.1),),
        logits={"lr": 6e-4},
        cite=("2001.06392", "1907.05737", "1806.09055"),
    ),
    "rapdarts": Variant(
        wiring=Full(SkipDropout(0.1)),
        schedule=FirstOrder(warmup=0.4),
        penalties=(Cost("params", weight=0.1),),
        stages=_P_STAGES,
        derive=Strongest(max_skips=2),
        logits={"lr": 6e-4, "clip": 5.0},
        cite=("1911.05704", "1904.12760", "1806.09055"),
    ),
    "trilevel": Variant(
        relax=SparsestMax(),
        penalties=(Order(),),
        logits={"weight_decay": 0.0, "clip": 1.0},
        cite=("2101.06658", "1903.03793", "1602.02068", "1806.09055"),
    ),
    "darts_minus": Variant(wiring=AuxSkip(), cite=("2009.01027", "1806.09055")),
    "random": Variant(schedule=NoSearch(), derive=Random(), cite=("1902.07638", "1806.09055")),
}
