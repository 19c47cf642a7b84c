"""Every method on speech: it searches, or is refused with the reason before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("espnet2")
pytest.importorskip("espeakng_loader")

import nas_apps
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.latency import measure
from nas_apps.core.space import decided
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.asr.objective import SpeechObjective

SMALL = ("task=asr", "task.mini.speakers=[2,1,1]", "task.mini.utterances=[2,1,1]", "task.nodes=2",
         "task.decoding.beam=2",
         "search.network.encoder.cells=1", "search.network.encoder.width=32", "search.network.model.decoder_blocks=1",
         "search.network.model.heads=2", "search.network.model.ff=16", "search.batch_size=2", "search.data.most=1",
         "search.epochs=3", "search.epoch_steps=1", "search.evaluate_every=3", "search.log_steps=1",
         "train.network.encoder.cells=1", "train.network.encoder.width=32", "train.network.model.decoder_blocks=1",
         "train.network.model.heads=2", "train.network.model.ff=16", "train.batch_size=2")  # fmt: skip
REFUSED = {
    "darts_2nd": (
        r"^variant.schedule: the loss of task 'asr' has no second derivative",
        "variant.schedule.exact=false",
    ),
    "darts_es": (r"^variant.schedule: the loss of task 'asr' has no second derivative", "variant.schedule.exact=false"),
    "darts_ada": (
        r"^variant.schedule: the loss of task 'asr' has no second derivative",
        "variant.schedule.exact=false",
    ),
    "rome_v1": (r"^variant.edges: 2 edges a node are drawn, and a node of cell.op keeps 1", "task.keep=2"),
    "rome_v2": (r"^variant.edges: 2 edges a node are drawn, and a node of cell.op keeps 1", "task.keep=2"),
    "msg_das": (r"^variant.wiring.drop: 'drop_block' drops blocks of maps, channels first", "variant.wiring.drop=null"),
}
"""Why a method is refused as it is, and with what it is not."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def latency(cache: Path) -> Path:
    """What predicts the latency of the small networks."""
    out = cache / "latency.safetensors"
    measure(load([], [*SMALL, f"task.cache={cache}", "variant=darts"]), out, cells=10)
    return out


@pytest.fixture
def small(cache: Path, latency: Path) -> Callable[..., Recipe]:
    return lambda *given: load([], [*SMALL, f"task.cache={cache}", f"search.latency.file={latency}", *given])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_method_searches_or_is_refused_with_the_reason(
    variant: str, small: Callable[..., Recipe], tmp_path: Path
) -> None:
    given = [f"variant={variant}"]
    if variant in REFUSED:
        reason, instead = REFUSED[variant]
        with pytest.raises(UserError, match=reason) as refused:
            nas_apps.search(small(*given), tmp_path / "run")
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "run").exists()
        given += [instead]
    if "darts_" in variant and VARIANTS[variant].schedule == VARIANTS["darts_2nd"].schedule:
        with pytest.raises(UserError, match=r"^variant.schedule: the look-ahead"):
            nas_apps.search(small(*given), tmp_path / "run")
        given += ["search.weights.optimizer=sgd"]
    made = small(*given)
    genotype = nas_apps.search(made, tmp_path / "run")
    assert genotype.kept.keys() == decided(made.task.choices()).keys()
    if VARIANTS[variant].schedule.searches:
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        figures = {key for line in lines for key in json.loads(line)}
        assert {"train/loss", "train/ctc_loss", "train/accuracy", "evaluation/cer"} <= figures


@pytest.mark.parametrize("variant", ["darts", "gdas", "proxylessnas", "msg_das", "sdarts_adv", "p_darts"])
def test_methods_search_the_space_of_modules_too(variant: str, small: Callable[..., Recipe], tmp_path: Path) -> None:
    given = ["variant.wiring.drop=null"] if variant == "msg_das" else []
    made = small(f"variant={variant}", "task.space=module", "task.nodes=4", *given)
    assert nas_apps.search(made, tmp_path / "run").kept.keys() == {"ffn", "mhsa", "conv"}


def test_a_drop_that_loses_utterances_is_refused_before_a_training_begins(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    made = small("train.drop_path=0.1", "task.nodes=4")
    with pytest.raises(UserError, match=r"^train.drop_path: an operation here carries its residual"):
        nas_apps.train(made, made.task.find("conformer"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sub_graph_is_taught_by_what_the_decoder_says_at_every_character(
    recogniser: Callable[..., SpeechObjective], speech: Callable[..., dict[str, Tensor]]
) -> None:
    objective, batch = SpeechObjective(recogniser()).eval(), speech(90, 70, characters=5)
    both = objective(batch).output
    assert both.shape == (6 + 5, 23)  # five characters and an end, four characters and an end
    first = {name: entry[:1] for name, entry in batch.items()}
    torch.testing.assert_close(both[:6], objective(first).output)
    shown = torch.cat([batch["text"][0], torch.tensor([22])]), torch.cat([batch["text"][1, :4], torch.tensor([22])])
    hits = (both.argmax(-1) == torch.cat(shown)).float().mean()
    torch.testing.assert_close(hits, objective(batch).stats["accuracy"].float())
