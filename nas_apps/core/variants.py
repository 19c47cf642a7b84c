"""The methods, a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas_apps.core.parts.derive import Random, Rule, Strongest
from nas_apps.core.parts.relax import GumbelOneHot, Relaxation, Sigmoid, Softmax
from nas_apps.core.parts.schedule import FirstOrder, Joint, NoSearch, Schedule, Unrolled, WeightsOnly
from nas_apps.core.parts.stop import EigenvalueStop, Never, StopRule
from nas_apps.core.parts.wiring import Full, Partial, Wiring


@dataclass(frozen=True)
class Variant:
    """A method: one part on each axis.

    relax: how logits of operations become weights. edges: the same for the edges into a node, or None when an edge has
    no weight of its own. wiring: how the candidates of an edge are run. schedule: who learns from which batch. stop:
    when the search ends before its last epoch. derive: which architecture it ends with. cite: arXiv ids of what it is
    made of.

    Raises:
        ValueError: for parts that mean nothing together, with the reason.
    """

    relax: Relaxation = Softmax()
    edges: Relaxation | None = None
    wiring: Wiring = Full()
    schedule: Schedule = FirstOrder()
    stop: StopRule = Never()
    derive: Rule = Strongest()
    cite: tuple[str, ...] = field(default=(), metadata={"fixed": True})

    def __post_init__(self) -> None:
        if isinstance(self.edges, Sigmoid):
            raise ValueError(
                "edges: weights of edges are relative to one another within a node, which sigmoid's are not"
            )
        if isinstance(self.derive, Random) and self.schedule.searches:
            raise ValueError("derive: 'random' ignores what is searched, so its schedule is 'no_search'")
        if isinstance(self.schedule, NoSearch) and not isinstance(self.derive, Random):
            raise ValueError("schedule: 'no_search' leaves the logits as they began; derive: 'random' goes with it")
        if not isinstance(self.stop, Never) and not self.schedule.searches:
            raise ValueError("stop: 'no_search' takes no step that could be left out; stop: 'never' goes with it")
        if isinstance(self.schedule, WeightsOnly):
            raise ValueError(
                "schedule: 'weights_only' is that of the final training: it leaves the logits as they began"
            )
        if isinstance(self.schedule, Unrolled) and any(r.sparse for r in self.relaxations.values()):
            raise ValueError(
                "schedule: the look-ahead differentiates the training loss twice through one draw, and a sampled draw "
                "leaves most operations out of it; use 'first_order' with sampled weights"
            )

    @property
    def relaxations(self) -> Mapping[str, Relaxation]:
        """The relaxation of each kind of choice."""
        return {"op": self.relax} if self.edges is None else {"op": self.relax, "edge": self.edges}


VARIANTS: dict[str, Variant] = {
    "darts": Variant(cite=("1806.09055",)),
    "darts_2nd": Variant(schedule=Unrolled(), cite=("1806.09055",)),
    "darts_es": Variant(schedule=Unrolled(), stop=EigenvalueStop(), cite=("1909.09656", "1806.09055")),
    "darts_ada": Variant(schedule=Unrolled(), stop=EigenvalueStop(adapt=3.0), cite=("1909.09656", "1806.09055")),
    "pc_darts": Variant(
        edges=Softmax(), wiring=Partial(4), schedule=FirstOrder(warmup=0.3), cite=("1907.05737", "1806.09055")
    ),
    "gdas": Variant(relax=GumbelOneHot(), schedule=FirstOrder(weights_first=True), cite=("1910.04465", "1806.09055")),
    "single_darts": Variant(schedule=Joint(), cite=("2108.08128", "1806.09055")),
    "random": Variant(schedule=NoSearch(), derive=Random(), cite=("1902.07638", "1806.09055")),
}

PAPERS: dict[str, str] = {
    "1806.09055": "H. Liu, K. Simonyan, Y. Yang. DARTS: Differentiable Architecture Search. ICLR 2019",
    "1902.07638": "L. Li, A. Talwalkar. Random Search and Reproducibility for Neural Architecture Search. UAI 2019",
    "1907.05737": "Y. Xu et al. PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search. "
    "ICLR 2020",
    "1909.09656": "A. Zela et al. Understanding and Robustifying Differentiable Architecture Search. ICLR 2020",
    "1910.04465": "X. Dong, Y. Yang. Searching for a Robust Neural Architecture in Four GPU Hours. CVPR 2019",
    "2108.08128": "P. Hou, Y. Jin, Y. Chen. Single-DARTS: Towards Stable Architecture Search. ICCVW 2021",
}
