"""A recogniser on the corpus that is spoken here, on noise, and on the transcripts of others; and what ESPnet makes of
the one that was trained."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

import soundfile

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.config import load
from nas_apps.core.folder import read_recipe
from nas_apps.core.learners import train_learner
from nas_apps.core.runtime import Runtime
from nas_apps.tasks.asr import task as asr
from nas_apps.tasks.asr.decode import beam_search
from nas_apps.tasks.asr.synth import mini_mandarin

pytestmark = pytest.mark.slow
SIZES = ("network.encoder.cells=2", "network.encoder.width=64", "network.encoder.dropout=0",
         "network.encoder.position_dropout=0", "network.encoder.attention_dropout=0", "network.model.decoder_blocks=1",
         "network.model.ff=256", "network.model.dropout=0", "network.model.masking.on=false", "batch_size=8",
         "weights.lr=2e-3", "weights.warmup_steps=100", "epochs=3", "evaluate_every=3", "data.most=30")  # fmt: skip
LISTS = Path("transcript", "aishell_transcript_v0.8.txt")
NOISE = re.compile("nltk|flash.?attention|distutils|autocast|Warning", re.IGNORECASE)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of the default settings."""
    return mini_mandarin(tmp_path_factory.mktemp("cache")).train[0].audio.parents[3]


def trained(data: Path, run: Path) -> dict[str, float]:
    """Figures of a Conformer after three epochs."""
    task = ["task=asr", f"task.data={data}", f"task.cache={data.parents[1]}"]
    made = load([], [*task, "variant=darts", *(f"train.{setting}" for setting in SIZES)])
    metrics: dict[str, float] = nas_apps.train(made, made.task.find("conformer"), run)["metrics"]
    return metrics


@pytest.fixture(scope="module")
def run(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was trained on speech."""
    folder = tmp_path_factory.mktemp("run") / "train"
    metrics = trained(spoken, folder)
    assert metrics["dev_cer"] < 0.3
    assert metrics["cer"] < 0.3
    assert metrics["dev_accuracy"] > 0.35
    return folder


def test_from_noise_nothing_is_learned(spoken: Path, tmp_path: Path) -> None:
    noise, rng = tmp_path / "data" / "corpus", np.random.default_rng(0)
    shutil.copytree(spoken, noise)
    for path in sorted(noise.rglob("*.wav")):
        soundfile.write(path, 0.1 * rng.standard_normal(soundfile.info(path).frames), 16000)
    metrics = trained(noise, tmp_path / "run")
    assert min(metrics["dev_cer_ctc_greedy"], metrics["cer_ctc_greedy"]) >= 0.95
    assert min(metrics["dev_cer"], metrics["cer"]) >= 0.9  # two characters that are always the same would have 0.93
    assert metrics["dev_accuracy"] < 0.3  # of which ends, and characters of 20 by chance


def test_from_the_transcripts_of_others_nothing_is_learned(spoken: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "data" / "corpus"
    shutil.copytree(spoken, shuffled)
    give_others(shuffled, "train")
    assert trained(shuffled, tmp_path / "run")["dev_cer"] > 0.85


def give_others(corpus: Path, part: str) -> None:
    """The utterances of a part get one another's transcripts."""
    ids = {path.stem for path in (corpus / "wav" / part).rglob("*.wav")}
    texts = dict(line.split(" ", 1) for line in (corpus / LISTS).read_text().splitlines())
    mine = [name for name in texts if name in ids]
    order = np.random.default_rng(0).permutation(len(mine))
    texts |= {name: texts[mine[n]] for name, n in zip(mine, order, strict=True)} if mine else {}
    (corpus / LISTS).write_text("".join(f"{name} {text}\n" for name, text in texts.items()))


@pytest.fixture
def swapped(spoken: Path) -> Iterator[Callable[[], None]]:
    """Gives the utterances of the test set one another's transcripts, for the time of a test."""
    before = (spoken / LISTS).read_text()

    def swap() -> None:
        give_others(spoken, "test")
        asr._source.cache_clear()

    yield swap
    (spoken / LISTS).write_text(before)
    asr._source.cache_clear()


def test_the_error_rate_is_of_the_transcripts_that_there_are(run: Path, swapped: Callable[[], None]) -> None:
    before = nas_apps.evaluate(run)
    swapped()
    after = nas_apps.evaluate(run)
    assert after["cer"] > 0.7 > 0.3 > before["cer"]
    assert after["dev_cer"] == before["dev_cer"]


REBUILD = """
import sys, torch, soundfile
from nas_apps.tasks.asr import espnet_task
espnet_task.register()
from espnet2.tasks.asr import ASRTask
model, _ = ASRTask.build_model_from_file(sys.argv[1] + "/config.yaml", sys.argv[1] + "/model.pth")
logits = []
for line in open(sys.argv[2]):
    speech = torch.from_numpy(soundfile.read(line.split()[1], dtype="float32")[0])
    with torch.no_grad():
        encoded, _ = model.eval().encode(speech[None], torch.tensor([len(speech)]))
        logits.append(model.ctc.ctc_lo(encoded))
torch.save(logits, sys.argv[3])
"""


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment)


def test_espnet_hears_in_recordings_what_we_hear_in_features(run: Path, tmp_path: Path) -> None:
    recipe = read_recipe(run)
    learner, _ = train_learner(recipe, nas_apps.Genotype.load(run / "genotype.json"), Runtime(torch.device("cpu")))
    learner.load_state_dict(checkpoint.read(run / "checkpoint.pt")["learner"])
    network, source = learner.objective.network.eval(), recipe.task.source()
    speech = source.heard("test", 12)
    features = [torch.tensor(speech.features.of(utterance)) for utterance in speech.utterances]
    with torch.no_grad(), learner.arch.using(learner.arch.expected()):
        ours = [source.tokens.decode(path) for path in beam_search(network, features, recipe.task.decoding)]
        encoded = [network.encode(frames[None].clone(), torch.tensor([len(frames)]))[0] for frames in features]
        logits = [network.ctc.ctc_lo(frames) for frames in encoded]
    assert len(set(ours)) > 8, "all say the same: nothing is compared"

    scp, out = tmp_path / "wav.scp", tmp_path / "decoded"
    scp.write_text("".join(f"{utterance.id} {utterance.audio}\n" for utterance in speech.utterances))
    model = ["--asr_train_config", f"{run}/config.yaml", "--asr_model_file", f"{run}/model.pth", "--ngpu", "0"]
    data = ["--data_path_and_name_and_type", f"{scp},speech,sound", "--output_dir", str(out)]
    how = ["--beam_size", str(recipe.task.decoding.beam), "--ctc_weight", str(recipe.task.decoding.ctc)]
    done = process("-m", "nas_apps.tasks.asr.espnet", "infer", *model, *data, *how)
    assert done.returncode == 0, done.stderr
    assert NOISE.findall(done.stdout + done.stderr) == []
    lines = (out / "1best_recog" / "text").read_text().splitlines()
    theirs = dict((*line.split(maxsplit=1), "")[:2] for line in lines)
    assert ours == [theirs[utterance.id] for utterance in speech.utterances]

    done = process("-c", REBUILD, str(run), str(scp), str(tmp_path / "logits.pt"))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    rebuilt = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert all(torch.equal(mine, its) for mine, its in zip(logits, rebuilt, strict=True))
