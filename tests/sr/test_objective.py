"""What an up-sampler is trained for: whose images, at which widths, by which distance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Mixed
from nas_apps.core.config import load
from nas_apps.core.errors import UserError
from nas_apps.core.parts.relax import GumbelOneHot, Softmax
from nas_apps.core.parts.wiring import Full
from nas_apps.tasks.sr.network import Network, Upscaler
from nas_apps.tasks.sr.objective import SANDWICH, Loss, Restoration, Vgg
from nas_apps.tasks.sr.spaces import SRSpace
from nas_apps.tasks.sr.tree import Tree

SPACE = SRSpace(Tree(cells=2, ups=1, searched=1), channels=16, ops_per_cell=3)
CONTENT = "features.34.weight"
PLAN = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)


def batch() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {"lr": torch.rand(2, 3, 8, 8, generator=rng), "hr": torch.rand(2, 3, 16, 16, generator=rng)}


def restoration(
    loss: Loss | None = None, *, sandwich: bool = False, teacher: Callable[[Tensor], Tensor] | None = None
) -> tuple[Restoration, Arch]:
    """The objective of a super-net with two widths, and its architecture."""
    arch = Arch(SPACE.choices(), {"exit": Softmax(), "op": Softmax(), "width": GumbelOneHot()}, init_std=0.5)
    network = Upscaler(Mixed(arch, Full()), SPACE, Network(), 2)
    return Restoration(network, loss or Loss(), sandwich=sandwich, teacher=teacher), arch


@contextmanager
def under_a_draw(arch: Arch) -> Iterator[None]:
    """A draw with one width of each row in force, not all the same."""
    draws = (arch.draw(cycle=cycle) for cycle in range(100))
    draw = next(d for d in draws if len({row for row in d.active["cell.width"]}) > 1)
    with torch.no_grad(), arch.using(draw):
        yield


def test_the_loss_is_the_mean_absolute_difference_from_the_real_images() -> None:
    objective, arch = restoration()
    given = batch()
    with under_a_draw(arch):
        outcome, image = objective(given), objective.network(given["lr"])
    torch.testing.assert_close(outcome.loss, (image - given["hr"]).abs().mean())
    torch.testing.assert_close(outcome.stats["mse"], (image.clamp(0, 1) - given["hr"]).square().mean())
    assert outcome.weight == 2


def test_a_training_step_sums_the_losses_at_the_sampled_the_widest_and_the_narrowest_widths() -> None:
    objective, arch = restoration(sandwich=True)
    given = batch()
    with under_a_draw(arch):
        losses = {w: (objective.network(given["lr"], w) - given["hr"]).abs().mean() for w in ("sampled", "max", "min")}
        assert len({float(loss) for loss in losses.values()}) == 3
        torch.testing.assert_close(objective(given).loss, torch.stack([*losses.values()]).sum())
        assert torch.equal(objective({**given, SANDWICH: False}).loss, losses["sampled"])  # a step of the logits
        objective.eval()
        assert torch.equal(objective(given).loss, losses["sampled"])
        objective._passes = objective.train()._passes[:1]  # as without a sandwich
        assert torch.equal(objective(given).loss, losses["sampled"])


def test_a_teacher_s_images_stand_for_the_real_ones_but_not_in_what_is_reported() -> None:
    def teacher(lr: Tensor) -> Tensor:
        return functional.interpolate(lr, scale_factor=2)

    objective, arch = restoration(teacher=teacher)
    given = batch()
    with under_a_draw(arch):
        outcome, image = objective(given), objective.network(given["lr"])
    torch.testing.assert_close(outcome.loss, (image - teacher(given["lr"])).abs().mean())
    torch.testing.assert_close(outcome.stats["mse"], (image.clamp(0, 1) - given["hr"]).square().mean())


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of VGG-19 made here, named and shaped as torchvision's are; those of its last layers are not needed."""
    pytest.importorskip("torchvision")
    rng, state, channels, number = torch.Generator().manual_seed(0), dict[str, Tensor](), 3, 0
    for width in PLAN:
        if width:
            weight = torch.randn(width, channels, 3, 3, generator=rng) * (2 / (9 * channels)) ** 0.5
            state |= {f"features.{number}.weight": weight, f"features.{number}.bias": torch.full((width,), 0.1)}
            channels = width
        number += 2 if width else 1
    assert [*state][-2] == CONTENT
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state, path)
    return path


def features(images: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Those before the ReLU of VGG-19's last convolution, layer by layer."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, number = (images - mean[:, None, None]) / std[:, None, None], 0
    for width in PLAN:
        if not width:
            x, number = functional.max_pool2d(x, 2), number + 1
            continue
        x = functional.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1)
        if f"features.{number}.weight" == CONTENT:
            return x
        x, number = x.relu(), number + 2
    raise AssertionError


def test_the_content_is_what_vgg_sees_before_its_last_relu(vgg_file: Path) -> None:
    objective, arch = restoration(Loss(pixel=0.5, content=2.0, vgg=str(vgg_file)))
    plain, _ = restoration()
    assert objective.state_dict().keys() == plain.state_dict().keys()  # VGG is not trained, and not kept
    given, state = batch(), torch.load(vgg_file, weights_only=True)
    with under_a_draw(arch):
        image, loss = objective.network(given["lr"]), objective(given).loss
    seen = [features(x, state) for x in (image, given["hr"])]
    assert (seen[0] < 0).any()
    expected = 0.5 * functional.l1_loss(image, given["hr"]) + 2 * functional.l1_loss(*seen)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_the_weights_learn_from_the_content_and_vgg_does_not(vgg_file: Path) -> None:
    objective, arch = restoration(Loss(pixel=0.0, content=1.0, vgg=str(vgg_file)))
    with arch.using(arch.draw()):
        objective(batch()).loss.backward()
    stem = objective.network.stem.weight.grad
    assert stem is not None
    assert stem.abs().sum() > 0
    assert not any(weight.requires_grad for weight in Vgg(vgg_file).parameters())


@pytest.mark.parametrize("fault", ["missing", "none of weights", "other names", "other shapes"])
def test_a_file_that_is_not_vgg_s_is_one_line(fault: str, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    path = tmp_path / "vgg.pth"
    if fault == "none of weights":
        path.write_bytes(b"weights")
    elif fault == "other names":
        torch.save(nn.Linear(2, 2).state_dict(), path)
    elif fault == "other shapes":
        torch.save({f"features.{k}.{part}": torch.zeros(1) for k in range(37) for part in ("weight", "bias")}, path)
    made = load([], ["task=sr", "task.loss.content=1", f"task.loss.vgg={path}"])
    with pytest.raises(UserError, match=r"^task\.loss\.vgg: .*vgg\.pth: not torchvision's weights of VGG-19") as caught:
        made.task.build(*_filled(made))
    assert "\n" not in str(caught.value)


def _filled(made):  # noqa: ANN001, ANN202
    space = made.task.choices()
    return Mixed(Arch(space, made.variant.relaxations), Full()), made.search


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("task.loss.pixel=0", "task.loss: pixel, content: both are 0; allowed: more than 0 for one of them, or both"),
        ("task.loss.content=1", "task.loss.vgg: not given with content 1.0; allowed: a file with content above 0, on"),
        ("task.loss.vgg=a.pth", "task.loss.vgg: got a.pth with content 0.0; allowed: a file with content above 0"),
        ("task.loss.pixel=-1", "task.loss.pixel: got -1.0; allowed: 0 and more"),
    ],
)
def test_a_loss_that_means_nothing_is_refused(given: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load([], ["task=sr", given])
    assert str(caught.value).startswith(said)
