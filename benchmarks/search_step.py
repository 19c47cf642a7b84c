"""What a step of each searching method costs, in time and in saved activations, relative to first-order DARTS.

    python benchmarks/search_step.py --device cpu --threads 1 --batch-size 8 --repeats 7

One run measures all methods, on the super-net of the DARTS space and random images of 32 x 32 pixels. The methods take
turns, a step each, so that a machine that is busy for a while is busy for all of them; every ratio is that of two steps
of the same turn. Seconds are those of the clock on CUDA, and elsewhere those that the process had of the processors.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nas_apps.core.config import Recipe, load
from nas_apps.core.folder import device_name
from nas_apps.core.latency import measure
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner
from nas_apps.core.parts.schedule import TRAIN, VALID
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime, start
from nas_apps.core.task import Streams
from nas_apps.core.variants import VARIANTS

REFERENCE = "darts"
MIDDLE = Progress(25, 50)
"""Where in a search the steps are taken: after every warm-up."""
METHODS: dict[str, tuple[str, ...]] = {
    **{name: (f"variant={name}",) for name, variant in VARIANTS.items() if variant.schedule.searches},
    "darts_2nd, by difference": ("variant=darts_2nd", "variant.schedule.exact=false"),
    "pc_darts, K = 2": ("variant=pc_darts", "variant.wiring.k=2"),
}
"""What is measured, and the overrides of a recipe that make it: the table of variants as it is, and two more."""


class Method(NamedTuple):
    """One method, ready to step."""

    recipe: Recipe
    learner: Learner
    streams: Streams

    def step(self) -> None:
        """One step of the search, as the method's schedule takes it."""
        self.learner.begin(MIDDLE)
        self.recipe.variant.schedule(self.learner, self.streams)

    @property
    def sampled(self) -> bool:
        """Whether what is computed differs from draw to draw."""
        return any(relax.noisy for relax in self.recipe.variant.relaxations.values())


class Saved:
    """Counts the bytes that autograd keeps for backward, each storage once, while `hooks()` is in force.

    held: now. peak: at most. Storages of the `without` tensors do not count: parameters and buffers are there anyway.
    """

    def __init__(self, without: Iterable[Tensor]) -> None:
        self._without = {_storage(tensor) for tensor in without}
        self._uses: Counter[int] = Counter()
        self.held = self.peak = 0

    def hooks(self) -> saved_tensors_hooks:
        """A context in which what is saved is counted, and what is freed is taken off, inside it and later."""
        return saved_tensors_hooks(lambda tensor: _Kept(tensor, self), lambda kept: kept.tensor)

    def count(self, tensor: Tensor, change: int) -> None:
        """One more use of a tensor's storage, or one less."""
        key = _storage(tensor)
        if key in self._without:
            return
        before, self._uses[key] = self._uses[key], self._uses[key] + change
        if (before == 0) != (self._uses[key] == 0):
            self.held += change * tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self.held)


class _Kept:
    """A saved tensor, for as long as a graph keeps it."""

    def __init__(self, tensor: Tensor, saved: Saved) -> None:
        self.tensor, self._saved = tensor.detach(), saved  # with its graph it would keep the graph that keeps it
        saved.count(tensor, 1)

    def __del__(self) -> None:
        self._saved.count(self.tensor, -1)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def random_images(folder: Path, *, batch_size: int) -> tuple[str, ...]:
    """Write a set of random images into `folder`; the overrides of a recipe that searches on it."""
    rng, number, path = np.random.default_rng(0), max(4 * batch_size, 40), folder / "images.npz"
    pixels, labels = rng.integers(0, 256, (number, 32, 32, 3), np.uint8), np.arange(number) % 10
    np.savez(path, x_train=pixels, y_train=labels)
    return "task=image", f"task.data={path}", f"search.batch_size={batch_size}"


def measured(folder: Path, *settings: str) -> tuple[str, ...]:
    """Measure what methods need that go by latency, on small networks; the overrides that name it."""
    file, small = folder / "latency.safetensors", ("train.network.channels=4", "train.network.cells=3")
    measure(load([], (*settings, *small)), file, cells=10)
    return *small, f"search.latency.file={file}"


def method(runtime: Runtime, *overrides: str) -> Method:
    """The method of a recipe that consists of overrides."""
    recipe = load([], overrides)
    made = Method(recipe, *search_learner(recipe, runtime))
    made.learner.begin(MIDDLE)
    return made


def saved_by_forward(made: Method, *, learn_arch: bool = True) -> float:
    """Megabytes (10^6) per image that one forward of the super-net saves for its backward.

    learn_arch: under weights with a gradient, as when the logits learn; otherwise as when the weights of the net do.
    """
    learner, saved = made.learner, Saved(_resident(made.learner))
    use, stream = (VALID, made.streams.valid) if learn_arch else (TRAIN, made.streams.train)
    batch, (draw, *_) = learner.pull(stream, use=use, learn=learn_arch)
    with saved.hooks(), learner.loss(batch, draw.leaf(grad=learn_arch)) as outcome:
        return saved.held / outcome.weight / 1e6


def saved_by_step(made: Method) -> float:
    """Megabytes (10^6) that autograd holds, at most, at any time of one step."""
    saved = Saved(_resident(made.learner))
    with saved.hooks():
        made.step()
    return saved.peak / 1e6


def _resident(learner: Learner) -> list[Tensor]:
    return [*learner.objective.parameters(), *learner.objective.buffers(), *learner.logits]


def seconds(ready: Mapping[str, Method], runtime: Runtime, *, repeats: int) -> dict[str, list[float]]:
    """The time of `repeats` steps of each method, taken in turns after two steps each that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in ready}
    for turn in range(-2, repeats):
        for name, made in ready.items():
            begun = _now(runtime)
            made.step()
            if turn >= 0:
                taken[name].append(_now(runtime) - begun)
    return taken


def _now(runtime: Runtime) -> float:
    if runtime.device.type != "cuda":
        return process_time()  # what this process had of the processors: other load on them does not count
    torch.cuda.synchronize(runtime.device)
    return perf_counter()


def peak_on_device(made: Method, runtime: Runtime) -> float:
    """Megabytes (10^6) that a CUDA device allocates, at most, in one step, over what it held before."""
    torch.cuda.synchronize(runtime.device)
    before = torch.cuda.memory_allocated(runtime.device)
    torch.cuda.reset_peak_memory_stats(runtime.device)
    made.step()
    torch.cuda.synchronize(runtime.device)
    return (torch.cuda.max_memory_allocated(runtime.device) - before) / 1e6


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Columns by heading, each a cell for every method, as Markdown."""
    rows = [["method", *columns], ["---"] * (1 + len(columns))]
    rows += [[name, *(cells[name] for cells in columns.values())] for name in METHODS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def relative(values: Mapping[str, float], digits: int = 3) -> dict[str, str]:
    """Values relative to the reference's, which is given in full."""
    base = values[REFERENCE]
    cells = {name: f"{value / base:.{digits}f}" for name, value in values.items()}
    return {**cells, REFERENCE: f"{cells[REFERENCE]} ({base:.1f} MB)"}


def time_columns(taken: Mapping[str, list[float]]) -> dict[str, dict[str, str]]:
    """The median step, the median of the ratios to the reference's step of the same turn, and their spread."""
    bases = taken[REFERENCE]
    ratios = {name: [t / base for t, base in zip(times, bases, strict=True)] for name, times in taken.items()}
    return {
        "step, s": {name: f"{statistics.median(times):.3f}" for name, times in taken.items()},
        "step": {name: f"{statistics.median(values):.2f}" for name, values in ratios.items()},
        "min to max": {name: f"{min(values):.2f} to {max(values):.2f}" for name, values in ratios.items()},
    }


def memory_columns(ready: Mapping[str, Method], runtime: Runtime, *, draws: int) -> dict[str, dict[str, str]]:
    """What a forward saves per image, what a step holds, and what it allocates where the device can tell."""

    def column(measure: Callable[[Method], float], digits: int = 3) -> dict[str, str]:
        numbers = {name: draws if made.sampled else 1 for name, made in ready.items()}
        means = {name: statistics.mean(measure(ready[name]) for _ in range(n)) for name, n in numbers.items()}
        return relative(means, digits)

    columns = {
        "saved per image, logits learn": column(saved_by_forward),
        "weights learn": column(lambda made: saved_by_forward(made, learn_arch=False)),
        "most held in a step": column(saved_by_step, 2),
    }
    if runtime.device.type == "cuda":
        columns["peak of the device"] = column(lambda made: peak_on_device(made, runtime), 2)
    return columns


def main(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 64,
    channels: Annotated[int, typer.Option(help="Channels of the first cells.")] = 16,
    cells: Annotated[int, typer.Option(help="Cells of the super-net.")] = 8,
    repeats: Annotated[int, typer.Option(help="Steps of each method that are timed.", min=1)] = 10,
    draws: Annotated[int, typer.Option(help="Draws over which the memory of sampled methods is averaged.", min=1)] = 50,
    threads: Annotated[int | None, typer.Option(help="Threads on the CPU; torch's own number when not given.")] = None,
) -> None:
    """Print a table of what a search step costs, method by method."""
    if threads is not None:
        torch.set_num_threads(threads)
    sizes = f"search.network.channels={channels}", f"search.network.cells={cells}"
    with tempfile.TemporaryDirectory() as folder, start(device, precision) as runtime:
        settings = *random_images(Path(folder), batch_size=batch_size), *sizes
        settings += measured(Path(folder), *settings)
        ready = {name: method(runtime, *settings, *overrides) for name, overrides in METHODS.items()}
        columns = time_columns(seconds(ready, runtime, repeats=repeats))
        columns |= memory_columns(ready, runtime, draws=draws)
        typer.echo(
            f"{device_name(runtime.device)}, torch {torch.__version__}, {'bf16' if runtime.bf16 else 'fp32'}; "
            f"C{channels} L{cells}, batch {batch_size}; {repeats} steps, {draws} draws; relative to {REFERENCE}\n"
        )
    typer.echo(table(columns))


if __name__ == "__main__":
    typer.run(main)
