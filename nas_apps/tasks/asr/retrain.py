"""The final training of a recipe in ESPnet's own trainer; what it leaves is what our own training leaves."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from nas_apps.console import ended_as_interrupted, fail, say
from nas_apps.core import checkpoint, config, files, logs, runs
from nas_apps.core.checkpoint import Checkpoints, checkpoints_of
from nas_apps.core.config import Recipe
from nas_apps.core.ending import leave
from nas_apps.core.errors import UserError, require
from nas_apps.core.folder import check, claim, hold
from nas_apps.core.genotype import Genotype
from nas_apps.core.learners import train_learner
from nas_apps.core.runtime import Runtime, start
from nas_apps.tasks.asr import espnet_recipe
from nas_apps.tasks.asr.cache import made_once
from nas_apps.tasks.asr.decode import Decoding
from nas_apps.tasks.asr.espnet_program import Told, run
from nas_apps.tasks.asr.espnet_recipe import PARTS, STATISTICS
from nas_apps.tasks.asr.export import yaml_text
from nas_apps.tasks.asr.task import ASRTask

BEST = "exp/valid.acc.ave.pth"
"""The average of the `keep_nbest_models` epochs with which the decoder is best on the dev set."""

NAMES = {"loss": "loss", "ctc_loss": "loss_ctc", "attention_loss": "loss_att", "accuracy": "acc"}
"""Our names of figures, and those of ESPnet's trainer."""


def retrain(
    recipe: Recipe,
    genotype: Genotype,
    folder: Path,
    *,
    resume: bool = False,
    more: Path | None = None,
    processes: int = 1,
    command: str | None = None,
) -> dict[str, Any]:
    """Train the network of a genotype with ESPnet's programs, and score what they decode; the summary that is left.

    Args:
        more: a YAML of ESPnet's own settings, for what a recipe does not decide.
        processes: devices that ESPnet trains on.
    """
    task = recipe.task
    if not isinstance(task, ASRTask):
        raise UserError(f"task: got {type(task).__name__}; allowed with ESPnet's trainer: asr")
    genotype.validate(task.choices())
    with start(recipe.device, recipe.precision) as runtime, ExitStack() as held:
        espnet_recipe.refuse(recipe, task.source().corpus, runtime, processes)
        check(folder, recipe, "train", runtime, resume=resume)
        learner, streams = train_learner(recipe, genotype, runtime)
        training = espnet_recipe.training_config(recipe, genotype, more)
        held.enter_context(hold(folder, runtime))
        checkpoints = _checkpoints(checkpoints_of(folder, recipe, learner, streams))
        espnet = folder / "espnet"
        claim(folder, recipe, task.choices())
        write(espnet, recipe, task, training)
        genotype.save(folder / "genotype.json")
        heard = _programs(espnet, recipe, task, runtime, processes)
        weights = torch.load(espnet / BEST, map_location="cpu", weights_only=True)
        network = learner.objective.get_submodule("network")
        network.load_state_dict({name: w for name, w in weights.items() if not name.startswith("frontend.")})
        steps = _log_epochs(folder, espnet / "exp" / "checkpoint.pth")
        with learner.arch.using(learner.arch.expected()), runtime.autocast():
            figures = task.figures(learner.objective.eval(), recipe.train, runtime, heard)
        found = {f"evaluation/{name}": value for name, value in figures.items()}
        logs.add_line(folder / "metrics.jsonl", steps, {"epoch": recipe.train.epochs - 1, **found})
        checkpoints.save(learner, streams, steps, last=True)
        task.export(learner.objective, genotype, recipe.train, folder)
        leave(folder, recipe, genotype, runtime, stage="train", steps=steps, command=command)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def write(folder: Path, recipe: Recipe, task: ASRTask, training: dict[str, Any]) -> None:
    """Write what ESPnet's programs read: data/{train,dev,test}, the statistics of the features, train.yaml."""
    source = task.source()
    speech = {"train": source.train(task.train_share, split=False)[0]}
    speech |= {part: source.heard(part, recipe.train.data.most) for part in ("dev", "test")}
    espnet_recipe.write_config(folder / "train.yaml", training)
    files.write_text(folder / "collect_stats.yaml", yaml_text(espnet_recipe.stats_config(training)))
    if training["normalize_conf"]:
        files.write(folder / STATISTICS, source.statistics.read_bytes())
    for part, some in speech.items():
        espnet_recipe.write_data(folder / "data" / part, some.utterances)


def _programs(
    folder: Path, recipe: Recipe, task: ASRTask, runtime: Runtime, processes: int
) -> dict[str, dict[str, str]]:
    """Run them, each unless it is done; what the best network hears, by part and utterance."""
    made_once(folder / "stats", lambda new: _collect_stats(folder, new, len(task.source().tokens)))
    cuda = runtime.device.type == "cuda"
    several = ["--multiprocessing_distributed", "true"] if processes > 1 else []
    device = ["--ngpu", str(processes * cuda), "--use_amp", str(runtime.bf16).lower(), *several]
    shown = r"epoch:train:\d+-(?P<batch>\d+)batch:.* loss=(?P<loss>[\d.]+(e[+-]\d+)?)"
    told = Told("epoch", recipe.train.epochs, r"(\d+)epoch results", shown)
    run("train", ["--config", "train.yaml", *device], folder, "train.log", told)
    heard = {}
    for part in ("dev", "test"):
        made_once(folder / f"decoded_{part}", partial(_infer, folder, part, task.decoding, cuda))
        lines = files.read_text(folder / f"decoded_{part}" / "1best_recog" / "text", "what was heard").splitlines()
        heard[part] = {name: text for name, _, text in (line.partition(" ") for line in lines)}
    return heard


def _collect_stats(folder: Path, new: Path, tokens: int) -> None:
    arguments = ["--config", "collect_stats.yaml", "--output_dir", new.name]
    run("train", arguments, folder, "collect_stats.log", Told("batch", None, r"Niter: (\d+)"))
    for name in PARTS:  # ESPnet's recipes add the number of tokens, by which batches of `batch_bins` are counted
        lines = (new / name / "text_shape").read_text().splitlines()
        files.write_text(new / name / "text_shape.char", "".join(f"{line},{tokens}\n" for line in lines))


def _infer(folder: Path, part: str, decoding: Decoding, cuda: bool, new: Path) -> None:
    settings = {
        "asr_train_config": "exp/config.yaml",
        "asr_model_file": BEST,
        "data_path_and_name_and_type": f"data/{part}/wav.scp,speech,sound",
        "output_dir": new.name,
        "beam_size": decoding.beam,
        "ctc_weight": decoding.ctc,
        "penalty": decoding.length_bonus,
        "ngpu": int(cuda),
    }
    arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    total = len((folder / "data" / part / "wav.scp").read_text().splitlines())
    run("infer", arguments, folder, f"infer_{part}.log", Told("utterance", total, "best hypo"))


def _checkpoints(ours: Checkpoints) -> Checkpoints:
    """Those that our own training refuses to go on with; refuses those of our own training."""
    made = replace(ours, recipe=json.dumps({**json.loads(ours.recipe), "trainer": "espnet"}, sort_keys=True))
    if made.path.exists() and checkpoint.read(made.path)["recipe"] != made.recipe:
        raise UserError(f"{made.path.parent}: holds a training that is not ESPnet's; allowed: another folder")
    return made


def _log_epochs(folder: Path, path: Path) -> int:
    """Log what ESPnet's trainer counted in each epoch; the steps it took."""
    number = np.float64(0)
    with torch.serialization.safe_globals([timedelta, number.__reduce__()[0], np.dtype, type(number.dtype)]):
        epochs = torch.load(path, map_location="cpu", weights_only=True)["reporter"]["stats"]
    logs.cut(folder, -1)
    for epoch, parts in epochs.items():
        train, valid, step = parts["train"], parts["valid"], int(parts["train"]["total_count"])
        figures = {f"train/{ours}": float(train[theirs]) for ours, theirs in NAMES.items()}
        figures |= {f"evaluation/dev_{ours}": float(valid[theirs]) for ours, theirs in NAMES.items()}
        logs.add_line(folder / "metrics.jsonl", step, {"epoch": epoch - 1, **figures})
        seconds = sum(part["time"].total_seconds() for part in (train, valid))
        logs.add_line(folder / "timing.jsonl", step, {"epoch": epoch - 1, "seconds": round(seconds, 3)})
    return step


def main(arguments: Sequence[str]) -> None:
    """`retrain`, with the arguments of `nas-apps train`, and ESPnet's own settings."""
    parser = _Parser(prog="python -m nas_apps.tasks.asr.espnet retrain", description=__doc__, allow_abbrev=False)
    parser.add_argument("sources", nargs="*", help="YAML files, the later over the earlier, and key=value overrides")
    parser.add_argument("--run", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--genotype", required=True, help="a genotype's file, or the name of a published one")
    parser.add_argument("--like", type=Path, help="the folder of a training: as many parameters as its network")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    parser.add_argument("--espnet", type=Path, help="a YAML of ESPnet's settings that a recipe does not decide")
    parser.add_argument("--nproc", type=int, default=1, help="CUDA devices to train on")
    given = parser.parse_intermixed_args(arguments)
    require("espnet2", extra="asr")
    recipe = config.load([s for s in given.sources if "=" not in s], [s for s in given.sources if "=" in s])
    genotype = runs.find_genotype(given.genotype, recipe)
    recipe = recipe if given.like is None else runs.as_large(recipe, genotype, given.like)
    command = shlex.join(["python", "-m", "nas_apps.tasks.asr.espnet", "retrain", *arguments])
    how = {"resume": given.resume, "more": given.espnet, "processes": given.nproc, "command": command}
    try:
        with ended_as_interrupted():
            retrain(recipe, genotype, given.run, **how)
    except KeyboardInterrupt:
        fail("interrupted; the same command with --resume goes on from the last epoch", 130)
    say(str(given.run / "summary.json"))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; allowed: see {self.prog} --help")
