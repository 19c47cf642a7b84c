"""ESPnet's model of a recogniser around an encoder, built without its task, which takes seconds to import."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from nas_apps.core import files
from nas_apps.core.bounds import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, bounded
from nas_apps.core.errors import UserError
from nas_apps.tasks.asr.quiet import quiet

with quiet():
    from espnet2.asr.ctc import CTC
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
    from espnet2.asr.encoder.abs_encoder import AbsEncoder
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
    from espnet2.asr.espnet_model import ESPnetASRModel
    from espnet2.asr.specaug.specaug import SpecAug
    from espnet2.layers.global_mvn import GlobalMVN
    from espnet2.layers.utterance_mvn import UtteranceMVN


@dataclass(frozen=True)
class Masking:
    """SpecAugment (arXiv:1904.08779), with the numbers of ESPnet's AISHELL recipe `train_asr_conformer_e12_amp`.

    on: whether there is any. time_warp: frames. freq_masks, time_masks: how many there are, 0 for none; freq_width:
    mel bands that one covers at most; time_share: the same of frames, of those of the longest utterance in a batch.
    """

    on: bool = True
    time_warp: int = 5
    freq_masks: int = 2
    freq_width: int = 27
    time_masks: int = 10
    time_share: float = 0.05

    def __post_init__(self) -> None:
        bounded(self, NOT_NEGATIVE, "time_warp", "freq_masks", "time_masks")
        bounded(self, COUNT, "freq_width")
        bounded(self, POSITIVE, "time_share")
        bounded(self, BELOW_ONE, "time_share")
        if self.on and not (self.time_warp or self.freq_masks or self.time_masks):
            raise ValueError("on: got true, with no warp and no masks; allowed: one of them, or false")


@dataclass(frozen=True)
class Model:
    """What is around an encoder: a Transformer as decoder, as wide as the encoder, and CTC; with the numbers of
    `train_asr_conformer_e12_amp`.

    decoder_blocks, heads, ff: of the decoder; ff is the width of its feed-forward layers. ctc_weight: the share of CTC
    in the loss, the decoder's is the rest. smoothing: of labels, for the decoder. normalize: features less the mean of
    the training set and over its deviation, less the mean of their own utterance, or as they are.
    """

    decoder_blocks: int = 6
    heads: int = 4
    ff: int = 2048
    dropout: float = 0.1
    ctc_weight: float = 0.3
    smoothing: float = 0.1
    normalize: Literal["global", "utterance", "none"] = "global"
    masking: Masking = Masking()

    def __post_init__(self) -> None:
        bounded(self, COUNT, "decoder_blocks", "heads", "ff")
        bounded(self, BELOW_ONE, "dropout", "ctc_weight", "smoothing")
        bounded(self, POSITIVE, "ctc_weight")


@dataclass(frozen=True)
class Conformer:
    """ESPnet's own encoder (arXiv:2005.08100), with the numbers of `train_asr_conformer_e12_amp`.

    width: of attention. ff: of feed-forward layers. kernel: of convolutions, frames.
    """

    blocks: int = 12
    width: int = 256
    heads: int = 4
    ff: int = 2048
    kernel: int = 31
    dropout: float = 0.1

    def __post_init__(self) -> None:
        bounded(self, COUNT, "blocks", "width", "heads", "ff", "kernel")
        bounded(self, BELOW_ONE, "dropout")
        divides("heads", self.heads, self.width)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: got {self.kernel}; allowed: odd numbers")


def build_model(
    encoder: AbsEncoder, tokens: Sequence[str], settings: Model, statistics: Path | None = None
) -> ESPnetASRModel:
    """The model around an encoder, for features ("speech" `[B, T, mel bands]`).

    Args:
        tokens: "<blank>" first, "<sos/eos>" last.
        statistics: what `write_statistics` wrote, for `normalize` "global".
    """
    width, conf = encoder.output_size(), espnet_config(settings, statistics)
    try:
        divides("heads", settings.heads, width)
    except ValueError as error:
        raise UserError(f"the decoder's {error}") from None
    masks = {"specaug": SpecAug, None: None}[conf["specaug"]]
    norm = {"global_mvn": GlobalMVN, "utterance_mvn": UtteranceMVN, None: None}[conf["normalize"]]
    return ESPnetASRModel(
        vocab_size=len(tokens),
        token_list=list(tokens),
        frontend=None,
        specaug=masks and masks(**conf["specaug_conf"]),
        normalize=norm and norm(**conf["normalize_conf"]).float(),  # numpy 2 has the statistics in float64
        preencoder=None,
        encoder=encoder,
        postencoder=None,
        decoder=TransformerDecoder(len(tokens), width, **conf["decoder_conf"]),
        ctc=CTC(len(tokens), width, **conf["ctc_conf"]),
        joint_network=None,
        report_cer=False,  # of the decoder while it is shown the text, and of CTC on padding
        report_wer=False,
        **conf["model_conf"],
    )


def build_conformer(settings: Conformer, bands: int = 80) -> ConformerEncoder:
    """The encoder that a searched one is compared with, for features of so many mel bands."""
    return ConformerEncoder(bands, **conformer_config(settings))


def espnet_config(settings: Model, statistics: Path | None = None) -> dict[str, Any]:
    """What a model around an encoder is in a recipe of ESPnet: the keys of its YAML."""
    m = settings.masking
    masks = {
        "apply_time_warp": m.time_warp > 0,
        "time_warp_window": m.time_warp,
        "time_warp_mode": "bicubic",
        "apply_freq_mask": m.freq_masks > 0,
        "freq_mask_width_range": [0, m.freq_width],
        "num_freq_mask": m.freq_masks,
        "apply_time_mask": m.time_masks > 0,
        "time_mask_width_ratio_range": [0.0, m.time_share],
        "num_time_mask": m.time_masks,
    }
    if settings.normalize == "global" and statistics is None:
        raise UserError("normalize: got 'global', with no statistics of the features; allowed: utterance, none")
    names = {"global": "global_mvn", "utterance": "utterance_mvn", "none": None}
    return {
        "specaug": "specaug" if m.on else None,
        "specaug_conf": masks if m.on else {},
        "normalize": names[settings.normalize],
        "normalize_conf": {"stats_file": str(statistics)} if settings.normalize == "global" else {},
        "decoder": "transformer",
        "decoder_conf": {
            "attention_heads": settings.heads,
            "linear_units": settings.ff,
            "num_blocks": settings.decoder_blocks,
            "dropout_rate": settings.dropout,
            "positional_dropout_rate": settings.dropout,
        },
        "ctc_conf": {},
        "model_conf": {
            "ctc_weight": settings.ctc_weight,
            "lsm_weight": settings.smoothing,
            "length_normalized_loss": False,  # so that both parts of the loss are means over utterances
        },
    }


def conformer_config(settings: Conformer) -> dict[str, Any]:
    """What the Conformer is in a recipe of ESPnet: its `encoder_conf`."""
    return {
        "output_size": settings.width,
        "attention_heads": settings.heads,
        "linear_units": settings.ff,
        "num_blocks": settings.blocks,
        "dropout_rate": settings.dropout,
        "positional_dropout_rate": settings.dropout,
        "attention_dropout_rate": settings.dropout,
        "input_layer": "conv2d",
        "normalize_before": True,
        "rel_pos_type": "latest",  # where it is not said, ESPnet takes positions that depend on the padding
        "pos_enc_layer_type": "rel_pos",
        "selfattention_layer_type": "rel_selfattn",
        "activation_type": "swish",
        "macaron_style": True,
        "use_cnn_module": True,
        "cnn_module_kernel": settings.kernel,
    }


def write_statistics(features: Iterable[Tensor], path: Path) -> None:
    """Write what `normalize` "global" goes by: count, sum and sum of squares over the frames of features `[T, mel
    bands]`, in the form of ESPnet's `feats_stats.npz`."""
    count, sums = 0, np.zeros((2, 1))
    for one in features:
        frames = one.double().numpy()
        count, sums = count + len(frames), sums + np.stack([frames.sum(0), (frames**2).sum(0)])
    if not count:
        raise UserError(f"{path}: no features to take statistics of")
    buffer = io.BytesIO()
    np.savez(buffer, count=count, sum=sums[0], sum_square=sums[1])
    files.write(path, buffer.getvalue())


def divides(name: str, number: int, width: int) -> None:
    """Refuse heads that do not share a width evenly."""
    if width % number:
        raise ValueError(f"{name}: got {number}; allowed: what divides the width, {width}")
