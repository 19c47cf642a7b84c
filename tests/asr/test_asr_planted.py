"""A search follows its data: what it finds is what was planted in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("espnet2")
pytest.importorskip("soundfile")

import soundfile

import nas_apps
from nas_apps.core.config import load

RATE = 8000  # 16 ms from one frame of features to the next, 64 ms from one that a cell sees to the next
LOW, HIGH = (400, 800), (2600, 3300)
Sound = NDArray[np.float64]
Made = tuple[list[Sound], str]
Rng = np.random.Generator

SIZES = ("network.encoder.cells=1", "network.encoder.width=32", "network.encoder.dropout=0",
         "network.encoder.position_dropout=0", "network.encoder.attention_dropout=0", "network.model.decoder_blocks=1",
         "network.model.heads=2", "network.model.ff=16", "network.model.dropout=0", "network.model.masking.on=false",
         "network.model.normalize=none", "network.model.ctc_weight=0.9", "weights.lr=5e-3", "weights.warmup_steps=20",
         "logits.lr=0.03", "batch_size=24", "epochs=50", "evaluate_every=50", "data.most=2")  # fmt: skip
OPS = ("ffn_4", "conv_7", "mhsa_4")


def sound(rng: Rng, seconds: float, *tones: int) -> Sound:
    time = np.arange(round(RATE * seconds)) / RATE
    return sum((0.2 * np.sin(2 * np.pi * f * time + rng.uniform(0, 6)) for f in tones), np.zeros(len(time)))


def far(rng: Rng) -> Made:
    """A key, half a second of nothing, and then sounds whose character depends on the key: more than twice as far as a
    convolution of 7 frames sees."""
    key, pieces, text = rng.integers(2), [], ""
    for sounding in rng.integers(2, size=rng.integers(1, 3)):
        pieces += [sound(rng, 0.16, LOW[sounding]), sound(rng, 0.12)]
        text += "甲乙丙丁"[2 * sounding + key]
    return [sound(rng, 0.16, HIGH[key]), sound(rng, 0.5), *pieces], text


def near(rng: Rng) -> Made:
    """Sounds of two tones, whose character says whether they are alike: no other time matters, and no sum tells."""
    pieces, text = [sound(rng, 0.1)], ""
    for low, high in rng.integers(2, size=(rng.integers(1, 4), 2)):
        pieces += [sound(rng, 0.16, LOW[low], HIGH[high]), sound(rng, 0.12)]
        text += "甲乙"[low ^ high]
    return pieces, text


def corpus(root: Path, kind: Callable[[Rng], Made]) -> Path:
    """A folder of Kaldi's with 240 utterances of 4 speakers to search on."""
    rng = np.random.default_rng(0)
    for part, number in {"train": 240, "dev": 2, "test": 2}.items():
        folder = root / part
        folder.mkdir(parents=True)
        lists: dict[str, str] = {"wav.scp": "", "text": "", "utt2spk": ""}
        for n in range(number):
            pieces, text = kind(rng)
            samples = np.concatenate(pieces)
            soundfile.write(folder / f"{n}.wav", samples + 0.003 * rng.standard_normal(len(samples)), RATE)
            for name, value in zip(lists, (f"{n}.wav", text, f"s{n % 4}"), strict=True):
                lists[name] += f"{part}{n} {value}\n"
        for name, lines in lists.items():
            (folder / name).write_text(lines)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "best"), [(far, "mhsa_4"), (near, "conv_7")], ids=["far", "near"])
def test_a_search_finds_the_operation_that_was_planted(kind: Callable[[Rng], Made], best: str, tmp_path: Path) -> None:
    root = corpus(tmp_path / "corpus", kind)
    found = []
    for seed in range(3):
        settings = [f"search.{setting}" for setting in SIZES]
        task = ["task=asr", f"task.data={root}", f"task.cache={tmp_path}", "task.nodes=1", "task.decoding.beam=2"]
        made = load([], [*task, f"task.ops=[{','.join(OPS)}]", "variant=darts", f"seed={seed}", *settings])
        found.append(nas_apps.search(made, tmp_path / f"seed{seed}").kept["cell.op"])
    assert found == [((best,),)] * 3
