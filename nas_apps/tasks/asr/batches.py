"""Padded batches of utterances of about one length: without end for training, once for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.tasks.asr.corpus import Utterance
from nas_apps.tasks.asr.features import Features
from nas_apps.tasks.asr.subsampling import SHORTEST, subsampled
from nas_apps.tasks.asr.text import Tokens

Batch = dict[str, Tensor]
"""What ESPnet's models are called with: speech [B, T, bins] padded with zeros, text [B, L] padded with -1, and
speech_lengths and text_lengths [B] int64."""

_POOL = 20  # batches that are sorted by length together: more of it is less padding, and less of a shuffle
_USES = {"train": 0, "valid": 1}


def frames_needed(labels: Sequence[int]) -> int:
    """The frames in which CTC can say labels: one for each, and a blank between two that are equal.

    >>> frames_needed([3, 3, 5])
    4
    """
    return len(labels) + sum(a == b for a, b in zip(labels, labels[1:], strict=False))


def halves(
    utterances: Sequence[Utterance], share: float, seed: int
) -> tuple[tuple[Utterance, ...], tuple[Utterance, ...]]:
    """Utterances in two, with no speaker in both; the first has about `share` of them, and each one speaker or more."""
    counts: dict[str, int] = {}
    for utterance in utterances:
        counts[utterance.speaker] = counts.get(utterance.speaker, 0) + 1
    if len(counts) < 2:
        raise UserError(f"halves by speaker: got {len(counts)} speaker; allowed: 2 and more")
    speakers = [sorted(counts)[n] for n in np.random.default_rng(seed).permutation(len(counts))]
    reached = np.cumsum([counts[speaker] for speaker in speakers])[:-1]
    first = set(speakers[: int(np.abs(reached - share * len(utterances)).argmin()) + 1])
    return tuple(u for u in utterances if u.speaker in first), tuple(u for u in utterances if u.speaker not in first)


@dataclass(frozen=True)
class Speech:
    """Utterances that a model can be run on, with their features and labels.

    left_out: those that it cannot, by the reason.
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[tuple[int, ...], ...]
    features: Features
    left_out: Mapping[str, tuple[Utterance, ...]]

    def notices(self, part: str) -> list[str]:
        """What to tell a user of those left out, a line for each reason."""
        total = len(self.utterances) + sum(map(len, self.left_out.values()))
        return [
            f"{part}: {len(found)} of {total} utterances left out: {reason} ({found[0].id}{' ...' * (len(found) > 1)})"
            for reason, found in self.left_out.items()
        ]

    def batch(self, rows: Sequence[int] | NDArray[np.int64], device: torch.device) -> Batch:
        """The utterances of these rows, padded to the longest of them."""
        frames = [self.features.of(self.utterances[row]) for row in rows]
        labels = [self.labels[row] for row in rows]
        speech = torch.zeros(len(rows), max(map(len, frames)), self.features.bins)
        text = torch.full((len(rows), max(map(len, labels))), -1)
        for number in range(len(rows)):
            speech[number, : len(frames[number])] = torch.tensor(frames[number])
            text[number, : len(labels[number])] = torch.tensor(labels[number])
        batch = {
            "speech": speech,
            "speech_lengths": torch.tensor([*map(len, frames)]),
            "text": text,
            "text_lengths": torch.tensor([*map(len, labels)]),
        }
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def speech_of(utterances: Sequence[Utterance], features: Features, tokens: Tokens, *, training: bool) -> Speech:
    """Those of the utterances that can be learned from, or, when not `training`, decoded.

    Learned from: CTC's loss of a text that is longer than its speech is infinite, and ESPnet makes it 0, which would
    look like a perfect one. Such an utterance can be decoded, and counts then.
    """
    shortest = SHORTEST + 4 * training
    kept: list[tuple[Utterance, tuple[int, ...]]] = []
    left_out: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        labels, frames = tuple(tokens.encode(utterance.text)), features.length(utterance)
        if utterance.id in features.skipped:
            left_out.setdefault("its audio is at fault", []).append(utterance)
        elif frames < shortest:
            left_out.setdefault(f"shorter than {shortest} frames", []).append(utterance)
        elif training and subsampled(frames) < frames_needed(labels):
            left_out.setdefault("more characters than CTC can say in its time", []).append(utterance)
        else:
            kept.append((utterance, labels))
    found = {reason: tuple(some) for reason, some in left_out.items()}
    speech = Speech(tuple(u for u, _ in kept), tuple(labels for _, labels in kept), features, found)
    if not kept:
        raise UserError(f"no utterance is left: {'; '.join(speech.notices('speech')) or 'there was none'}")
    return speech


@final
class Batches:
    """An endless, resumable stream of training batches, this rank's share of each.

    In each epoch utterances are shuffled, sorted by length within pools of some batches, and the batches shuffled. What
    the last, partial batch would have is left out, which are others in each epoch. A set smaller than a batch is served
    whole.

    Args:
        speech: what is served.
        batch_size: utterances in a batch, over all ranks.
        use: streams of one seed with different uses have unrelated orders.
    """

    def __init__(
        self, speech: Speech, batch_size: int, runtime: Runtime, *, seed: int, use: Literal["train", "valid"] = "train"
    ) -> None:
        self._speech, self._runtime, self._seed = speech, runtime, mix(seed, _USES[use])
        self._lengths = np.array([speech.features.length(utterance) for utterance in speech.utterances])
        self._batch_size = min(batch_size, len(self._lengths))
        if self._batch_size < runtime.world:
            raise UserError(
                f"a batch of {self._batch_size} (batch_size {batch_size}, {len(self._lengths)} utterances) leaves some "
                f"of {runtime.world} ranks without an utterance"
            )
        self._cycle = 0
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty((0, 0), np.int64))

    @property
    def cycle(self) -> int:
        """The batches served so far."""
        return self._cycle

    @property
    def epoch(self) -> int:
        """Batches in one epoch."""
        return len(self._lengths) // self._batch_size

    def __next__(self) -> Batch:
        epoch, number = divmod(self._cycle, self.epoch)
        if self._order[0] != epoch:
            self._order = epoch, self._ordered(epoch)
        rows = self._order[1][number][self._runtime.share(self._batch_size)]
        batch = self._speech.batch(rows, self._runtime.device)
        self._cycle += 1
        return batch

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        """The rows of each batch of an epoch, [epoch, batch_size]."""
        rng = np.random.default_rng(mix(self._seed, epoch))
        rows = rng.permutation(len(self._lengths))[: self.epoch * self._batch_size]
        pool = _POOL * self._batch_size
        for start in range(0, len(rows), pool):
            some = rows[start : start + pool]
            rows[start : start + pool] = some[np.argsort(self._lengths[some], kind="stable")]
        return rng.permutation(rows.reshape(self.epoch, self._batch_size))

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        return {"cycle": self._cycle, "utterances": len(self._lengths), "batch_size": self._batch_size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a stream stood, in the middle of an epoch too."""
        for name, now in self.state_dict().items():
            if name != "cycle" and state[name] != now:
                raise UserError(f"cannot resume: {name} was {state[name]} and is {now} now")
        self._cycle = int(state["cycle"])


def evaluation_batches(
    speech: Speech, batch_size: int, runtime: Runtime
) -> Iterator[tuple[Batch, tuple[Utterance, ...]]]:
    """Every utterance once over all ranks, the shortest first, in batches that say of what they are. A rank may have
    one utterance more than another, and so one batch."""
    lengths = np.array([speech.features.length(utterance) for utterance in speech.utterances])
    rows = np.argsort(lengths, kind="stable")[runtime.rank :: runtime.world]
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        yield speech.batch(some, runtime.device), tuple(speech.utterances[row] for row in some)
