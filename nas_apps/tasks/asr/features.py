"""Log-mel features, made once for the utterances of a part of a corpus and then read from one file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from nas_apps.core.bounds import COUNT, bounded
from nas_apps.core.cache import key, made_once, stamp
from nas_apps.core.errors import UserError, require
from nas_apps.tasks.asr.audio import read_audio
from nas_apps.tasks.asr.corpus import Utterance

_VERSION = 1  # of what is made from the same settings


@dataclass(frozen=True)
class Mels:
    """How features are made; ESPnet's defaults, which its AISHELL recipe keeps. Lengths are in samples; a window of
    None is as long as the transform."""

    n_fft: int = 512
    window: int | None = None
    hop: int = 128
    bins: int = 80

    def __post_init__(self) -> None:
        bounded(self, COUNT, "n_fft", "window", "hop", "bins")
        if self.window is not None and self.window > self.n_fft:
            raise ValueError(f"window: got {self.window}; allowed: up to n_fft, {self.n_fft}")

    def conf(self, rate: int) -> dict[str, int | None]:
        """The `frontend_conf` with which ESPnet makes the same features."""
        return {"fs": rate, "n_fft": self.n_fft, "win_length": self.window, "hop_length": self.hop, "n_mels": self.bins}


@lru_cache(maxsize=4)
def _frontend(settings: Mels, rate: int) -> nn.Module:
    from espnet2.asr.frontend.default import DefaultFrontend

    frontend: nn.Module = DefaultFrontend(**settings.conf(rate), frontend_conf=None)
    return frontend.eval()


def log_mels(samples: Tensor, rate: int, settings: Mels | None = None) -> Tensor:
    """The features of an utterance, float32 [T, bins], from its samples [N]: ESPnet's own frontend on it alone.

    No frames where there are not enough samples for one.
    """
    settings = settings or Mels()
    if len(samples) <= settings.n_fft // 2:  # the transform mirrors that many at both ends
        return torch.zeros(0, settings.bins)
    with torch.no_grad():
        features: Tensor = _frontend(settings, rate)(samples[None].float(), torch.tensor([len(samples)]))[0][0]
    return features


@final
class Features:
    """The features of some utterances.

    Args:
        ids: of the utterances.
        lengths: how many frames each has `[N]`.
        frames: those of all, one utterance after the other, float32 `[sum of lengths, bins]`.
        skipped: what is wrong with the audio of an utterance that has none, by its id.
        name: of all that the features depend on.
    """

    def __init__(
        self,
        ids: Sequence[str],
        lengths: NDArray[np.int64],
        frames: NDArray[np.float32],
        skipped: Mapping[str, str] | None = None,
        name: str = "",
    ) -> None:
        self._row = {name: row for row, name in enumerate(ids)}
        self._ends, self._frames = np.cumsum(lengths), frames
        self.bins, self.skipped = int(frames.shape[1]), dict(skipped or {})
        self._lengths, self.name = lengths, name

    def length(self, utterance: Utterance) -> int:
        """How many frames an utterance has."""
        return int(self._lengths[self._row[utterance.id]])

    def of(self, utterance: Utterance) -> NDArray[np.float32]:
        """The frames of an utterance, [T, bins]: read-only, and read from the disk when they are looked at."""
        row = self._row[utterance.id]
        return self._frames[self._ends[row] - self._lengths[row] : self._ends[row]]


def make_features(
    utterances: Sequence[Utterance], rate: int, cache: Path, settings: Mels | None = None, *, skip: bool = False
) -> Features:
    """The features of utterances, made below `cache` unless they are there: for these settings and these files, by
    their paths, sizes and times.

    skip: leave out utterances whose audio is at fault, and keep what is wrong with them in `skipped`; UserError for the
    first of them otherwise.
    """
    require("espnet2", "soundfile", extra="asr")
    settings = settings or Mels()
    if twice := [name for name, number in Counter(u.id for u in utterances).items() if number > 1]:
        raise UserError(f"{twice[0]}: two utterances have this name ({len(twice)} such names); allowed: one")
    name = f"log_mels-{key(_VERSION, settings, rate, [(u.id, u.begin, u.end, *stamp(u.audio)) for u in utterances])}"
    folder = made_once(cache.expanduser() / name, lambda new: _make(new, utterances, rate, settings, skip=skip))
    skipped: dict[str, str] = json.loads((folder / "skipped.json").read_text())
    if skipped and not skip:
        raise UserError(next(iter(skipped.values())))
    lengths = np.load(folder / "lengths.npy")
    frames = np.memmap(folder / "frames.f32", "<f4", "r", shape=(int(lengths.sum()), settings.bins))
    return Features([u.id for u in utterances], lengths, frames, skipped, name)


def _make(folder: Path, utterances: Sequence[Utterance], rate: int, settings: Mels, *, skip: bool) -> None:
    lengths, skipped = np.zeros(len(utterances), np.int64), {}
    with (folder / "frames.f32").open("wb") as file:
        for number, utterance in enumerate(tqdm(utterances, "making features", leave=False, disable=None)):
            try:
                samples = read_audio(utterance.audio, rate, utterance.begin, utterance.end)
            except UserError as error:
                if not skip:
                    raise
                skipped[utterance.id] = str(error)
                continue
            frames = log_mels(torch.from_numpy(samples), rate, settings).numpy()
            lengths[number] = len(frames)
            file.write(frames.astype("<f4").tobytes())
        file.flush()
        os.fsync(file.fileno())
    if not lengths.any():
        some = next(iter(skipped.values()), "all of it is too short")
        raise UserError(f"no features: none of the audio of {len(utterances)} utterances can be used: {some}")
    np.save(folder / "lengths.npy", lengths)
    (folder / "skipped.json").write_text(json.dumps(skipped))
