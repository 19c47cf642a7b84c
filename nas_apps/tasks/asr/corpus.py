"""What an utterance is, and corpora as they are published: AISHELL-1, AISHELL-2, WenetSpeech, and Kaldi's folders.

Only lists are read here, and the headers of a few files, never speech; a corpus of 140,000 utterances takes seconds.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nas_apps.core.errors import UserError
from nas_apps.tasks.asr.audio import sample_rate

PARTS = ("train", "dev", "test")
TRANSCRIPT = "aishell_transcript_v0.8.txt"
WENET = "WenetSpeech.json"
_LOOKS = 20  # at files, for their sample rate
ALLOWED = (
    f"a folder with wav/{{train,dev,test}}/ and transcript/{TRANSCRIPT} (AISHELL-1), a folder with train/ (or data/), "
    f"dev/ and test/ that each hold wav.scp and text or trans.txt (Kaldi, AISHELL-2), {WENET}"
)


@dataclass(frozen=True)
class Utterance:
    """A piece of speech and what is said in it.

    audio: the file it is in, mono. text: the characters, without blanks. begin, end: where it is in the file, in
    seconds; to the end of the file when `end` is not given.
    """

    id: str
    speaker: str
    audio: Path
    text: str
    begin: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Corpus:
    """Utterances in three parts.

    sample_rate: samples a second that all audio has to have. dropped: how many entries of the lists were left out, by
    the reason.
    """

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    name: str
    sample_rate: int
    dropped: Mapping[str, int]

    def notices(self) -> list[str]:
        """What to tell a user of entries left out, a line for each reason."""
        return [f"{self.name}: {reason}: {number} left out" for reason, number in self.dropped.items()]


class _Entry(NamedTuple):
    id: str
    speaker: str
    audio: Path
    begin: float = 0.0
    end: float | None = None


_Parts = dict[str, tuple[Utterance, ...]]


def read_corpus(path: Path, subset: str = "M") -> Corpus:
    """The corpus at `path`, which is laid out as AISHELL-1, as AISHELL-2, as WenetSpeech or as Kaldi has it.

    subset: which of WenetSpeech's training sets (S, M, L) is read; of no effect on others.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise UserError(f"{path}: does not exist; allowed: {ALLOWED}")
    if (path / "data_aishell").is_dir():
        path = path / "data_aishell"
    dropped: Counter[str] = Counter()
    if (path / "transcript").is_dir():
        parts = _read_aishell(path, dropped)
    elif path.name == WENET or (path / WENET).is_file():
        parts = _read_wenet(path if path.name == WENET else path / WENET, subset, dropped)
    elif folders := _folders_of_lists(path):
        parts = {part: _read_lists(folder, dropped) for part, folder in folders.items()}
    else:
        raise UserError(f"{path}: no corpus of a known layout; allowed: {ALLOWED}")
    for part in PARTS:
        if not parts[part]:
            why = "; ".join(f"{number} {reason}" for reason, number in dropped.items()) or "no audio"
            raise UserError(f"{path}: no utterance is left in {part!r} ({why}); allowed: one or more")
    return Corpus(**parts, name=str(path), sample_rate=_usual_rate(parts["train"]), dropped=dict(dropped))


def _usual_rate(utterances: Sequence[Utterance]) -> int:
    """The rate of most of some files, so that one at fault does not decide it."""
    rates: Counter[int] = Counter()
    for utterance in utterances[:: len(utterances) // _LOOKS + 1]:
        try:
            rates[sample_rate(utterance.audio)] += 1
        except UserError as error:
            at_fault = error
    if not rates:
        raise at_fault
    return rates.most_common(1)[0][0]


def _read_aishell(root: Path, dropped: Counter[str]) -> _Parts:
    texts = _read_table(root / "transcript" / TRANSCRIPT, "the transcripts")
    parts = {part: _with_texts(_aishell_wavs(root / "wav" / part), texts, dropped) for part in PARTS}
    heard = sum(map(len, parts.values())) + dropped["wavs with an empty transcript"]
    if heard < len(texts):
        dropped["transcripts without a wav"] = len(texts) - heard
    return parts


def _aishell_wavs(folder: Path) -> Iterator[_Entry]:
    if not folder.is_dir():
        raise UserError(f"{folder}: is not there; allowed: wav/train, wav/dev and wav/test, as AISHELL-1 has them")
    speakers = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not speakers and any(folder.parent.glob("*.tar.gz")):
        raise UserError(f"{folder.parent}: the archives of its speakers are still packed; unpack each *.tar.gz there")
    for speaker in speakers:
        for name in sorted(entry.name for entry in os.scandir(folder / speaker)):
            if name.endswith(".wav") and not name.startswith("."):
                yield _Entry(name[:-4], speaker, folder / speaker / name)


def _folders_of_lists(path: Path) -> dict[str, Path] | None:
    """Where the lists of each part are; None where those of the training set are not."""
    names = {"train": ("train", "data"), "dev": ("dev",), "test": ("test",)}
    found = {
        part: next((path / name for name in names[part] if (path / name / "wav.scp").is_file()), None) for part in PARTS
    }
    if found["train"] is None:
        return None
    for part, folder in found.items():
        if folder is None:
            raise UserError(f"{path}: no {part}/wav.scp beside {found['train'].name}/; allowed: {ALLOWED}")
    return {part: folder for part, folder in found.items() if folder is not None}


def _read_lists(folder: Path, dropped: Counter[str]) -> tuple[Utterance, ...]:
    text = folder / "text"
    if not text.is_file():
        text = folder / "trans.txt"
    if not text.is_file():
        raise UserError(f"{folder}: holds wav.scp but no transcripts; allowed: text (Kaldi) or trans.txt (AISHELL-2)")
    return _with_texts(_listed(folder), _read_table(text, "the transcripts"), dropped)


def _listed(folder: Path) -> Iterator[_Entry]:
    """What wav.scp lists, cut by `segments` where there are some. Paths that are relative are so to the folder. Without
    utt2spk a speaker is a recording that is cut, or else the folder a file is in (AISHELL-2)."""
    audio = {}
    for name, where in _read_table(folder / "wav.scp", "the list of audio").items():
        if where.endswith("|") or not where:
            raise UserError(f"{folder / 'wav.scp'}: {name}: got {where!r}; allowed: the path of an audio file")
        audio[name] = folder / where
    speakers = _read_table(folder / "utt2spk", "the speakers") if (folder / "utt2spk").is_file() else {}
    if not (folder / "segments").is_file():
        for name, path in audio.items():
            yield _Entry(name, speakers.get(name, path.parent.name), path)
        return
    for name, line in _read_table(folder / "segments", "the segments").items():
        try:
            recording, begin, end = line.split()
            yield _Entry(name, speakers.get(name, recording), audio[recording], float(begin), float(end))
        except (KeyError, ValueError):
            where = f"{folder / 'segments'}: {name}"
            raise UserError(
                f"{where}: got {line!r}; allowed: a recording of wav.scp, begin and end in seconds"
            ) from None


def _read_wenet(path: Path, subset: str, dropped: Counter[str]) -> _Parts:
    """WenetSpeech's own list (arXiv:2110.03370); its speakers are not known, so a recording is one."""
    wanted = {subset: "train", "DEV": "dev", "TEST_NET": "test"}
    entries: dict[str, list[_Entry]] = {part: [] for part in PARTS}
    texts: dict[str, str] = {}
    subsets: set[str] = set()
    try:
        for recording in json.loads(_read(path, "the list of recordings"))["audios"]:
            audio = path.parent / recording["path"]
            for piece in recording["segments"]:
                subsets.update(piece["subsets"])
                for part in {wanted[name] for name in piece["subsets"] if name in wanted}:
                    cut = float(piece["begin_time"]), float(piece["end_time"])
                    entries[part].append(_Entry(piece["sid"], recording["aid"], audio, *cut))
                    texts[piece["sid"]] = piece["text"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not WenetSpeech's list: {type(error).__name__} {error}") from None
    if subset not in subsets - {"DEV", "TEST_NET", "TEST_MEETING"}:
        raise UserError(f"{path}: no subset {subset!r}; allowed: {', '.join(sorted(subsets))}")
    return {part: _with_texts(entries[part], texts, dropped) for part in PARTS}


def _with_texts(entries: Iterable[_Entry], texts: Mapping[str, str], dropped: Counter[str]) -> tuple[Utterance, ...]:
    utterances = []
    for entry in entries:
        text = texts.get(entry.id)
        if text is None:
            dropped["wavs without a transcript"] += 1
        elif characters := "".join(text.split()):
            utterances.append(Utterance(entry.id, entry.speaker, entry.audio, characters, entry.begin, entry.end))
        else:
            dropped["wavs with an empty transcript"] += 1
    return tuple(utterances)


def _read_table(path: Path, what: str) -> dict[str, str]:
    """A file of lines that are a name, blanks or a tab, and the rest."""
    table: dict[str, str] = {}
    for line in _read(path, what).splitlines():
        name, *rest = line.split(maxsplit=1)[:2] or ("",)
        if name:
            table[name] = rest[0].rstrip() if rest else ""
    return table


def _read(path: Path, what: str) -> str:
    """The text of a file, which is UTF-8 wherever this runs."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read {what}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot read {what}: byte {error.start} is not UTF-8") from None
