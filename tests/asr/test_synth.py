"""Corpora that are made here: mini Mandarin, and strings of spoken digits."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nas_apps.core.errors import UserError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("espeakng_loader")

from nas_apps.core.cache import default_cache, made_once  # noqa: E402
from nas_apps.tasks.asr import synth  # noqa: E402
from nas_apps.tasks.asr.corpus import PARTS, Corpus  # noqa: E402
from nas_apps.tasks.asr.digits import DigitStrings, digit_strings  # noqa: E402
from nas_apps.tasks.asr.synth import SYLLABLES, Mini, mini_mandarin  # noqa: E402

SMALL = Mini(speakers=(2, 1, 1), utterances=(3, 2, 2))


def wavs(corpus: Corpus) -> dict[str, bytes]:
    return {u.id: u.audio.read_bytes() for part in (corpus.train, corpus.dev, corpus.test) for u in part}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache: Path) -> Corpus:
    return mini_mandarin(cache, SMALL)


def test_mini_mandarin_has_the_names_and_the_layout_of_aishell(corpus: Corpus, cache: Path) -> None:
    assert [len(part) for part in (corpus.train, corpus.dev, corpus.test)] == [6, 2, 2]
    assert (corpus.sample_rate, corpus.dropped) == (16000, {})
    first = corpus.train[0]
    assert first.audio.relative_to(cache).parts[1:] == ("data_aishell", "wav", "train", "S0001", "BAC009S0001W0001.wav")
    info = soundfile.info(first.audio)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    speakers = [{u.speaker for u in part} for part in (corpus.train, corpus.dev, corpus.test)]
    assert speakers == [{"S0001", "S0002"}, {"S0724"}, {"S0764"}]


def test_its_texts_are_random_characters_of_distinct_syllables(corpus: Corpus) -> None:
    assert len({syllable[:-1] for syllable in SYLLABLES.values()}) == len(SYLLABLES) == 40
    transcript = corpus.train[0].audio.parents[3] / "transcript" / "aishell_transcript_v0.8.txt"
    lines = [line.split() for line in transcript.read_text().splitlines()]
    assert {len(words) - 1 for words in lines} <= {2, 3, 4}
    assert {len(word) for words in lines for word in words[1:]} == {1, 2}
    assert {c for words in lines for word in words[1:] for c in word} <= set([*SYLLABLES][: SMALL.characters])
    assert len({tuple(words[1:]) for words in lines}) == len(lines)


def test_a_smaller_corpus_is_a_part_of_a_larger_one_to_the_byte(corpus: Corpus, tmp_path: Path) -> None:
    larger = wavs(mini_mandarin(tmp_path, Mini(speakers=(3, 1, 2), utterances=(4, 2, 3))))
    small = wavs(corpus)
    assert small.items() <= larger.items()
    assert len(larger) == 20
    assert len(set(larger.values())) == 20


def test_another_seed_is_another_corpus(corpus: Corpus, tmp_path: Path) -> None:
    other = mini_mandarin(tmp_path, Mini(speakers=(1, 1, 1), utterances=(2, 1, 1), seed=1))
    assert other.train[0].text != corpus.train[0].text
    assert wavs(other)[other.train[0].id] != wavs(corpus)[other.train[0].id]


def test_it_is_made_once(corpus: Corpus, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "run")
    assert mini_mandarin(cache, SMALL) == corpus
    with pytest.raises(AttributeError, match="run"):
        mini_mandarin(cache, Mini(speakers=(1, 1, 1), utterances=(1, 1, 1)))


@pytest.mark.parametrize("snr", [10.0, 30.0])
def test_noise_lies_below_the_speech_as_asked(snr: float) -> None:
    speech = np.sin(np.arange(16000.0))
    noisy = synth._noisy(speech, Mini(snr_db=(snr, snr)), np.random.default_rng(0))
    gain = noisy @ speech / (speech @ speech)
    found = 10 * np.log10(np.square(gain * speech).mean() / np.square(noisy - gain * speech).mean())
    assert abs(found - snr) < 0.3
    assert np.abs(noisy).max() == pytest.approx(0.9)


def test_text_that_is_not_read_as_mandarin_is_refused() -> None:
    voice = {"voice": "cmn-latn-pinyin+f1", "rate": 160, "pitch": 50, "range": 50, "seed": 1}
    with pytest.raises(UserError, match=r"mini Mandarin: .* does not read 'da4 internet' as Mandarin but as .*\(en\)"):
        list(synth._spoken(voice, ["yi1 er4", "da4 internet"]))
    with pytest.raises(UserError, match="has no voice 'nobody'"):
        list(synth._spoken({**voice, "voice": "nobody"}, ["yi1"]))


def test_all_syllables_are_read_as_mandarin() -> None:
    voice = {"voice": "cmn-latn-pinyin+m1", "rate": 160, "pitch": 50, "range": 50, "seed": 1}
    said = list(synth._spoken(voice, [*SYLLABLES.values()]))
    assert len(said) == 40
    assert min(map(len, said)) > 22050 * 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speakers": (0, 1, 1)}, "speakers: got 0"),
        ({"speakers": (20, 41, 4)}, "speakers: got 41 for 'dev'; allowed: up to 40"),
        ({"characters": 41}, "characters: got 41; allowed: 2 to 40"),
        ({"snr_db": (30.0, 10.0)}, "the lower level first"),
    ],
)
def test_sizes_that_are_none_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mini(**settings)


def fill(calls: list[Path]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "a").write_text("whole")

    return make


def test_a_folder_that_several_want_at_once_is_made_by_one(tmp_path: Path) -> None:
    calls: list[Path] = []
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda _: made_once(tmp_path / "c" / "x", fill(calls)), range(8))]
    assert set(found) == {tmp_path / "c" / "x"}
    assert len(calls) == 1


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    def die(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path / "x", die)
    assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]
    (tmp_path / ".x.new").mkdir()  # of a process that was killed
    (tmp_path / ".x.new" / "half").touch()
    made_once(tmp_path / "x", fill([]))
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot write"):
        made_once(tmp_path / "file" / "x", fill([]))


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "nas-apps"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "nas-apps"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Recordings of two speakers at 8 kHz, as loud as their index says: index 3 is at 0.04."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "LICENSE").touch()
    for speaker in ("ann", "bob"):
        for digit in range(10):
            for index in range(12):
                samples = np.full(800 + 10 * digit, (index + 1) / 100)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", samples, 8000)
    return folder


def indices(path: Path) -> list[int]:
    """The index of each recording in a string."""
    samples, rate = soundfile.read(path)
    assert rate == 16000
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level = np.where(np.ptp(frames, 1) < 1e-3, np.rint(frames.mean(1) * 100).astype(int), -1)  # -1: an edge
    steady = level[level >= 0]
    starts = np.flatnonzero((steady > 0) & (np.r_[0, steady[:-1]] == 0))
    return [int(steady[start]) - 1 for start in starts]


def test_strings_are_of_one_speaker_and_their_recordings_of_one_part(recordings: Path, tmp_path: Path) -> None:
    corpus = digit_strings(recordings, tmp_path, DigitStrings(strings=(20, 10, 10)))
    allowed = {"train": {10, 11}, "dev": set(range(5, 10)), "test": set(range(5))}
    for part, utterances in zip(PARTS, (corpus.train, corpus.dev, corpus.test), strict=True):
        found = [indices(u.audio) for u in utterances]
        assert [len(some) for some in found] == [len(u.text) for u in utterances]
        assert {index for some in found for index in some} <= allowed[part]
        assert {u.speaker for u in utterances} == {"ann", "bob"}
    assert {len(u.text) for u in corpus.train} == {2, 3, 4, 5}
    assert {c for u in corpus.train for c in u.text} == set("0123456789")


def test_strings_are_the_same_in_every_cache_and_follow_their_recordings(recordings: Path, tmp_path: Path) -> None:
    settings = DigitStrings(strings=(4, 2, 2))
    first, second = (digit_strings(recordings, tmp_path / name, settings) for name in "ab")
    assert wavs(first) == wavs(second)
    assert wavs(first) != wavs(digit_strings(recordings, tmp_path, DigitStrings(strings=(4, 2, 2), seed=1)))
    for path in recordings.glob("*.wav"):
        soundfile.write(path, np.full(900, 0.5), 8000)
    assert wavs(first) != wavs(digit_strings(recordings, tmp_path / "a", settings))


def test_a_folder_without_recordings_of_a_part_is_refused(recordings: Path, tmp_path: Path) -> None:
    for path in recordings.glob("*_*_[5-9].wav"):
        path.unlink()
    with pytest.raises(UserError, match="no recording for 'dev'; allowed: .* index 5 to 9"):
        digit_strings(recordings, tmp_path)
    with pytest.raises(UserError, match="is not there; allowed: a folder of"):
        digit_strings(recordings / "x", tmp_path)


def test_a_recording_of_another_rate_is_refused_and_nothing_is_left(recordings: Path, tmp_path: Path) -> None:
    for path in recordings.glob("*_0.wav"):
        soundfile.write(path, np.zeros(900), 11025)
    with pytest.raises(UserError, match="got 11025 samples a second; allowed: 8000"):
        digit_strings(recordings, tmp_path / "cache", DigitStrings(strings=(2, 2, 40)))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
