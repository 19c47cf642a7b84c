"""Audio files: read, with one line for what is wrong with one, and written in AISHELL-1's layout."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_apps.core import files
from nas_apps.core.errors import UserError, require

Samples = NDArray[np.float32]  # [N], -1 to 1

_CUT = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)

RATE = 16000
"""Samples a second of the corpora that are generated here, as in AISHELL-1."""


class Recording(NamedTuple):
    """What is written of an utterance."""

    part: str
    speaker: str
    id: str
    words: tuple[str, ...]
    samples: NDArray[np.float64]


def sample_rate(path: Path) -> int:
    """Samples a second in a file."""
    require("soundfile", extra="asr")
    import soundfile

    try:
        return int(soundfile.info(str(path)).samplerate)
    except (OSError, soundfile.LibsndfileError) as error:
        raise _unreadable(path, error) from None


def read_audio(path: Path, rate: int, begin: float = 0.0, end: float | None = None) -> Samples:
    """The samples of a mono file, or of a part of it in seconds; UserError for a file of another rate, with more than
    one channel, cut short, without samples, or with ones that are not numbers."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.samplerate != rate:
                raise UserError(f"{path}: got {file.samplerate} samples a second; allowed: {rate}, as in the corpus")
            if file.channels != 1:
                raise UserError(f"{path}: got {file.channels} channels; allowed: 1 (mono)")
            if is_cut(file.extra_info):
                raise UserError(f"{path}: is cut short: its header tells of more than there is; mend or remove it")
            first = round(begin * rate)
            last = file.frames if end is None else round(end * rate)
            if not first < last <= file.frames:
                raise UserError(f"{path}: got samples {first} to {last} of {file.frames}; allowed: one or more of them")
            file.seek(first)
            samples: Samples = file.read(last - first, dtype="float32")
    except (OSError, soundfile.LibsndfileError) as error:
        raise _unreadable(path, error) from None
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: got samples that are not finite; allowed: numbers from -1 to 1")
    return samples


def is_cut(log: str) -> bool:
    """Whether a wav lacks some of the bytes that its header tells of, by what libsndfile says while it opens one. What
    is written to a pipe, of an unknown length, tells of 2 GB or more.

    >>> is_cut("data : 64000 (should be 44000)"), is_cut("data : 64000"), is_cut("data : 4294967295 (should be 44000)")
    (True, False, False)
    """
    found = _CUT.search(log)
    return found is not None and int(found[2]) < int(found[1]) < 2**31 - 2**16


def write_corpus(root: Path, recordings: Iterable[Recording]) -> None:
    """Write recordings of 16 kHz as AISHELL-1 is published: wav/<part>/<speaker>/<id>.wav and one transcript.

    Files are not flushed to the disk one by one, which would take longer than to make them.
    """
    lines = []
    for recording in recordings:
        pcm = np.clip(np.rint(recording.samples * 32767), -32768, 32767).astype("<i2")
        folder = root / "wav" / recording.part / recording.speaker
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{recording.id}.wav").write_bytes(_wav(pcm.tobytes()))
        lines.append(f"{recording.id} {' '.join(recording.words)}\n")
    files.write_text(root / "transcript" / "aishell_transcript_v0.8.txt", "".join(lines))


def _wav(pcm: bytes) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(pcm)
    return buffer.getvalue()


def _unreadable(path: Path, error: Exception) -> UserError:
    if not path.exists():
        return UserError(f"{path}: is not there; the lists of the corpus say it is")
    return UserError(f"{path}: cannot be read as audio ({' '.join(str(error).split())}); mend or remove it")
