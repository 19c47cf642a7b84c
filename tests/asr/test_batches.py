"""Batches of speech: what is in them, in which order, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import ctc_loss

from nas_apps.core.errors import UserError
from nas_apps.core.runtime import Runtime
from nas_apps.tasks.asr.batches import Batches, Speech, evaluation_batches, frames_needed, speech_of
from nas_apps.tasks.asr.corpus import Utterance
from nas_apps.tasks.asr.features import Features
from nas_apps.tasks.asr.subsampling import subsampled
from nas_apps.tasks.asr.text import Tokens

CPU = Runtime(torch.device("cpu"))
TEXTS = "一二三四五六七八九十"


def utterances_of(texts: Sequence[str]) -> list[Utterance]:
    return [Utterance(f"u{n}", f"S{n % 4}", Path("x"), text) for n, text in enumerate(texts)]


def speech(lengths: Sequence[int], texts: Sequence[str] | None = None, *, training: bool = True) -> Speech:
    """Utterances of these lengths; the first bin of a frame is the number of its utterance."""
    utterances = utterances_of(texts or [TEXTS[n % 10] for n in range(len(lengths))])
    frames = np.repeat(np.arange(len(lengths), dtype="float32"), lengths)[:, None] + np.zeros((1, 3), "float32")
    frames[:, 1] = 1
    features = Features([u.id for u in utterances], np.array(lengths), frames)
    return speech_of(utterances, features, Tokens.of(TEXTS), training=training)


@pytest.fixture
def many() -> Speech:
    return speech(np.random.default_rng(0).integers(20, 400, 103).tolist())


def served(batch: dict[str, torch.Tensor]) -> list[int]:
    return batch["speech"][:, 0, 0].int().tolist()


def epoch(batches: Batches) -> list[list[int]]:
    return [served(next(batches)) for _ in range(batches.epoch)]


def test_a_batch_is_what_espnets_models_are_called_with() -> None:
    some = speech([30, 20], ["一二三", "四"])
    batch = next(Batches(some, 2, CPU, seed=0))
    rows = served(batch)
    assert sorted(rows) == [0, 1]
    one, two = rows.index(0), rows.index(1)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in batch.items()} == {
        "speech": (torch.float32, (2, 30, 3)),
        "speech_lengths": (torch.int64, (2,)),
        "text": (torch.int64, (2, 3)),
        "text_lengths": (torch.int64, (2,)),
    }
    assert batch["speech_lengths"][[one, two]].tolist() == [30, 20]
    assert batch["speech"][one, :, 1].eq(1).all()
    assert batch["speech"][two, :, 1].tolist() == [1.0] * 20 + [0.0] * 10
    assert batch["text_lengths"][[one, two]].tolist() == [3, 1]
    labels = Tokens.of(TEXTS).encode
    assert batch["text"][[one, two]].tolist() == [labels("一二三"), [*labels("四"), -1, -1]]


def test_an_epoch_serves_no_utterance_twice_and_leaves_out_others_each_time(many: Speech) -> None:
    batches = Batches(many, 10, CPU, seed=0)
    epochs = [epoch(batches) for _ in range(20)]
    for found in epochs:
        assert [len(rows) for rows in found] == [10] * 10
        assert len({row for rows in found for row in rows}) == 100
    assert epochs[0] != epochs[1]
    assert {row for found in epochs for rows in found for row in rows} == set(range(103))


def test_utterances_of_a_batch_are_of_about_one_length_and_batches_in_no_order() -> None:
    many = speech(np.random.default_rng(0).integers(20, 400, 1000).tolist())
    stream = Batches(many, 10, CPU, seed=0)
    batches = [next(stream) for _ in range(stream.epoch)]
    padding = 1 - sum(int(b["speech_lengths"].sum()) for b in batches) / sum(
        b["speech"][..., 0].numel() for b in batches
    )
    assert padding < 0.08  # in batches that are not sorted it is .45
    longest = torch.tensor([float(b["speech"].shape[1]) for b in batches])
    assert abs(float(torch.corrcoef(torch.stack([longest[1:], longest[:-1]]))[0, 1])) < 0.3  # with its neighbour


def test_the_order_is_a_function_of_seed_use_and_epoch(many: Speech) -> None:
    first = epoch(Batches(many, 10, CPU, seed=0))
    assert first == epoch(Batches(many, 10, CPU, seed=0))
    assert first != epoch(Batches(many, 10, CPU, seed=1))
    assert first != epoch(Batches(many, 10, CPU, seed=0, use="valid"))


@pytest.mark.parametrize("at", [0, 3, 10, 27])
def test_a_stream_is_taken_up_where_it_was(many: Speech, at: int) -> None:
    batches, other = Batches(many, 10, CPU, seed=0), Batches(many, 10, CPU, seed=0)
    for _ in range(at):
        next(batches)
    other.load_state_dict(batches.state_dict())
    assert batches.cycle == other.cycle == at
    for _ in range(12):
        one, two = next(batches), next(other)
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("size", [4, 5])
def test_ranks_share_a_batch(many: Speech, size: int) -> None:
    whole = Batches(many, size, CPU, seed=0)
    ranks = [Batches(many, size, Runtime(torch.device("cpu"), rank, 3), seed=0) for rank in range(3)]
    for _ in range(2 * whole.epoch):
        expected = served(next(whole))
        parts = [served(next(rank)) for rank in ranks]
        assert sum(parts, []) == expected
        assert all(parts)


def test_a_set_smaller_than_a_batch_is_served_whole() -> None:
    batches = Batches(speech([20, 30, 40]), 16, CPU, seed=0)
    assert batches.epoch == 1
    assert [sorted(served(next(batches))) for _ in range(3)] == [[0, 1, 2]] * 3


def test_batches_that_do_not_fit_are_refused(many: Speech) -> None:
    with pytest.raises(
        UserError, match=r"a batch of 2 \(batch_size 2, 103 utterances\) leaves some of 3 ranks without"
    ):
        Batches(many, 2, Runtime(torch.device("cpu"), 0, 3), seed=0)
    with pytest.raises(UserError, match="cannot resume: batch_size was 10 and is 20 now"):
        Batches(many, 20, CPU, seed=0).load_state_dict(Batches(many, 10, CPU, seed=0).state_dict())


def test_evaluation_sees_each_utterance_once_over_all_ranks() -> None:
    some = speech([20 + n % 7 for n in range(23)])
    seen = []
    for rank in range(3):
        for batch, utterances in evaluation_batches(some, 4, Runtime(torch.device("cpu"), rank, 3)):
            assert [f"u{row}" for row in served(batch)] == [u.id for u in utterances]
            assert len(utterances) <= 4
            seen += served(batch)
    assert sorted(seen) == list(range(23))


@pytest.mark.parametrize("labels", [[2], [2, 3, 4], [2, 2], [2, 2, 2, 5, 5], [4, 4, 3, 4]])
def test_ctc_needs_the_frames_that_are_asked_for(labels: list[int]) -> None:
    def loss(frames: int) -> torch.Tensor:
        scores = torch.zeros(frames, 1, 6).log_softmax(-1)
        return ctc_loss(scores, torch.tensor([labels]), torch.tensor([frames]), torch.tensor([len(labels)]))

    needed = frames_needed(labels)
    assert loss(needed).isfinite()
    assert needed == 1 or loss(needed - 1).isinf()


def test_the_subsampling_leaves_the_frames_that_are_counted() -> None:
    module = pytest.importorskip("espnet.nets.pytorch_backend.transformer.subsampling")
    layer = module.Conv2dSubsampling(10, 4, 0.0).eval()
    for frames in range(7, 40):
        mask = torch.ones(1, 1, frames, dtype=torch.bool)
        out, kept = layer(torch.zeros(1, frames, 10), mask)
        assert subsampled(frames) == out.shape[1] == int(kept.sum())


def test_what_ctc_cannot_say_is_reported_and_left_out() -> None:
    # 30 frames are 6 after the subsampling.
    texts = ["一二三四五六", "一二三四五六七", "一一二三四五", "一二三四五"]
    some = speech([30] * 4, texts)
    assert [u.id for u in some.utterances] == ["u0", "u3"]
    assert some.notices("train") == [
        "train: 2 of 4 utterances left out: more characters than CTC can say in its time (u1 ...)"
    ]
    assert len(speech([30] * 4, texts, training=False).utterances) == 4


def test_what_is_too_short_for_the_subsampling_is_reported_and_left_out() -> None:
    lengths = [6, 7, 10, 11, 0]
    training, decoded = speech(lengths), speech(lengths, training=False)
    assert [u.id for u in training.utterances] == ["u3"]
    assert [u.id for u in decoded.utterances] == ["u1", "u2", "u3"]
    assert training.notices("train") == ["train: 4 of 5 utterances left out: shorter than 11 frames (u0 ...)"]
    assert [u.id for u in decoded.left_out["shorter than 7 frames"]] == ["u0", "u4"]


def test_skipped_audio_is_reported_and_left_out() -> None:
    utterances = utterances_of(["一", "二"])
    features = Features(["u0", "u1"], np.array([0, 30]), np.ones((30, 3), "float32"), {"u0": "u0.wav: got 2 channels"})
    some = speech_of(utterances, features, Tokens.of(TEXTS), training=True)
    assert some.notices("train") == ["train: 1 of 2 utterances left out: its audio is at fault (u0)"]


def test_a_set_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UserError, match=r"no utterance is left: .*2 of 2 utterances left out: shorter than 11 frames"):
        speech([3, 4])
