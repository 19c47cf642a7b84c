import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import AuxSkip, Full, Partial, Row, Wiring
from nas_apps.core.progress import DONE, Progress
from nas_apps.core.space import NONE, SKIP

pytest.importorskip("espnet")

from espnet.nets.pytorch_backend.conformer.convolution import ConvolutionModule
from espnet.nets.pytorch_backend.transformer.embedding import RelPositionalEncoding

from nas_apps.tasks.asr import ops
from nas_apps.tasks.asr.ops import op_table
from nas_apps.tasks.asr.spaces import ATTENTIONS, CONVOLUTIONS, FEED_FORWARDS, OPS, ASRSpace, find, space_of

WIDTH, FRAMES = 16, 9
PARAMETERS: dict[str, Callable[[int], int]] = {
    **{f"ffn_{e}": lambda d, e=e: 2 * e * d**2 + (e + 3) * d for e in (4, 8)},
    **{f"mhsa_{h}": lambda d: 5 * d**2 + 8 * d for h in (4, 8)},
    **{f"conv_{k}": lambda d, k=k: 3 * d**2 + (k + 8) * d for k in (7, 15, 31)},
    SKIP: lambda d: 0,
    NONE: lambda d: 0,
}


def context(width: int = WIDTH, frames: int = FRAMES, short: int = 6) -> tuple[Tensor, Tensor]:
    """The mask of two utterances, the second shorter, and the positions."""
    mask = torch.arange(frames) < torch.tensor([[frames], [short]])
    _, pos_emb = RelPositionalEncoding(width, 0.0, 20)(torch.zeros(1, frames, width))
    return mask[:, None], pos_emb


def frames(width: int = WIDTH) -> Tensor:
    return torch.randn(2, FRAMES, width, requires_grad=True)


def test_the_table_has_the_operations_of_the_space() -> None:
    assert set(op_table()) == set(OPS) == set(PARAMETERS)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("masked", [True, False])
def test_every_operation_keeps_the_shape(name: str, masked: bool) -> None:
    op, x = op_table(masked=masked)[name](OpArgs(WIDTH, axis=2)), frames()
    y = op(x, *context())
    assert y.shape == x.shape
    assert y.isfinite().all()
    if name == NONE:
        assert not y.any()
    elif name == SKIP:
        assert y is x
    else:
        assert (y - x).abs().amax() > 1e-3


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("name", OPS)
def test_an_operation_has_as_many_parameters_as_its_formula(name: str, width: int) -> None:
    op = op_table()[name](OpArgs(width, axis=2))
    assert sum(p.numel() for p in op.parameters()) == PARAMETERS[name](width)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", [*FEED_FORWARDS, *ATTENTIONS, *CONVOLUTIONS])
def test_padding_changes_nothing(name: str) -> None:
    op = op_table()[name](OpArgs(WIDTH, axis=2)).eval()
    x = torch.randn(2, FRAMES, WIDTH)
    x[1, 6:] = 1e3
    alone = op(x[1:, :6], *(part[1:] if part.dtype == torch.bool else part for part in context(frames=6)))
    assert torch.allclose(op(x, *context())[1:, :6], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_an_unmasked_convolution_reads_the_padding(name: str) -> None:
    op = op_table(masked=False)[name](OpArgs(WIDTH, axis=2)).eval()
    x, other = torch.randn(2, 2, FRAMES, WIDTH)
    other[1, :6], other[0] = x[1, :6], x[0]
    differs = op(x, *context())[1, :6] != op(other, *context())[1, :6]
    assert bool(differs.any()) == ("mask_pad" not in inspect.signature(ConvolutionModule.forward).parameters)


def test_a_convolution_that_masks_by_itself_is_given_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(ConvolutionModule):
        def forward(self, x: Tensor, mask_pad: Tensor | None = None) -> Tensor:
            assert mask_pad is not None
            return super().forward(x).masked_fill(~mask_pad.transpose(1, 2), 7.0)

    monkeypatch.setattr(ops, "ConvolutionModule", Newer)
    for masked in (True, False):
        op, x = op_table(masked=masked, dropout=0.0)["conv_7"](OpArgs(WIDTH, axis=2)), frames()
        assert torch.allclose((op(x, *context()) - x)[1, 6:], torch.tensor(7.0))


@pytest.mark.parametrize("name", [*FEED_FORWARDS, *ATTENTIONS, *CONVOLUTIONS])
def test_an_operation_has_a_second_derivative(name: str) -> None:
    op, x = op_table(dropout=0.0, attention_dropout=0.0)[name](OpArgs(WIDTH, axis=2)), frames()
    (first,) = torch.autograd.grad(op(x, *context()).square().sum(), x, create_graph=True)
    second = torch.autograd.grad(first.square().sum(), [x, *op.parameters()], allow_unused=True)
    assert all(grad.isfinite().all() for grad in second if grad is not None)
    assert second[0].any()


@pytest.mark.parametrize("name", ATTENTIONS)
def test_an_attention_keeps_no_graph_when_it_is_done(name: str) -> None:
    op = op_table()[name](OpArgs(WIDTH, axis=2))
    op(frames(), *context())
    assert [module for module in op.modules() if isinstance(vars(module).get("attn"), Tensor)] == []


def test_heads_that_do_not_divide_the_width_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^mhsa_8: got 12 channels; allowed: a multiple of its 8 heads$"):
        op_table()["mhsa_8"](OpArgs(12, axis=2))


@pytest.mark.parametrize("wiring", [Full(), Partial(4), AuxSkip()], ids=lambda wiring: type(wiring).__name__)
def test_every_wiring_builds_an_edge(wiring: Wiring) -> None:
    edge, x = wiring.edge(OPS, op_table(), OpArgs(64, axis=2)), frames(64)
    weights = tuple(torch.full((1,), 1 / len(OPS)).split(1)) * len(OPS)
    y = edge(x, Row(weights, tuple(range(len(OPS))), Progress(0, 2)), *context(64))
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_a_narrower_attention_sees_the_positions_of_its_width() -> None:
    encoding = RelPositionalEncoding(16, 0.0, 20)
    _, expected = encoding(torch.zeros(1, FRAMES, 16))
    _, wide = context(64)
    assert torch.allclose(ops._positions(wide, 16), expected, atol=1e-6)


@pytest.mark.parametrize("space", [ASRSpace(), ASRSpace("module")], ids=str)
def test_a_conformer_is_a_point_of_the_space(space: ASRSpace) -> None:
    genotype = find("conformer", space)
    arch = Arch(space.choices(), {"op": Softmax()})
    with torch.no_grad():
        for name, rows in genotype.kept.items():
            for row, options in enumerate(rows):
                for option in options:
                    arch.logits[name][row, space.choices()[name].rows[row].index(option)] = 9.0
    assert Strongest()(space.choices(), arch.expected(DONE).weights, torch.Generator()) == genotype
    assert sum(len(row) for rows in genotype.kept.values() for row in rows) == 4


@pytest.mark.parametrize("space", [ASRSpace(nodes=1), ASRSpace(nodes=6, keep=2), ASRSpace("module")], ids=str)
def test_the_space_of_a_genotype_is_known_from_it(space: ASRSpace) -> None:
    genotype = Random()(space.choices(), {}, torch.Generator())
    assert space_of(genotype).choices().keys() == space.choices().keys()
    genotype.validate(space_of(genotype).choices())


def test_a_space_may_have_fewer_operations() -> None:
    small = ASRSpace("module", ops=("ffn_4", "mhsa_4", "conv_7", "conv_15"))
    assert {name: choice.rows[0] for name, choice in small.choices().items()} == {
        "ffn": ("ffn_4",), "mhsa": ("mhsa_4",), "conv": ("conv_7", "conv_15")}  # fmt: skip
    assert len(small.choices()["ffn"].rows) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ASRSpace("cel"), "space.name: no 'cel'; allowed: cell, module"),
        (lambda: ASRSpace(ops=("conv_9",)), "space.ops: no 'conv_9'; allowed: conv_15"),
        (lambda: ASRSpace("module", nodes=3), "with the space 'module'"),
        (lambda: ASRSpace("module", ops=("ffn_4", "mhsa_4")), "for the module conv; allowed: one or more of conv_7"),
        (lambda: ASRSpace(keep=0), "keep: got 0; allowed: 1 and more"),
        (lambda: find("transformer", ASRSpace()), "genotype: no 'transformer'; allowed: <file>.json, conformer"),
        (lambda: find("conformer", ASRSpace(nodes=3)), "of 4 nodes: cell.op has 10 rows, this space 6"),
        (
            lambda: (found := Genotype({"normal.op": ()})).validate(space_of(found).choices()),
            "it decides normal.op; this space decides cell.op",
        ),
    ],
)
def test_mistakes_are_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        make()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_operations_are_modules_of_espnet() -> None:
    kinds = {name: type(getattr(op_table()[name](OpArgs(16, axis=2)), "module", nn.Identity())) for name in OPS}
    assert {kind.__module__.split(".")[0] for name, kind in kinds.items() if name not in (SKIP, NONE)} == {"espnet"}
