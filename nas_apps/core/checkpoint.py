"""Checkpoints: written whole or not at all, read without running code, refused under another recipe."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas_apps.core import files
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.folder import relevant
from nas_apps.core.learner import Learner
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import rng_state, set_rng_state
from nas_apps.core.task import Streams

FORMAT, VERSION = "nas_apps.checkpoint", 3

_NOUNS = {"search": "search", "train": "training"}


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint of a run.

    path: where it is. recipe: what the stage depends on as JSON, by which a resume under another recipe is refused.
    every: steps from one checkpoint to the next. stage, rows: of a search in stages, the one that is on and the options
    that are left in it.
    """

    path: Path
    recipe: str
    every: int
    runtime: Runtime
    stage: int = 0
    rows: Mapping[str, list[list[str]]] | None = None

    def restore(self, learner: Learner, streams: Streams) -> int:
        """Bring everything back to where the checkpoint was, and return its step; 0 where there is none."""
        if not self.path.exists() or read(self.path)["stage"] != self.stage:
            return 0
        return self._restore(self.path, learner, streams)

    def go_back(self, learner: Learner, streams: Streams, epoch: int) -> int:
        """Bring everything back to the end of an epoch that was kept, and return its step."""
        return self._restore(self._kept(epoch), learner, streams)

    def _restore(self, path: Path, learner: Learner, streams: Streams) -> int:
        state = read(path)
        if state["recipe"] != self.recipe:
            there, here = _stage(state["recipe"]), _stage(self.recipe)
            what = "under another recipe" if there == here else f"by a {_NOUNS[there]}, and this is a {_NOUNS[here]}"
            raise UserError(f"{path}: written {what}; allowed: another --run folder")
        if len(state["rng"]) != self.runtime.world:
            raise UserError(f"{path}: written by {len(state['rng'])} processes; this run has {self.runtime.world}")
        learner.load_state_dict(state["learner"])
        streams.train.load_state_dict(state["train"][self.runtime.rank])
        if streams.valid is not streams.train:
            streams.valid.load_state_dict(state["valid"][self.runtime.rank])
        set_rng_state(state["rng"][self.runtime.rank])
        return int(state["step"])

    def due(self, step: int) -> bool:
        """Whether a checkpoint is written after this many steps."""
        return step % self.every == 0

    def save(self, learner: Learner, streams: Streams, step: int, *, last: bool) -> None:
        """Write the state after `step` steps, if one is due."""
        if self.due(step) or last:
            self._write(self.path, learner, streams, step)

    def keep(self, learner: Learner, streams: Streams, step: int, epoch: int, *, reach: int) -> None:
        """Keep the state of an epoch's end to go back to; those more than `reach` epochs old go."""
        self._write(self._kept(epoch), learner, streams, step)
        if self.runtime.leads:
            for path in self._kept(epoch).parent.glob("epoch_*.pt"):
                if int(path.stem.removeprefix("epoch_")) < epoch - reach:
                    path.unlink()

    def _kept(self, epoch: int) -> Path:
        return self.path.parent / "checkpoints" / f"epoch_{epoch:03d}.pt"

    def _write(self, path: Path, learner: Learner, streams: Streams, step: int) -> None:
        rng, train = self.runtime.gather(rng_state()), self.runtime.gather(streams.train.state_dict())
        valid = train if streams.valid is streams.train else self.runtime.gather(streams.valid.state_dict())
        if self.runtime.leads:
            state = {
                "format": FORMAT,
                "version": VERSION,
                "recipe": self.recipe,
                "step": step,
                "stage": self.stage,
                "rows": self.rows,
                "learner": learner.state_dict(),
                "train": train,  # of each rank: who acts lives through something of its own
                "valid": valid,
                "rng": rng,
            }
            buffer = io.BytesIO()
            torch.save(state, buffer)
            files.write(path, buffer.getbuffer())
        self.runtime.wait()


def checkpoints_of(
    folder: Path,
    recipe: Recipe,
    learner: Learner,
    streams: Streams,
    *,
    stage: int = 0,
    rows: Mapping[str, list[list[str]]] | None = None,
) -> Checkpoints:
    """The checkpoints of a phase in its run folder."""
    phase = learner.phase
    every = phase.checkpoint_steps or phase.epoch_steps or streams.epoch
    identity = json.dumps(relevant(recipe, phase.name), sort_keys=True)
    return Checkpoints(folder / "checkpoint.pt", identity, every, learner.runtime, stage, rows)


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
