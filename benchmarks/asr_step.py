"""What a step of a search for a speech encoder costs, relative to a training step of a Conformer of as many blocks.

    python benchmarks/asr_step.py --device cpu --repeats 9

The Conformer is ESPnet's own; both have the same decoder, loss and batch, of noise. All take turns, a step each, so
that a machine that is busy for a while is busy for all of them, and every ratio is that of two steps of the same turn.
Seconds are those of the clock on CUDA, and elsewhere those that the process had of the processors.

Two ratios are given: that of one step of the super-net's weights, which is one pass over one batch as the Conformer's
is, and that of the whole step of the method, which in a bilevel search has a second batch for the architecture.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Annotated, Any

import torch
import typer

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Mixed
from nas_apps.core.folder import device_name
from nas_apps.core.learner import Learner
from nas_apps.core.parts.schedule import TRAIN, WeightsOnly
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime, start
from nas_apps.core.tagged import Tagged
from nas_apps.core.task import Streams
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.asr.encoder import CellEncoder, Network
from nas_apps.tasks.asr.model import Conformer, Model, build_conformer, build_model
from nas_apps.tasks.asr.objective import AUGMENT, SpeechObjective
from nas_apps.tasks.asr.optimisation import Weights, optimisation
from nas_apps.tasks.asr.spaces import OPS, ASRSpace

METHODS = ("darts", "pc_darts", "gdas", "proxylessnas", "single_darts", "snas")
MIDDLE = Progress(25, 50)
"""Where in a search the steps are taken: after every warm-up."""
BANDS = 80


@dataclass(frozen=True)
class Sizes:
    """Of the networks, and of the batch."""

    cells: int
    nodes: int
    width: int
    ff: int
    decoder_blocks: int
    tokens: int
    batch_size: int
    frames: int
    characters: int


class Noise:
    """A stream of one batch, again and again."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        rng, number = torch.Generator().manual_seed(0), sizes.batch_size
        lengths = torch.linspace(sizes.frames, 0.7 * sizes.frames, number).long()
        text = torch.randint(2, sizes.tokens - 1, (number, sizes.characters), generator=rng)
        batch = {
            "speech": torch.randn(number, sizes.frames, BANDS, generator=rng),
            "speech_lengths": lengths,
            "text": text,
            "text_lengths": torch.full((number,), sizes.characters),
        }
        self.batch = {name: tensor.to(device) for name, tensor in batch.items()}
        self.cycle = 0

    def __next__(self) -> dict[str, torch.Tensor]:
        self.cycle += 1
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {"cycle": self.cycle}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.cycle = state["cycle"]


def learner(encoder: Any, arch: Arch, sizes: Sizes, runtime: Runtime) -> tuple[Learner, Streams]:
    """What trains the recogniser around an encoder, and what it trains on."""
    tokens = ("<blank>", "<unk>", *(chr(0x4E00 + i) for i in range(sizes.tokens - 3)), "<sos/eos>")
    model = Model(sizes.decoder_blocks, ff=sizes.ff, normalize="utterance")
    objective = SpeechObjective(build_model(encoder, tokens, model)).to(runtime.device)
    phase = Phase("search", None, None)
    made = Learner(objective, arch.to(runtime.device), optimisation(objective, Weights()), phase, runtime)
    return made, Streams(Noise(sizes, runtime.device), Tagged(Noise(sizes, runtime.device), **{AUGMENT: False}), 1)


def conformer(sizes: Sizes, runtime: Runtime) -> Callable[[], None]:
    """A training step of the Conformer."""
    encoder = build_conformer(Conformer(sizes.cells, sizes.width, ff=sizes.ff), BANDS)
    made, streams = learner(encoder, Arch({}, {}), sizes, runtime)
    return lambda: step(made, lambda: WeightsOnly()(made, streams))


def method(
    name: str, ops: tuple[str, ...], sizes: Sizes, runtime: Runtime
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step of the super-net's weights under a method, and a step of its search."""
    variant, space = VARIANTS[name], ASRSpace(nodes=sizes.nodes, ops=ops)
    arch = Arch(space.choices(edges=variant.edge_set if variant.edges else 0), variant.relaxations)
    encoder = CellEncoder(Mixed(arch, variant.wiring), space, Network(sizes.cells, sizes.width), BANDS)
    made, streams = learner(encoder, arch, sizes, runtime)
    return (
        lambda: step(made, lambda: made.weight_step(*made.pull(streams.train, use=TRAIN))),
        lambda: step(made, lambda: variant.schedule(made, streams)),
    )


def step(made: Learner, take: Callable[[], object]) -> None:
    """One step in the middle of a run."""
    made.begin(MIDDLE)
    take()


def seconds(ready: Mapping[str, Callable[[], None]], runtime: Runtime, repeats: int) -> dict[str, list[float]]:
    """The time of `repeats` steps of each, taken in turns after two steps each that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in ready}
    for turn in range(-2, repeats):
        for name, take in ready.items():
            begun = _now(runtime)
            take()
            if turn >= 0:
                taken[name].append(_now(runtime) - begun)
    return taken


def _now(runtime: Runtime) -> float:
    if runtime.device.type != "cuda":
        return process_time()
    torch.cuda.synchronize(runtime.device)
    return perf_counter()


def cell(times: list[float], bases: list[float]) -> str:
    """The median of the ratios of two steps of a turn, and their spread."""
    ratios = [time / base for time, base in zip(times, bases, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    cells: Annotated[int, typer.Option(help="Cells, and blocks of the Conformer.")] = 2,
    nodes: Annotated[int, typer.Option(help="Nodes of a cell.")] = 3,
    width: Annotated[int, typer.Option(help="Of a frame.")] = 64,
    ff: Annotated[int, typer.Option(help="Of the feed-forward layers of the Conformer and the decoder.")] = 256,
    ops: Annotated[str, typer.Option(help="The options of an edge.")] = ",".join(op for op in OPS if op != "ffn_8"),
    decoder_blocks: Annotated[int, typer.Option(help="Of the decoder.")] = 1,
    tokens: Annotated[int, typer.Option(help="Different characters, with three marks.")] = 430,
    batch_size: Annotated[int, typer.Option(help="Utterances in a batch.")] = 16,
    frames: Annotated[int, typer.Option(help="Of the longest utterance.")] = 160,
    characters: Annotated[int, typer.Option(help="Of each utterance.")] = 6,
    repeats: Annotated[int, typer.Option(help="Steps of each that are timed.", min=1)] = 9,
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 1,
) -> None:
    """Print a table of what a search step costs, method by method."""
    torch.set_num_threads(threads)
    sizes = Sizes(cells, nodes, width, ff, decoder_blocks, tokens, batch_size, frames, characters)
    with start(device, precision) as runtime:
        ready = {"conformer": conformer(sizes, runtime)}
        for name in METHODS:
            ready[f"{name}, weights"], ready[f"{name}, search"] = method(name, tuple(ops.split(",")), sizes, runtime)
        taken = seconds(ready, runtime, repeats)
        typer.echo(
            f"{device_name(runtime.device)}, torch {torch.__version__}, {'bf16' if runtime.bf16 else 'fp32'}; {sizes}; "
            f"{len(ops.split(','))} options an edge; {repeats} steps; "
            f"a step of the Conformer takes {statistics.median(taken['conformer']):.3f} s\n"
        )
    typer.echo("| method | step of the weights | step of the search |\n| --- | --- | --- |")
    for name in METHODS:
        pair = (cell(taken[f"{name}, {kind}"], taken["conformer"]) for kind in ("weights", "search"))
        typer.echo(f"| {name} | {' | '.join(pair)} |")


if __name__ == "__main__":
    typer.run(main)
