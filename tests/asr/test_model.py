"""ESPnet's model, built without its task."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("espnet2")

from nas_apps.core.cost import count_params  # noqa: E402
from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.tasks.asr.model import (  # noqa: E402
    Conformer,
    Masking,
    Model,
    build_conformer,
    build_model,
    conformer_config,
    espnet_config,
    write_statistics,
)
from nas_apps.tasks.asr.quiet import quiet  # noqa: E402

Make = Callable[..., Any]


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    """Those of some noise."""
    write_statistics([3 * torch.randn(60, 80) + 1 for _ in range(3)], tmp_path / "stats.npz")
    return tmp_path / "stats.npz"


def built_by_the_task(settings: Model, conformer: Conformer, tokens: tuple[str, ...], statistics: Path) -> Any:
    """The model that ESPnet's own task makes of the configuration we say we have."""
    with quiet(tasks=True):
        from espnet2.tasks.asr import ASRTask
    given = espnet_config(settings, statistics)
    encoder = {"encoder": "conformer", "encoder_conf": conformer_config(conformer)}
    return ASRTask.build_model(
        Namespace(**{**ASRTask.get_default_config(), **given, **encoder, "token_list": list(tokens), "input_size": 80})
    )


def test_loss_and_names_of_weights_are_those_of_the_model_that_espnet_builds(
    tokens: tuple[str, ...], speech: Make, statistics: Path
) -> None:
    settings, conformer = Model(2, 2, 32), Conformer(2, 16, 2, 32, 7)
    ours = build_model(build_conformer(conformer), tokens, settings, statistics)
    theirs = built_by_the_task(settings, conformer, tokens, statistics)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    for training in (False, True):
        losses, batch = [], speech(140, 90, 61)
        for model in (ours, theirs):
            torch.manual_seed(1)
            losses.append(model.train(training)(**{**batch, "speech": batch["speech"].clone()})[0])
        assert torch.equal(*losses)


def test_the_loss_is_three_parts_of_ctc_and_seven_of_the_decoder(recogniser: Make, speech: Make) -> None:
    network, batch = recogniser().eval(), speech(90, 70)
    loss, _, weight = network(**batch)
    encoded, frames = network.encode(batch["speech"], batch["speech_lengths"])
    ctc = torch.nn.functional.ctc_loss(
        network.ctc.ctc_lo(encoded).log_softmax(-1).transpose(0, 1),
        batch["text"].clamp(min=0), frames, batch["text_lengths"], reduction="sum",
    )  # fmt: skip
    said = torch.full((2, 6), network.eos)
    said[:, 1:] = torch.where(batch["text"] < 0, network.eos, batch["text"])
    true = torch.full((2, 6), -1)
    for row, (text, count) in enumerate(zip(batch["text"], batch["text_lengths"], strict=True)):
        true[row, :count], true[row, count] = text[:count], network.eos
    log_p = network.decoder(encoded, frames, said, batch["text_lengths"] + 1)[0].log_softmax(-1)
    wanted = torch.full_like(log_p, 0.1 / (len(network.token_list) - 1))
    wanted.scatter_(2, true.clamp(min=0)[..., None], 0.9)
    apart = ((wanted * (wanted.log() - log_p)).sum(-1) * (true >= 0)).sum()
    torch.testing.assert_close(loss[0], (0.3 * ctc + 0.7 * apart) / 2)
    assert int(weight) == 2


def test_the_baseline_has_the_parameters_of_the_aishell_recipe() -> None:
    tokens = ("<blank>", "<unk>", *(chr(0x4E00 + i) for i in range(4230)), "<sos/eos>")
    network = build_model(build_conformer(Conformer()), tokens, Model(normalize="utterance"))
    assert count_params(network) == 46_246_418
    assert count_params(network.encoder) == 33_513_984


def test_statistics_are_the_mean_and_deviation_of_all_frames(tmp_path: Path, recogniser: Make) -> None:
    features = [torch.randn(frames, 80) * 2 + 5 for frames in (7, 30, 11)]
    write_statistics(iter(features), tmp_path / "new" / "stats.npz")
    network = recogniser(normalize="global", statistics=tmp_path / "new" / "stats.npz")
    frames = torch.cat(features)
    torch.testing.assert_close(network.normalize.mean, frames.mean(0))
    torch.testing.assert_close(network.normalize.std, frames.std(0, correction=0))
    assert network.normalize.mean.dtype == torch.float32
    with np.load(tmp_path / "new" / "stats.npz") as stored:
        assert int(stored["count"]) == 48


def test_statistics_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stats\.npz: no features"):
        write_statistics([], tmp_path / "stats.npz")
    assert not (tmp_path / "stats.npz").exists()


def test_masks_are_put_on_features_in_training_alone(recogniser: Make, speech: Make) -> None:
    network = recogniser(masking=Masking(time_warp=0), dropout=0.0)
    batch = speech(80, 80)
    kept = batch["speech"].clone()
    network.eval().encode(batch["speech"], batch["speech_lengths"])
    assert torch.equal(batch["speech"], kept)
    network.train().encode(batch["speech"], batch["speech_lengths"])
    masked = batch["speech"] == 0
    assert 0 < masked.all(1).sum() <= 2 * 2 * 26
    assert 0 < masked.all(2).sum() <= 2 * 10 * 3


def test_there_is_a_switch_for_every_kind_of_mask(recogniser: Make) -> None:
    assert recogniser(masking=Masking(on=False)).specaug is None
    assert recogniser(masking=Masking(time_warp=0)).specaug.time_warp is None
    assert recogniser(masking=Masking(freq_masks=0)).specaug.freq_mask is None
    assert recogniser(masking=Masking(time_masks=0)).specaug.time_mask is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Masking(time_warp=0, freq_masks=0, time_masks=0), "on: got true, with no warp and no masks; allowed"),
        (lambda: Masking(time_share=1.5), "time_share: got 1.5; allowed: 0 and more, less than 1"),
        (lambda: Model(ctc_weight=0.0), "ctc_weight: got 0.0; allowed: more than 0"),
        (lambda: Model(dropout=1.0), "dropout: got 1.0; allowed"),
        (lambda: Conformer(kernel=8), "kernel: got 8; allowed: odd numbers"),
        (lambda: Conformer(width=30), "heads: got 4; allowed: what divides the width, 30"),
    ],
)
def test_settings_that_make_no_model_are_refused(make: Make, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make()


def test_what_does_not_go_together_is_refused_in_one_line(recogniser: Make) -> None:
    with pytest.raises(UserError, match="the decoder's heads: got 3; allowed: what divides the width, 16"):
        recogniser(heads=3)
    with pytest.raises(UserError, match="normalize: got 'global', with no statistics"):
        recogniser(normalize="global")
