"""What a recogniser is trained for, and what of it a search differentiates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("espnet2")

from espnet2.asr.encoder.abs_encoder import AbsEncoder  # noqa: E402

from nas_apps.core.arch import Arch, Draw  # noqa: E402
from nas_apps.core.cell import Mixed  # noqa: E402
from nas_apps.core.hypergrad import LookAhead  # noqa: E402
from nas_apps.core.learner import Learner, gradients  # noqa: E402
from nas_apps.core.op import OpArgs, OpTable  # noqa: E402
from nas_apps.core.parts.relax import Softmax  # noqa: E402
from nas_apps.core.parts.wiring import Full  # noqa: E402
from nas_apps.core.space import Dag, cell_choices  # noqa: E402
from nas_apps.core.surface import replaced  # noqa: E402
from nas_apps.core.tagged import Tagged  # noqa: E402
from nas_apps.tasks.asr.model import Masking, Model, build_model  # noqa: E402
from nas_apps.tasks.asr.objective import AUGMENT, SpeechObjective  # noqa: E402

Make = Callable[..., Any]
DAG = Dag(inputs=1, nodes=2)
WIDTH = 4


class Across(nn.Module):
    """A convolution over frames `[B, T, C]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x.transpose(1, 2))).transpose(1, 2)


OPS: OpTable = {
    "skip_connect": lambda args: nn.Identity(),
    "linear": lambda args: nn.Linear(args.channels, args.channels),
    "conv": lambda args: Across(args.channels),
}


class Toy(AbsEncoder):
    """Four frames to one, and a searched cell."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.stem = nn.Linear(320, WIDTH)
        self.cell = Mixed(arch, Full()).cell("cell", DAG, OPS, OpArgs(WIDTH))

    def output_size(self) -> int:
        return WIDTH

    def forward(self, xs_pad: Tensor, ilens: Tensor, prev_states: None = None) -> tuple[Tensor, Tensor, None]:
        frames = xs_pad.shape[1] // 4
        x = self.stem(xs_pad[:, : 4 * frames].reshape(len(xs_pad), frames, 320))
        return sum(self.cell(x)), ilens // 4, None  # type: ignore[return-value]


@pytest.fixture
def toy(tokens: tuple[str, ...], teach: Make) -> Make:
    """A learner of a recogniser whose encoder is searched, without dropout, masks and smoothing."""

    def make(**settings: Any) -> Learner:
        space = cell_choices("cell", DAG, (tuple(OPS),) * len(DAG.edges()))
        arch = Arch(space, {"op": Softmax()}, init_std=0.5)
        small = {"decoder_blocks": 1, "heads": 1, "ff": 4, "dropout": 0.0, "normalize": "none"}
        model = Model(**{**small, "masking": Masking(on=False), **settings})
        learner: Learner = teach(SpeechObjective(build_model(Toy(arch), tokens, model)), arch)
        return learner

    return make


def slopes(learner: Learner, batch: Mapping[str, Any]) -> Tensor:
    """d loss / d logits."""
    grads, _ = learner.arch_gradients(batch, (learner.arch.draw(),))
    return grads[0]


def loss_at(learner: Learner, batch: Mapping[str, Any], logits: Tensor) -> Tensor:
    """The loss under other logits."""
    draw = learner.arch.redraw(learner.arch.draw(), {"cell.op": logits})
    with learner.loss(batch, draw) as outcome:
        return outcome.loss


def test_an_outcome_is_the_loss_of_espnets_model_with_its_parts(recogniser: Make, speech: Make) -> None:
    objective, batch = SpeechObjective(recogniser()), speech(90, 70, 50)
    torch.manual_seed(3)
    outcome = objective(batch)
    torch.manual_seed(3)
    loss, stats, weight = objective.network(**{**batch, "speech": batch["speech"].clone()})
    assert outcome.loss.shape == ()
    assert outcome.loss == loss[0]
    assert outcome.weight == int(weight) == 3
    assert outcome.stats["ctc_loss"] == stats["loss_ctc"][0]
    assert outcome.stats["attention_loss"] == stats["loss_att"][0]
    assert outcome.stats["accuracy"] == stats["acc"][0]
    assert all(value.shape == () for value in outcome.stats.values())


def test_nothing_that_is_said_of_a_batch_is_called_a_character_error_rate(recogniser: Make, speech: Make) -> None:
    objective = SpeechObjective(recogniser()).eval()
    assert {*objective(speech(90, 70)).stats} == {"ctc_loss", "attention_loss", "accuracy"}
    assert objective.network.error_calculator is None


@pytest.mark.parametrize("normalize", ["none", "utterance"])
def test_a_batch_is_the_same_after_it_was_learned_from(recogniser: Make, speech: Make, normalize: str) -> None:
    objective, batch = SpeechObjective(recogniser(normalize=normalize)), speech(80, 80)
    kept = {name: entry.clone() for name, entry in batch.items()}
    objective(batch)
    assert all(torch.equal(batch[name], kept[name]) for name in kept)


def test_features_are_masked_for_the_weights_and_not_for_the_architecture(recogniser: Make, speech: Make) -> None:
    objective, batch = SpeechObjective(recogniser(dropout=0.0)), speech(90, 70)
    for module in objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    masked, again = objective(batch).loss, objective(batch).loss
    plain, same = (objective({**batch, AUGMENT: False}).loss for _ in range(2))
    assert masked != again
    assert plain == same
    assert objective.network.specaug is not None


def test_masks_are_there_again_after_a_batch_that_failed(recogniser: Make, speech: Make) -> None:
    objective, batch = SpeechObjective(recogniser()), speech(90, 70)
    with pytest.raises(AssertionError):
        objective({**batch, "speech_lengths": batch["speech_lengths"][:1], AUGMENT: False})
    assert objective.network.specaug is not None


def test_a_plain_stream_is_the_stream_with_a_word_in_each_batch() -> None:
    class Numbers:
        cycle = 0

        def __next__(self) -> dict[str, int]:
            self.cycle += 1
            return {"speech": self.cycle}

        def state_dict(self) -> dict[str, int]:
            return {"cycle": self.cycle}

        def load_state_dict(self, state: Mapping[str, int]) -> None:
            self.cycle = state["cycle"]

    inner = Numbers()
    stream = Tagged(inner, **{AUGMENT: False})
    state = stream.state_dict()
    assert next(stream) == {"speech": 1, AUGMENT: False}
    assert stream.cycle == inner.cycle == 1
    stream.load_state_dict(state)
    assert inner.cycle == 0


def test_two_halves_of_a_batch_average_to_the_whole(recogniser: Make, speech: Make) -> None:
    objective, batch = SpeechObjective(recogniser()).eval(), speech(90, 90, 90)
    whole = objective(batch)
    parts = [objective({name: entry[some] for name, entry in batch.items()}) for some in (slice(0, 1), slice(1, 3))]
    torch.testing.assert_close(sum(part.loss * part.weight for part in parts) / 3, whole.loss)


@pytest.mark.usefixtures("double")
def test_every_logit_gets_the_slope_that_differences_of_the_loss_have(toy: Make, speech: Make) -> None:
    learner, batch = toy(), speech(48, 40, characters=4)
    batch["speech"] = batch["speech"].double()
    grad, (logits,) = slopes(learner, batch), learner.logits
    assert (grad != 0).all()
    with torch.no_grad():
        for row, column in ((0, 0), (1, 2), (2, 1)):
            step = torch.zeros_like(logits)
            step[row, column] = 0.01  # CTC computes in single precision
            rise = loss_at(learner, batch, logits + step) - loss_at(learner, batch, logits - step)
            assert float(rise) / 0.02 == pytest.approx(float(grad[row, column]), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("ctc_weight", [1 - 1e-6, 1e-6])
def test_the_architecture_learns_from_either_part_of_the_loss(toy: Make, speech: Make, ctc_weight: float) -> None:
    assert (slopes(toy(ctc_weight=ctc_weight), speech(48, 40)).norm(dim=1) > 1e-3).all()


def test_ctc_has_no_second_derivative(toy: Make, speech: Make) -> None:
    learner, batch = toy(), speech(48, 40)
    with learner.loss(batch, learner.arch.draw()) as outcome:
        grads = gradients(outcome.loss, learner.logits, create_graph=True)
        with pytest.raises(RuntimeError, match=r"derivative for aten::_ctc_loss_backward is not implemented"):
            gradients(sum(g.square().sum() for g in grads), learner.logits)  # type: ignore[arg-type]


@pytest.mark.usefixtures("double")
def test_the_look_ahead_by_difference_is_the_slope_of_the_loss_after_a_step(toy: Make, speech: Make) -> None:
    learner, batches = toy(), [speech(48, 40, characters=4), speech(44, 44, characters=4)]
    for batch in batches:
        batch["speech"] = batch["speech"].double()
    draw, rate = learner.arch.draw(), 0.1
    found, _ = LookAhead(0.01)(learner, (batches[0], (draw,)), (batches[1], (draw,)))
    direct = slopes(learner, batches[1])

    def after_a_step(logits: Tensor) -> float:
        drawn: Draw = learner.arch.redraw(draw, {"cell.op": logits})
        weights = dict(learner.objective.named_parameters())
        with learner.loss(batches[0], drawn) as outcome:
            grads = gradients(outcome.loss, list(weights.values()))
        moved = {n: (w - rate * g).detach() for (n, w), g in zip(weights.items(), grads, strict=True)}
        with replaced(learner.objective, moved), learner.loss(batches[1], drawn) as outcome:
            return float(outcome.loss)

    logits = learner.logits[0].detach()
    step = torch.zeros_like(logits)
    for row in range(len(logits)):
        for column in range(logits.shape[1]):
            step.zero_()[row, column] = 0.01
            brute = (after_a_step(logits + step) - after_a_step(logits - step)) / 0.02
            assert float(found[0][row, column]) == pytest.approx(brute, rel=0.03, abs=3e-3)
    assert (found[0] - direct).norm() > 0.1 * direct.norm()
