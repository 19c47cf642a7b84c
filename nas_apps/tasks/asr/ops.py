"""Candidate operations on speech, `[B, T, d]`: ESPnet's modules, each with its own norm before it and residual around
it, so that the Conformer block (arXiv:2005.08100) is a chain of them.

Called as `op(x, mask, pos_emb)`: mask `[B, 1, T]` is true for frames and false for padding, pos_emb `[1, 2T - 1, D]`
holds the relative positions, of a width D that is a multiple of d. The padded frames of a result mean nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.errors import UserError
from nas_apps.core.op import OpArgs, OpTable, Zero
from nas_apps.core.space import NONE, SKIP
from nas_apps.tasks.asr.quiet import quiet
from nas_apps.tasks.asr.spaces import ATTENTIONS, CONVOLUTIONS, FEED_FORWARDS

with quiet():
    from espnet.nets.pytorch_backend.conformer.convolution import ConvolutionModule
    from espnet.nets.pytorch_backend.nets_utils import get_activation
    from espnet.nets.pytorch_backend.transformer.attention import RelPositionMultiHeadedAttention
    from espnet.nets.pytorch_backend.transformer.layer_norm import LayerNorm
    from espnet.nets.pytorch_backend.transformer.positionwise_feed_forward import PositionwiseFeedForward

Run = Callable[..., Tensor]


class Skip(nn.Identity):
    """x itself, whatever goes with it."""

    def forward(self, x: Tensor, *context: object) -> Tensor:
        return x


class Residual(nn.Module):
    """`x + scale * dropout(module(norm(x)))`; `run(module, x, mask, pos_emb)` calls the module."""

    def __init__(self, channels: int, module: nn.Module, run: Run, *, dropout: float, scale: float = 1.0) -> None:
        super().__init__()
        self.norm, self.module, self.dropout = LayerNorm(channels), module, nn.Dropout(dropout)
        self.scale, self._run = scale, run

    def forward(self, x: Tensor, mask: Tensor, pos_emb: Tensor) -> Tensor:
        y = self.dropout(self._run(self.module, self.norm(x), mask, pos_emb))
        return torch.add(x, y, alpha=self.scale)


def op_table(*, dropout: float = 0.1, attention_dropout: float = 0.1, masked: bool = True) -> OpTable:
    """The operations by name; the number in a name is how many times wider a feed-forward is between, the heads of an
    attention, the frames a convolution spans.

    dropout: of each residual, and inside the feed-forwards. attention_dropout: of the attention's weights. masked: a
    convolution reads zeros where the padding is; without, what ESPnet's own reads.
    """
    feed, attend = partial(_feed_forward, dropout=dropout), partial(_attention, dropout=dropout)
    return {
        **{name: partial(feed, expansion=_number(name)) for name in FEED_FORWARDS},
        **{name: partial(attend, heads=_number(name), inner=attention_dropout) for name in ATTENTIONS},
        **{name: partial(_convolution, kernel=_number(name), dropout=dropout, masked=masked) for name in CONVOLUTIONS},
        SKIP: lambda args: Skip(),
        NONE: lambda args: Zero(),
    }


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _feed_forward(args: OpArgs, *, expansion: int, dropout: float) -> nn.Module:
    width = args.channels
    module = PositionwiseFeedForward(width, expansion * width, dropout, get_activation("swish"))
    return Residual(width, module, _plain, dropout=dropout, scale=0.5)


def _attention(args: OpArgs, *, heads: int, dropout: float, inner: float) -> nn.Module:
    width = args.channels
    if width % heads:
        raise UserError(f"mhsa_{heads}: got {width} channels; allowed: a multiple of its {heads} heads")
    return Residual(width, RelPositionMultiHeadedAttention(heads, width, inner), _attend, dropout=dropout)


def _convolution(args: OpArgs, *, kernel: int, dropout: float, masked: bool) -> nn.Module:
    module = ConvolutionModule(args.channels, kernel, get_activation("swish"))
    run = _convolve_masked if masked else _plain
    if "mask_pad" in inspect.signature(module.forward).parameters:  # ESPnet masks by itself (espnet#6660)
        run = _convolve_with_mask
    return Residual(args.channels, module, run, dropout=dropout)


def _plain(module: nn.Module, x: Tensor, *_: Tensor) -> Tensor:
    y: Tensor = module(x)
    return y


def _attend(module: nn.Module, x: Tensor, mask: Tensor, pos_emb: Tensor) -> Tensor:
    y: Tensor = module(x, x, x, _positions(pos_emb, x.shape[-1]), mask)
    module.attn = None  # ESPnet keeps the attention, and with it its graph
    return y


def _convolve_with_mask(module: nn.Module, x: Tensor, mask: Tensor, *_: Tensor) -> Tensor:
    y: Tensor = module(x, mask_pad=mask)
    return y


def _convolve_masked(module: nn.Module, x: Tensor, mask: Tensor, *_: Tensor) -> Tensor:
    """As ESPnet's module does, with zeros for padding where the depthwise convolution reads: a mask of x itself would
    not do, since the bias passes the gate. Convolutions of one frame are run as linear layers, at half the time."""
    gated = functional.glu(_pointwise(module.pointwise_conv1, x), -1).masked_fill(~mask.transpose(1, 2), 0.0)
    y = module.activation(module.norm(module.depthwise_conv(gated.transpose(1, 2))))  # [B, d, T]
    return _pointwise(module.pointwise_conv2, y.transpose(1, 2))


def _pointwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    return functional.linear(x, layer.weight.squeeze(-1), layer.bias)


def _positions(pos_emb: Tensor, width: int) -> Tensor:
    """The encoding of relative positions of a smaller width: of the pairs (sine, cosine), every k-th."""
    k = pos_emb.shape[-1] // width
    return pos_emb if k == 1 else pos_emb.unflatten(-1, (-1, 2))[..., ::k, :].flatten(-2)
