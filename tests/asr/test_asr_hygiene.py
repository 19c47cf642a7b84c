"""What a search reads, and what it follows from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

import soundfile

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.arch import Arch
from nas_apps.core.cell import Mixed
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.learner import Learner
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full
from nas_apps.tasks.asr.encoder import CellEncoder, Network
from nas_apps.tasks.asr.model import Masking, Model, build_model
from nas_apps.tasks.asr.objective import SpeechObjective
from nas_apps.tasks.asr.spaces import OPS, ASRSpace
from nas_apps.tasks.asr.synth import Mini, mini_mandarin

PHASE = ("network.encoder.cells=1", "network.encoder.width=16", "network.model.decoder_blocks=1",
         "network.model.heads=2", "network.model.ff=16", "batch_size=4", "epochs=1", "data.most=1")  # fmt: skip
MINI = Mini(speakers=(2, 1, 1), utterances=(4, 2, 2))
LISTS = Path("transcript", "aishell_transcript_v0.8.txt")


def small(data: Path, *given: str) -> Recipe:
    sizes = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE]
    task = ["task=asr", f"task.data={data}", f"task.cache={data.parent}", "task.nodes=1", "variant=darts"]
    return load([], [*task, *sizes, "search.logits.lr=0.05", *given])


def logits(run: Path) -> Tensor:
    return checkpoint.read(run / "checkpoint.pt")["learner"]["arch"]["_logits.cell/op"]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in AISHELL-1's layout."""
    cache = tmp_path_factory.mktemp("cache")
    return mini_mandarin(cache, MINI).train[0].audio.parents[3]


@pytest.mark.parametrize("variant", ["darts", "single_darts"])
def test_a_search_never_reads_the_dev_and_test_sets(variant: str, spoken: Path, tmp_path: Path) -> None:
    poisoned = tmp_path / "data" / "corpus"
    shutil.copytree(spoken, poisoned)
    held_out = [path for part in ("dev", "test") for path in (poisoned / "wav" / part).rglob("*.wav")]
    for path in held_out:
        soundfile.write(path, np.full(16000, np.nan), 16000, subtype="FLOAT")
    lines = (poisoned / LISTS).read_text().splitlines()
    ids = {path.stem for path in held_out}
    (poisoned / LISTS).write_text("".join(f"{n[:16]} 毒\n" if n[:16] in ids else f"{n}\n" for n in lines))
    assert len(held_out) == 4
    for data, run in ((spoken, "clean"), (poisoned, "poisoned")):
        nas_apps.search(small(data, f"variant={variant}"), tmp_path / run)
    assert torch.equal(logits(tmp_path / "clean"), logits(tmp_path / "poisoned"))
    assert (tmp_path / "clean" / "metrics.jsonl").read_text() == (tmp_path / "poisoned" / "metrics.jsonl").read_text()
    made = small(poisoned, "task.nodes=4")  # the poison works, and is found before an hour of training
    with pytest.raises(UserError, match="samples that are not finite"):
        nas_apps.train(made, made.task.find("conformer"), tmp_path / "train")
    assert not (tmp_path / "train").exists()


def test_a_seed_decides_the_logits_and_another_decides_otherwise(spoken: Path, tmp_path: Path) -> None:
    for run, seed in {"first": 0, "again": 0, "other": 1}.items():
        nas_apps.search(small(spoken, f"seed={seed}"), tmp_path / run)
    first, again, other = (logits(tmp_path / run) for run in ("first", "again", "other"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_speaker_is_in_both_halves_of_a_search(spoken: Path) -> None:
    source = small(spoken).task.source()
    weights, architecture = source.train(0.5, split=True)
    speakers = [{utterance.speaker for utterance in part.utterances} for part in (weights, architecture)]
    assert all(speakers)
    assert not speakers[0] & speakers[1]
    assert {u.id for u in source.held_out(0.5, None).utterances} == {u.id for u in architecture.utterances}


@pytest.mark.usefixtures("double")
def test_a_logit_of_every_operation_has_the_slope_that_differences_of_the_loss_have(
    tokens: tuple[str, ...], teach: Callable[..., Learner], speech: Callable[..., dict[str, Tensor]]
) -> None:
    space = ASRSpace(nodes=2)
    arch = Arch(space.choices(), {"op": Softmax()}, init_std=0.3)
    still = {"dropout": 0.0, "position_dropout": 0.0, "attention_dropout": 0.0}
    encoder = CellEncoder(Mixed(arch, Full()), space, Network(cells=1, width=16, **still), 80)
    model = Model(1, 2, 16, dropout=0.0, normalize="none", masking=Masking(on=False))
    learner = teach(SpeechObjective(build_model(encoder, tokens, model)), arch)
    batch: dict[str, Any] = speech(60, 48, characters=4)
    batch["speech"] = batch["speech"].double()
    (slopes,), _ = learner.arch_gradients(batch, (arch.draw(),))
    table, edges = learner.logits[0].detach(), len(space.dag.edges())
    assert (slopes != 0).all()
    for column in range(len(OPS)):
        step = torch.zeros_like(table)
        step[column % edges, column] = 0.01  # CTC computes in single precision
        losses = []
        for moved in (table + step, table - step):
            with torch.no_grad(), learner.loss(batch, arch.redraw(arch.draw(), {"cell.op": moved})) as outcome:
                losses.append(float(outcome.loss))
        rise = (losses[0] - losses[1]) / 0.02
        assert rise == pytest.approx(float(slopes[column % edges, column]), rel=1e-2, abs=1e-4)
