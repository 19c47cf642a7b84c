"""The data of the task: a corpus, its tokens, its features and their statistics, each read or made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from nas_apps.core import logs
from nas_apps.core.cache import key, made_once
from nas_apps.tasks.asr.batches import Speech, halves, speech_of
from nas_apps.tasks.asr.corpus import Corpus, Utterance, read_corpus
from nas_apps.tasks.asr.digits import DigitStrings, digit_strings
from nas_apps.tasks.asr.features import Features, Mels, make_features
from nas_apps.tasks.asr.model import write_statistics
from nas_apps.tasks.asr.synth import Mini, mini_mandarin
from nas_apps.tasks.asr.text import Tokens

MINI = "mini"
"""The name of the corpus that is made here."""


@dataclass(frozen=True)
class Source:
    """Where the data are, and how they are read.

    data: MINI, a folder of the Free Spoken Digit Dataset, or a corpus as published. skip: leave out utterances whose
    audio is at fault. cache: where what is made once is kept.
    """

    data: str
    cache: Path
    mels: Mels
    mini: Mini
    digits: DigitStrings
    subset: str
    skip: bool

    @cached_property
    def corpus(self) -> Corpus:
        """The utterances."""
        if self.data == MINI:
            return mini_mandarin(self.cache, self.mini)
        folder = Path(self.data).expanduser()
        if folder.is_dir() and next(folder.glob("[0-9]_*_*.wav"), None):
            return digit_strings(folder, self.cache, self.digits)
        return read_corpus(folder, self.subset)

    @cached_property
    def tokens(self) -> Tokens:
        """The characters of the training texts, and what ESPnet adds."""
        return Tokens.of(utterance.text for utterance in self.corpus.train)

    def features(self, part: str) -> Features:
        """The features of a part."""
        return self._features[part]

    @cached_property
    def _features(self) -> _Made:
        return _Made(self)

    @cached_property
    def statistics(self) -> Path:
        """The file of the means and deviations of the training features."""
        train, features = self.corpus.train, self.features("train")
        heard = [u for u in train if u.id not in features.skipped]
        name = f"statistics-{key(2, features.name)}"

        def make(folder: Path) -> None:
            frames = (torch.tensor(features.of(u)) for u in heard)
            write_statistics(frames, folder / "feats_stats.npz")

        return made_once(self.cache.expanduser() / name, make) / "feats_stats.npz"

    def train(self, share: float, *, split: bool) -> tuple[Speech, ...]:
        """What is learned from: all of it, or halves with no speaker in both."""
        everything = self.corpus.train
        parts = halves(everything, share, 0) if split else (everything,)
        return tuple(speech_of(part, self.features("train"), self.tokens, training=True) for part in parts)

    def heard(self, part: str, most: int | None) -> Speech:
        """What is decoded of a part, at most so many utterances of it."""
        return speech_of(_spread(getattr(self.corpus, part), most), self.features(part), self.tokens, training=False)

    def held_out(self, share: float, most: int | None) -> Speech:
        """What is decoded in a search: at most so many utterances of the training set's second half."""
        utterances = halves(self.corpus.train, share, 0)[1]
        return speech_of(_spread(utterances, most), self.features("train"), self.tokens, training=False)

    def say_faults(self, parts: Mapping[str, Speech]) -> None:
        """Tell the user what is left out of the corpus and of these parts of it, and what of them cannot be said."""
        notices = self.corpus.notices()
        for name, speech in parts.items():
            unknown = self.tokens.notice(name, [u.text for u in speech.utterances])
            notices += [*speech.notices(name), *([unknown] if unknown else [])]
        for notice in notices:
            logs.say(notice)


def _spread(utterances: Sequence[Utterance], most: int | None) -> Sequence[Utterance]:
    """At most so many, from all over: lists are in the order of speakers, and the first of one are of one voice."""
    number = len(utterances) if most is None else min(most, len(utterances))
    return [utterances[place * len(utterances) // number] for place in range(number)]


class _Made(dict[str, Features]):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, part: str) -> Features:
        source = self._source
        corpus = source.corpus
        self[part] = make_features(
            getattr(corpus, part), corpus.sample_rate, source.cache, source.mels, skip=source.skip
        )
        return self[part]
