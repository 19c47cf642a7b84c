"""Strings of spoken digits: a small corpus of real speech, joined from the recordings of the Free Spoken Digit Dataset.

Its files are <digit>_<speaker>_<index>.wav. Its own rule keeps the indices 0 to 4 for testing; 5 to 9 are the dev set
here, so no recording is in two parts, but every speaker is in all. Written in AISHELL-1's layout and at its 16 kHz.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas_apps.core.bounds import COUNT, NOT_NEGATIVE, bounded
from nas_apps.core.cache import key, made_once
from nas_apps.core.errors import UserError, require
from nas_apps.core.seeds import mix
from nas_apps.tasks.asr.audio import RATE, Recording, read_audio, sample_rate, write_corpus
from nas_apps.tasks.asr.corpus import PARTS, Corpus, read_corpus

_NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
_INDICES = {"train": range(10, 10**6), "dev": range(5, 10), "test": range(5)}
_VERSION = 1  # of what is made from the same settings

_Bank = dict[str, dict[str, list[Path]]]  # speaker, digit: recordings


@dataclass(frozen=True)
class DigitStrings:
    """The size of the corpus.

    strings: in train, dev and test. digits: the least and the most in a string. pause_s: the shortest and the longest
    silence before, between and after digits, in seconds.
    """

    strings: tuple[int, int, int] = (1000, 80, 80)
    digits: tuple[int, int] = (2, 5)
    pause_s: tuple[float, float] = (0.05, 0.25)
    seed: int = 0

    def __post_init__(self) -> None:
        bounded(self, COUNT, "strings", "digits")
        bounded(self, NOT_NEGATIVE, "pause_s")
        for name in ("digits", "pause_s"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: got {low} to {high}; allowed: the smaller one first")


def digit_strings(folder: Path, cache: Path, settings: DigitStrings | None = None) -> Corpus:
    """The corpus of these settings from the recordings in `folder`, made below `cache` unless it is there."""
    require("scipy", "soundfile", extra="asr")
    settings, folder = settings or DigitStrings(), folder.expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"{folder}: is not there; allowed: a folder of <digit>_<speaker>_<index>.wav")
    found = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]
    banks = {part: _bank(folder, found, part) for part in PARTS}
    name = f"digit_strings-{key(_VERSION, settings, folder, stats)}"
    made = made_once(cache.expanduser() / name, lambda new: _make(new, banks, settings))
    return replace(read_corpus(made), name="digit strings")


def _bank(folder: Path, found: list[Path], part: str) -> _Bank:
    bank: _Bank = defaultdict(lambda: defaultdict(list))
    for path in found:
        if (match := _NAME.fullmatch(path.name)) and int(match[3]) in _INDICES[part]:
            bank[match[2]][match[1]].append(path)
    if not bank:
        first, last = _INDICES[part].start, _INDICES[part].stop - 1
        indices = f"{first} and more" if part == "train" else f"{first} to {last}"
        raise UserError(f"{folder}: no recording for {part!r}; allowed: <digit>_<speaker>_<index>.wav, index {indices}")
    return bank


def _make(folder: Path, banks: dict[str, _Bank], settings: DigitStrings) -> None:
    known: dict[Path, NDArray[np.float64]] = {}
    rate = sample_rate(next(path for digits in banks["train"].values() for paths in digits.values() for path in paths))

    def read(path: Path) -> NDArray[np.float64]:
        if path not in known:
            known[path] = _resampled(read_audio(path, rate), rate)
        return known[path]

    def recordings() -> Iterator[Recording]:
        for number, part in enumerate(PARTS):
            speakers = sorted(banks[part])
            for place in range(settings.strings[number]):
                speaker = speakers[place % len(speakers)]
                rng = np.random.default_rng(mix(settings.seed, number, place))
                said, pieces = _string(banks[part][speaker], settings, rng)
                samples = np.concatenate([read(piece) if isinstance(piece, Path) else piece for piece in pieces])
                yield Recording(part, speaker, f"{speaker}-{part}-{place:05d}", said, samples)

    write_corpus(folder / "data_aishell", recordings())


def _string(
    bank: dict[str, list[Path]], settings: DigitStrings, rng: np.random.Generator
) -> tuple[tuple[str, ...], list[Path | NDArray[np.float64]]]:
    digits = [sorted(bank)[n] for n in rng.integers(0, len(bank), rng.integers(*settings.digits, endpoint=True))]

    def pause() -> NDArray[np.float64]:
        return np.zeros(round(rng.uniform(*settings.pause_s) * RATE))

    pieces: list[Path | NDArray[np.float64]] = [pause()]
    for digit in digits:
        pieces += [bank[digit][rng.integers(0, len(bank[digit]))], pause()]
    return tuple(digits), pieces


def _resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    from scipy.signal import resample_poly

    common = gcd(rate, RATE)
    resampled: NDArray[np.float64] = resample_poly(samples.astype(np.float64), RATE // common, rate // common)
    return resampled
