"""The whole speech task: search, training, decoding, resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError

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
    texts = [found[0] for found in nas_apps.load(tmp_path / "train")(torch.randn(8000).numpy())]
    assert texts
    assert all(isinstance(text, str) for text in texts)
    (tmp_path / "train" / "model.pth").unlink()
    with pytest.raises(UserError, match=r"model.pth: cannot read the weights: no such file"):
        nas_apps.load(tmp_path / "train")
