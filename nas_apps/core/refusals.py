"""Parts that mean nothing together, each with the reason."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from nas_apps.core.errors import UserError
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.penalty import Cost, DirichletKL, ZeroOne
from nas_apps.core.parts.relax import BinaryGate, Dirichlet, GumbelRanks, GumbelTopK, Sigmoid
from nas_apps.core.parts.schedule import FirstOrder, Joint, NoSearch, Unrolled, WeightsOnly
from nas_apps.core.parts.sparse import Sparsemax, SparsestMax
from nas_apps.core.parts.stop import Never
from nas_apps.core.phase import Phase
from nas_apps.core.space import NONE, Space, narrowed

if TYPE_CHECKING:
    from nas_apps.core.task import Task
    from nas_apps.core.variants import Variant


def refuse(variant: Variant) -> None:
    """ValueError for a method whose parts mean nothing together."""
    for reason in (*_schedule(variant), *_edges(variant), *_perturb(variant), *_losses(variant)):
        if reason:
            raise ValueError(reason)


def _schedule(v: Variant) -> tuple[str | bool, ...]:
    schedule, relaxations = v.schedule, v.relaxations.values()
    return (
        isinstance(v.derive, Random)
        and schedule.searches
        and "derive: 'random' ignores what is searched, so its schedule is 'no_search'",
        isinstance(schedule, NoSearch)
        and not isinstance(v.derive, Random)
        and "schedule: 'no_search' leaves the logits as they began; derive: 'random' goes with it",
        isinstance(schedule, WeightsOnly)
        and "schedule: 'weights_only' is that of the final training: it leaves the logits as they began",
        isinstance(schedule, Unrolled)
        and any(r.sparse and r.noisy for r in relaxations)
        and "schedule: the look-ahead differentiates the training loss twice through one draw, and a sampled draw "
        "leaves most operations out of it; use 'first_order' with sampled weights",
        isinstance(schedule, FirstOrder)
        and schedule.samples > 1
        and not any(r.noisy for r in relaxations)
        and f"schedule.samples: {schedule.samples} draws without noise are {schedule.samples} times the same",
        not isinstance(v.stop, Never)
        and not schedule.searches
        and "stop: 'no_search' takes no step that could be left out; stop: 'never' goes with it",
        not isinstance(v.stop, Never)
        and bool(v.stages)
        and "stop: a rule looks back over one search, and `stages` make several; stop: 'never' goes with them",
        isinstance(schedule, NoSearch) and bool(v.stages) and "stages: 'no_search' takes no step, so it has no stages",
        bool(v.stages)
        and (v.stages[0].keep is not None or v.stages[0].inherit)
        and "stages: nothing comes before the first, of which it could keep or inherit anything",
        isinstance(v.relax, GumbelRanks)
        and any(stage.keep is not None and stage.keep < v.relax.k for stage in v.stages)
        and f"stages: the sub-graphs of 'gumbel_ranks' share no option, and a row that keeps fewer than {v.relax.k} "
        "has not one for each",
    )


def _edges(v: Variant) -> tuple[str | bool, ...]:
    by_edges = isinstance(v.derive, Strongest) and v.derive.by == "edges"
    return (
        isinstance(v.edges, Sigmoid)
        and "edges: weights of edges are relative to one another within a node, which sigmoid's are not",
        isinstance(v.edges, BinaryGate)
        and "edges: 'binary_gate' evaluates operations that are not run, and an edge is not an operation; "
        "use 'gumbel_one_hot' or 'gumbel_top_k'",
        isinstance(v.edges, GumbelRanks)
        and "edges: the sub-graphs of 'gumbel_ranks' share no operation, and nodes need their edges in each; "
        "use 'gumbel_top_k'",
        v.edge_set == 2
        and v.edges is None
        and "edge_set: 2 chooses pairs of edges, and without `edges` none is chosen",
        v.edge_set == 2
        and not by_edges
        and "edge_set: a pair has one weight and two operations, so its strength is its own; use derive.by=edges",
        by_edges
        and v.edges is None
        and "derive.by: 'edges' ranks edges by their own weight, and without `edges` all are equal",
        v.widths is not None
        and (not v.widths.simplex or isinstance(v.widths, BinaryGate | GumbelRanks))
        and "widths: a convolution has one width, whose options share a weight of 1 in one net; use 'softmax', "
        "'gumbel_one_hot' or 'sparsest_max'",
    )


def _perturb(v: Variant) -> tuple[str | bool, ...]:
    if v.perturb is None:
        return ()
    return (
        any(r.sparse for kind, r in v.relaxations.items() if kind != "edge")
        and "perturb: under exact zeros a row runs some of its options, and neighbours run others; use relax 'softmax'",
        not v.relax.simplex and "perturb: neighbours are sought on the simplex, where sigmoid's weights are not",
        isinstance(v.schedule, Joint)
        and "perturb: 'joint' steps weights and logits with one pass, and only the weights' step is perturbed",
        not v.schedule.searches and "perturb: 'no_search' takes no step that could be perturbed",
    )


def _losses(v: Variant) -> tuple[str | bool, ...]:
    kinds = {type(penalty) for penalty in v.penalties}
    return (
        not v.schedule.searches and bool(v.penalties) and "penalties: 'no_search' takes no step of the logits",
        ZeroOne in kinds
        and not isinstance(v.relax, Sigmoid)
        and "penalties: 'zero_one' pushes sigmoids apart; the weights of a softmax are pushed by one another",
        DirichletKL in kinds
        and not isinstance(v.relax, Dirichlet)
        and "penalties: 'dirichlet_kl' compares Dirichlet laws, and only relax 'dirichlet' has one",
        v.edge_set == 2
        and any(isinstance(penalty, Cost) and penalty.of == "latency" for penalty in v.penalties)
        and "penalties: the cells whose latency is predicted are drawn edge by edge, and edge_set=2 draws pairs",
        v.distill is not None
        and not (v.relax.sparse and v.relax.noisy)
        and "distill: the teacher is the super-net under its expected weights, which 'first_order' trains already "
        "where weights are not sampled",
        v.distill is not None
        and isinstance(v.schedule, Joint)
        and "distill: sub-graphs learn from the super-net in the weights' step, and 'joint' has one for both",
    )


def search_space(task: Task, variant: Variant) -> Space:
    """The space that a method searches of a task's; a UserError where the two do not go together."""
    if task.on_policy:
        _refuse_on_policy(variant)
    space = task.choices(edges=variant.edge_set if variant.edges is not None else 0)
    if not variant.none:
        dags = {name: choice.dag for name, choice in space.items()}

        def keep(name: str, _: int, options: tuple[str, ...]) -> tuple[str, ...]:
            dag = dags[name]
            return tuple(o for o in options if o != NONE) if dag is not None and dag.keep is not None else options

        space = narrowed(space, keep)
    _refuse_kinds(task, variant, {choice.kind for choice in space.values()})
    edges, drawn = variant.edges, None
    if edges is not None and edges.sparse and not isinstance(edges, Sparsemax):
        drawn = variant.edge_set * (edges.k if isinstance(edges, GumbelTopK) else 1)
    how = "left in the end" if isinstance(edges, SparsestMax) else "drawn"
    for name, choice in space.items():
        if drawn and choice.kind == "parent":
            raise UserError(
                f"variant.edges: {drawn} edges a node are {how}, and in this space nodes choose parents, not edges; "
                "allowed here: softmax"
            )
        if drawn and choice.dag is not None and choice.dag.keep != drawn:
            raise UserError(
                f"variant.edges: {drawn} edges a node are {how}, and a node of {name} keeps "
                f"{choice.dag.keep or 'all'}; allowed here: softmax"
            )
        if choice.kind == "op" and isinstance(variant.relax, GumbelRanks) and variant.relax.k > choice.shape[1]:
            raise UserError(
                f"variant.relax.k: got {variant.relax.k}; allowed: 1 to {choice.shape[1]}, the options of {name}"
            )
    return space


def _refuse_kinds(task: Task, variant: Variant, kinds: Set[str]) -> None:
    """UserError for a part that has nothing to work on in a task whose choices are of these kinds."""
    if variant.distill is not None and not task.classifies:
        raise UserError(
            "variant.distill: compares the odds of classes, and what this task's networks say are none; "
            "allowed here: null"
        )
    if variant.edges is not None and not kinds & {"edge", "parent"}:
        raise UserError("variant.edges: this space has no edges; allowed here: null")
    if variant.widths is not None and "width" not in kinds:
        raise UserError("variant.widths: this space decides no widths; allowed here: null")


def _refuse_on_policy(variant: Variant) -> None:
    """UserError for a method under which what learns is not what acted."""
    schedule = variant.schedule
    if isinstance(schedule, FirstOrder) and schedule.samples > 1:
        raise UserError(
            f"variant.schedule.samples: got {schedule.samples}, and an agent that learns on-policy acts under one "
            "draw; allowed here: 1"
        )
    if isinstance(variant.relax, GumbelRanks) and variant.relax.k > 1:
        raise UserError(
            f"variant.relax.k: got {variant.relax.k} sub-graphs, and an agent that learns on-policy acts with one; "
            "allowed here: 1"
        )
    wirings = {"variant.wiring": variant.wiring}
    wirings |= {f"variant.stages[{k}].wiring": s.wiring for k, s in enumerate(variant.stages) if s.wiring is not None}
    for where, wiring in wirings.items():
        if wiring.drop is not None:
            raise UserError(
                f"{where}.drop: an agent that learns on-policy would drop other things than it dropped when it acted; "
                "allowed here: null"
            )


def refuse_search(variant: Variant, phase: Phase) -> None:
    """UserError for search settings under which a method does not mean what it says."""
    s, searches = phase.logits, variant.schedule.searches
    if searches and not s.init_std and any(isinstance(r, SparsestMax) for r in variant.relaxations.values()):
        raise UserError(
            "search.logits.init_std: got 0.0, and of equal logits 'sparsest_max' takes the first, without a gradient; "
            "allowed here: more than 0"
        )
    if isinstance(variant.relax, BinaryGate) and variant.relax.paths == 2 and (s.betas[0] or s.weight_decay):
        raise UserError(
            "variant.relax: 'binary_gate' with paths of 2 leaves the other options' probabilities alone, which Adam "
            "with momentum or weight decay does not; allowed: search.logits.betas=[0,0.999] and "
            "search.logits.weight_decay=0, or variant.relax.paths=null"
        )
    if variant.schedule.searches and phase.epochs < len(variant.stages):
        raise UserError(
            f"search.epochs: got {phase.epochs}; allowed: {len(variant.stages)} and more, as variant.stages has "
            f"{len(variant.stages)} that share them"
        )
    if phase.budget is None or phase.budget.target is None:
        return
    if not variant.schedule.searches:
        raise UserError("search.budget.target: 'no_search' has no loss that could be drawn to it; allowed: a cap")
    if phase.budget.of == "latency" and variant.edge_set == 2:
        raise UserError(
            "search.budget.target: the cells whose latency is predicted are drawn edge by edge, and edge_set=2 draws "
            "pairs; allowed here: of params or macs, or a cap"
        )
