"""A final training written down for ESPnet's own programs: its data as Kaldi has them, and its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import yaml

from nas_apps.core import files
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.runtime import Runtime
from nas_apps.tasks.asr.corpus import Corpus, Utterance
from nas_apps.tasks.asr.export import yaml_text
from nas_apps.tasks.asr.optimisation import Weights

STATISTICS = "feats_stats.npz"
PARTS = {"train": "train", "valid": "dev"}
"""What ESPnet calls a part of the data, and what a corpus does."""


def refuse(recipe: Recipe, corpus: Corpus, runtime: Runtime, processes: int) -> None:
    """Refuse what ESPnet's trainer has not, before anything is written."""
    device = runtime.device
    if recipe.train.drop_path:
        raise UserError(f"train.drop_path: got {recipe.train.drop_path}; allowed with ESPnet's trainer: 0")
    if recipe.train.inherit:
        raise UserError(f"train.inherit: got {recipe.train.inherit}; allowed with ESPnet's trainer: null")
    if runtime.world > 1:
        raise UserError(
            "torchrun: got several processes; allowed with ESPnet's trainer: --nproc, with which it starts its own"
        )
    if runtime.bf16 and device.type == "cpu":
        raise UserError("precision: got 'bf16' on a CPU; allowed with ESPnet's trainer: auto, fp32")
    if device.index:
        raise UserError(
            f"device: got '{device}'; allowed with ESPnet's trainer: cuda, with CUDA_VISIBLE_DEVICES={device.index}"
        )
    if processes > 1 and device.type == "cpu":
        raise UserError(f"nproc: got {processes} on a CPU; allowed with ESPnet's trainer: 1, or a CUDA device for each")

    for one in (*corpus.train, *corpus.dev, *corpus.test):
        if one.begin or one.end is not None:
            raise UserError(
                f"{one.audio}: {one.id} is a part of it; allowed with ESPnet's trainer: a file for each utterance, as "
                "ESPnet's own scripts/audio/format_wav_scp.sh cuts them"
            )


def training_config(recipe: Recipe, genotype: Genotype, more: Path | None) -> dict[str, Any]:
    """What `espnet2.bin.asr_train` is given. Paths are relative to the folder it runs in.

    Args:
        more: a YAML of ESPnet's settings that a recipe of ours does not decide.
    """
    phase = recipe.train
    model = recipe.task.espnet_config(genotype, phase)  # type: ignore[attr-defined]
    if model["normalize_conf"]:
        model["normalize_conf"] = {"stats_file": STATISTICS}
    model["model_conf"] |= {"report_cer": False, "report_wer": False}
    decided = {
        **model,
        **_data(),
        **_optimisation(phase.weights),
        "grad_clip": phase.clip or inf,
        "max_epoch": phase.epochs,
        "num_iters_per_epoch": phase.epoch_steps,
        "log_interval": phase.log_steps,
        "best_model_criterion": [["valid", "acc", "max"]],
        "seed": recipe.seed,
        "output_dir": "exp",
        "resume": True,
        "use_tensorboard": False,  # they are not among ESPnet's own dependencies
        "use_matplotlib": False,
        "num_att_plot": 0,
    }
    free = {"batch_type": "sorted", "batch_size": phase.batch_size, "keep_nbest_models": 1, "num_workers": 0}
    return {**decided, **free, **_read(more, decided)}


def stats_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What it is given to write down how long everything is. The statistics of the features are there already."""
    keys = {f"{name}_shape_file": [f"data/{part}/text"] for name, part in PARTS.items()}
    model = {**config["model_conf"], "extract_feats_in_collect_stats": False}
    return {**config, **keys, "model_conf": model, "collect_stats": True}


def write_data(folder: Path, utterances: Sequence[Utterance]) -> None:
    """Write wav.scp and text, as Kaldi has them."""
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    files.write_text(folder / "wav.scp", "".join(f"{u.id} {u.audio.expanduser().absolute()}\n" for u in ordered))
    files.write_text(folder / "text", "".join(f"{u.id} {u.text}\n" for u in ordered))


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write a configuration, unless another is there."""
    text = yaml_text(config)
    if path.exists() and files.read_text(path, "a configuration") != text:
        raise UserError(
            f"{path}: holds another configuration; allowed: the same genotype and --espnet, or another folder"
        )
    files.write_text(path, text)


def _data() -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, part in PARTS.items():
        sound, text = [f"data/{part}/wav.scp", "speech", "sound"], [f"data/{part}/text", "text", "text"]
        data[f"{name}_data_path_and_name_and_type"] = [sound, text]
        data[f"{name}_shape_file"] = [f"stats/{name}/speech_shape", f"stats/{name}/text_shape.char"]
    return data


def _optimisation(weights: Weights) -> dict[str, Any]:
    conf: dict[str, Any] = {"lr": weights.lr, "weight_decay": weights.weight_decay}
    conf |= {"momentum": weights.momentum} if weights.optimizer == "sgd" else {}
    conf |= {"betas": list(weights.betas), "eps": weights.eps} if weights.optimizer == "adam" else {}
    steps = weights.warmup_steps
    warmup = {"scheduler": "warmuplr" if steps else None, "scheduler_conf": {"warmup_steps": steps} if steps else {}}
    return {"optim": weights.optimizer, "optim_conf": conf, **warmup}


def _read(path: Path | None, decided: Mapping[str, Any]) -> dict[str, Any]:
    """The user's own settings of ESPnet."""
    if path is None:
        return {}
    try:
        found = yaml.safe_load(files.read_text(path, "settings of ESPnet")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: got no table of keys; allowed: settings of espnet2.bin.asr_train")
    for key in found:
        if key in decided:
            raise UserError(f"{path}: {key}: is decided by the recipe; allowed: settings that a recipe of ours has not")
    return found
