"""From features to token numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

pytest.importorskip("espnet2")

from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.tasks.asr.decode import Decoding, beam_search, ctc_greedy  # noqa: E402
from nas_apps.tasks.asr.model import (  # noqa: E402
    Conformer,
    Model,
    build_conformer,
    build_model,
    conformer_config,
    espnet_config,
    write_statistics,
)
from nas_apps.tasks.asr.quiet import quiet  # noqa: E402

Make = Callable[..., Any]
CONFORMER = Conformer(1, 16, 2, 32, 7)


@pytest.fixture
def decided(tokens: tuple[str, ...], tmp_path: Path) -> tuple[Any, Model, Path]:
    """A recogniser that was not trained but is sure of what it says, its settings and its statistics."""
    statistics = tmp_path / "stats.npz"
    write_statistics(noise(5), statistics)
    settings = Model(1, 2, 32)
    network = build_model(build_conformer(CONFORMER), tokens, settings, statistics)
    with torch.no_grad():
        network.ctc.ctc_lo.weight *= 20
        network.decoder.output_layer.weight *= 20
    return network, settings, statistics


def noise(number: int) -> list[Tensor]:
    """Features of utterances that differ in length and colour."""
    return [torch.randn(int(frames), 80) + 2 * torch.randn(80) for frames in torch.randint(20, 60, (number,))]


def by_espnet(decided: tuple[Any, Model, Path], folder: Path, **how: Any) -> Any:
    """ESPnet's own recogniser, from a configuration and a checkpoint as its training leaves them."""
    network, settings, statistics = decided
    with quiet(tasks=True):
        from espnet2.bin.asr_inference import Speech2Text
        from espnet2.tasks.asr import ASRTask
    encoder = {"encoder": "conformer", "encoder_conf": conformer_config(CONFORMER)}
    given = {"token_list": network.token_list, "token_type": "char", "input_size": 80}
    conf = {**ASRTask.get_default_config(), **espnet_config(settings, statistics), **encoder, **given}
    (folder / "config.yaml").write_text(yaml.safe_dump(conf))
    torch.save(network.state_dict(), folder / "1epoch.pth")
    return Speech2Text(folder / "config.yaml", folder / "1epoch.pth", **how)


def test_hypotheses_are_those_of_espnets_entry_point(decided: tuple[Any, Model, Path], tmp_path: Path) -> None:
    network, utterances = decided[0], noise(12)
    ours = beam_search(network, utterances, Decoding(beam=4))
    recogniser = by_espnet(decided, tmp_path, beam_size=4, ctc_weight=0.4)
    assert ours == [recogniser(features.clone())[0][2] for features in utterances]
    assert len({tuple(tokens) for tokens in ours}) > 7, "all say the same: nothing is compared"
    assert len({*map(len, ours)}) > 3
    assert ours != beam_search(network, utterances, Decoding(beam=1))


@pytest.mark.parametrize("settings", [Decoding(3, 1.0), Decoding(3, 0.0), Decoding(3, 0.4, length_bonus=2.0)])
def test_so_they_are_with_other_scores(decided: tuple[Any, Model, Path], tmp_path: Path, settings: Decoding) -> None:
    utterances = noise(4)
    how = {"beam_size": 3, "ctc_weight": settings.ctc, "penalty": settings.length_bonus}
    recogniser = by_espnet(decided, tmp_path, **how)
    theirs = [recogniser(features.clone())[0][2] for features in utterances]
    assert beam_search(decided[0], utterances, settings) == theirs


def test_the_best_path_of_ctc_does_not_hear_padding(recogniser: Make) -> None:
    network, lengths = recogniser().eval(), torch.tensor([30, 80])
    speech = torch.randn(2, 80, 80)
    encoded, frames = network.encode(speech.clone(), lengths)
    paths = network.ctc.argmax(encoded).tolist()

    def said(path: list[int]) -> list[int]:
        marks = (0, network.eos)
        return [t for i, t in enumerate(path) if t not in marks and (i == 0 or t != path[i - 1])]

    assert ctc_greedy(network, speech, lengths) == [said(path[:end]) for path, end in zip(paths, frames, strict=True)]
    assert said(paths[0]) != said(paths[0][: frames[0]]), "padding says nothing here"


def test_repeats_are_one_token_unless_a_blank_is_between(
    recogniser: Make, speech: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = recogniser(), speech(60, 43)
    end = len(network.token_list) - 1
    path = torch.tensor([[3, 3, 0, 3, 5, 5, end, 0, 0, 6, 6, 0, 0, 0], [0, 4, 4, 7, 0, 0, 2, 2, 2, 9, 9, 9, 9, 9]])
    monkeypatch.setattr(network.ctc, "argmax", lambda encoded: path[:, : encoded.shape[1]])
    assert ctc_greedy(network, batch["speech"], batch["speech_lengths"]) == [[3, 3, 5, 6], [4, 7, 2, 9]]


def test_decoding_leaves_mode_gradients_features_and_logs_as_they_were(
    recogniser: Make, speech: Make, caplog: pytest.LogCaptureFixture
) -> None:
    network, batch = recogniser().train(), speech(60, 43)
    kept = batch["speech"].clone()
    level = logging.getLogger("espnet.nets.beam_search").level
    with caplog.at_level(logging.WARNING):
        found = beam_search(network, list(batch["speech"]), Decoding(2))
        ctc_greedy(network, batch["speech"], batch["speech_lengths"])
    assert [len(tokens) for tokens in found] == [14, 14], "an untrained one says as much as there is time for"
    assert not caplog.records
    assert logging.getLogger("espnet.nets.beam_search").level == level
    assert network.training
    assert torch.is_grad_enabled()
    assert torch.equal(batch["speech"], kept)


def test_an_utterance_that_is_too_short_says_nothing(recogniser: Make) -> None:
    assert beam_search(recogniser(), [torch.randn(5, 80)], Decoding(2)) == [[]]


def test_a_beam_wider_than_the_tokens_is_refused(recogniser: Make) -> None:
    with pytest.raises(UserError, match="beam: got 24; allowed: at most the number of tokens, 23"):
        beam_search(recogniser(), [], Decoding(24))


@pytest.mark.parametrize(("name", "number"), [("beam", 0), ("ctc", 1.5)])
def test_numbers_out_of_bounds_are_refused(name: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: got {number}; allowed"):
        Decoding(**{name: number})  # type: ignore[arg-type]
