"""The final training in ESPnet's own trainer: what it is given, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

import nas_apps
from nas_apps.core.cell import Fixed
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import seed_process
from nas_apps.tasks.asr import espnet_program, espnet_recipe, retrain
from nas_apps.tasks.asr.audio import read_audio
from nas_apps.tasks.asr.corpus import Corpus, Utterance
from nas_apps.tasks.asr.quiet import quiet

CPU = Runtime(torch.device("cpu"))
SIZES = ("task=asr", "task.mini.speakers=[2,1,1]", "task.mini.utterances=[8,3,2]", "task.decoding.beam=2",
         "train.network.encoder={cells: 1, width: 16}", "train.network.model={decoder_blocks: 1, heads: 2, ff: 16}",
         "train.epochs=2", "train.batch_size=4", "train.weights={warmup_steps: 10, ema: 0.9}",
         "train.log_steps=1")  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def settings(cache: Path) -> tuple[str, ...]:
    return (*SIZES, f"task.cache={cache}")


@pytest.fixture
def small(settings: tuple[str, ...]) -> Callable[..., Recipe]:
    return lambda *more: load([], [*settings, *more])


def given(recipe: Recipe, folder: Path, more: Path | None = None) -> dict[str, Any]:
    """The configuration, and beside it in the folder what it names."""
    config = espnet_recipe.training_config(recipe, recipe.task.find("conformer"), more)
    retrain.write(folder, recipe, recipe.task, config)  # type: ignore[arg-type]
    read: dict[str, Any] = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8"))
    return read


def test_the_data_are_those_of_the_corpus_as_kaldi_has_them(small: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = small("train.data.most=2")
    corpus = recipe.task.source().corpus  # type: ignore[attr-defined]
    given(recipe, tmp_path)
    for part, number in (("train", 16), ("dev", 2), ("test", 2)):
        lines = {
            n: [line.split() for line in (tmp_path / "data" / part / n).read_text().splitlines()]
            for n in ("wav.scp", "text")
        }
        wanted = sorted(getattr(corpus, part)[:number], key=lambda u: u.id)
        assert lines["text"] == [[u.id, u.text] for u in wanted]
        assert lines["wav.scp"] == [[u.id, str(u.audio)] for u in wanted]
        assert all(Path(where).is_absolute() for _, where in lines["wav.scp"])


def test_the_configuration_says_what_the_recipe_says(small: Callable[..., Recipe], tmp_path: Path) -> None:
    overrides = ("train.clip=null", "train.weights.lr=0.01", "train.epoch_steps=3", "seed=5")
    config = given(small(*overrides), tmp_path)
    told = {"optim": "adam", "scheduler_conf": {"warmup_steps": 10}, "max_epoch": 2, "batch_size": 4, "seed": 5,
            "grad_clip": float("inf"), "num_iters_per_epoch": 3, "batch_type": "sorted"}  # fmt: skip
    assert {key: config[key] for key in told} == told
    assert config["optim_conf"] == {"lr": 0.01, "weight_decay": 1e-6, "betas": [0.9, 0.999], "eps": 1e-8}
    assert config["encoder_conf"]["output_size"] == 16
    assert json.loads(config["encoder_conf"]["genotype"])
    assert config["decoder_conf"]["linear_units"] == 16
    assert (tmp_path / config["normalize_conf"]["stats_file"]).exists()
    sgd = given(small("train.weights={optimizer: sgd, warmup_steps: 0}"), tmp_path / "sgd")
    assert (sgd["optim"], sgd["optim_conf"]["momentum"], sgd["scheduler"]) == ("sgd", 0.9, None)


def test_espnets_own_settings_are_taken_where_the_recipe_decides_nothing(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("batch_type: numel\nbatch_bins: 400000\n")
    assert given(small(), tmp_path / "run", more)["batch_bins"] == 400000
    with pytest.raises(UserError, match=r"run/train.yaml: holds another configuration; allowed"):
        given(small(), tmp_path / "run")
    for text, fault in (
        ("max_epoch: 3", "max_epoch: is decided by the recipe"),
        ("- 1", "got no table"),
        ("a: [", "not"),
    ):
        more.write_text(text)
        with pytest.raises(UserError, match=rf"more.yaml: {fault}"):
            given(small(), tmp_path / "other", more)
    shipped = Path(__file__).parents[2] / "recipes" / "conf" / "asr" / "espnet.yaml"
    assert given(small(), tmp_path / "shipped", shipped)["keep_nbest_models"] == 10


@pytest.mark.parametrize(
    ("overrides", "runtime", "processes", "line"),
    [
        (("train.inherit=runs/a",), CPU, 1, r"train.inherit: got runs/a; allowed with ESPnet's trainer: null"),
        (("train.drop_path=0.1",), CPU, 1, r"train.drop_path: got 0.1; allowed with ESPnet's trainer: 0"),
        ((), replace(CPU, world=2), 1, r"torchrun: got several processes; allowed"),
        ((), replace(CPU, bf16=True), 1, r"precision: got 'bf16' on a CPU; allowed"),
        ((), CPU, 2, r"nproc: got 2 on a CPU; allowed"),
        ((), Runtime(torch.device("cuda", 1)), 1, r"device: got 'cuda:1'; allowed .*CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_what_espnets_trainer_has_not_is_refused(
    small: Callable[..., Recipe], overrides: tuple[str, ...], runtime: Runtime, processes: int, line: str
) -> None:
    with pytest.raises(UserError, match=line):
        espnet_recipe.refuse(small(*overrides), Corpus((), (), (), "none", 16000, {}), runtime, processes)


def test_a_corpus_of_cut_recordings_is_refused(small: Callable[..., Recipe]) -> None:
    cut = Utterance("a", "s", Path("long.wav"), "一", 1.0, 2.0)
    with pytest.raises(UserError, match=r"long.wav: a is a part of it; allowed"):
        espnet_recipe.refuse(small(), Corpus((), (), (cut,), "cut", 16000, {}), CPU, 1)


def test_a_folder_of_our_own_training_is_not_gone_on_with(small: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = small("train.epochs=1", "train.data.most=1")
    genotype = recipe.task.find("conformer")
    nas_apps.train(recipe, genotype, tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    with pytest.raises(UserError, match=r"run: holds a run; allowed: --resume"):
        retrain.retrain(recipe, genotype, tmp_path / "run")
    with pytest.raises(UserError, match=r"run: holds a training that is not ESPnet's; allowed: another folder"):
        retrain.retrain(recipe, genotype, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
    assert not (tmp_path / "run" / "espnet").exists()


def test_a_program_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    told = espnet_program.Told("epoch", 1, "never")
    with pytest.raises(UserError, match=r"ended with status 2: nas-apps: verb: no 'tran'; allowed.*tran.log has all"):
        espnet_program.run("tran", [], tmp_path, "tran.log", told)
    assert (tmp_path / "tran.log").read_text() == "nas-apps: verb: no 'tran'; allowed: infer, retrain, train\n"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [(("--gentype", "g"), "option --gentype not recognized"), (("task=asr", "--run", "r"), "no --genotype"),
     (("--genotype", "g", "--run", "r", "--nproc", "x"), "invalid literal")],
)  # fmt: skip
def test_a_mistake_in_the_options_is_one_line(arguments: tuple[str, ...], fault: str) -> None:
    with pytest.raises(UserError, match=rf"^retrain: {fault}.*; allowed: --run ..., .*; needed: --run, --genotype$"):
        retrain.main(arguments)


@pytest.mark.slow
def test_espnet_builds_our_model_with_our_loss_to_the_bit(
    small: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet(tasks=True):
        from nas_apps.tasks.asr.espnet_task import Task
    recipe = small()
    given(recipe, tmp_path)
    monkeypatch.chdir(tmp_path)
    args = Task.get_parser().parse_args(["--config", "train.yaml"])
    theirs: Any = Task.build_model(args).float()  # as its trainer does
    ours = recipe.task.build(Fixed(recipe.task.choices(), recipe.task.find("conformer")), recipe.train)
    missing = theirs.load_state_dict(ours.get_submodule("network").state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert all(name.startswith("frontend.") for name in missing.missing_keys)
    source = recipe.task.source()  # type: ignore[attr-defined]
    speech = source.train(0.5, split=False)[0]
    losses = []
    for train in (False, True):
        theirs.train(train), ours.train(train)
        for row, utterance in enumerate(speech.utterances[:3]):
            batch = speech.batch([row], CPU.device)
            wav = torch.from_numpy(read_audio(utterance.audio, source.corpus.sample_rate))[None]
            raw = {**batch, "speech": wav, "speech_lengths": torch.tensor([wav.shape[1]])}
            found = []
            for loss in (lambda raw=raw: theirs(**raw)[0], lambda batch=batch: ours(batch).loss):
                seed_process(row)
                found.append(loss().item())
            assert found[0] == found[1]
            losses += found[:1]
    assert len({*losses}) == 6


@pytest.mark.slow
def test_espnet_trains_decodes_and_leaves_what_our_training_leaves(
    small: Callable[..., Recipe], settings: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "espnet run, 1"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    command = [sys.executable, "-m", "nas_apps.tasks.asr.espnet", "retrain", *settings, "--genotype", "conformer"]
    command += ["--run", folder.name]
    how: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **how) as stopped:
        while not (folder / "espnet" / "exp" / "checkpoint.pth").exists() and stopped.poll() is None:
            time.sleep(0.05)
        stopped.send_signal(signal.SIGTERM)
        said = stopped.stderr.read() if stopped.stderr else ""
    assert stopped.returncode == 130, said
    assert said.splitlines()[-1].startswith("nas-apps: interrupted; the same command with --resume")
    again = subprocess.run([*command, "--resume"], capture_output=True, check=False, **how)
    assert (again.returncode, again.stdout) == (0, f"{folder.name}/summary.json\n"), again.stderr
    lines = [line for line in again.stderr.replace("\r", "\n").splitlines() if line]
    assert {line.split(":")[0] for line in lines} == {"train", "infer_dev", "infer_test"}
    recipe = small()
    summary = json.loads((folder / "summary.json").read_text())
    ours = nas_apps.train(recipe, recipe.task.find("conformer"), tmp_path / "ours")
    assert {name: summary[name].keys() for name in ("metrics", "costs")} == {
        name: ours[name].keys() for name in ("metrics", "costs")
    }
    assert summary.keys() == ours.keys()
    assert summary["steps"] == ours["steps"] == 8
    assert summary["costs"] == ours["costs"]
    assert nas_apps.evaluate(folder) == pytest.approx(summary["metrics"]), "our beam search hears something else"
    left = {path.name for path in (tmp_path / "ours").iterdir() if not path.name.startswith("events.")}
    assert left <= {path.name for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"checkpoint.pt: written under another recipe"):
        nas_apps.train(recipe, recipe.task.find("conformer"), folder, resume=True)
