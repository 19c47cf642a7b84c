"""Super-resolution: the depth, the operations and the widths of an up-sampler, searched and trained at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import nn

from nas_apps.core import logs
from nas_apps.core.bounds import COUNT, SHARE, bounded
from nas_apps.core.cache import default_cache
from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.phase import Phase
from nas_apps.core.price import Price
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.core.space import Space
from nas_apps.core.tagged import Tagged
from nas_apps.core.task import Optimisation, Streams
from nas_apps.tasks.sr import export
from nas_apps.tasks.sr.compare import write_comparison
from nas_apps.tasks.sr.costs import prices
from nas_apps.tasks.sr.folders import set_name
from nas_apps.tasks.sr.images import to_pixels, to_tensor
from nas_apps.tasks.sr.metrics import Figures, Protocol, average, bicubic_figures, compare
from nas_apps.tasks.sr.network import Network, Upscaler, up_factor
from nas_apps.tasks.sr.objective import SANDWICH, Loss, Restoration
from nas_apps.tasks.sr.optimisation import Weights, optimisation
from nas_apps.tasks.sr.pairs import Pairs
from nas_apps.tasks.sr.patches import Crops, Patches
from nas_apps.tasks.sr.photographs import NAME
from nas_apps.tasks.sr.published import find
from nas_apps.tasks.sr.sets import PhotoSet, count_notice, halves, load_photos, load_test
from nas_apps.tasks.sr.spaces import OPS, SRSpace
from nas_apps.tasks.sr.teacher import Teacher
from nas_apps.tasks.sr.tree import Tree
from nas_apps.tasks.sr.upscale import Enlarger
from nas_apps.tasks.sr.upscale import load as load_enlarger

PROTOCOL: Protocol = "C"
SIZE = (256, 256)  # of the image that costs are told of, in low resolution


@dataclass(frozen=True)
class SRTask:
    """Images, enlarged."""

    data: str = NAME
    """"photographs", those that scikit-image and scikit-learn ship; or a folder of images: DIV2K, Flickr2K, any."""
    lr: str | None = None
    """A folder of their low-resolution images; made here, as MATLAB would, when not given."""
    tests: tuple[str, ...] = ()
    """Folders of images to measure a trained network on, each by its name: Set5, Set14, ..."""
    held_out: int | None = None
    """Images of a folder that are kept for the evaluations of a search; a tenth, and at most 10, when not given."""
    skip_faulty: bool = False
    """Leave out images that cannot be used, and say so."""
    scale: int = 4
    tree: Tree = Tree()
    channels: int = 64
    ops_per_cell: int = 5
    ops: tuple[str, ...] = OPS
    widths: tuple[float, ...] = SRSpace.widths
    teacher: str | None = None
    """The file of a network that spandrel knows, whose images are learned from; the real ones when not given."""
    loss: Loss = Loss()
    train_share: float = 0.5
    """Share of the training images that the weights learn from in a bilevel search."""
    cache: str | None = None
    """Where decoded images are kept; the user's own cache folder when not given."""

    network: ClassVar[type] = Network
    weights: ClassVar[type] = Weights
    batches: ClassVar[type] = Crops
    goal: ClassVar[tuple[str, Literal["max", "min"]]] = ("psnr_c", "max")
    twice_differentiable: ClassVar[bool] = True
    classifies: ClassVar[bool] = False
    on_policy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        bounded(self, SHARE, "train_share")
        bounded(self, COUNT, "held_out")
        up_factor(self.space.tree, self.scale)
        names = [set_name(Path(folder)) for folder in self.tests]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tests: got {', '.join(twice)} twice; allowed: folders of different names")

    @property
    def space(self) -> SRSpace:
        """What is searched."""
        return SRSpace(self.tree, self.channels, self.ops_per_cell, self.ops, self.widths)

    def choices(self, *, edges: int = 0) -> Space:
        return self.space.choices(edges)

    def canonical(self, genotype: Genotype) -> Genotype:
        """Without what cells decide that are not in the network."""
        return self.space.canonical(genotype)

    def prices(self, phase: Phase) -> Mapping[str, Price]:
        """Expected parameters and multiply-adds, which do not add up over options: an operation costs what the widths
        around it make of it, and nothing where no exit needs it."""
        return prices(self.space, self.scale, SIZE)

    def build(self, fill: Fill, phase: Phase) -> Restoration:
        network = Upscaler(fill, self.space, phase.network, self.scale)
        sandwich = phase.name == "search" and self.space.has_widths
        teacher = None if self.teacher is None else Teacher(self.teacher, self.scale)
        return Restoration(network, self.loss, sandwich=sandwich, teacher=teacher)

    def optimisation(self, objective: nn.Module, phase: Phase) -> Optimisation:
        return optimisation(objective, phase.weights)

    def streams(self, objective: nn.Module, phase: Phase, runtime: Runtime, *, seed: int, halves: bool) -> Streams:
        crops: Crops = phase.data
        train = self._photos().train.of_side(crops.side, skip=self.skip_faulty)
        others = [self._photos().valid] if phase.name == "search" else self._judges()
        if runtime.leads:
            for notice in dict.fromkeys(line for pairs in (train, *others) for line in pairs.notices()):
                logs.say(notice)
        parts = self._halves(train) if halves else (train,)
        seed = mix(seed, phase.name == "train")
        first, *second = (
            Patches(pairs, crops, phase.batch_size, runtime, seed=seed, use=use)
            for pairs, use in zip(parts, ("train", "valid"), strict=False)
        )
        return Streams(first, Tagged(second[0], **{SANDWICH: False}) if second else first, first.epoch)

    def evaluate(self, objective: nn.Module, phase: Phase, runtime: Runtime) -> dict[str, float]:
        """PSNR and SSIM by protocol C, with those of bicubic interpolation: of a search on images it holds out, of a
        final training on the test images and on each of `tests`, by its name. Only the photographs and DIV2K have test
        images of their own; for another folder, the first of `tests` stands for them, or else what a search holds out.
        """
        if phase.name == "search":
            return _figures(objective, self._photos().valid, runtime)
        first = self._judges()[0]
        found = _figures(objective, first, runtime)
        for pairs in self._tests():
            own = found if pairs is first else _figures(objective, pairs, runtime)
            found |= {f"{pairs.name}/{name}": own[name] for name in _NAMES}
        return found

    def example(self, objective: nn.Module, phase: Phase) -> tuple[nn.Module, tuple[object, ...]]:
        return objective.get_submodule("network"), (torch.zeros(1, 3, *SIZE),)

    def data_facts(self) -> str:
        tests = [f"{pairs.name}: {len(pairs)} images to test on" for pairs in self._tests()]
        return "; ".join([self._photos().facts(), *tests, *filter(None, map(count_notice, self._tests()))])

    def find(self, name: str) -> Genotype:
        return find(name, self.space)

    def look_up(self, genotype: Genotype, table: Path) -> dict[str, float]:
        raise UserError(f"{table}: task sr has no tables of known results")

    def export(self, objective: nn.Module, genotype: Genotype, phase: Phase, folder: Path) -> None:
        """Write what rebuilds the network, and a comparison of it with bicubic interpolation on an image."""
        about = {"data": self.data, "protocol": PROTOCOL}
        export.write(objective.network, genotype, self.space, phase.network, folder, about=about)
        pairs = self._judges()[0]
        lr = to_tensor(pairs.lr(0), next(objective.parameters()).device)
        with torch.no_grad():
            ours = to_pixels(objective.network(lr[None])[0])
        write_comparison(folder / "comparison.png", pairs, 0, ours, protocol=PROTOCOL)

    def load(self, folder: Path) -> Enlarger:
        """What enlarges images with the network of a run."""
        return load_enlarger(folder)

    def _judges(self) -> list[Pairs]:
        """The images that a final training is judged by: first those that its own figures are of."""
        photos, tests = self._photos(), self._tests()
        return [photos.test, *tests] if photos.test else tests or [photos.valid]

    def _cache(self) -> Path:
        return default_cache() if self.cache is None else Path(self.cache).expanduser()

    def _photos(self) -> PhotoSet:
        return _photos(self.data, self.scale, self._cache(), self.lr, self.held_out, self.skip_faulty)

    def _tests(self) -> list[Pairs]:
        return [_test(folder, self.scale, self._cache(), self.skip_faulty) for folder in self.tests]

    def _halves(self, train: Pairs) -> tuple[Pairs, Pairs]:
        # One split for all seeds: what the architecture learns from is the same for every method and seed.
        return halves(train, self.train_share)


_NAMES = ("psnr_c", "ssim_c", "bicubic_psnr_c")


def _figures(objective: nn.Module, pairs: Pairs, runtime: Runtime) -> dict[str, float]:
    ours, theirs = [], []
    for place in range(runtime.rank, len(pairs), runtime.world):
        hr, lr, grey = pairs.hr(place), pairs.lr(place), pairs.grey(place)
        with torch.no_grad():
            image = to_pixels(objective.network(to_tensor(lr, runtime.device)[None])[0])
        ours.append(compare(image, hr, pairs.scale, PROTOCOL, grey=grey))
        theirs.append(_bicubic(pairs, place))
    ours, theirs = ([one for some in runtime.gather(mine) for one in some] for mine in (ours, theirs))
    mean, bicubic = average(ours), average(theirs)
    return dict(zip(_NAMES, (mean.psnr, mean.ssim, bicubic.psnr), strict=True))


@lru_cache(maxsize=4096)
def _bicubic(pairs: Pairs, place: int) -> Figures:
    return bicubic_figures(pairs.hr(place), pairs.scale, PROTOCOL, grey=pairs.grey(place), lr=pairs.lr(place))


@lru_cache(maxsize=4)
def _photos(data: str, scale: int, cache: Path, lr: str | None, held_out: int | None, skip: bool) -> PhotoSet:
    return load_photos(data, scale, cache, lr=lr and Path(lr), held_out=held_out, skip=skip)


@lru_cache(maxsize=16)
def _test(folder: str, scale: int, cache: Path, skip: bool) -> Pairs:
    return load_test(folder, scale, cache, skip=skip)
