"""A trained recogniser as ESPnet's own decoding takes it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch import nn

from nas_apps.core import files
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.tasks.asr.encoder import Network, encoder_conf
from nas_apps.tasks.asr.model import Model, espnet_config
from nas_apps.tasks.asr.quiet import quiet


def write(folder: Path, network: nn.Module, config: dict[str, Any]) -> None:
    """Write config.yaml and model.pth: `python -m nas_apps.tasks.asr.espnet infer --asr_train_config config.yaml
    --asr_model_file model.pth ...` decodes recordings with them. What features are made of has no weights, so the
    network that was trained on features is the one that ESPnet runs on recordings.

    Args:
        config: a `model_config`, whose statistics are copied into the folder.
    """
    statistics = config["normalize_conf"].get("stats_file")
    if statistics is not None:
        there = folder / "feats_stats.npz"
        files.write(there, Path(statistics).read_bytes())
        config = {**config, "normalize_conf": {"stats_file": str(there.absolute())}}
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    files.write(folder / "model.pth", buffer.getbuffer())
    files.write_text(folder / "config.yaml", yaml_text(config))


def model_config(
    genotype: Genotype,
    encoder: Network,
    model: Model,
    *,
    tokens: Sequence[str],
    frontend: Mapping[str, Any],
    statistics: Path | None,
) -> dict[str, Any]:
    """The part of ESPnet's config.yaml that says what a model is, with `frontend` making the features."""
    return {
        "token_list": list(tokens),
        "token_type": "char",
        "input_size": None,
        "init": None,
        "frontend": "default",
        "frontend_conf": dict(frontend),
        "encoder": "darts_conformer",
        "encoder_conf": encoder_conf(genotype, encoder),
        "model": "espnet",
        **espnet_config(model, statistics),
        **_REST,
    }


def yaml_text(config: Mapping[str, Any]) -> str:
    """A configuration as ESPnet reads it."""
    return yaml.safe_dump(dict(config), allow_unicode=True, sort_keys=False)


def load(folder: Path) -> Any:
    """ESPnet's own `Speech2Text` with the recogniser of a run: called with speech, floats [T], it gives texts."""
    from nas_apps.tasks.asr import espnet_task

    weights = folder / "model.pth"
    config = yaml.safe_load(files.read_text(folder / "config.yaml", "a trained recogniser"))
    if "stats_file" in config["normalize_conf"]:  # where it was written, and the folder may have moved since
        config["normalize_conf"]["stats_file"] = str((folder / "feats_stats.npz").absolute())
    if not weights.is_file():
        raise UserError(f"{weights}: cannot read the weights: no such file")
    espnet_task.register()
    with quiet(tasks=True):
        from espnet2.bin.asr_inference import Speech2Text
    with TemporaryDirectory() as here:
        files.write_text(Path(here, "config.yaml"), yaml_text(config))
        return Speech2Text(Path(here, "config.yaml"), weights)


_REST: Mapping[str, Any] = {
    "preencoder": None,
    "preencoder_conf": {},
    "postencoder": None,
    "postencoder_conf": {},
    "joint_net_conf": None,
    "use_preprocessor": True,
    "preprocessor": "default",
    "preprocessor_conf": {},
    "bpemodel": None,
    "non_linguistic_symbols": None,
    "cleaner": None,
    "g2p": None,
}
"""What ESPnet's task asks of a config besides, as its own defaults have it."""
