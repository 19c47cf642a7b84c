"""ESPnet's own programs on our encoder, each in a process of its own, as a user starts them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random

pytest.importorskip("espnet")
pytest.importorskip("soundfile")

import soundfile

from nas_apps.tasks.asr.encoder import DartsConformerEncoder, Network, encoder_conf
from nas_apps.tasks.asr.quiet import quiet
from nas_apps.tasks.asr.spaces import ASRSpace

with quiet():
    from espnet2.asr.ctc import CTC
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
    from espnet2.asr.espnet_model import ESPnetASRModel

PYTHON = Path(__file__).parents[2] / "scripts" / "espnet_python.py"
TOKENS = ["<blank>", "<unk>", "a", "b", "c", "<sos/eos>"]
DECODER = {"attention_heads": 2, "linear_units": 16, "num_blocks": 1}
NOISE = re.compile("nltk|flash.?attention|distutils|autocast|Warning", re.IGNORECASE)

REBUILD = """
import sys, torch
from nas_apps.tasks.asr import espnet_task
espnet_task.register()
from espnet2.tasks.asr import ASRTask
model, args = ASRTask.build_model_from_file(sys.argv[1], sys.argv[2])
speech, lengths = torch.load(sys.argv[3], weights_only=True)
encoded, counts = model.eval().encode(speech, lengths)
torch.save([model.ctc.ctc_lo(encoded), counts], sys.argv[4])
print(type(model.encoder).__name__)
"""


def genotype() -> Genotype:
    return Random()(ASRSpace().choices(), {}, torch.Generator().manual_seed(1))


def python(*arguments: str, program: tuple[str, ...] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return subprocess.run([*program, *arguments], capture_output=True, text=True, check=False, env=environment)


def built(conf: dict[str, Any]) -> ESPnetASRModel:
    """The model of the configuration below, built by hand."""
    encoder = DartsConformerEncoder(80, **conf)
    decoder = TransformerDecoder(len(TOKENS), encoder.output_size(), **DECODER)
    ctc = CTC(len(TOKENS), encoder.output_size())
    return ESPnetASRModel(len(TOKENS), TOKENS, None, None, None, None, encoder, None, decoder, ctc, None)


@pytest.mark.slow
def test_a_model_is_rebuilt_from_config_yaml_in_another_process_with_the_same_logits(tmp_path: Path) -> None:
    conf = encoder_conf(genotype(), Network(cells=2, width=16))
    model, batch = built(conf).eval(), (torch.randn(2, 60, 80), torch.tensor([60, 43]))
    with torch.no_grad():
        encoded, counts, _ = model.encoder(*batch)
        logits: Tensor = model.ctc.ctc_lo(encoded)
    config = {
        "token_list": TOKENS, "input_size": 80, "specaug": None, "normalize": None, "encoder": "darts_conformer",
        "encoder_conf": conf, "decoder": "transformer", "decoder_conf": DECODER, "ctc_conf": {}, "model": "espnet",
        "model_conf": {}, "init": None,
    }  # fmt: skip
    files = [tmp_path / name for name in ("config.yaml", "model.pth", "batch.pt", "logits.pt")]
    files[0].write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), files[1])
    torch.save(list(batch), files[2])
    done = python("-c", REBUILD, *map(str, files))
    assert (done.stdout, done.stderr, done.returncode) == ("DartsConformerEncoder\n", "", 0)
    found, found_counts = torch.load(files[3], weights_only=True)
    assert torch.equal(found, logits)
    assert found_counts.tolist() == counts.tolist()


def test_a_mistake_in_the_verb_is_one_line() -> None:
    done = python("-m", "nas_apps.tasks.asr.espnet", "tran")
    line = "nas-apps: verb: no 'tran'; allowed: infer, retrain, train\n"
    assert (done.stdout, done.stderr, done.returncode) == ("", line, 2)


def test_the_wrapper_is_python_for_all_else(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("import sys; print(sys.argv[1:])")
    for arguments in (("-c", "import sys; print(sys.argv[1:])"), (str(tmp_path / "hello.py"),)):
        done = python(*arguments, "-m", "b", program=(sys.executable, str(PYTHON)))
        assert (done.stdout, done.stderr, done.returncode) == ("['-m', 'b']\n", "", 0)
    assert os.access(PYTHON, os.X_OK)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight recordings of noise, their texts, the tokens, a genotype and a configuration."""
    folder, rng = tmp_path_factory.mktemp("corpus"), torch.Generator().manual_seed(0)
    for i in range(8):
        noise = 0.1 * torch.randn(8000 + 800 * i, generator=rng)
        soundfile.write(folder / f"u{i}.wav", noise.numpy(), 16000)
    (folder / "wav.scp").write_text("".join(f"u{i} {folder}/u{i}.wav\n" for i in range(8)))
    (folder / "text").write_text("".join(f"u{i} {'abc'[i % 3]}{'abc'[i // 3]}\n" for i in range(8)))
    (folder / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    genotype().save(folder / "found.json")
    conf = {"genotype": str(folder / "found.json"), "num_cells": 2, "output_size": 16}
    model = {"encoder": "darts_conformer", "encoder_conf": conf, "decoder": "transformer", "decoder_conf": DECODER}
    (folder / "conf.yaml").write_text(yaml.safe_dump(model))
    return folder


def training(corpus: Path, out: Path, *more: str) -> list[str]:
    data = [
        argument
        for part in ("train", "valid")
        for name, kind in (("wav.scp", "speech,sound"), ("text", "text,text"))
        for argument in (f"--{part}_data_path_and_name_and_type", f"{corpus}/{name},{kind}")
    ]
    shapes = ["--train_shape_file", f"{corpus}/text", "--valid_shape_file", f"{corpus}/text"]
    off = ["--num_workers", "0", "--ngpu", "0", "--num_att_plot", "0", "--use_tensorboard", "false"]
    settings = ["--config", f"{corpus}/conf.yaml", "--output_dir", str(out), "--token_type", "char"]
    tokens = ["--token_list", f"{corpus}/tokens.txt", "--batch_type", "unsorted", "--batch_size", "4"]
    return [*settings, *tokens, *data, *shapes, *off, "--use_matplotlib", "false", "--max_epoch", "1", *more]


@pytest.mark.slow
def test_espnet_trains_and_decodes_our_encoder_and_says_nothing_it_should_not(corpus: Path, tmp_path: Path) -> None:
    wrapped = (str(PYTHON), "-m", "espnet2.bin.asr_train")
    trained = python(*training(corpus, tmp_path / "exp"), program=wrapped)
    assert trained.returncode == 0, trained.stderr
    assert NOISE.findall(trained.stdout + trained.stderr) == []
    config = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert Genotype.from_json(config["encoder_conf"]["genotype"]) == genotype()
    (corpus / "found.json").rename(corpus / "gone.json")  # the file itself is needed no more
    files = ["--asr_train_config", f"{tmp_path}/exp/config.yaml", "--asr_model_file", f"{tmp_path}/exp/1epoch.pth"]
    data = ["--data_path_and_name_and_type", f"{corpus}/wav.scp,speech,sound", "--output_dir", f"{tmp_path}/decoded"]
    decoded = python("-m", "nas_apps.tasks.asr.espnet", "infer", *files, *data, "--beam_size", "2", "--ngpu", "0")
    assert decoded.returncode == 0, decoded.stderr
    assert NOISE.findall(decoded.stdout + decoded.stderr) == []
    assert len((tmp_path / "decoded" / "1best_recog" / "text").read_text().splitlines()) == 8
    (corpus / "gone.json").rename(corpus / "found.json")


SPAWN = """
import sys
from multiprocessing import get_context
from espnet2.train.distributed_utils import resolve_distributed_mode
from nas_apps.tasks.asr.espnet_task import Task
args = Task.get_parser().parse_args(sys.argv[1:])
resolve_distributed_mode(args)
process = get_context("spawn").Process(target=Task.main_worker, args=(args,))
process.start(), process.join(), sys.exit(process.exitcode)
"""


@pytest.mark.slow
def test_a_process_that_espnet_spawns_knows_our_encoder(corpus: Path, tmp_path: Path) -> None:
    done = python("-c", SPAWN, *training(corpus, tmp_path / "exp", "--dry_run", "true"))
    assert done.returncode == 0, done.stderr
    assert "DartsConformerEncoder" in done.stderr
    assert (tmp_path / "exp" / "config.yaml").exists()


@pytest.mark.slow
def test_a_setting_that_our_encoder_has_not_is_refused_in_one_line(corpus: Path, tmp_path: Path) -> None:
    arguments = training(corpus, tmp_path / "exp", "--log_level", "ERROR", "--encoder_conf", "linear_units=2048")
    done = python("-m", "nas_apps.tasks.asr.espnet", "train", *arguments)
    _, error = done.stderr.splitlines()  # ESPnet begins with the command line
    assert error.startswith("nas-apps: encoder_conf: no 'linear_units'; allowed: attention_dropout_rate, cell_output")
    assert done.returncode == 2
