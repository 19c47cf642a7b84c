"""NAS-Bench-1Shot1's spaces, one-shot models and graphs, held to published numbers where there are any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations, product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import nas_apps
from nas_apps.core.arch import Arch
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.config import load
from nas_apps.core.cost import count_params
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.relax import GumbelOneHot, Softmax
from nas_apps.core.parts.wiring import Full
from nas_apps.core.progress import Progress
from nas_apps.tasks.image.nasbench1shot1 import ChoiceCell
from nas_apps.tasks.image.nasbench101 import LABELS, Graph, Parents, graph, graph_of, reached, widths
from nas_apps.tasks.image.network import ImageNetwork, Network, build_network
from nas_apps.tasks.image.ops import NASBENCH101_OPS
from nas_apps.tasks.image.spaces import SPACES, ImageSpace, _nasbench1shot1
from nas_apps.testing import check_task

timm = pytest.importorskip("timm")

from nas_apps.tasks.image import timm_model  # noqa: E402, F401, importing it registers the model

NAMES = ["nasbench1shot1_1", "nasbench1shot1_2", "nasbench1shot1_3"]
EACH = pytest.mark.parametrize("name", NAMES)
POOL, CONV3, CONV1 = NASBENCH101_OPS
RELAX = {"op": Softmax(), "parent": Softmax()}

# Two cells that NAS-Bench-101's authors print, with their number of parameters, and for the first their fingerprint.
FIRST = {1: (0,), 2: (1,), 3: (2,), 4: (0,), 5: (0, 3, 4), 6: (2, 5)}, (CONV3, POOL, CONV3, CONV3, CONV1)
INCEPTION = {1: (0,), 2: (0,), 3: (0,), 4: (3,), 5: (0,), 6: (1, 2, 4, 5)}, (CONV1, CONV3, CONV3, CONV3, POOL)


def one_shot(name: str, channels: int = 4, cells: int = 1, **relax: object) -> tuple[Arch, ImageNetwork]:
    space = SPACES[name]
    arch = Arch(space.choices(), {**RELAX, **relax}, init_std=0.5)
    settings = Network(channels, cells)
    return arch, build_network(space, Mixed(arch, Full()), settings, searching=True)


def drawn(name: str, seed: int = 0) -> Genotype:
    return Random()(SPACES[name].choices(), {}, torch.Generator().manual_seed(seed))


def space_with(parents: Parents, ops: tuple[str, ...]) -> tuple[ImageSpace, Genotype]:
    """A space of cells with these in-degrees, and the cell in it."""
    degrees = tuple(len(sources) for sources in parents.values())
    space = _nasbench1shot1(*degrees)
    kept = {f"cell.parent.{target}": (tuple(map(str, sources)),) for target, sources in parents.items()}
    choices = space.choices()
    kept = {"cell.op": tuple((op,) for op in ops)} | {key: row for key, row in kept.items() if key in choices}
    return space, Genotype(kept).validate(choices)


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def wirings(space: ImageSpace) -> Iterator[dict[int, tuple[int, ...]]]:
    """Every way to choose the parents of a space's nodes and output."""
    rows = [combinations(range(target), keep) for target, keep in enumerate(space.in_degrees, 1)]
    for parents in product(*rows):
        yield dict(enumerate(parents, 1))


def is_a_chain(parents: Parents) -> bool:
    """Whether all nodes lie on the way from the output back over the highest parents."""
    at, seen = max(parents), set()
    while at:
        seen.add(at)
        at = max(parents[at])
    return seen == set(parents)


@EACH
def test_the_task_obeys_the_laws_in_its_spaces(name: str) -> None:
    sizes = {"batch_size": 8, "network": {"channels": 4, "cells": 1}}
    check_task("image", {"task": {"space": name, "train_images": 64}, "search": sizes, "train": sizes})


@pytest.mark.parametrize(("name", "params"), [*zip(NAMES, (1_101_402, 1_101_402, 1_509_594), strict=True)])
def test_one_shot_models_have_the_number_of_parameters_of_the_authors_code(name: str, params: int) -> None:
    with torch.device("meta"):
        assert count_params(one_shot(name, 16, 3)[1]) == params


@EACH
def test_nodes_whose_parents_are_all_there_are_have_nothing_to_choose(name: str) -> None:
    space = SPACES[name]
    choices = space.choices()
    assert choices["cell.op"].rows[0] == ("maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu")
    for target, keep in enumerate(space.in_degrees, 1):
        choice = choices.get(f"cell.parent.{target}")
        assert (choice is None) == (keep == target)
        assert choice is None or (choice.kind, choice.keep, choice.shape) == ("parent", keep, (1, target))


@pytest.mark.parametrize(
    ("name", "all_patterns", "distinct", "in_chains", "cells"),
    [
        ("nasbench1shot1_1", 180, 66, 49, 2_487),
        ("nasbench1shot1_2", 360, 190, 65, 3_609),
        ("nasbench1shot1_3", 5_400, 876, 234, 24_066),
    ],
)
def test_the_spaces_have_as_many_patterns_and_cells_as_the_authors_count(
    name: str, all_patterns: int, distinct: int, in_chains: int, cells: int
) -> None:
    # "Without loose ends" the authors' code goes back from the output over the highest parent of each node alone, so
    # that it counts fewer patterns than are left when loose ends are cut off.
    patterns = list(wirings(SPACES[name]))
    pruned = {tuple(reached(pattern).items()) for pattern in patterns}
    chains = [dict(pattern) for pattern in pruned if is_a_chain(dict(pattern))]
    assert (len(patterns), len(pruned), len(chains)) == (all_patterns, distinct, in_chains)
    assert sum(len(NASBENCH101_OPS) ** (len(pattern) - 1) for pattern in chains) == cells


def test_every_cell_of_the_first_space_is_small_enough_for_nasbench101() -> None:
    space = SPACES["nasbench1shot1_1"]
    graphs = {
        graph(pattern, dict(enumerate(ops, 1)))
        for pattern in map(reached, wirings(space))
        for ops in product(NASBENCH101_OPS, repeat=4)
    }
    assert len(graphs) > 2_487
    assert all(len(g.ops) <= 7 and sum(map(sum, g.matrix)) <= 9 for g in graphs)
    assert len({g.fingerprint() for g in graphs}) == 2_685  # isomorphic cells are one


def test_a_derived_cell_keeps_the_heaviest_parents_and_operation() -> None:
    choices = SPACES["nasbench1shot1_1"].choices()
    weights = {name: torch.zeros(choice.shape) for name, choice in choices.items()}
    weights["cell.op"][:, 2] = 1
    weights["cell.parent.5"] = torch.tensor([[0.3, 0.1, 0.05, 0.15, 0.4]])
    weights["cell.parent.3"] = torch.tensor([[0.2, 0.5, 0.3]])
    kept = Strongest()(choices, weights, torch.Generator()).validate(choices).kept
    assert kept["cell.op"] == (("conv1x1-bn-relu",),) * 4
    assert kept["cell.parent.5"] == (("0", "4"),)
    assert kept["cell.parent.3"] == (("1", "2"),)
    assert kept["cell.parent.4"] == (("0", "1"),)  # ties go to the lower state


def test_loose_ends_are_not_built() -> None:
    space = SPACES["nasbench1shot1_1"]
    genotype = drawn("nasbench1shot1_1")
    parents = {"cell.parent.3": (("1", "2"),), "cell.parent.4": (("0", "1"),), "cell.parent.5": (("0", "4"),)}
    fill = Fixed(space.choices(), Genotype({**genotype.kept, **parents}))
    for searching, output in ((True, 16), (False, 4)):
        cell = build_network(space, fill, Network(4, 1), searching=searching).cells[0]
        assert isinstance(cell, ChoiceCell)
        assert set(cell.nodes) == {"1", "4"}
        assert set(cell.projections) == {"1", "4", "5"}
        x = images(2, 4, 8, 8)
        assert cell(x, x).shape == (2, output, 8, 8)


def test_a_one_shot_cell_is_the_weighted_sum_of_the_paper() -> None:
    arch, network = one_shot("nasbench1shot1_1")
    cell, x = network.eval().cells[0], images(2, 4, 6, 6)
    with arch.using(arch.draw()) as draw:
        found = cell(x, x)
    w = {name: table.detach() for name, table in draw.weights.items()}
    ops = {POOL: 0, CONV3: 1, CONV1: 2}
    states = [x]
    for node in range(1, 5):
        row = w[f"cell.parent.{node}"][0] if node > 2 else torch.ones(node)
        total = row[0] * cell.projections[str(node)](x)
        total = total + sum(row[source] * states[source] for source in range(1, node))
        mixed = cell.nodes[str(node)].edge.ops
        states.append(sum(w["cell.op"][node - 1, k] * mixed[name](total) for name, k in ops.items()))
    row = w["cell.parent.5"][0]
    output = row[0] * cell.projections["5"](x) + torch.cat([row[s] * states[s] for s in range(1, 5)], 1)
    assert torch.allclose(found, output, atol=1e-6)


def test_nodes_that_a_sampled_draw_does_not_lead_to_do_not_run() -> None:
    arch, network = one_shot("nasbench1shot1_3", op=GumbelOneHot(), parent=GumbelOneHot())
    ran: list[str] = []
    cell, x = network.cells[0], images(2, 4, 6, 6)
    for target, node in cell.nodes.items():
        node.register_forward_hook(lambda *_, target=target: ran.append(target))
    for cycle in range(20):
        ran.clear()
        draw = arch.draw(Progress(0, 2), cycle=cycle)
        parents = {t: draw.active[f"cell.parent.{t}"][0] for t in range(2, 7)}
        with arch.using(draw):
            cell(x, x)
        assert ran == [str(t) for t in reached({1: (0,), **parents}) if t < 6]


def test_a_one_shot_model_gives_every_logit_a_gradient() -> None:
    for name in NAMES:
        arch, network = one_shot(name)
        with arch.using(arch.draw()):
            functional.cross_entropy(network(images(4, 3, 8, 8)), torch.arange(4)).backward()
        assert all(bool((table.grad != 0).all()) for table in arch.logits.values())


@pytest.mark.parametrize(("cell", "params"), [(FIRST, 8_555_530), (INCEPTION, 2_694_282)], ids=["first", "inception"])
def test_final_networks_have_the_number_of_parameters_that_nasbench101_records(
    cell: tuple[Parents, tuple[str, ...]], params: int
) -> None:
    space, genotype = space_with(*cell)
    with torch.device("meta"):
        assert count_params(build_network(space, Fixed(space.choices(), genotype), Network(128, 3))) == params


def test_a_final_cell_cuts_wider_parents_to_its_own_width() -> None:
    parents = {1: (0,), 2: (1,), 3: (0, 1), 4: (1, 2, 3)}
    assert widths(parents, 8) == {1: 3, 2: 3, 3: 2}
    space, genotype = space_with(parents, (POOL,) * 3)
    cell = ChoiceCell(space, Fixed(space.choices(), genotype), 5, 8, one_shot=False, affine=True).eval()
    x = images(2, 5, 6, 6)
    pool = nn.MaxPool2d(3, 1, 1)
    one = pool(cell.projections["1"](x))
    three = pool(cell.projections["3"](x) + one[:, :2])
    assert torch.equal(cell(x, x), torch.cat([one, pool(one), three], 1))


def test_widths_are_those_of_the_authors_tests() -> None:
    assert widths({1: (0,), 2: (0,), 3: (1, 2)}, 15) == {1: 8, 2: 7}
    assert widths({1: (0,), 2: (0,), 3: (0,), 4: (1, 2, 3)}, 8) == {1: 3, 2: 3, 3: 2}
    assert widths({1: (0,), 2: (1,), 3: (1,), 4: (2, 3)}, 9) == {1: 5, 2: 5, 3: 4}
    assert widths({1: (0,), 2: (1,), 3: (0, 2), 4: (1, 3)}, 15) == {1: 8, 2: 7, 3: 7}
    with pytest.raises(UserError, match=r"network\.channels: got 2; allowed: 3 and more"):
        widths({1: (0,), 2: (0,), 3: (0,), 4: (1, 2, 3)}, 2)


def test_the_fingerprint_is_the_one_that_nasbench101_has_for_the_cell() -> None:
    parents, ops = FIRST
    assert graph(parents, dict(enumerate(ops, 1))).fingerprint() == "00005c142e6f48ac74fdcf73e3439874"


def test_isomorphic_graphs_share_a_fingerprint_and_others_do_not() -> None:
    parents, ops = INCEPTION
    cell = graph(parents, dict(enumerate(ops, 1)))
    for order in permutations(range(1, 6)):
        at = (0, *order, 6)
        turned = Graph(tuple(tuple(cell.matrix[i][j] for j in at) for i in at), tuple(cell.ops[i] for i in at))
        assert turned.fingerprint() == cell.fingerprint()
    others = [replace(cell, ops=("input", *swapped, "output")) for swapped in product(NASBENCH101_OPS, repeat=5)]
    same = [other for other in others if other.fingerprint() == cell.fingerprint()]
    # nodes 1, 2 and 5 stand alike, so their operations may trade places, and the chain 3, 4 may not change
    assert len(same) == len(set(permutations((CONV1, CONV3, POOL))))


def test_a_genotype_becomes_the_graph_of_what_reaches_the_output() -> None:
    kept = {
        "cell.op": ((CONV3,), (POOL,), (CONV1,), (CONV3,)),
        "cell.parent.5": (("4", "0"),),
        "cell.parent.3": (("1", "2"),),
        "cell.parent.4": (("0", "2"),),
    }
    found = graph_of(SPACES["nasbench1shot1_1"], Genotype(kept))
    assert found.ops == ("input", CONV3, POOL, CONV3, "output")
    assert found.matrix == ((0, 1, 1, 1, 1), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1), (0, 0, 0, 0, 0))
    assert set(found.ops) <= set(LABELS)
    with pytest.raises(UserError, match=r"cell\.op\[1\] keeps .*; a cell of NAS-Bench-101 has one operation a node"):
        graph_of(SPACES["nasbench1shot1_1"], Genotype({**kept, "cell.op": ((CONV3,), (), (CONV1,), (CONV3,))}))
    with pytest.raises(UserError, match=r"cell\.parent\.3\[0\]: keeps 1; allowed: 2 options"):
        graph_of(SPACES["nasbench1shot1_1"], Genotype({**kept, "cell.parent.3": (("1",),)}))


def test_operations_are_convolution_norm_and_relu_in_this_order() -> None:
    for name, kernel in ((CONV3, 3), (CONV1, 1)):
        convolution, norm, relu = NASBENCH101_OPS[name](OpArgs(8))
        assert (convolution.kernel_size, convolution.bias) == ((kernel, kernel), None)
        assert norm.affine
        assert isinstance(relu, nn.ReLU)
    assert isinstance(NASBENCH101_OPS[POOL](OpArgs(8, affine=False)), nn.MaxPool2d)


def test_maps_are_halved_between_the_stages_odd_ones_rounded_up() -> None:
    space = SPACES["nasbench1shot1_2"]
    network = build_network(space, Fixed(space.choices(), drawn("nasbench1shot1_2")), Network(4, 2))
    assert network.forward_features(images(2, 3, 9, 8)).shape == (2, 16, 3, 2)


@pytest.mark.parametrize("variant", ["darts", "gdas", "pc_darts"])
def test_a_cell_is_searched_trained_and_loaded_into_timm(variant: str, tmp_path: Path) -> None:
    tiny = [f"{phase}.{key}" for phase in ("search", "train") for key in ("epochs=1", "epoch_steps=2", "batch_size=8")]
    tiny += ["search.network.channels=8", "search.network.cells=1", "train.network.cells=1", "variant=" + variant]
    made = load([], ["task=image", "task.space=nasbench1shot1_3", "task.train_images=64", "device=cpu", *tiny])
    genotype = nas_apps.search(made, tmp_path / "search")
    assert nas_apps.derive(tmp_path / "search") == genotype
    summary = nas_apps.train(made, genotype, tmp_path / "train")
    arguments = json.loads((tmp_path / "train" / "model.json").read_text())["create_model"]
    arguments["genotype"] = str(tmp_path / "train" / arguments["genotype"])
    weights = str(tmp_path / "train" / "model.safetensors")
    model = timm.create_model(**arguments, checkpoint_path=weights)
    assert count_params(model) == summary["costs"]["params"]


def test_timm_makes_the_network_of_the_benchmark_from_the_genotype_alone() -> None:
    genotype = drawn("nasbench1shot1_1")
    with torch.device("meta"):
        model = timm.create_model("nas_cell", genotype=genotype)
        space = SPACES["nasbench1shot1_1"]
        plain = build_network(space, Fixed(space.choices(), genotype), Network(128, 3))
    assert model.num_features == 512
    assert {name: p.shape for name, p in model.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
