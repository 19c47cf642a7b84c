"""ROME (arXiv:2011.11233): the laws of its two topologies, and gradients gathered over several samples."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Cell, Mixed
from nas_apps.core.config import load
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Strongest
from nas_apps.core.parts.relax import GumbelOneHot, GumbelTopK
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.schedule import TRAIN, VALID, FirstOrder
from nas_apps.core.parts.wiring import Full
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.refusals import search_space
from nas_apps.core.space import Choice, Dag, cell_choices, states
from nas_apps.core.task import Outcome, Streams
from nas_apps.core.variants import VARIANTS

DARTS, NAMES = Dag(2, 4, keep=2), tuple("abcdefg")
LATE = Progress(9, 10)
ROWS = pytest.mark.parametrize("variant", ["rome_v1", "rome_v2"])


def drawn(relax: Relaxation, logits: list[float] | Tensor, draws: int = 40_000) -> Tensor:
    """Many draws of one row, `[draws, O]`."""
    row = torch.as_tensor(logits)
    return relax(row.expand(draws, len(row)), DONE, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_an_edge_is_among_the_two_by_the_law_whatever_the_temperature(temperature: float) -> None:
    p = torch.tensor([0.5, 0.3, 0.2])
    weights = drawn(GumbelTopK(2, temperature), p.log() + 3)
    assert (weights.sum(-1) == 2).all()
    law = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(3) if j != i) for i in range(3)]
    assert [x.item() for x in law] == pytest.approx([0.8392857, 0.675, 0.4857143])
    assert weights.mean(0).tolist() == pytest.approx([0.8392857, 0.675, 0.4857143], abs=0.008)


def test_pairs_of_edges_follow_their_law() -> None:
    law = {(0, 1): 0.27016, (0, 2): 0.20996, (0, 3): 0.18693, (1, 2): 0.12917, (1, 3): 0.11488, (2, 3): 0.08890}
    weights = drawn(GumbelTopK(2), torch.tensor([0.37, 0.25, 0.20, 0.18]).log())
    counts = {(i, j): (weights[:, i] * weights[:, j]).sum().item() for i, j in law}
    n = len(weights)
    assert sum(counts.values()) == n
    chi_square = sum((counts[pair] - n * p) ** 2 / (n * p) for pair, p in law.items())
    assert chi_square < 20.5  # the 0.999 quantile for five degrees of freedom


def pairs_arch() -> Arch:
    arch = Arch(
        cell_choices("c", Dag(3, 1, keep=2), (NAMES,) * 3, edges=2), {"op": GumbelOneHot(), "edge": GumbelOneHot()}
    )
    with torch.no_grad():
        arch.logits["c.edge.3"].copy_(torch.tensor([[0.3, -0.2, 0.1]]))
    return arch


def test_the_first_version_draws_pairs_and_an_edge_has_the_weight_of_the_pairs_it_is_in() -> None:
    arch = pairs_arch()
    assert arch.space["c.edge.3"].rows == (("0+1", "0+2", "1+2"),)
    expected = arch.expected()
    assert expected.weights["c.edge.3"][0].tolist() == pytest.approx([0.41233, 0.25009, 0.33758], abs=1e-5)
    with arch.using(expected):
        row = arch.sources("c.edge.3")()
    assert torch.cat(row.weights).tolist() == pytest.approx([0.66242, 0.74991, 0.58767], abs=1e-5)


def test_the_first_version_draws_pairs_and_edges_as_often_as_these_say() -> None:
    arch, draws = pairs_arch(), 2000
    read, counts = arch.sources("c.edge.3"), torch.zeros(3)
    for cycle in range(draws):
        with arch.using(arch.draw(cycle=cycle)):
            counts[list(read().active)] += 1
    assert (counts / draws).tolist() == pytest.approx([0.66242, 0.74991, 0.58767], abs=0.035)
    pairs = drawn(GumbelOneHot(), arch.logits["c.edge.3"][0].detach()).mean(0)
    assert pairs.tolist() == pytest.approx([0.41233, 0.25009, 0.33758], abs=0.008)


@pytest.mark.parametrize("sources", [2, 3, 4, 5])
def test_with_equal_logits_a_source_of_n_is_taken_2_times_in_n_in_both_versions(sources: int) -> None:
    pairs = list(combinations(range(sources), 2))
    member = torch.tensor([[float(i in pair) for i in range(sources)] for pair in pairs])
    first = drawn(GumbelOneHot(), [0.0] * len(pairs)) @ member
    second = drawn(GumbelTopK(2), [0.0] * sources)
    for weights in (first, second):
        assert weights.mean(0).tolist() == pytest.approx([2 / sources] * sources, abs=0.01)


class Counted(nn.Linear):
    """An operation that counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1
        return super().forward(x)


def darts_cell(variant: str) -> tuple[Arch, Cell]:
    method = VARIANTS[variant]
    arch = Arch(cell_choices("c", DARTS, (NAMES,) * 14, edges=method.edge_set), method.relaxations, init_std=1.0)
    cell = Mixed(arch, Full()).cell("c", DARTS, {name: lambda args: Counted(4, 4) for name in NAMES}, OpArgs(4))
    return arch, cell


@ROWS
def test_every_sample_runs_eight_operations_two_into_each_node(variant: str) -> None:
    arch, cell = darts_cell(variant)
    inputs = torch.randn(2, 4), torch.randn(2, 4)
    reads = [arch.sources(f"c.edge.{target}") for target in DARTS.targets()]
    for cycle in range(40):
        Counted.calls = 0
        with arch.using(arch.draw(cycle=cycle)):
            cell(*inputs)
            degrees = [read().active for read in reads]
            values = [[float(read().weights[k].detach()) for k in read().active] for read in reads]
        assert Counted.calls == 8
        assert [len(set(active)) for active in degrees] == [2, 2, 2, 2]
        assert values == [[1.0, 1.0]] * 4


@ROWS
def test_operations_of_edges_that_were_not_drawn_get_no_gradient(variant: str) -> None:
    arch, cell = darts_cell(variant)
    draw = arch.draw(cycle=3)
    with arch.using(draw):
        sum(node.square().sum() for node in cell(torch.randn(2, 4), torch.randn(2, 4))).backward()
        sources = {target: arch.sources(f"c.edge.{target}")().active for target in DARTS.targets()}
    for index, (source, target) in enumerate(DARTS.edges()):
        for k, name in enumerate(NAMES):
            ran = source in sources[target] and k in draw.active["c.op"][index]
            assert (cell.edges[str(index)].ops[name].weight.grad is not None) == ran
        learns = arch.logits["c.op"].grad[index].any().item()
        assert learns == (source in sources[target])
    assert all(arch.logits[f"c.edge.{target}"].grad.any() for target in (3, 4, 5))  # node 2 has one pair


class Choosing(nn.Module):
    """A smooth loss of one drawn row, without weights of its own."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.read = arch.reader("a", 0)

    def forward(self, batch: None) -> Outcome:
        row = self.read()
        return Outcome(sum((k + 1.0) * row.weights[k] ** 2 for k in row.active).sum(), {}, 1)


def test_the_variance_of_the_logits_gradient_falls_with_the_number_of_samples(teach) -> None:  # noqa: ANN001
    arch = Arch({"a": Choice.uniform(NAMES, 1)}, {"op": GumbelOneHot(1.0)}, init_std=0.3)
    learner = teach(Choosing(arch), arch)

    def variance(samples: int) -> float:
        grads = [
            learner.arch_gradients(None, arch.draws(cycle=cycle, use=samples, samples=samples))[0][0]
            for cycle in range(250)
        ]
        return torch.stack(grads).var(0).sum().item()

    assert variance(1) / variance(8) == pytest.approx(8, rel=0.2)


@ROWS
def test_without_topology_and_with_one_sample_it_is_gdas_to_the_bit(searched, variant: str) -> None:  # noqa: ANN001
    plain = ("variant.edges=null", "variant.edge_set=1", "variant.derive.by=options", "variant.schedule.samples=1")
    ours = searched(f"variant={variant}", *plain)
    gdas = searched("variant=gdas", "variant.none=false", "variant.schedule.weights_first=false")
    assert all(map(torch.equal, ours, gdas))
    assert not all(map(torch.equal, ours, searched(f"variant={variant}", *plain[:3])))  # seven samples


@ROWS
def test_logits_step_with_the_mean_of_the_samples_gradients_and_weights_with_their_sum(
    recipe,  # noqa: ANN001
    learner,  # noqa: ANN001
    variant: str,
) -> None:
    made = recipe(f"variant={variant}", "search.clip=null", "variant.schedule.samples=3")
    taught, streams = learner(made)
    taught.begin(LATE)
    batch = next(streams.valid)
    draws = taught.arch.draws(LATE, cycle=0, use=VALID, samples=3)
    singles = [taught.arch_gradients(batch, (draw,))[0] for draw in taught.arch.draws(LATE, use=VALID, samples=3)]
    together, _ = taught.arch_gradients(batch, draws)
    for index, grad in enumerate(together):
        torch.testing.assert_close(grad, sum(single[index] for single in singles) / 3)
    seen: list[list[Tensor | None]] = []
    taught.optimizer.register_step_pre_hook(lambda *_: seen.append([p.grad for p in taught.parameters]))
    for group in taught.optimizer.param_groups:
        group["lr"] = 0.0
    draws = taught.arch.draws(LATE, cycle=0, use=TRAIN, samples=3)
    for some in (*((draw,) for draw in draws), draws):
        taught.weight_step(batch, some, sums=True)
    *singles, together = seen
    for index, grad in enumerate(together):
        parts = [single[index] for single in singles if single[index] is not None]
        assert (grad is None) == (not parts)
        if parts:
            torch.testing.assert_close(grad, sum(parts))


@ROWS
def test_seven_samples_of_the_logits_and_then_seven_others_of_the_weights_see_one_batch_each(
    recipe,  # noqa: ANN001
    learner,  # noqa: ANN001
    variant: str,
) -> None:
    made = recipe(f"variant={variant}")
    assert made.variant.schedule == FirstOrder(samples=7, weight_gradients="sum")
    taught, streams = learner(made)
    seen: list[tuple[int, int]] = []
    taught.objective.register_forward_pre_hook(lambda _, args: seen.append((id(args[0]), taught.arch.current.noise)))
    steps: list[int] = []
    taught.logit_optimizer.register_step_post_hook(lambda *_: steps.append(len(seen)))
    taught.optimizer.register_step_post_hook(lambda *_: steps.append(len(seen)))
    taught.begin(LATE)
    kept = [next(streams.train), next(streams.valid)]
    made.variant.schedule(taught, Streams(Held(kept[0]), Held(kept[1]), 1))
    assert [batch for batch, _ in seen] == [id(kept[1])] * 7 + [id(kept[0])] * 7
    assert len({noise for _, noise in seen}) == 14
    assert steps == [7, 14]


class Held:
    """A stream of one batch."""

    cycle = 0

    def __init__(self, batch: object) -> None:
        self.batch = batch

    def __next__(self) -> object:
        return self.batch


def derived(edges: dict[str, Tensor], *, edge_set: int) -> tuple[tuple[str, ...], ...]:
    dag = Dag(3, 1, keep=2)
    space = cell_choices("c", dag, (("x", "y"),) * 3, edges=edge_set)
    # The edge that the weights of the edges do not choose has the heaviest operation.
    weights = {"c.op": torch.tensor([[0.4, 0.6], [0.7, 0.3], [0.05, 0.95]]), **edges}
    return Strongest(by="edges")(space, weights, torch.Generator()).kept["c.op"]


@pytest.mark.parametrize(
    ("pairs", "kept"),
    [
        ([0.5, 0.3, 0.2], (("y",), ("x",), ())),
        ([0.2, 0.41, 0.39], (("y",), (), ("y",))),
        ([0.2, 0.4, 0.4], (("y",), (), ("y",))),
    ],
    ids=["01", "02", "02 and 12 tie"],
)
def test_the_first_version_keeps_the_most_probable_pair(pairs: list[float], kept: tuple) -> None:
    assert derived({"c.edge.3": torch.tensor([pairs])}, edge_set=2) == kept


def test_the_most_probable_pair_may_hold_an_edge_that_is_less_often_there_than_another() -> None:
    dag = Dag(4, 1, keep=2)
    space = cell_choices("c", dag, (("x",),) * 4, edges=2)
    row = space["c.edge.4"].rows[0]
    weights = dict(zip(row, [0.30, 0.00, 0.00, 0.25, 0.25, 0.20], strict=True))  # 01 02 03 12 13 23
    marginals = [sum(w for pair, w in weights.items() if state in states(pair)) for state in range(4)]
    assert marginals == pytest.approx([0.30, 0.80, 0.45, 0.45])
    table = torch.tensor([[weights[pair] for pair in row]])
    kept = Strongest(by="edges")(space, {"c.op": torch.ones(4, 1), "c.edge.4": table}, torch.Generator()).kept["c.op"]
    assert [bool(row) for row in kept] == [True, True, False, False]


def test_the_second_version_keeps_the_two_heaviest_edges() -> None:
    assert derived({"c.edge.3": torch.tensor([[0.5, 0.2, 0.3]])}, edge_set=1) == (("y",), (), ("y",))


def test_the_cell_is_the_most_probable_of_all() -> None:
    """The law of an unordered pair of the second version is largest for its two largest edges."""
    p = torch.tensor([0.37, 0.25, 0.20, 0.18])
    law = {(i, j): p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j])) for i, j in combinations(range(4), 2)}
    assert law[0, 1].item() == pytest.approx(0.27016, abs=1e-5)
    space = cell_choices("c", Dag(4, 1, keep=2), (("x",),) * 4, edges=1)
    weights = {"c.op": torch.ones(4, 1), "c.edge.4": p[None]}
    kept = Strongest(by="edges")(space, weights, torch.Generator()).kept["c.op"]
    assert tuple(i for i, row in enumerate(kept) if row) == max(law, key=law.__getitem__)


@ROWS
def test_there_is_no_none_and_normal_and_reduction_cells_have_logits_of_their_own(variant: str) -> None:
    made = load([], ["task=image", f"variant={variant}"])
    space = search_space(made.task, made.variant)
    assert all("none" not in row for name, c in space.items() if c.kind == "op" for row in c.rows)
    edges = {name: c.shape[1] for name, c in space.items() if c.kind == "edge"}
    assert sum(edges.values()) == 2 * (20 if variant == "rome_v1" else 14)
