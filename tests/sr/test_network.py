"""The network: a super-net that is the derived network at one-hot weights, and computes nothing that does not count."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.cost import cost
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.relax import GumbelOneHot, Relaxation, Softmax
from nas_apps.core.parts.sparse import SparsestMax
from nas_apps.core.parts.wiring import Full, Partial, Row, Wiring
from nas_apps.core.price import expectation
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.space import Space
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.sr.cells import SRCell, Width
from nas_apps.tasks.sr.costs import prices
from nas_apps.tasks.sr.network import Network, Upscaler
from nas_apps.tasks.sr.resize import Bicubic
from nas_apps.tasks.sr.spaces import EXIT, OP, WIDTH, SRSpace
from nas_apps.tasks.sr.tree import Tree

SMALL = SRSpace(Tree(cells=3, ups=1, searched=2), channels=24, ops_per_cell=3)
LARGE = replace(SMALL, tree=Tree("A", cells=3, ups=2, searched=2))
TALL = replace(SMALL, tree=Tree("A", cells=3, ups=1, searched=2))
NETS = [(SMALL, 2), (SMALL, 3), (SMALL, 4), (LARGE, 4), (TALL, 2), (TALL, 3)]
NETS += [(replace(SMALL, ops_per_cell=1), 2), (replace(SMALL, widths=(0.5,)), 2)]
NETS += [(replace(SMALL, tree=Tree(cells=3, ups=1, searched=1), widths=(0.5, 0.6)), 2)]


def arch_of(space: SRSpace, relax: Relaxation | None = None) -> Arch:
    chosen = relax or Softmax()
    return Arch(space.choices(), {kind: chosen for kind in ("exit", "op", "width")}, init_std=1.0)


def super_net(space: SRSpace, arch: Arch, scale: int = 2, wiring: Wiring | None = None) -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(Mixed(arch, wiring or Full()), space, Network(), scale)


def drawn(space: SRSpace, seed: int) -> Genotype:
    return space.canonical(Random()(space.choices(), {}, torch.Generator().manual_seed(seed)))


def inherited(space: SRSpace, genotype: Genotype, scale: int, source: nn.Module) -> Upscaler:
    """The network of a genotype with the leading slices of the weights of the same name."""
    network = Upscaler(Fixed(space.choices(), genotype), space, Network(), scale)
    weights = source.state_dict()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(weights[name][tuple(slice(size) for size in weight.shape)])
    return network


def image(size: tuple[int, int] = (7, 9)) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(("space", "scale"), NETS)
def test_the_super_net_at_one_hot_weights_is_the_derived_network_bit_for_bit(
    space: SRSpace, scale: int, lower: bool
) -> None:
    """lower: under autocast to bfloat16."""
    arch = arch_of(space)
    whole, x = super_net(space, arch, scale), image()
    for seed in range(6):
        genotype = drawn(space, seed)
        network = inherited(space, genotype, scale, whole)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=lower):
            with arch.using(one_hot(space.choices(), genotype)):
                mixed = whole(x)
            assert mixed.shape == (2, 3, 7 * scale, 9 * scale)
            assert torch.equal(mixed, network(x))
            assert torch.equal(network(x), network(x, "max"))  # one width is the widest


def test_the_weights_of_exits_mix_the_networks_that_end_there() -> None:
    space = SMALL.choices()
    whole, x = super_net(SMALL, arch := arch_of(SMALL)).double(), image().double()
    choices = Random()(space, {}, torch.Generator().manual_seed(3))
    weights = torch.tensor([0.5, 0, 0, 0.2, 0, 0, 0.3, 0, 0], dtype=torch.float64)
    draw = one_hot(space, choices, like=weights)
    draw = replace(draw.at({EXIT: weights[None]}), active={**draw.active, EXIT: ((0, 3, 6),)})
    with torch.no_grad(), arch.using(draw):
        mixed = whole(x)
    total = torch.zeros_like(mixed)
    for k in (0, 3, 6):
        ends = SMALL.canonical(Genotype({**choices.kept, EXIT: ((space[EXIT].rows[0][k],),)}))
        total += weights[k] * inherited(SMALL, ends, 2, whole).double()(x)
    assert torch.allclose(mixed, total, atol=1e-6)


def called(module: nn.Module) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, layer in module.named_modules():
        if ".ops." in name and name.count(".ops.") == 1 and name.split(".ops.")[1].count(".") == 0:
            layer.register_forward_hook(lambda *_, name=name: found.update([name]))
        if name.startswith("ups.") and name.count(".") == 1:
            layer.register_forward_hook(lambda *_, name=name: found.update([name]))
    return found


def test_only_what_leads_to_an_exit_in_force_is_computed_and_once() -> None:
    arch, space = arch_of(SMALL), SMALL.choices()
    whole = super_net(SMALL, arch)
    seen = called(whole)
    genotype = Random()(space, {}, torch.Generator().manual_seed(0))
    draw = one_hot(space, genotype)
    exits = torch.zeros(1, 9)
    exits[0, [2, 3]] = 0.5  # "cuc" and "cucc"
    with arch.using(replace(draw.at({EXIT: exits}), active={**draw.active, EXIT: ((2, 3),)})):
        whole(image())
    cells = [cell for node in SMALL.tree.path(3) for cell in SMALL.tree.nodes[node].cells]
    ops = genotype.kept[OP]
    expected = {f"cells.{c}.places.{k}.edge.ops.{ops[3 * c + k][0]}" for c in cells for k in range(3)} | {"ups.cu"}
    assert seen == Counter(dict.fromkeys(expected, 1))


def test_a_derived_network_has_only_what_is_on_its_path() -> None:
    whole = super_net(SMALL, arch_of(SMALL))
    genotype = SMALL.canonical(Genotype({**drawn(SMALL, 0).kept, **full("cuc").kept}))
    network = inherited(SMALL, genotype, 2, whole)
    assert set(network.cells) == {"0", "2"}
    assert set(network.ups) == {"cu"}
    assert network.state_dict().keys() < whole.state_dict().keys()


def full(path: str, op: str = "residual", width: str = "16") -> Genotype:
    cells = SMALL.tree.num_cells
    return Genotype({EXIT: ((path,),), OP: ((op,),) * 3 * cells, WIDTH: ((width,),) * 2 * cells})


def test_a_sampled_width_multiplies_by_exactly_one_and_passes_a_gradient() -> None:
    arch = arch_of(SMALL, GumbelOneHot())
    whole = super_net(SMALL, arch)
    draw = arch.draws(learn=True)[0]
    width = Width(SMALL.width_options, (0, 1, 2), arch.reader(WIDTH, 0))
    with arch.using(draw):
        channels, gate = width.now("sampled")
        out = whole(image())
    chosen = draw.active[WIDTH][0][0]
    exits = draw.active[EXIT][0]
    assert channels == SMALL.width_options[chosen]
    assert gate is not None
    assert gate.tolist() == [1.0]
    out.square().mean().backward()
    used = [cell for k in exits for cell in path_cells(k)]
    rows = [row for cell in used for row in SMALL.rows(WIDTH, cell)]
    gradient = arch.logits[WIDTH].grad
    assert gradient is not None
    assert gradient.abs().sum(-1).nonzero().flatten().tolist() == sorted(rows)


def path_cells(exit: int) -> list[int]:
    tree = SMALL.tree
    return [cell for node in tree.path(tree.exits[exit]) for cell in tree.nodes[node].cells]


def test_a_channel_weighs_as_much_as_the_widths_it_is_part_of() -> None:
    weights = tuple(torch.tensor([w]) for w in (0.5, 0.2, 0.3))
    rows = {"all": Row(weights, (0, 1, 2), DONE), "two": Row(weights, (0, 1), DONE)}
    for row, widest in ((rows["all"], 24), (rows["two"], 16)):
        channels, gate = Width((8, 16, 24), (0, 1, 2), lambda row=row: row).now("sampled")
        masks = torch.tensor([[float(c < width) for c in range(channels)] for width in (8, 16, 24)])
        assert channels == widest
        assert gate is not None
        assert torch.allclose(gate[:, 0, 0], sum(weights[k] * masks[k] for k in row.active))


@pytest.mark.parametrize(("widths", "width"), [("max", "24"), ("min", "8")])
def test_the_widest_and_the_narrowest_network_can_be_asked_for(widths: str, width: str) -> None:
    arch, space = arch_of(SMALL), SMALL.choices()
    whole = super_net(SMALL, arch)
    genotype = drawn(SMALL, 5)
    with torch.no_grad(), arch.using(one_hot(space, genotype)):
        y = whole(image(), widths)
    kept = tuple((width,) if row else () for row in genotype.kept[WIDTH])
    assert torch.equal(y, inherited(SMALL, Genotype({**genotype.kept, WIDTH: kept}), 2, whole)(image()))


def test_a_cell_ends_at_its_input_plus_a_fifth_of_its_operations() -> None:
    cell = SRCell(Fixed(SMALL.choices(), full("c", "conv1", "24")), SMALL, 0)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.copy_(torch.eye(24)[:, :, None, None])
    x = torch.rand(1, 24, 3, 3)
    assert torch.allclose(cell(x), 1.2 * x)


@pytest.mark.parametrize("relax", [Softmax(), GumbelOneHot()], ids=["softmax", "gumbel"])
def test_every_choice_learns(relax: Relaxation) -> None:
    arch = arch_of(SMALL, relax)
    whole, total = super_net(SMALL, arch), Counter[str]()
    for cycle in range(4):
        with arch.using(arch.draws(cycle=cycle, learn=True)[0]):
            whole(image()).square().mean().backward()
    for name, logits in arch.logits.items():
        assert logits.grad is not None
        total[name] = int(logits.grad.ne(0).any(-1).sum())
    assert total[EXIT] == 1
    assert min(total.values()) > 0
    if isinstance(relax, Softmax):
        assert {name: logits.shape[0] for name, logits in arch.logits.items()} == total


def test_what_sparsestmax_ends_with_is_what_is_derived_bit_for_bit() -> None:
    arch, x = arch_of(SMALL, SparsestMax()), image()
    whole, halfway = super_net(SMALL, arch), Progress(1, 4)
    assert max(len(row) for row in arch.draw(halfway).active[WIDTH]) > 1
    with torch.no_grad(), arch.using(arch.draw(DONE)):
        mixed = whole(x)
    derived = Strongest()(arch.space, arch.expected(DONE).weights, torch.Generator())
    assert torch.equal(mixed, inherited(SMALL, SMALL.canonical(derived), 2, whole)(x))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_runs_on_the_space(name: str) -> None:
    variant = VARIANTS[name]
    space = SMALL if not isinstance(variant.wiring, Partial) else replace(SMALL, channels=8)
    arch = Arch(space.choices(), variant.relaxations)
    whole = super_net(space, arch, wiring=variant.wiring)
    for draw in arch.draws(Progress(1, 2), learn=True):
        with arch.using(draw):
            whole(image()).square().mean().backward(retain_graph=True)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (*arch.parameters(), *whole.tail.parameters()))


def test_without_a_choice_of_widths_a_wiring_may_see_a_share_of_the_channels() -> None:
    space = replace(SMALL, channels=8)
    arch = arch_of(space)
    with arch.using(arch.draw()):
        assert super_net(space, arch, wiring=Partial(4))(image()).isfinite().all()
    with pytest.raises(UserError, match=r"^variant.wiring: got 6 of 24 channels, and widths vary; allowed: full, "):
        super_net(SMALL, arch_of(SMALL), wiring=Partial(4))


def test_a_genotype_without_an_exit_or_a_width_on_its_path_is_refused_in_one_line() -> None:
    kept = full("c").kept
    for name in (EXIT, OP, WIDTH):
        broken = Genotype({**kept, name: ((), *kept[name][1:])})
        with pytest.raises(UserError, match=rf"^genotype: {name}\[0\]: keeps nothing; allowed: [^\n]*$"):
            Upscaler(Fixed(SMALL.choices(), broken), SMALL, Network(), 2)


def test_the_papers_head_ends_between_0_and_1() -> None:
    network = Upscaler(Fixed(SMALL.choices(), full("cu")), SMALL, Network(global_skip=False), 3)
    with torch.no_grad():
        network.tail[0].weight.mul_(100)
        y = network(image())
    assert y.shape == (2, 3, 21, 27)
    assert 0 <= y.min() < 0.1 < 0.9 < y.max() <= 1


# What it costs.


@pytest.mark.parametrize(("space", "scale"), NETS)
def test_a_price_at_one_hot_weights_is_what_the_network_costs(space: SRSpace, scale: int) -> None:
    found = prices(space, scale, (5, 6))
    for seed in range(8):
        genotype = drawn(space, seed)
        counted = cost(Upscaler(Fixed(space.choices(), genotype), space, Network(), scale), torch.zeros(1, 3, 5, 6))
        weights = one_hot(space.choices(), genotype).weights
        assert (float(found["params"](weights)), float(found["macs"](weights))) == (counted.params, counted.macs)


TINY = SRSpace(
    Tree(cells=2, ups=1, searched=1), channels=16, ops_per_cell=2, ops=("conv1", "separable"), widths=(0.5, 1)
)


def every_architecture(space: Space) -> dict[str, Tensor]:
    """Every architecture of a space as one-hot weights `[N, R, O]`."""
    rows = [(name, row) for name, choice in space.items() for row in range(choice.shape[0])]
    picks = torch.cartesian_prod(*(torch.arange(space[name].shape[1]) for name, _ in rows))  # [N, rows]
    tables = {name: torch.zeros(len(picks), *choice.shape, dtype=torch.float64) for name, choice in space.items()}
    for (name, row), column in zip(rows, picks.unbind(1), strict=True):
        tables[name][torch.arange(len(picks)), row, column] = 1
    return tables


@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("variant", ["A", "B"])
def test_a_price_is_the_mean_over_all_architectures(of: str, variant: str) -> None:
    space = replace(TINY, tree=Tree(variant, 2, 1, 1), widths=(0.5,) if variant == "A" else (0.5, 1))
    price, logits = prices(space, 2, (3, 4))[of], arch_of(space).logits
    odds = {name: table.detach().double().softmax(-1) for name, table in logits.items()}
    tables = every_architecture(space.choices())
    chances = torch.stack([(table * odds[name]).sum(-1).prod(-1) for name, table in tables.items()]).prod(0)
    assert float(chances.sum()) == pytest.approx(1)
    assert float(price(odds)) == pytest.approx(float((chances * price(tables)).sum()), rel=1e-12)


def test_a_price_is_differentiable_and_takes_many_weights_at_once() -> None:
    price, arch = prices(SMALL, 2, (3, 4))["macs"], arch_of(SMALL)
    price(expectation(price.space, arch.means())).backward()
    for logits in arch.logits.values():
        assert logits.grad is not None
        assert (logits.grad.abs().sum(-1) > 0).all()
    tables = [one_hot(price.space, drawn(SMALL, seed)).weights for seed in range(3)]
    stacked = {name: torch.stack([table[name] for table in tables]) for name in tables[0]}
    assert price(stacked).tolist() == [float(price(table)) for table in tables]
    assert 0 < price.reference < float(price(one_hot(price.space, full("cccu", "residual", "24")).weights))


def test_a_network_without_operations_to_add_is_the_bicubic_enlargement() -> None:
    network = Upscaler(Fixed(SMALL.choices(), full("c")), SMALL, Network(), 2)
    with torch.no_grad():
        for weight in network.tail.parameters():
            weight.zero_()
    assert torch.equal(network(image()), Bicubic(2)(image()))
