"""What a user of the speech task is told, and what not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

import soundfile

from nas_apps import cli
from nas_apps.tasks.asr import task as asr
from nas_apps.tasks.asr.synth import Mini, mini_mandarin

SIZES = ("network.encoder.cells=1", "network.encoder.width=16", "network.model.decoder_blocks=1",
         "network.model.heads=2", "network.model.ff=16", "batch_size=4", "epochs=1", "data.most=2")  # fmt: skip
LISTS = Path("transcript", "aishell_transcript_v0.8.txt")
NOISE = re.compile("nltk|g2p|flash.?attention|distutils|autocast|[A-Za-z]+Warning|network:", re.IGNORECASE)
LOUD = """
import socket, sys
def loud(*args, **kwargs):
    sys.__stderr__.write(f"network: {args}")
    raise OSError("no network")
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, loud)
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = loud
"""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in AISHELL-1's layout."""
    cache = tmp_path_factory.mktemp("cache")
    return mini_mandarin(cache, Mini(speakers=(2, 1, 1), utterances=(4, 2, 2))).train[0].audio.parents[3]


@pytest.fixture
def corpus(spoken: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(spoken, tmp_path / "data" / "corpus"))


@pytest.fixture
def call(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """The command line on that corpus."""
    sizes = [f"{phase}.{setting}" for phase in ("search", "train") for setting in SIZES]
    data = ["task=asr", f"task.data={corpus}", f"task.cache={tmp_path / 'cache'}", "variant=darts"]

    def run(*given: str) -> Ended:
        verb, *rest = given
        monkeypatch.setattr(sys, "argv", ["nas-apps", verb, *data, *sizes, *rest, "--run", str(tmp_path / "run")])
        status = 0
        asr._source.cache_clear()  # as in a process of its own
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Ended(status, *capsys.readouterr())

    return run


def wav(corpus: Path, part: str) -> Path:
    """The second recording of a part."""
    return sorted((corpus / "wav" / part).rglob("*.wav"))[1]


def stereo(path: Path) -> None:
    soundfile.write(path, np.zeros((16000, 2)), 16000)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20000])


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another rate": (
        lambda path: soundfile.write(path, np.zeros(8000), 8000),
        "got 8000 samples a second; allowed: 16",
    ),
    "two channels": (stereo, "got 2 channels; allowed: 1 (mono)"),
    "no samples": (
        lambda path: soundfile.write(path, np.zeros(0), 16000),
        "got samples 0 to 0 of 0; allowed: one or m",
    ),
    "no bytes": (lambda path: path.write_bytes(b""), "cannot be read as audio"),
    "half a header": (truncated, "cannot be read as audio"),
    "cut short": (cut, "is cut short: its header tells of more than there is"),
}


@pytest.mark.parametrize(("part", "spoil"), [*zip(["train", "dev", "test"] * 2, SPOILED, strict=True)])
def test_audio_at_fault_is_one_line_before_anything_runs_or_is_left_out(
    part: str, spoil: str, corpus: Path, call: Callable[..., Ended], tmp_path: Path
) -> None:
    make, message = SPOILED[spoil]
    make(wav(corpus, part))
    train = ("train", "--genotype", "conformer")
    ended = call(*train)
    assert ended.status == 2
    assert ended.out == ""
    assert re.fullmatch(rf"nas-apps: {re.escape(str(wav(corpus, part)))}: .+\n", ended.err), ended.err
    assert message in ended.err
    assert not (tmp_path / "run").exists()
    ended = call(*train, "task.skip_faulty=true")
    assert ended.status == 0, ended.err
    assert f"{part}: 1 of" in ended.err + ended.out
    assert "its audio is at fault" in ended.err + ended.out
    assert (tmp_path / "run" / "model.pth").exists()


def test_what_a_search_will_not_hear_does_not_stop_it_and_what_it_will_does(
    corpus: Path, call: Callable[..., Ended], tmp_path: Path
) -> None:
    stereo(wav(corpus, "test"))
    assert call("search", "task.nodes=1", "task.ops=[ffn_4,conv_7]").status == 0
    shutil.rmtree(tmp_path / "run")
    stereo(wav(corpus, "train"))
    ended = call("search", "task.nodes=1", "task.ops=[ffn_4,conv_7]")
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"nas-apps: .+ got 2 channels; allowed: 1 \(mono\)\n", ended.err), ended.err


def test_transcripts_that_are_missing_or_have_unknown_characters_are_a_line_each(
    corpus: Path, call: Callable[..., Ended]
) -> None:
    names = {part: wav(corpus, part).stem for part in ("train", "dev", "test")}
    lines = (corpus / LISTS).read_text().splitlines()
    kept = [line for line in lines if names["train"] not in line]
    kept = [f"{names[p]} 龘龘" if (p := _part(line, names)) else line for line in kept]
    (corpus / LISTS).write_text("".join(f"{line}\n" for line in kept))
    ended = call("train", "--genotype", "conformer")
    assert ended.status == 0
    lines = ended.err.splitlines()
    assert [line for line in lines if line.endswith(": wavs without a transcript: 1 left out")]
    for part in ("dev", "test"):
        told = rf"warning: {part}: \d+ of \d+ characters do not occur in training \(.*龘.*\) and count as errors"
        assert [line for line in lines if re.fullmatch(told, line)]


def _part(line: str, names: dict[str, str]) -> str | None:
    return next((part for part in ("dev", "test") if names[part] in line), None)


def test_a_beam_wider_than_the_tokens_is_told_before_a_training(call: Callable[..., Ended], tmp_path: Path) -> None:
    ended = call("train", "--genotype", "conformer", "task.decoding.beam=50")
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"nas-apps: beam: got 50; allowed: at most the number of tokens, \d+\n", ended.err)
    assert not (tmp_path / "run").exists()


def without(*packages: str) -> str:
    """Code after which these packages are not installed."""
    return f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
import importlib.util
there = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in {packages!r} else there(name, *rest)
sys.meta_path.insert(0, Missing())
"""


def process(code: str, *arguments: str, cwd: Path) -> Ended:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (("espnet", "espnet2"), "task asr: needs espnet, of an extra"),
        (("soundfile",), "needs soundfile, which is not installed"),
        (("espeakng_loader",), "needs espeakng_loader, which is not installed"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else None,
)
def test_a_missing_extra_is_one_line(packages: tuple[str, ...], said: str, tmp_path: Path) -> None:
    recipe = ["task=asr", f"task.cache={tmp_path}", *(f"search.{setting}" for setting in SIZES)]
    code = without(*packages) + "from nas_apps.cli import main; main()"
    ended = process(code, "search", *recipe, "--run", "run", cwd=tmp_path)
    assert ended == Ended(2, "", f"nas-apps: {said}: pip install 'nas-apps[asr]'\n")


def test_the_package_imports_nothing_of_espnet(tmp_path: Path) -> None:
    code = """
import nas_apps, nas_apps.cli, nas_apps.core.runs, sys
print(sorted({name.split(".")[0] for name in sys.modules} & {"espnet", "espnet2", "torchaudio", "nltk", "soundfile"}))
"""
    assert process(code, cwd=tmp_path) == Ended(0, "[]\n", "")


@pytest.mark.slow
def test_searching_training_and_evaluating_say_what_is_theirs_and_touch_no_network(
    corpus: Path, tmp_path: Path
) -> None:
    code = f"""{LOUD}
from nas_apps.cli import main
main()
print("tasks", sorted(name for name in sys.modules if name.startswith(("espnet2.tasks", "espnet2.bin", "nltk", "g2p"))))
"""
    sizes = [f"{phase}.{setting}" for phase in ("search", "train") for setting in SIZES]
    data = [
        "task=asr",
        f"task.data={corpus}",
        f"task.cache={tmp_path / 'cache'}",
        "variant=darts",
        "task.nodes=4",
        *sizes,
    ]
    for verb in (
        ["search", *data, "--run", "search"],
        ["train", *data, "--genotype", "search/genotype.json", "--run", "train"],
        ["evaluate", "train"],
    ):
        ended = process(code, *verb, cwd=tmp_path)
        assert ended.status == 0, ended.err
        assert ended.out.endswith("tasks []\n")
        assert NOISE.findall(ended.out + ended.err) == []
        shown = [line for part in ended.err.splitlines() for line in part.split("\r") if line.strip()]
        assert all(
            line.startswith(("search: ", "train: ", "making features", "warning: ", "nas-apps: ")) for line in shown
        )
