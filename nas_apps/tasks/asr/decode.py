"""From features to token numbers: ESPnet's beam search, and the best path of CTC."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from nas_apps.core.bounds import COUNT, SHARE, bounded
from nas_apps.core.errors import UserError
from nas_apps.tasks.asr.model import ESPnetASRModel
from nas_apps.tasks.asr.quiet import quiet

with quiet():
    from espnet.nets.batch_beam_search import BatchBeamSearch
    from espnet.nets.pytorch_backend.transformer.subsampling import TooShortUttError
    from espnet.nets.scorers.ctc import CTCPrefixScorer
    from espnet.nets.scorers.length_bonus import LengthBonus


@dataclass(frozen=True)
class Decoding:
    """How transcripts are found, as ESPnet's AISHELL recipe does it, without a language model.

    beam: hypotheses that are kept. ctc: the share of CTC in their scores, the decoder's is the rest. length_bonus: what
    a token adds to a score.
    """

    beam: int = 10
    ctc: float = 0.4
    length_bonus: float = 0.0

    def __post_init__(self) -> None:
        bounded(self, COUNT, "beam")
        bounded(self, SHARE, "ctc")

    def check(self, tokens: int) -> None:
        """Refuse a beam that is wider than there are tokens."""
        if self.beam > tokens:
            raise UserError(f"beam: got {self.beam}; allowed: at most the number of tokens, {tokens}")


def beam_search(
    network: ESPnetASRModel, utterances: Iterable[Tensor], settings: Decoding = Decoding()
) -> list[list[int]]:
    """The best token numbers of utterances, features `[T, mel bands]` each on the device of the network; none of one
    that is too short to encode.

    Each is decoded on its own, as `espnet2.bin.asr_inference` does it, with the same result.
    """
    vocabulary = len(network.token_list)
    settings.check(vocabulary)
    search = BatchBeamSearch(
        scorers={
            "decoder": network.decoder,
            "ctc": CTCPrefixScorer(network.ctc, network.eos),
            "length_bonus": LengthBonus(vocabulary),
        },
        weights={"decoder": 1 - settings.ctc, "ctc": settings.ctc, "length_bonus": settings.length_bonus},
        beam_size=settings.beam,
        vocab_size=vocabulary,
        sos=network.sos,
        eos=network.eos,
        pre_beam_score_key=None if settings.ctc == 1 else "full",
    )
    with _decoding(network):
        return [_best(network, search, features) for features in utterances]


def ctc_greedy(network: ESPnetASRModel, speech: Tensor, lengths: Tensor) -> list[list[int]]:
    """The token numbers on the most probable path of CTC, of features `[B, T, mel bands]` with `lengths` `[B]`. Frames
    of padding say nothing (in ESPnet's own `cer_ctc` they do)."""
    with _decoding(network):
        encoded, frames = network.encode(speech.clone(), lengths)
        paths = network.ctc.argmax(encoded).tolist()
    heard = [[token for token, _ in groupby(path[:end])] for path, end in zip(paths, frames.tolist(), strict=True)]
    marks = {network.blank_id, network.sos, network.eos}
    return [[token for token in path if token not in marks] for path in heard]


def _best(network: ESPnetASRModel, search: BatchBeamSearch, features: Tensor) -> list[int]:
    lengths = torch.tensor([len(features)], device=features.device)
    try:
        encoded, _ = network.encode(features[None].clone(), lengths)
    except TooShortUttError:
        return []
    found = search(encoded[0])
    tokens = found[0].yseq[1:-1].tolist() if found else []
    return [token for token in tokens if token != network.blank_id]


@contextmanager
def _decoding(network: ESPnetASRModel) -> Iterator[None]:
    """Evaluation mode, without gradients, and without a line for each hypothesis that is as long as its utterance."""
    training, log = network.training, logging.getLogger("espnet.nets.beam_search")
    level = log.level
    try:
        network.eval()
        log.setLevel(logging.ERROR)
        with torch.no_grad():
            yield
    finally:
        log.setLevel(level)
        network.train(training)
