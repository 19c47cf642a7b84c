"""Checkpoints: written whole or not at all, read without running code, refused under another recipe."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from nas_apps.core import files
from nas_apps.core.errors import UserError
from nas_apps.core.learner import Learner
from nas_apps.core.runtime import Runtime
from nas_apps.core.task import Streams

FORMAT, VERSION = "nas_apps.checkpoint", 1

_NOUNS = {"search": "search", "train": "training"}


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint of a run.

    path: where it is. recipe: what the stage depends on as JSON, by which a resume under another recipe is refused.
    every: steps from one checkpoint to the next.
    """

    path: Path
    recipe: str
    every: int
    runtime: Runtime

    def restore(self, learner: Learner, streams: Streams) -> int:
        """Bring everything back to where the checkpoint was, and return its step; 0 where there is none."""
        if not self.path.exists():
            return 0
        state = read(self.path)
        if state["recipe"] != self.recipe:
            there, here = _stage(state["recipe"]), _stage(self.recipe)
            what = "under another recipe" if there == here else f"by a {_NOUNS[there]}, and this is a {_NOUNS[here]}"
            raise UserError(f"{self.path}: written {what}; allowed: another --run folder")
        if len(state["rng"]) != self.runtime.world:
            raise UserError(f"{self.path}: written by {len(state['rng'])} processes; this run has {self.runtime.world}")
        learner.load_state_dict(state["learner"])
        streams.train.load_state_dict(state["train"])
        streams.valid.load_state_dict(state["valid"])
        _set_rng(state["rng"][self.runtime.rank])
        return int(state["step"])

    def due(self, step: int) -> bool:
        """Whether a checkpoint is written after this many steps."""
        return step % self.every == 0

    def save(self, learner: Learner, streams: Streams, step: int, *, last: bool) -> None:
        """Write the state after `step` steps, if one is due."""
        if not self.due(step) and not last:
            return
        rng = self.runtime.gather(_rng())
        if self.runtime.leads:
            state = {
                "format": FORMAT,
                "version": VERSION,
                "recipe": self.recipe,
                "step": step,
                "learner": learner.state_dict(),
                "train": streams.train.state_dict(),
                "valid": streams.valid.state_dict(),
                "rng": rng,
            }
            buffer = io.BytesIO()
            torch.save(state, buffer)
            files.write(self.path, buffer.getbuffer())
        self.runtime.wait()


def read(path: Path, *, stage: str | None = None) -> dict[str, Any]:
    """The state in a checkpoint file; a UserError for a file that is truncated, of another kind or another stage."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception:  # what torch raises for bytes it does not know is any of a dozen kinds
        raise UserError(f"{path}: truncated, or not a checkpoint; move it away to start anew") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of nas_apps; move it away to start anew")
    if state.get("version") != VERSION:
        raise UserError(f"{path}: checkpoint version {state.get('version')}; this release reads version {VERSION}")
    found = _stage(state["recipe"])
    if stage is not None and found != stage:
        raise UserError(f"{path}: written by a {_NOUNS[found]}; allowed: the folder of a {_NOUNS[stage]}")
    return state


def _stage(recipe: str) -> str:
    return "search" if "search" in json.loads(recipe) else "train"


def _rng() -> dict[str, Any]:
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype("int64")), *rest),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_rng(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype("uint32"), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
