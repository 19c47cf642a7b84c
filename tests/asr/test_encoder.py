import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full, Partial
from nas_apps.core.task import Deepens, Resizes

pytest.importorskip("espnet")

from espnet.nets.pytorch_backend.conformer.convolution import ConvolutionModule
from espnet.nets.pytorch_backend.conformer.encoder_layer import EncoderLayer
from espnet.nets.pytorch_backend.transformer.subsampling import TooShortUttError
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

from nas_apps.tasks.asr.cells import Output
from nas_apps.tasks.asr.encoder import (
    CellEncoder,
    DartsConformerEncoder,
    Network,
    encoder_conf,
    read_genotype,
)
from nas_apps.tasks.asr.ops import Residual
from nas_apps.tasks.asr.spaces import CONFORMERS, ASRSpace, find
from nas_apps.tasks.asr.subsampling import subsampled  # noqa: E402

SPACES, NAMES = [ASRSpace(), ASRSpace(nodes=3, keep=2), ASRSpace("module")], ["cell", "cell-keep2", "module"]
SMALL = Network(cells=2, width=16)
EXACT = Network(cells=2, width=16, masked=False)
PARTS = (
    ("norm_ff_macaron", "feed_forward_macaron"),
    ("norm_mha", "self_attn"),
    ("norm_conv", "conv_module"),
    ("norm_ff", "feed_forward"),
)
MASKS_ITSELF = "mask_pad" in inspect.signature(ConvolutionModule.forward).parameters


def speech(*lengths: int, features: int = 80) -> tuple[Tensor, Tensor]:
    """A batch of random features, and of large values where it is padded."""
    batch = torch.full((len(lengths), max(lengths), features), 30.0)
    for row, length in zip(batch, lengths, strict=True):
        row[:length] = torch.randn(length, features)
    return batch, torch.tensor(lengths)


def fixed(space: ASRSpace, genotype: Genotype, settings: Network) -> CellEncoder:
    return CellEncoder(Fixed(space.choices(), genotype), space, settings, 80)


def searched(space: ASRSpace, settings: Network) -> tuple[Arch, CellEncoder]:
    arch = Arch(space.choices(), {"op": Softmax()}, init_std=0.5)
    return arch, CellEncoder(Mixed(arch, Full()), space, settings, 80)


def drawn(space: ASRSpace, seed: int) -> Genotype:
    return Random()(space.choices(), {}, torch.Generator().manual_seed(seed))


def shaken(module: nn.Module) -> nn.Module:
    """The module with every parameter and statistic away from where it begins."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return module


def copied(cell: nn.Module, layer: EncoderLayer) -> None:
    """Give ESPnet's block the weights of ours."""
    for ours, (norm, module) in zip((m for m in cell.modules() if isinstance(m, Residual)), PARTS, strict=True):
        getattr(layer, norm).load_state_dict(ours.norm.state_dict())
        getattr(layer, module).load_state_dict(ours.module.state_dict())
    layer.norm_final.load_state_dict(cell.norm.state_dict())


def conformer(settings: Network, kernel: int) -> ConformerEncoder:
    return ConformerEncoder(
        80, settings.width, 4, 8 * settings.width, settings.cells, settings.dropout, settings.position_dropout,
        settings.attention_dropout, macaron_style=True, rel_pos_type="latest", cnn_module_kernel=kernel,
    )  # fmt: skip


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("space", [ASRSpace(), ASRSpace("module")], ids=lambda space: space.name)
@pytest.mark.parametrize("name", CONFORMERS)
def test_the_block_of_a_conformer_is_espnets_to_the_last_bit(name: str, space: ASRSpace, training: bool) -> None:
    theirs = conformer(EXACT, int(CONFORMERS[name].removeprefix("conv_")))
    cell, layer = shaken(fixed(space, find(name, space), EXACT)).cells[0], theirs.encoders[0]
    copied(cell, layer)
    x, mask = torch.randn(2, 12, 16), torch.arange(12) < torch.tensor([[12], [7]])
    (x, pos_emb), mask = theirs.embed.out[1].eval()(x), mask[:, None]
    torch.manual_seed(1)
    expected, _ = layer.train(training)((x, pos_emb), mask)
    torch.manual_seed(1)
    found = cell.train(training)(x, mask, pos_emb)
    assert torch.equal(found, expected[0])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_twelve_conformer_cells_are_espnets_conformer_encoder(training: bool) -> None:
    settings = Network(cells=12, width=16, masked=False)
    ours, theirs = shaken(fixed(ASRSpace(), find("conformer", ASRSpace()), settings)), conformer(settings, 31)
    for cell, layer in zip(ours.cells, theirs.encoders, strict=True):
        copied(cell, layer)
    theirs.embed.load_state_dict(ours.embed.state_dict())
    theirs.after_norm.load_state_dict(ours.after_norm.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    batch = speech(130, 120, 61)
    torch.manual_seed(1)
    expected, lengths, _ = theirs.train(training)(*batch)
    torch.manual_seed(1)
    found, found_lengths, nothing = ours.train(training)(*batch)
    assert torch.equal(found, expected)
    assert found_lengths.tolist() == lengths.tolist()
    assert nothing is None


@pytest.mark.parametrize(
    ("space", "output"), [*((space, "last") for space in SPACES), (SPACES[0], "mean")], ids=[*NAMES, "cell-mean"]
)
def test_a_super_net_at_the_draw_of_a_genotype_is_its_network(space: ASRSpace, output: Output) -> None:
    settings = Network(cells=2, width=16, output=output)
    arch, supernet = searched(space, settings)
    shaken(supernet).eval()
    batch = speech(40, 29)
    singles = []
    for seed in range(4):
        genotype = drawn(space, seed)
        network = fixed(space, genotype, settings).eval()
        missing, _ = network.load_state_dict(supernet.state_dict(), strict=False)
        assert missing == []
        singles.append(network(*batch)[0])
        with arch.using(one_hot(space.choices(), genotype)):
            assert torch.equal(supernet(*batch)[0], singles[-1])
    with arch.using(arch.draw()):
        mixture = supernet(*batch)[0]
    assert all((mixture - single).abs().amax() > 1e-2 for single in singles)


def test_logits_get_a_gradient_from_every_operation_of_every_edge() -> None:
    space = ASRSpace(nodes=3)
    arch, supernet = searched(space, SMALL)
    with arch.using(arch.draw()):
        found, _, _ = supernet(*speech(40, 29))
        found.square().mul(torch.randn(16)).sum().backward()
    assert all(logits.grad is not None and (logits.grad != 0).all() for logits in arch.logits.values())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_an_utterance_is_the_same_whatever_it_is_padded_to(space: ASRSpace) -> None:
    batch, lengths = speech(120, 133, 7, 61)
    arch, supernet = searched(space, SMALL)
    networks = [supernet, *(fixed(space, drawn(space, seed), SMALL) for seed in range(3))]
    for network in networks:
        shaken(network).eval()
        with arch.using(arch.draw()), torch.no_grad():
            together, counts, _ = network(batch, lengths)
            for row, length in enumerate(lengths):
                alone, count, _ = network(batch[row : row + 1, :length], lengths[row : row + 1])
                assert count == counts[row] == alone.shape[1]
                assert torch.allclose(together[row : row + 1, :count], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_without_padding_masks_change_nothing(space: ASRSpace) -> None:
    networks = [shaken(fixed(space, drawn(space, 0), settings)).eval() for settings in (SMALL, EXACT)]
    networks[1].load_state_dict(networks[0].state_dict())
    batch = speech(61, 61)
    torch.testing.assert_close(networks[0](*batch)[0], networks[1](*batch)[0], rtol=0, atol=1e-5)


@pytest.mark.skipif(MASKS_ITSELF, reason="this ESPnet masks by itself")
@pytest.mark.usefixtures("double")
def test_without_masks_padding_changes_lengths_and_results_as_in_espnet_202511() -> None:
    network = fixed(ASRSpace(), find("conformer", ASRSpace()), EXACT).eval()
    batch, lengths = speech(120, 133)
    together, counts, _ = network(batch, lengths)
    alone, count, _ = network(batch[:1, :120], lengths[:1])
    assert (counts[0], count[0]) == (30, 29)
    assert (together[0, :29] - alone[0]).abs().amax() > 1e-3


@pytest.mark.parametrize("settings", [SMALL, EXACT], ids=["masked", "exact"])
def test_lengths_are_those_of_the_mask_and_the_longest_is_whole(settings: Network) -> None:
    seen: list[Tensor] = []
    network = fixed(ASRSpace(), find("conformer", ASRSpace()), settings)
    network.cells[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    for lengths in ((130, 120), (7, 8), (64, 63, 62, 61), (11,)):
        y, counts, _ = network.eval()(*speech(*lengths))
        assert counts.tolist() == seen[-1].sum((1, 2)).tolist()
        assert counts.max() == y.shape[1] == subsampled(torch.tensor(max(lengths)))
        assert y.shape[::2] == (len(lengths), network.output_size())


@pytest.mark.parametrize("settings", [SMALL, EXACT], ids=["masked", "exact"])
def test_an_utterance_too_short_for_the_subsampling_is_refused(settings: Network) -> None:
    network = fixed(ASRSpace(), find("conformer", ASRSpace()), settings)
    with pytest.raises(TooShortUttError, match="^an utterance of 6 frames; allowed: 7 and more$"):
        network(*speech(6))
    if settings.masked:  # and refused beside a longer one, as it is alone
        with pytest.raises(TooShortUttError, match="an utterance of 6 frames"):
            network(*speech(20, 6))


def test_partial_channels_run_and_a_width_they_cannot_split_is_refused() -> None:
    space, settings = ASRSpace(nodes=2), Network(cells=1, width=64)
    arch = Arch(space.choices(), {"op": Softmax()})
    with arch.using(arch.draw()):
        y, _, _ = CellEncoder(Mixed(arch, Partial(4)), space, settings, 80)(*speech(40, 29))
    assert y.isfinite().all()
    with pytest.raises(UserError, match="^mhsa_8: got 4 channels; allowed: a multiple of its 8 heads$"):
        CellEncoder(Mixed(arch, Partial(4)), space, SMALL, 80)


def test_the_mean_of_the_nodes_is_the_output_where_that_is_asked_for() -> None:
    space = ASRSpace(nodes=3)
    cell = fixed(space, drawn(space, 0), Network(cells=1, width=16, output="mean")).eval().cells[0]
    x, mask, pos_emb = torch.randn(1, 5, 16), torch.ones(1, 1, 5).bool(), torch.randn(1, 9, 16)
    states = torch.stack(cell.inner(x, context=(mask, pos_emb)))
    assert torch.allclose(cell(x, mask, pos_emb), cell.norm(states.mean(0)), atol=1e-6)


def test_what_does_not_lead_to_the_last_node_is_not_built() -> None:
    space = ASRSpace()
    rows = [()] * 10
    rows[0], rows[2], rows[4], rows[7] = ("ffn_4",), ("conv_7",), ("mhsa_4",), ("conv_31",)  # 0-1, 1-2, 1-3, 1-4
    network = fixed(space, Genotype({"cell.op": tuple(rows)}), Network(cells=1, width=16))
    found = {name.split(".ops.")[1].split(".")[0] for name, _ in network.named_parameters() if ".ops." in name}
    assert found == {"ffn_4", "conv_31"}
    network(*speech(40, 29))[0].square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    both = fixed(space, Genotype({"cell.op": tuple(rows)}), Network(cells=1, width=16, output="mean"))
    assert {"mhsa_4", "conv_7"} < {
        n.split(".ops.")[1].split(".")[0] for n, _ in both.named_parameters() if ".ops." in n
    }


@pytest.mark.parametrize("name", CONFORMERS)
def test_an_encoder_has_as_many_parameters_as_its_formula(name: str) -> None:
    d, kernel = 24, int(CONFORMERS[name].removeprefix("conv_"))
    block = 2 * (16 * d**2 + 11 * d) + 5 * d**2 + 8 * d + 3 * d**2 + (kernel + 8) * d + 2 * d
    ours = fixed(ASRSpace(), find(name, ASRSpace()), Network(cells=3, width=d))
    assert sum(p.numel() for p in ours.parameters()) == 28 * d**2 + 12 * d + 3 * block + 2 * d


def test_the_larger_conformer_of_espnets_aishell_recipe_has_33_51_million_parameters() -> None:
    assert sum(p.numel() for p in DartsConformerEncoder(80).parameters()) == 33_513_984
    assert sum(p.numel() for p in conformer(Network(), 31).parameters()) == 33_513_984


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_espnets_encoder_choice_is_the_network_of_the_genotype(space: ASRSpace, tmp_path: Path) -> None:
    genotype, settings = drawn(space, 1), Network(cells=2, width=24, dropout=0.2, masked=False)
    ours = fixed(space, genotype, settings).eval()
    genotype.save(tmp_path / "found.json")
    conf = encoder_conf(genotype, settings)
    for given in (conf["genotype"], str(tmp_path / "found.json"), json.loads(conf["genotype"])):
        theirs = DartsConformerEncoder(80, **{**conf, "genotype": given}).eval()
        assert read_genotype(given) == genotype
        theirs.load_state_dict(ours.state_dict())
        batch = speech(50, 37)
        assert torch.equal(theirs(*batch)[0], ours(*batch)[0])
    assert [m.p for m in theirs.modules() if isinstance(m, nn.Dropout)] == [
        m.p for m in ours.modules() if isinstance(m, nn.Dropout)
    ]


def test_the_defaults_of_espnets_encoder_choice_are_the_defaults_of_the_network() -> None:
    parameters = inspect.signature(DartsConformerEncoder.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert all(type(value) in (str, int, float, bool) for value in defaults.values())
    conf = encoder_conf(find(defaults["genotype"], ASRSpace()), Network())
    assert {**conf, "genotype": defaults["genotype"]} == defaults


def test_settings_grow_with_what_they_are_multiplied_with() -> None:
    settings = Network(cells=6, width=64)
    assert isinstance(settings, Deepens)
    assert isinstance(settings, Resizes)
    assert [settings.deeper(t).cells for t in (0.01, 0.5, 1.0, 1.3)] == [1, 3, 6, 8]
    rows = list(settings.sizes())
    assert [row[0].cells for row in rows] == [6, 5, 7, 4, 8, 3, 9, 10, 11, 12]
    assert all([n.width for n in row] == list(range(32, 129, 8)) for row in rows)
    assert sum(settings == other for row in rows for other in row) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(width=20), "width: got 20; allowed: a multiple of 8"),
        (lambda: Network(dropout=1.0), "dropout: got 1.0; allowed: 0 and more, less than 1"),
        (lambda: Network(cells=0), "cells: got 0; allowed: 1 and more"),
        (lambda: Network(output="first"), "output: no 'first'; allowed: last, mean"),
        (lambda: DartsConformerEncoder(6), "input_size: got 6 features a frame; allowed: 7 and more"),
        (lambda: DartsConformerEncoder(80, "transformer"), "encoder_conf.genotype: no 'transformer'; allowed:"),
        (lambda: DartsConformerEncoder(80, "{oops"), "encoder_conf.genotype: not JSON"),
        (lambda: DartsConformerEncoder(80, "missing.json"), "missing.json: cannot read a genotype: No such file"),
        (lambda: DartsConformerEncoder(80, Genotype({"normal.op": ((),)}).to_json()), "it decides normal.op; this"),
        (
            lambda: DartsConformerEncoder(80, find("conformer", ASRSpace("module")).to_json(), cell_output="mean"),
            "network.output: got 'mean'; allowed: 'last', with the space 'module'",
        ),
    ],
)
def test_mistakes_are_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        make()
    assert str(raised.value).startswith(message) or message in str(raised.value)
    assert "\n" not in str(raised.value)
