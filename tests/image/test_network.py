from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fill, Fixed, Mixed
from nas_apps.core.errors import UserError
from nas_apps.core.parts.derive import Random
from nas_apps.core.parts.drop import DropPath
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full, Partial, Wiring
from nas_apps.core.progress import Progress
from nas_apps.tasks.image.darts import quarters
from nas_apps.tasks.image.network import ImageNetwork, Network, build_network
from nas_apps.tasks.image.published import PUBLISHED
from nas_apps.tasks.image.spaces import SPACES, space_of

SMALL = Network(channels=4, cells=3)
RELAX = {"op": Softmax(), "edge": Softmax(), "parent": Softmax()}


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def published(settings: Network, wiring: Wiring | None = None, **sizes: int) -> ImageNetwork:
    space = SPACES["darts"]
    return build_network(space, Fixed(space.choices(), PUBLISHED["pc_darts_cifar"], wiring), settings, **sizes)


LAW = [
    *product(SPACES, [Full()], [False]),
    *product(["darts", "s1", "s2", "s3", "s4"], [Partial(4)], [False]),
    ("darts", Partial(4), True),
    ("s4", Partial(2), True),
]


@pytest.mark.parametrize(
    ("name", "wiring", "edges"), LAW, ids=[f"{n}-{type(w).__name__}{'-edges' * e}".lower() for n, w, e in LAW]
)
def test_what_is_trained_is_what_was_searched(name: str, wiring: Wiring, edges: bool) -> None:
    space, settings = SPACES[name], Network(channels=8, cells=4, affine=False)
    if space.skeleton.startswith("nasbench"):
        settings = Network(channels=4, cells=1, affine=False)
    choices = space.choices(edges=edges)
    arch = Arch(choices, RELAX)
    mixed = build_network(space, Mixed(arch, wiring), settings, searching=True)
    x = images(2, 3, 9, 8)
    for seed in range(3):
        genotype = Random()(choices, {}, torch.Generator().manual_seed(seed))
        fixed = build_network(space, Fixed(choices, genotype, wiring), settings, searching=True)
        assert not fixed.load_state_dict(mixed.state_dict(), strict=False).missing_keys
        for training in (True, False):
            torch.manual_seed(seed)  # of the noise of s4
            with arch.using(one_hot(choices, genotype)):
                expected = mixed.train(training)(x)
            torch.manual_seed(seed)
            assert torch.equal(fixed.train(training)(x), expected)


def test_a_super_net_gives_every_logit_a_gradient() -> None:
    space = SPACES["darts"]
    choices = space.choices(edges=1)
    arch = Arch(choices, RELAX)
    network = build_network(space, Mixed(arch, Partial(4)), Network(channels=8, cells=3, affine=False))
    with arch.using(arch.draw(Progress(0, 1))):
        functional.cross_entropy(network(images(4, 3, 8, 8)), torch.arange(4)).backward()
    assert all(table.grad is not None and bool((table.grad != 0).all()) for table in arch.logits.values())


@pytest.mark.parametrize("stem", ["cifar", "imagenet", "imagenet_search"])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (13, 7), (33, 40)], ids=str)
def test_images_of_any_size_can_be_classified(stem: str, size: tuple[int, int]) -> None:
    network = published(Network(4, 4, stem, auxiliary=0.4), in_chans=1, num_classes=7)
    logits, auxiliary = network.forward_with_auxiliary(images(3, 1, *size))
    assert logits.shape == (3, 7)
    assert auxiliary is not None
    assert auxiliary.shape == (3, 7)


@pytest.mark.parametrize("cells", [1, 2, 3, 4, 5, 8])
def test_cells_a_third_and_two_thirds_down_halve_the_map(cells: int) -> None:
    network = published(Network(4, cells, auxiliary=0.4))
    reductions = len({cells // 3, 2 * cells // 3})
    assert network.forward_features(images(2, 3, 16, 16)).shape == (2, 16 * 2**reductions, *[16 // 2**reductions] * 2)
    assert network.num_features == 16 * 2**reductions
    assert network(images(2, 3, 16, 16)).shape == (2, 10)


def test_odd_maps_go_through_nasbench201() -> None:
    space = SPACES["nasbench201"]
    genotype = Random()(space.choices(), {}, torch.Generator().manual_seed(0))
    network = build_network(space, Fixed(space.choices(), genotype), Network(4, 1))
    assert network.forward_features(images(2, 3, 9, 7)).shape == (2, 16, 3, 2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_of_a_published_network_learns(name: str) -> None:
    space = space_of(PUBLISHED[name])
    network = build_network(space, Fixed(space.choices(), PUBLISHED[name]), Network(4, 4, auxiliary=0.4))
    logits, auxiliary = network.forward_with_auxiliary(images(4, 3, 8, 8))
    assert auxiliary is not None
    sum(functional.cross_entropy(y, torch.arange(4)) for y in (logits, auxiliary)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_auxiliary_logits_are_there_in_training_alone() -> None:
    network = published(Network(4, 3, auxiliary=0.4))
    x = images(2, 3, 8, 8)
    assert network.forward_with_auxiliary(x)[1] is not None
    assert network.eval().forward_with_auxiliary(x)[1] is None
    assert torch.equal(network.forward_with_auxiliary(x)[0], network(x))
    assert published(SMALL).forward_with_auxiliary(x)[1] is None


def test_the_auxiliary_head_does_not_change_the_logits() -> None:
    network = published(Network(4, 5, auxiliary=0.4))
    x = images(2, 3, 8, 8)
    assert torch.equal(network.forward_with_auxiliary(x)[0], network(x))


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)], ids=["cifar", "imagenet"])
def test_the_auxiliary_head_pools_as_in_the_papers(size: int, stride: int) -> None:
    x = images(2, 3, size, size)
    expected = functional.avg_pool2d(x, 5, stride, count_include_pad=False)
    assert torch.equal(quarters(x), expected)


@pytest.mark.parametrize("size", range(1, 40))
def test_the_auxiliary_head_sees_the_whole_map(size: int) -> None:
    x = torch.ones(1, 1, size, 4, requires_grad=True)
    quarters(x).sum().backward()
    assert quarters(x).shape == (1, 1, 2, 2)
    assert x.grad is not None
    assert bool((x.grad > 0).all())


def test_weights_with_an_auxiliary_head_load_without_one() -> None:
    trained, plain = published(Network(4, 3, auxiliary=0.4)), published(SMALL)
    plain.load_state_dict(trained.state_dict())
    x = images(2, 3, 8, 8)
    assert torch.equal(plain.eval()(x), trained.eval()(x))


def test_a_missing_auxiliary_head_is_an_error_when_it_is_wanted() -> None:
    with pytest.raises(RuntimeError, match=r"auxiliary\.classifier\.weight"):
        published(Network(4, 3, auxiliary=0.4)).load_state_dict(published(SMALL).state_dict())


def test_drop_path_leaves_names_and_evaluation_alone() -> None:
    plain, dropping = published(SMALL), published(SMALL, wiring=Full(DropPath(0.9)))
    dropping.load_state_dict(plain.state_dict())
    x = images(4, 3, 8, 8)
    assert torch.equal(plain.eval()(x), dropping.eval()(x))
    assert not torch.equal(plain.train()(x), dropping.train()(x))


def test_checkpointed_cells_give_the_same_gradients() -> None:
    x, grads = images(2, 3, 8, 8), []
    network = published(SMALL)
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(x).square().sum().backward()
        grads.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_only_norms_of_cells_lose_their_weights_in_a_super_net() -> None:
    space = SPACES["darts"]
    network = build_network(space, Mixed(Arch(space.choices(), RELAX), Full()), Network(4, 3, affine=False))
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {name for name, norm in norms.items() if norm.affine} == {"stem.first.1"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Network(stem="imagenet"), r"network\.stem: .* not 'imagenet'"),
        (Network(auxiliary=0.4), r"network\.auxiliary: .* leave it at 0"),
    ],
)
@pytest.mark.parametrize("name", ["nasbench201", "nasbench1shot1_1"])
def test_settings_that_a_benchmark_has_no_use_for_are_errors(name: str, settings: Network, message: str) -> None:
    space = SPACES[name]
    fill: Fill = Fixed(space.choices(), Random()(space.choices(), {}, torch.Generator().manual_seed(0)))
    with pytest.raises(UserError, match=message):
        build_network(space, fill, settings)


@pytest.mark.parametrize(("name", "value"), [("channels", 1), ("cells", 0), ("dropout", 1.0), ("auxiliary", -1.0)])
def test_sizes_that_make_no_network_are_errors(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*, got "):
        Network(**{name: value})
