"""The whole speech task: search, training, decoding, resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.likeness import resized_like
from nas_apps.core.price import derived

PHASE = ("network.encoder.cells=1", "network.encoder.width=16", "network.model.decoder_blocks=1",
         "network.model.heads=2", "network.model.ff=16", "batch_size=4", "epochs=2", "weights.warmup_steps=10",
         "data.most=2", "log_steps=1")  # fmt: skip
SMALL = ("task=asr", "task.mini.speakers=[2,1,1]", "task.mini.utterances=[6,2,2]", "task.nodes=2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(cache: Path) -> Callable[..., Recipe]:
    sizes = [f"{phase}.{setting}" for phase in ("search", "train") for setting in PHASE]
    return lambda *overrides: load([], [*SMALL, f"task.cache={cache}", *sizes, *overrides])


def test_a_search_that_ends_anywhere_goes_on_to_the_bit(
    small: Callable[..., Recipe], stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    made = small("variant=darts", "search.checkpoint_steps=1")
    nas_apps.search(made, tmp_path / "whole")
    with stopping(1):
        nas_apps.search(made, tmp_path / "stopped")
    nas_apps.search(made, tmp_path / "stopped", resume=True)
    first, second = (checkpoint.read(tmp_path / n / "checkpoint.pt")["learner"] for n in ("whole", "stopped"))
    assert all(torch.equal(first["objective"][name], second["objective"][name]) for name in first["objective"])
    assert torch.equal(first["arch"]["_logits.cell/op"], second["arch"]["_logits.cell/op"])
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "stopped" / "metrics.jsonl").read_text()


def test_the_exact_look_ahead_is_refused_and_the_difference_works(small: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no second derivative; allowed: variant.schedule.exact=false"):
        small("variant=darts_2nd")
    made = small("variant=darts_2nd", "variant.schedule.exact=false", "search.weights.optimizer=sgd")
    assert nas_apps.search(made, tmp_path / "run").kept


def test_a_trained_recogniser_is_evaluated_anew_and_rates_are_of_free_decoding(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    made = small("variant=darts", "task.nodes=4")
    genotype = made.task.find("conformer")
    summary: dict[str, Any] = nas_apps.train(made, genotype, tmp_path / "train")
    metrics = summary["metrics"]
    assert {"cer", "dev_cer", "cer_ctc_greedy", "insertions", "deletions", "substitutions"} <= metrics.keys()
    assert nas_apps.evaluate(tmp_path / "train")["cer"] == metrics["cer"]
    assert json.loads((tmp_path / "train" / "summary.json").read_text())["costs"]["params"] > 0
    (tmp_path / "train").rename(tmp_path / "moved")
    texts = [found[0] for found in nas_apps.load(tmp_path / "moved")(torch.randn(8000).numpy())]
    assert texts
    assert all(isinstance(text, str) for text in texts)
    (tmp_path / "moved" / "model.pth").unlink()
    with pytest.raises(UserError, match=r"model.pth: cannot read the weights: no such file"):
        nas_apps.load(tmp_path / "moved")


def test_a_network_as_large_as_another_keeps_its_depth_where_a_width_is_near(small: Callable[..., Recipe]) -> None:
    made = small("variant=darts", "task.nodes=4", "train.network.encoder={cells: 4, width: 128}")
    genotype = made.task.find("conformer")

    def size(made: Recipe) -> int:
        return sum(p.numel() for p in derived(made.task, genotype, made.train)[0].parameters())

    wider = small("variant=darts", "task.nodes=4", "train.network.encoder={cells: 4, width: 136}")
    for share in (0.98, 0.99, 1.01, 1.02):
        found = resized_like(made, genotype, round(share * size(wider))).train.network.encoder
        assert (found.cells, found.width) == (4, 136)
    other = resized_like(made, genotype, 6 * size(made)).train.network.encoder  # more than four cells can have
    assert other.cells > 4


def test_statistics_are_those_of_the_audio_and_not_of_another_of_the_same_lengths(small: Callable[..., Recipe]) -> None:
    quiet, noisy = (small("variant=darts", f"task.mini.snr_db={levels}").task.source() for levels in ([30, 30], [0, 0]))
    lengths = [[s.features("train").length(u) for u in s.corpus.train] for s in (quiet, noisy)]
    assert lengths[0] == lengths[1]
    sums = [np.load(source.statistics)["sum"] for source in (quiet, noisy)]
    assert not np.allclose(*sums)


def test_an_evaluation_of_a_few_utterances_hears_several_speakers(small: Callable[..., Recipe]) -> None:
    source = small("variant=darts", "task.mini.speakers=[4,2,2]").task.source()
    assert len({u.speaker for u in source.heard("test", 2).utterances}) == 2
    assert len({u.speaker for u in source.held_out(0.5, 2).utterances}) == 2
    assert source.heard("test", 100).utterances == source.heard("test", None).utterances == source.corpus.test
