"""Log-mel features are ESPnet's, and are made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas_apps.core.errors import UserError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("espnet2")

from espnet2.asr.frontend.default import DefaultFrontend  # noqa: E402

from nas_apps.tasks.asr import features as module  # noqa: E402
from nas_apps.tasks.asr.audio import RATE  # noqa: E402
from nas_apps.tasks.asr.corpus import Utterance  # noqa: E402
from nas_apps.tasks.asr.features import Features, Mels, log_mels, make_features  # noqa: E402


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype("float32")


def make(folder: Path, **audio: np.ndarray) -> list[Utterance]:
    """Files of these samples, an utterance each."""
    for name, samples in audio.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    return [Utterance(name, "ann", folder / f"{name}.wav", "好") for name in audio]


@pytest.mark.parametrize("mels", [Mels(), Mels(window=400, hop=160), Mels(n_fft=256, bins=40)])
def test_features_are_those_of_espnets_frontend_in_a_padded_batch(mels: Mels) -> None:
    long, short = noise(1.3), noise(0.61, 1)
    padded = torch.zeros(2, len(long))
    padded[0], padded[1, : len(short)] = torch.from_numpy(long), torch.from_numpy(short)
    lengths = torch.tensor([len(long), len(short)])
    theirs, frames = DefaultFrontend(**mels.conf(RATE)).eval()(padded, lengths)
    ours = [log_mels(torch.from_numpy(samples), RATE, mels) for samples in (long, short)]
    assert [len(found) for found in ours] == frames.tolist() == [len(s) // mels.hop + 1 for s in (long, short)]
    assert torch.equal(ours[0], theirs[0])
    # The mirrored end of an utterance is padding in a batch: the windows that reach it differ, and no others.
    clean = (len(short) - mels.n_fft // 2) // mels.hop
    assert torch.allclose(ours[1][:clean], theirs[1, :clean], rtol=0, atol=1e-4)


def test_the_settings_are_espnets_defaults() -> None:
    samples = torch.from_numpy(noise(0.5))
    theirs, _ = DefaultFrontend().eval()(samples[None], torch.tensor([len(samples)]))
    assert torch.equal(log_mels(samples, RATE), theirs[0])


def test_a_tone_is_in_its_mel_bin() -> None:
    import librosa

    frequency = float(librosa.mel_frequencies(82, fmin=0, fmax=RATE / 2)[41])  # the centre of bin 40
    tone = torch.sin(torch.arange(8000) * (2 * np.pi * frequency / RATE))
    assert log_mels(tone, RATE)[5:-5].argmax(1).unique().tolist() == [40]


@pytest.mark.parametrize("samples", [0, 1, 256])
def test_what_is_too_short_for_a_window_has_no_frames(samples: int) -> None:
    assert log_mels(torch.ones(samples), RATE).shape == (0, 80)
    assert log_mels(torch.ones(257), RATE).shape == (3, 80)


def test_each_utterance_has_the_features_of_its_own_audio(tmp_path: Path) -> None:
    audio = {"a": noise(0.5), "b": noise(0.01), "c": noise(0.3, 1)}
    made = make_features(utterances := make(tmp_path, **audio), RATE, tmp_path)
    for utterance in utterances[::-1]:
        expected = log_mels(torch.from_numpy(audio[utterance.id]), RATE)
        assert torch.equal(torch.tensor(made.of(utterance)), expected)
        assert made.length(utterance) == len(expected)
    assert made.of(utterances[0]).dtype == np.float32


def test_a_piece_of_a_file_has_the_features_of_that_piece(tmp_path: Path) -> None:
    samples = noise(1.0)
    (whole,) = make(tmp_path, a=samples)
    pieces = [replace(whole, id="x", begin=0.25, end=0.5), replace(whole, id="y", begin=0.5)]
    made = make_features(pieces, RATE, tmp_path)
    assert torch.equal(torch.tensor(made.of(pieces[0])), log_mels(torch.from_numpy(samples[4000:8000]), RATE))
    assert torch.equal(torch.tensor(made.of(pieces[1])), log_mels(torch.from_numpy(samples[8000:]), RATE))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often features were computed since the last look."""
    calls: list[int] = []
    real = module.log_mels
    monkeypatch.setattr(module, "log_mels", lambda *args: (calls.append(1), real(*args))[1])

    def since() -> int:
        number = len(calls)
        calls.clear()
        return number

    return since


def test_features_are_computed_once_and_again_only_for_what_changed(tmp_path: Path, counted: Callable[[], int]) -> None:
    utterances = make(tmp_path, a=noise(0.3), b=noise(0.4))
    first = make_features(utterances, RATE, tmp_path)
    assert counted() == 2
    again = make_features(utterances, RATE, tmp_path)
    assert counted() == 0
    assert all(np.array_equal(first.of(u), again.of(u)) for u in utterances)
    make_features([replace(u, text="坏", speaker="bob") for u in utterances], RATE, tmp_path)
    assert counted() == 0
    make_features(utterances, RATE, tmp_path, Mels(hop=160))
    make_features(utterances[:1], RATE, tmp_path)
    assert counted() == 3
    make(tmp_path, a=noise(0.35))
    assert make_features(utterances, RATE, tmp_path).length(utterances[0]) == 44
    assert counted() == 2


def stereo(path: Path) -> None:
    soundfile.write(path, np.zeros((800, 2)), RATE)


def not_finite(path: Path) -> None:
    soundfile.write(path, np.full(8000, np.nan), RATE, subtype="FLOAT")


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another rate": (
        lambda path: soundfile.write(path, np.zeros(800), 8000),
        r"got 8000 samples a second; allowed: 16000, as in the corpus",
    ),
    "two channels": (stereo, r"got 2 channels; allowed: 1 \(mono\)"),
    "no samples": (lambda path: soundfile.write(path, np.zeros(0), RATE), "got samples 0 to 0 of 0"),
    "not finite": (not_finite, "got samples that are not finite"),
    "no audio": (lambda path: path.write_text("好"), "cannot be read as audio"),
    "no bytes": (lambda path: path.write_bytes(b""), "cannot be read as audio"),
    "not there": (Path.unlink, "is not there; the lists of the corpus say it is"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_audio_at_fault_is_one_line_or_is_skipped(mistake: str, tmp_path: Path) -> None:
    spoil, message = MISTAKES[mistake]
    utterances = make(tmp_path, a=noise(0.3), b=noise(0.3), c=noise(0.2, 2))
    spoil(utterances[1].audio)
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=message) as refused:
        make_features(utterances, RATE, cache)
    assert str(refused.value).startswith(str(utterances[1].audio))
    assert "\n" not in str(refused.value)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    made = make_features(utterances, RATE, cache, skip=True)
    assert made.skipped == {"b": str(refused.value)}
    assert made.length(utterances[1]) == 0
    assert torch.equal(torch.tensor(made.of(utterances[2])), log_mels(torch.from_numpy(noise(0.2, 2)), RATE))
    with pytest.raises(UserError, match=message):  # also when the others are there already
        make_features(utterances, RATE, cache)


def test_a_piece_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    (utterance,) = make(tmp_path, a=noise(0.3))
    with pytest.raises(UserError, match=r"a\.wav: got samples 1600 to 6400 of 4800"):
        make_features([replace(utterance, begin=0.1, end=0.4)], RATE, tmp_path)


def test_utterances_that_share_a_name_are_refused(tmp_path: Path) -> None:
    utterances = make(tmp_path, a=noise(0.3))
    with pytest.raises(UserError, match=r"a: two utterances have this name \(1 such names\)"):
        make_features(utterances * 2, RATE, tmp_path)


def test_a_corpus_without_any_good_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the audio of 1 utterances can be used: all of it is too short"):
        make_features(make(tmp_path, a=noise(0.01)), RATE, tmp_path)


def test_a_split_is_read_without_looking_at_another(tmp_path: Path) -> None:
    train, dev = make(tmp_path, a=noise(0.3), b=np.full(4000, np.nan, "float32"))
    assert isinstance(make_features([train], RATE, tmp_path), Features)
    with pytest.raises(UserError, match="not finite"):
        make_features([dev], RATE, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"hop": 0}, "hop: got 0"), ({"window": 600}, "window: got 600; allowed: up to n_fft, 512")],
)
def test_settings_that_are_none_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mels(**settings)
