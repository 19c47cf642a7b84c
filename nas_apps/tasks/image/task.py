"""Image classification: spaces of cells, networks that timm knows, and data read from where they lie."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from nas_apps.core import files
from nas_apps.core.bounds import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, bounded
from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError, require, unknown
from nas_apps.core.genotype import Genotype
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.core.space import Space
from nas_apps.core.task import Optimisation, Streams
from nas_apps.tasks.image.augment import Augment
from nas_apps.tasks.image.data import Sets, load
from nas_apps.tasks.image.images import Images, split
from nas_apps.tasks.image.nasbench101 import graph_of
from nas_apps.tasks.image.network import Network, build_network
from nas_apps.tasks.image.objective import Classification, hits
from nas_apps.tasks.image.published import PUBLISHED, from_arch_string, to_arch_string
from nas_apps.tasks.image.spaces import SPACES
from nas_apps.tasks.image.streams import Feed, evaluation_batches, stream
from nas_apps.tasks.image.table import Table, best
from nas_apps.tasks.image.table_nasbench101 import look_up as look_up_graph

require("timm", "torchvision", extra="image")


@dataclass(frozen=True)
class Weights:
    """How a network's weights are optimised: timm's optimisers and schedules, by timm's names.

    The defaults are those of arXiv:1806.09055: "momentum" is SGD with momentum ("sgd" adds Nesterov's), and the cosine
    moves an epoch at a time.
    """

    optimizer: str = "momentum"
    lr: float = 0.025
    min_lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    schedule: str = "cosine"
    warmup_epochs: int = 0
    decay_epochs: float = 30.0
    """Epochs from one fall of the rate to the next, where the schedule has steps."""
    decay_rate: float = 0.1
    """What the rate falls by, where the schedule has steps."""
    power: float = 1.0
    """Of the schedule "poly": 1 is a straight line to min_lr."""
    ema: float | None = None
    """Decay of the running average of the weights that is evaluated and exported; none when not given."""
    smoothing: float = 0.0
    """Label smoothing of the loss."""

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "lr", "min_lr", "weight_decay", "warmup_epochs", "decay_rate", "power")
        bounded(self, BELOW_ONE, "momentum")
        bounded(self, POSITIVE, "decay_epochs")
        bounded(self, SHARE, "smoothing", "ema")


@dataclass(frozen=True)
class ImageTask:
    """Image classification."""

    data: str = "digits"
    """digits, CIFAR-10/100 in their original layout, an image folder, or an .npz of uint8 arrays."""
    space: Literal["darts", "darts_no_none", "s1", "s2", "s3", "s4", "nasbench201",
                   "nasbench1shot1_1", "nasbench1shot1_2", "nasbench1shot1_3"] = "darts"  # fmt: skip
    image_size: int | tuple[int, int] | None = None
    in_chans: int | None = None
    train_images: int | None = None
    """Use at most this many of the training images, drawn class by class; all when not given."""
    train_share: float = 0.5
    """Share of the training images that the weights learn from in a bilevel search; the rest is the architecture's."""
    split: Literal["stratified", "random", "index"] = "stratified"
    """How they are split; "index" cuts the set where it stands, as the code of arXiv:1806.09055 does."""
    workers: int | None = None
    """Processes that decode image files."""

    network: ClassVar[type] = Network
    weights: ClassVar[type] = Weights
    batches: ClassVar[type] = Augment
    goal: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    twice_differentiable: ClassVar[bool] = True
    classifies: ClassVar[bool] = True
    on_policy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "workers")

    def choices(self, *, edges: int = 0) -> Space:
        return SPACES[self.space].choices(edges=edges)

    def build(self, fill: Fill, phase: Phase) -> Classification:
        images, settings = self._sets().train, phase.network
        network = build_network(
            SPACES[self.space],
            fill,
            self._settings(phase),
            in_chans=images.in_chans,
            num_classes=images.num_classes,
            searching=phase.name == "search",
        )
        return Classification(network, auxiliary=settings.auxiliary, smoothing=phase.weights.smoothing)

    def optimisation(self, objective: nn.Module, phase: Phase) -> Optimisation:
        import timm.optim  # seconds to import: only what trains pays for them
        import timm.scheduler
        import timm.utils

        s = phase.weights
        try:
            optimizer = timm.optim.create_optimizer_v2(
                objective, s.optimizer, s.lr, s.weight_decay, s.momentum, filter_bias_and_bn=False
            )
        except (ValueError, AssertionError):
            raise unknown(f"{phase.name}.weights.optimizer", s.optimizer, timm.optim.list_optimizers()) from None
        known = ("cosine", "poly", "step", "tanh")  # timm's others count steps of their own, or watch a metric
        if s.schedule not in known:
            raise unknown(f"{phase.name}.weights.schedule", s.schedule, known)
        scheduler, _ = timm.scheduler.create_scheduler_v2(
            optimizer,
            s.schedule,
            max(phase.epochs, 1),
            decay_epochs=s.decay_epochs,
            decay_rate=s.power if s.schedule == "poly" else s.decay_rate,
            min_lr=s.min_lr,
            warmup_lr=s.lr / (s.warmup_epochs + 1),
            warmup_epochs=s.warmup_epochs,
        )

        def set_rates(progress: Progress) -> None:
            scheduler.step(progress.epoch)

        average = None if s.ema is None else timm.utils.ModelEmaV3(objective, decay=s.ema)
        return Optimisation(optimizer, set_rates, average)

    def streams(self, objective: nn.Module, phase: Phase, runtime: Runtime, *, seed: int, halves: bool) -> Streams:
        train, valid = self._halves() if halves else (self._sets().train,) * 2
        augment: Augment = phase.data
        feed = Feed(phase.batch_size, mix(seed, phase.name == "train"), "train", self.workers)
        first = stream(train, augment, feed, runtime)
        second = stream(valid, augment, replace(feed, use="valid"), runtime)
        return Streams(first, second, first.epoch)

    def evaluate(self, objective: nn.Module, phase: Phase, runtime: Runtime) -> dict[str, float]:
        images = self._sets().test if phase.name == "train" else self._halves()[1]
        sums = torch.zeros(3, dtype=torch.float64, device=runtime.device)
        network = objective.network
        with torch.no_grad():
            for pixels, labels in evaluation_batches(images, max(phase.batch_size, 256), runtime, self.workers):
                logits = network(pixels).float()
                loss = functional.cross_entropy(logits, labels, reduction="sum").double()
                sums += torch.stack([loss, hits(logits, labels).sum(), sums.new_tensor(len(labels))])
        means = sums[:2] / sums[2]
        runtime.average_([means], float(sums[2]))
        return {"loss": float(means[0]), "accuracy": float(means[1])}

    def example(self, objective: nn.Module, phase: Phase) -> tuple[nn.Module, tuple[object, ...]]:
        images = self._sets().train
        return objective.get_submodule("network"), (torch.zeros(1, images.in_chans, *images.size),)

    def data_facts(self) -> str:
        train, test = self._sets()
        (height, width), channels = train.size, train.in_chans
        return (
            f"{self.data}: {len(train):,} training and {len(test):,} test images of {height} x {width}, "
            f"{channels} channel{'s'[: channels > 1]}, {train.num_classes} classes"
        )

    def find(self, name: str) -> Genotype:
        if name.startswith("|"):
            return from_arch_string(name)
        if name not in PUBLISHED:
            raise UserError(f"genotype: no file {name!r}, and none published of this name: {', '.join(PUBLISHED)}")
        return PUBLISHED[name]

    def look_up(self, genotype: Genotype, table: Path) -> dict[str, float]:
        """Percent, parameters and flops as the table has them; of NAS-Bench-201 also how far below its best cell."""
        if SPACES[self.space].skeleton == "nasbench1shot1":
            return look_up_graph(table, graph_of(SPACES[self.space], genotype))
        if self.space != "nasbench201":
            raise UserError(f"{table}: a table of a benchmark's cells, and this run's space is {self.space!r}")
        known = Table.load(table)
        figures = known.look_up(to_arch_string(genotype))
        return figures | {
            f"{name}/below_best": top - figures[name] for name, top in best(known).items() if name in figures
        }

    def export(self, objective: nn.Module, genotype: Genotype, phase: Phase, folder: Path) -> None:
        """Write model.safetensors, and model.json with the arguments of `timm.create_model` that rebuild the net."""
        images, settings = self._sets().train, self._settings(phase)
        files.write(folder / "model.safetensors", save(objective.network.state_dict()))
        given = {key: asdict(settings)[key] for key in ("channels", "cells", "stem", "auxiliary")}
        arguments = {
            "model_name": "nas_cell",
            "genotype": "genotype.json",
            "space": self.space,
            **given,
            "in_chans": images.in_chans,
            "num_classes": images.num_classes,
        }
        preprocessing = {"input_size": [images.in_chans, *images.size], "mean": images.mean, "std": images.std}
        model = {"create_model": arguments, "preprocessing": preprocessing, "class_names": images.class_names}
        files.write_text(folder / "model.json", json.dumps(model, indent=1) + "\n")

    def load(self, folder: Path) -> nn.Module:
        """The exported network, as a model of timm."""
        from nas_apps.tasks.image.timm_model import load_model

        return load_model(folder)

    def _settings(self, phase: Phase) -> Network:
        settings: Network = phase.network
        if phase.name == "train" and settings.affine is False:
            raise UserError(
                "train.network.affine: got false; allowed: true or nothing, since only a super-net is without"
            )
        return settings if settings.affine is not None else replace(settings, affine=phase.name == "train")

    def _halves(self) -> tuple[Images, Images]:
        # One split for all seeds: what a search is evaluated on is the same for every method and seed.
        return split(self._sets().train, self.train_share, 0, self.split)

    def _sets(self) -> Sets:
        return _load(self.data, self.image_size, self.in_chans, self.train_images)


@lru_cache(maxsize=2)
def _load(data: str, image_size: Any, in_chans: int | None, train_images: int | None) -> Sets:
    sets = load(data, image_size, in_chans)
    if train_images is None or train_images >= len(sets.train):
        return sets
    if train_images < 1:
        raise UserError(f"task.train_images: got {train_images}; allowed: 1 and more")
    return Sets(split(sets.train, train_images / len(sets.train), 0)[0], sets.test)
