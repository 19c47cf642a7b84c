"""Corpora in the layouts they are published in, tokens, and halves by speaker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas_apps.core.errors import UserError

soundfile = pytest.importorskip("soundfile")

from nas_apps.tasks.asr.audio import RATE, Recording, write_corpus  # noqa: E402
from nas_apps.tasks.asr.batches import halves  # noqa: E402
from nas_apps.tasks.asr.corpus import Utterance, read_corpus  # noqa: E402
from nas_apps.tasks.asr.text import Tokens  # noqa: E402

TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"


@pytest.fixture
def aishell(tmp_path: Path) -> Path:
    """Two speakers of each part, two utterances of each speaker."""
    root = tmp_path / "data_aishell"
    write_corpus(
        root,
        (
            Recording(part, f"S{speaker}{number}", f"BAC009S{speaker}{number}W{place}", ("上海", "好"), np.ones(800))
            for number, part in enumerate(("train", "dev", "test"))
            for speaker in "ab"
            for place in range(2)
        ),
    )
    return root


def lists(folder: Path, **files: str) -> None:
    """Lists of one part, and audio for what a wav.scp names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / {"scp": "wav.scp", "trans": "trans.txt"}.get(name, name)).write_text(text, encoding="utf-8")
    for line in files.get("scp", "").splitlines():
        path = folder / line.split(maxsplit=1)[1]
        if not str(path).endswith("|"):
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(RATE), RATE)


def kaldi(root: Path, **changed: str) -> Path:
    for part in ("train", "dev", "test"):
        given = {"scp": f"{part}1 a.wav\n{part}2 b.wav\n", "text": f"{part}1 我 们\n{part}2 好\n"}
        lists(root / part, **(given | changed if part == "train" else given))
    return root


def test_aishell_is_read_as_it_is_published(aishell: Path) -> None:
    corpus = read_corpus(aishell.parent)
    assert corpus == read_corpus(aishell)
    assert [u.id for u in corpus.dev] == ["BAC009Sa1W0", "BAC009Sa1W1", "BAC009Sb1W0", "BAC009Sb1W1"]
    first = aishell / "wav" / "train" / "Sa0" / "BAC009Sa0W0.wav"
    assert corpus.train[0] == Utterance("BAC009Sa0W0", "Sa0", first, "上海好")
    assert (len(corpus.train), len(corpus.test), corpus.sample_rate, corpus.dropped) == (4, 4, 16000, {})


def test_wavs_without_a_transcript_are_left_out_and_counted(aishell: Path) -> None:
    path = aishell / TRANSCRIPT
    kept = [line for line in path.read_text().splitlines() if "Sa0W0" not in line and "Sb2" not in line]
    path.write_text("\n".join([*kept, "BAC009Sb2W0", "BAC009Sb2W1 \u3000", "BAC009S9999W1 没 有"]) + "\n")
    corpus = read_corpus(aishell)
    assert corpus.dropped == {
        "wavs without a transcript": 1,
        "wavs with an empty transcript": 2,
        "transcripts without a wav": 1,
    }
    assert [u.id for u in corpus.train] == ["BAC009Sa0W1", "BAC009Sb0W0", "BAC009Sb0W1"]
    assert {u.speaker for u in corpus.test} == {"Sa2"}
    assert corpus.notices()[0] == f"{aishell}: wavs without a transcript: 1 left out"


def test_one_file_at_fault_does_not_decide_the_sample_rate(aishell: Path) -> None:
    first, second = (aishell / "wav" / "train" / "Sa0" / f"BAC009Sa0W{n}.wav" for n in range(2))
    soundfile.write(first, np.zeros(800), 8000)
    assert read_corpus(aishell).sample_rate == 16000
    first.unlink()
    second.write_text("no audio")
    assert read_corpus(aishell).sample_rate == 16000


def test_only_lists_are_read(aishell: Path) -> None:
    expected = read_corpus(aishell)
    for number, path in enumerate(sorted((aishell / "wav").rglob("*.wav"))):
        if "Sb0W1" not in path.name:  # the one that says the sample rate
            path.write_bytes(b"" if number % 2 else b"no audio")
    assert read_corpus(aishell) == expected


def test_kaldi_folders_have_speakers_and_pieces_of_files(tmp_path: Path) -> None:
    cut = {"segments": "u1 train1 0.25 0.5\nu2 train2 0 1\n", "text": "u1 我 们\nu2 好\nu3 没\n"}
    train = read_corpus(kaldi(tmp_path, **cut, utt2spk="u1 ann\n")).train
    assert train[0] == Utterance("u1", "ann", tmp_path / "train" / "a.wav", "我们", 0.25, 0.5)
    assert (train[1].speaker, train[1].end) == ("train2", 1.0)
    assert len(train) == 2


def test_aishell_2_names_its_speakers_by_their_folders(tmp_path: Path) -> None:
    for part in ("data", "dev", "test"):
        lists(tmp_path / part, scp="IC1W1\twav/C0001/IC1W1.wav\n", trans="IC1W1\t你好 吗\n")
    corpus = read_corpus(tmp_path)
    assert corpus.train == (Utterance("IC1W1", "C0001", tmp_path / "data" / "wav" / "C0001" / "IC1W1.wav", "你好吗"),)


@pytest.fixture
def wenet(tmp_path: Path) -> Path:
    pieces = [
        {"sid": "Y1_S0", "begin_time": 1.5, "end_time": 3.0, "text": "一 二", "subsets": ["L", "M", "S"]},
        {"sid": "Y1_S1", "begin_time": 3.0, "end_time": 4.5, "text": "三", "subsets": ["L", "M"]},
        {"sid": "Y1_S2", "begin_time": 4.5, "end_time": 5.0, "text": "四", "subsets": ["DEV"]},
        {"sid": "Y1_S3", "begin_time": 5.0, "end_time": 6.0, "text": "五", "subsets": ["TEST_NET"]},
    ]
    audios = [{"aid": "Y1", "path": "audio/Y1.wav", "duration": 6, "segments": pieces}]
    (tmp_path / "WenetSpeech.json").write_text(json.dumps({"dataset": "WenetSpeech", "audios": audios}))
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "Y1.wav", np.zeros(6 * RATE), RATE)
    return tmp_path


def test_wenetspeech_is_read_from_its_own_list_by_subset(wenet: Path) -> None:
    corpus = read_corpus(wenet, "S")
    assert corpus.train == (Utterance("Y1_S0", "Y1", wenet / "audio" / "Y1.wav", "一二", 1.5, 3.0),)
    assert [[u.text for u in part] for part in (corpus.dev, corpus.test)] == [["四"], ["五"]]
    assert [u.text for u in read_corpus(wenet / "WenetSpeech.json").train] == ["一二", "三"]


def test_a_subset_that_wenetspeech_has_not_is_refused(wenet: Path) -> None:
    with pytest.raises(UserError, match=r"no subset 'XL'; allowed: DEV, L, M, S, TEST_NET"):
        read_corpus(wenet, "XL")


def packed(root: Path) -> None:
    for part in ("train", "dev", "test"):
        (root / "wav" / part).mkdir(parents=True)
    (root / "wav" / "S0002.tar.gz").touch()
    (root / "transcript").mkdir()
    (root / TRANSCRIPT).write_text("a 好\n")


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder of something else": (lambda root: (root / "x").touch(), "no corpus of a known layout; allowed: a folder"),
    "speakers that are still packed": (packed, "still packed"),
    "a part that is not there": (lambda root: kaldi(root) and (root / "dev" / "wav.scp").unlink(), "no dev/wav.scp"),
    "no transcripts": (lambda root: kaldi(root) and (root / "test" / "text").unlink(), "holds wav.scp but no transc"),
    "a pipe for a file": (lambda root: kaldi(root, scp="u1 sph2pipe u1.sph |\n"), r"u1: got 'sph2pipe u1.sph \|'"),
    "pieces of nothing": (lambda root: kaldi(root, segments="u1 other 0 1\n"), "u1: got 'other 0 1'; allowed: a rec"),
    "times that are none": (lambda root: kaldi(root, segments="u1 train1 0 x\n"), "u1: got 'train1 0 x'"),
    "transcripts of others": (
        lambda root: kaldi(root, text="x 好\n"),
        r"no utterance is left in 'train' \(2 wavs without a transcript\)",
    ),
    "another encoding": (
        lambda root: kaldi(root) and (root / "dev" / "text").write_bytes("dev1 好".encode("gb18030")),
        "cannot read the transcripts: byte 5 is not UTF-8",
    ),
    "a list of something else": (lambda root: (root / "WenetSpeech.json").write_text("[1]"), "is not WenetSpeech's"),
    "audio that is not there": (
        lambda root: kaldi(root, scp="train1 a.wav\n") and (root / "train" / "a.wav").unlink(),
        r"a\.wav: is not there; the lists of the corpus say it is",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_corpus_is_one_line_that_says_where(mistake: str, tmp_path: Path) -> None:
    make, message = MISTAKES[mistake]
    make(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        read_corpus(tmp_path)
    assert str(refused.value).startswith(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; allowed: a folder with wav/{train,dev,test}/"):
        read_corpus(tmp_path / "aishell")


def spoken(counts: dict[str, int]) -> list[Utterance]:
    return [Utterance(f"{who}{n}", who, Path("x"), "好") for who, number in counts.items() for n in range(number)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_halves_share_no_speaker_and_lose_no_utterance(share: float, seed: int) -> None:
    utterances = spoken({f"S{n}": 3 + n % 5 for n in range(40)})
    first, second = halves(utterances, share, seed)
    assert {u.speaker for u in first}.isdisjoint(u.speaker for u in second)
    assert sorted(u.id for u in (*first, *second)) == sorted(u.id for u in utterances)
    assert abs(len(first) - share * len(utterances)) <= 4  # half of the speaker who says most
    assert set(first) == set(halves(utterances[::-1], share, seed)[0])


def test_halves_are_another_with_another_seed_and_never_empty() -> None:
    utterances = spoken({"a": 1, "b": 100, "c": 1, "d": 7})
    assert len({frozenset(halves(utterances, 0.5, seed)[0]) for seed in range(20)}) > 1
    for share in (0.0, 1.0):
        assert all(halves(utterances, share, 0))
    with pytest.raises(UserError, match="got 1 speaker; allowed: 2 and more"):
        halves(spoken({"a": 5}), 0.5, 0)


def test_tokens_are_those_of_training_by_frequency() -> None:
    tokens = Tokens.of(["下上上", "海上", "海下"])
    assert tokens.list == ("<blank>", "<unk>", "上", "下", "海", "<sos/eos>")
    assert tokens == Tokens.of(["海下", "海上", "下上上"])
    assert tokens.encode("上天海") == [2, 1, 4]
    assert tokens.decode([5, 2, 0, 1, 4, 5]) == "上<unk>海"
    assert tokens.decode(tokens.encode("海上下")) == "海上下"


def test_characters_that_training_has_not_are_reported_in_one_line() -> None:
    tokens = Tokens.of(["上海"])
    assert tokens.notice("dev", ["海上"]) is None
    assert tokens.notice("dev", ["上天天", "地"]) == (
        "dev: 3 of 4 characters do not occur in training (2 different ones: 天 地) and count as errors"
    )
