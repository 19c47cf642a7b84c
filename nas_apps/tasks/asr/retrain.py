"""The final training of a recipe in ESPnet's own trainer; what it leaves is what our own training leaves."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from getopt import GetoptError, gnu_getopt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_apps.console import ended_as_interrupted, fail, say
from nas_apps.core import checkpoint, config, files, logs, runs
from nas_apps.core.cache import made_once
from nas_apps.core.checkpoint import Checkpoints, checkpoints_of
from nas_apps.core.config import Recipe
from nas_apps.core.ending import leave
from nas_apps.core.errors import UserError, require
from nas_apps.core.folder import check, claim, hold
from nas_apps.core.genotype import Genotype
from nas_apps.core.learners import train_learner
from nas_apps.core.runtime import Runtime, start
from nas_apps.tasks.asr import espnet_recipe
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
) -> None:
    """Train the network of a genotype with ESPnet's programs, score what they decode, and leave what `runs.train` does.

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
        _load(learner.objective.get_submodule("network"), espnet / BEST)
        learner.follow()  # ESPnet has averaged already
        with learner.arch.using(learner.arch.expected()), runtime.autocast():
            figures = task.figures(learner.objective.eval(), recipe.train, runtime, heard)
        steps = _log(folder, espnet / "exp" / "checkpoint.pth", figures)
        checkpoints.save(learner, streams, steps, last=True)
        task.export(learner.objective, genotype, recipe.train, folder)
        leave(folder, recipe, genotype, runtime, stage="train", steps=steps, command=command)


def write(folder: Path, recipe: Recipe, task: ASRTask, training: dict[str, Any]) -> None:
    """Write what ESPnet's programs read: data/{train,dev,test}, the statistics of the features, train.yaml."""
    source = task.source()
    speech = {"train": source.train(task.train_share, split=False)[0]}
    phase = recipe.train
    speech |= {part: source.heard(part, phase.data.most) for part in ("dev", "test")}
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
    _complete(folder / "exp")
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


def _load(network: nn.Module, path: Path) -> None:
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("frontend.")})


def _log(folder: Path, path: Path, figures: Mapping[str, float]) -> int:
    """Log what ESPnet's trainer counted in each epoch, and the last evaluation; the steps it took."""
    logs.cut(folder, -1)
    for epoch, parts in _read(path)["reporter"]["stats"].items():
        train, valid, step = parts["train"], parts["valid"], int(parts["train"]["total_count"])
        counted = {f"train/{ours}": float(train[theirs]) for ours, theirs in NAMES.items()}
        counted |= {f"evaluation/dev_{ours}": float(valid[theirs]) for ours, theirs in NAMES.items()}
        logs.add_line(folder / "metrics.jsonl", step, {"epoch": epoch - 1, **counted})
        seconds = sum(part["time"].total_seconds() for part in (train, valid))
        logs.add_line(folder / "timing.jsonl", step, {"epoch": epoch - 1, "seconds": round(seconds, 3)})
    found = {f"evaluation/{name}": value for name, value in figures.items()}
    logs.add_line(folder / "metrics.jsonl", step, {"epoch": epoch - 1, **found})
    return step


def _complete(folder: Path) -> None:
    """Write the model of the last epoch, where ESPnet was stopped between its checkpoint and that."""
    if not (folder / "checkpoint.pth").exists():
        return
    state = _read(folder / "checkpoint.pth")
    path = folder / f"{state['reporter']['epoch']}epoch.pth"
    if not path.exists():
        buffer = io.BytesIO()
        torch.save(state["model"], buffer)
        files.write(path, buffer.getbuffer())


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint of ESPnet's trainer."""
    number = np.float64(0)
    known: list[Any] = [timedelta, number.__reduce__()[0], np.dtype, type(number.dtype)]
    with torch.serialization.safe_globals(known):
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


OPTIONS = ("run=", "genotype=", "like=", "espnet=", "nproc=", "resume")
"""Those of `nas-apps train`, and: a YAML of ESPnet's own settings, the CUDA devices to train on."""


def main(arguments: Sequence[str]) -> None:
    """`retrain`, with YAML files, key=value overrides and options."""
    try:
        found, sources = gnu_getopt(list(arguments), "", list(OPTIONS))
        given = {name.removeprefix("--"): value for name, value in found}
        name, folder, processes = given["genotype"], Path(given["run"]), int(given.get("nproc", "1"))
    except (GetoptError, KeyError, ValueError) as error:
        what = f"no --{error.args[0]}" if isinstance(error, KeyError) else str(error)
        options = ", ".join(f"--{option.replace('=', ' ...')}" for option in OPTIONS)
        raise UserError(
            f"retrain: {what}; allowed: {options}, YAML files and key=value; needed: --run, --genotype"
        ) from None
    require("espnet2", extra="asr")
    recipe = config.load([s for s in sources if "=" not in s], [s for s in sources if "=" in s])
    genotype = runs.find_genotype(name, recipe)
    recipe = runs.as_large(recipe, genotype, given["like"]) if "like" in given else recipe
    more = Path(given["espnet"]) if "espnet" in given else None
    command = shlex.join(["python", "-m", "nas_apps.tasks.asr.espnet", "retrain", *arguments])
    how: dict[str, Any] = {"resume": "resume" in given, "more": more, "processes": processes, "command": command}
    try:
        with ended_as_interrupted():
            retrain(recipe, genotype, folder, **how)
    except KeyboardInterrupt:
        fail("interrupted; the same command with --resume goes on from the last epoch", 130)
    say(str(folder / "summary.json"))
