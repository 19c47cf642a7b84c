"""Mini Mandarin: a small corpus of synthetic speech, made here by espeak-ng, in the names and layout of AISHELL-1.

Its texts are random strings: on sentences made from templates, a decoder reaches an accuracy of .6 on noise alone, so
that a search would rank language models. It shows that a pipeline works, not how it would do on real speech.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_apps.core.bounds import COUNT, bounded
from nas_apps.core.cache import key, made_once
from nas_apps.core.errors import UserError, require
from nas_apps.core.seeds import mix
from nas_apps.tasks.asr import speak
from nas_apps.tasks.asr.audio import Recording, write_corpus
from nas_apps.tasks.asr.corpus import PARTS, Corpus, read_corpus

# Each syllable occurs once, whatever its tone.
SYLLABLES = {
    "一": "yi1", "二": "er4", "三": "san1", "四": "si4", "五": "wu3", "六": "liu4", "七": "qi1", "八": "ba1",
    "九": "jiu3", "十": "shi2", "大": "da4", "小": "xiao3", "上": "shang4", "下": "xia4", "左": "zuo3", "右": "you4",
    "开": "kai1", "关": "guan1", "天": "tian1", "水": "shui3", "火": "huo3", "山": "shan1", "风": "feng1", "云": "yun2",
    "人": "ren2", "口": "kou3", "手": "shou3", "月": "yue4", "红": "hong2", "黄": "huang2", "蓝": "lan2", "白": "bai2",
    "春": "chun1", "秋": "qiu1", "东": "dong1", "南": "nan2", "北": "bei3", "门": "men2", "车": "che1", "书": "shu1",
}  # fmt: skip

_VOICE = "cmn-latn-pinyin"  # "cmn" of espeak-ng 1.51 reads pinyin as English
_TIMBRES = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
_FIRST = {"train": 1, "dev": 724, "test": 764}  # numbers of speakers, where those of AISHELL-1 begin
_LAST = {"train": 723, "dev": 763, "test": 916}
_PEAK = 0.9
_VERSION = 1  # of what is made from the same settings


@dataclass(frozen=True)
class Mini:
    """The size of the corpus. What a larger one shares with a smaller one, is the same to the byte.

    speakers: in train, dev and test; no speaker is in two of them. utterances: of each speaker, there. characters: how
    many different ones. snr_db: between which levels the white noise of an utterance lies below its speech.
    """

    speakers: tuple[int, int, int] = (20, 4, 4)
    utterances: tuple[int, int, int] = (50, 15, 15)
    characters: int = 20
    snr_db: tuple[float, float] = (10.0, 30.0)
    seed: int = 0

    def __post_init__(self) -> None:
        bounded(self, COUNT, "speakers", "utterances")
        for part, number in zip(PARTS, self.speakers, strict=True):
            if number > (most := _LAST[part] - _FIRST[part] + 1):
                raise ValueError(f"speakers: got {number} for {part!r}; allowed: up to {most}")
        if not 2 <= self.characters <= len(SYLLABLES):
            raise ValueError(f"characters: got {self.characters}; allowed: 2 to {len(SYLLABLES)}")
        if self.snr_db[0] > self.snr_db[1]:
            raise ValueError(f"snr_db: got {self.snr_db}; allowed: the lower level first")


class _Speaker(NamedTuple):
    part: str
    number: int
    texts: list[list[str]]  # the words of each utterance


def mini_mandarin(cache: Path, settings: Mini | None = None) -> Corpus:
    """The corpus of these settings, made below `cache` unless it is there."""
    require("espeakng_loader", "scipy", extra="asr")
    settings = settings or Mini()
    name = f"mini_mandarin-{key(_VERSION, settings, version('espeakng-loader'))}"
    folder = made_once(cache.expanduser() / name, lambda new: _make(new, settings))
    return replace(read_corpus(folder), name="mini Mandarin")


def _make(folder: Path, settings: Mini) -> None:
    speakers = [
        _speaker(settings, part, _FIRST[part] + place)
        for part, number in zip(PARTS, settings.speakers, strict=True)
        for place in range(number)
    ]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # of waiting: the work is the processes'
        spoken = pool.map(lambda speaker: _say(settings, speaker), speakers)
        write_corpus(
            folder / "data_aishell",
            (recording for speaker, said in zip(speakers, spoken, strict=True) for recording in said),
        )


def _speaker(settings: Mini, part: str, number: int) -> _Speaker:
    known = [*SYLLABLES][: settings.characters]
    texts = []
    for place in range(settings.utterances[PARTS.index(part)]):
        rng = np.random.default_rng(mix(settings.seed, number, place, 0))
        lengths = rng.integers(1, 3, rng.integers(2, 5))  # 2 to 4 words of 1 or 2 characters
        texts.append(["".join(known[n] for n in rng.integers(0, len(known), length)) for length in lengths])
    return _Speaker(part, number, texts)


def _say(settings: Mini, speaker: _Speaker) -> list[Recording]:
    rng = np.random.default_rng(mix(settings.seed, speaker.number))
    voice = {
        "voice": f"{_VOICE}+{rng.choice(_TIMBRES)}",
        "rate": int(rng.integers(130, 191)),
        "pitch": int(rng.integers(25, 76)),
        "range": int(rng.integers(30, 71)),
        "seed": int(rng.integers(1, 2**30)),
    }
    texts = [" ".join("".join(SYLLABLES[c] for c in word) for word in words) for words in speaker.texts]
    name, recordings = f"S{speaker.number:04d}", []
    for place, said in enumerate(_spoken(voice, texts)):
        noise = np.random.default_rng(mix(settings.seed, speaker.number, place, 1))
        words, samples = tuple(speaker.texts[place]), _noisy(_resampled(said), settings, noise)
        recordings.append(Recording(speaker.part, name, f"BAC009{name}W{place + 1:04d}", words, samples))
    return recordings


def _spoken(voice: Mapping[str, object], texts: list[str]) -> Iterator[NDArray[np.int16]]:
    """What espeak-ng says, in a process of its own."""
    import espeakng_loader

    where = {"library": espeakng_loader.get_library_path(), "data": espeakng_loader.get_data_path()}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-S", speak.__file__],
        input=json.dumps({**voice, **where, "texts": texts}).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise UserError(f"mini Mandarin: espeakng-loader {version('espeakng-loader')}: {why[-1]}")
    place = 0
    while place < len(done.stdout):
        (number,) = struct.unpack_from("<i", done.stdout, place)
        yield np.frombuffer(done.stdout, "<i2", number, place + 4)
        place += 4 + 2 * number


def _resampled(said: NDArray[np.int16]) -> NDArray[np.float64]:
    from scipy.signal import resample_poly

    samples: NDArray[np.float64] = resample_poly(said.astype(np.float64) / 32768, 320, 441)  # 22,050 to 16,000
    return samples


def _noisy(speech: NDArray[np.float64], settings: Mini, rng: np.random.Generator) -> NDArray[np.float64]:
    level = np.sqrt(np.square(speech).mean()) * 10 ** (-rng.uniform(*settings.snr_db) / 20)
    samples = speech + level * rng.standard_normal(len(speech))
    peak: NDArray[np.float64] = samples * (_PEAK / np.abs(samples).max())
    return peak
