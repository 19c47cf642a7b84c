"""The networks of NAS-Bench-1Shot1 (arXiv:2001.10422): the one-shot model, and NAS-Bench-101's networks.

Both are three stages of cells of choice blocks, with max pooling between; they differ in widths. In the one-shot model
every node has the same width and a place of its own in the output, so that its weights fit whatever is chosen; a final
network has the widths of NAS-Bench-101 (arXiv:1902.09635), whose tables are of such networks. Weights of a one-shot
model therefore do not carry over to a final network.

Unlike the code of arXiv:2001.10422, max pooling between stages has no padding, with which maps of 32 pixels become 17
and 9. Running averages of norms have PyTorch's momentum of 0.1. NAS-Bench-101's 0.997, in TensorFlow, is 0.003 in
PyTorch, where that code has 0.997.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from nas_apps.core.cell import Fill, Read
from nas_apps.core.op import OpArgs
from nas_apps.core.parts.wiring import Row
from nas_apps.core.progress import DONE
from nas_apps.core.space import op_choice
from nas_apps.tasks.image.nasbench101 import Parents, reached, widths
from nas_apps.tasks.image.ops import conv_norm_relu, relu_conv_norm
from nas_apps.tasks.image.skeleton import Feature, Network, Skeleton, Stem, refuse_extras
from nas_apps.tasks.image.spaces import ImageSpace, parent_choice


def nasbench1shot1_skeleton(
    space: ImageSpace, fill: Fill, settings: Network, *, in_chans: int, one_shot: bool
) -> Skeleton:
    """The modules of a network, `settings.cells` cells in each of three stages.

    Args:
        one_shot: the model that is searched, with `settings.channels` for each node of the first stage; else the
            network of NAS-Bench-101, with `settings.channels` for the output of a cell of the first stage.
    """
    refuse_extras(settings, space.skeleton)
    channels = width = settings.channels
    affine = settings.affine is not False
    cells: list[nn.Module] = []
    features = []
    for stage in range(3):
        if stage:
            cells.append(Layer(nn.MaxPool2d(2, ceil_mode=True)))
            channels *= 2
        for _ in range(settings.cells):
            cells.append(ChoiceCell(space, fill, width, channels, one_shot=one_shot, affine=affine))
            width = channels * space.dag.nodes if one_shot else channels
        features.append(Feature(len(cells) - 1, width, 2**stage))
    if one_shot:
        cells.append(Layer(relu_conv_norm(width, channels, affine=False)))
        features[-1] = Feature(len(cells) - 1, channels, 4)
    return Skeleton(Stem(conv_norm_relu(in_chans, settings.channels, kernel=3)), cells, nn.Identity(), features)


class Layer(nn.Module):
    """A layer between cells."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        y: Tensor = self.inner(last)
        return y


class ChoiceCell(nn.Module):
    """A cell of choice blocks: operations are in nodes, and what is chosen beside them is where a node takes its input.

    A node's input is the sum of its parents, the cell's input first projected to its width by a 1x1 convolution. The
    output is the concatenation of its parents plus, if that is among them, the projected input. In the one-shot model
    parents are weighted; in a network of a genotype, one-shot or final, the parents kept have weight 1 and only what
    leads to the output is there.
    """

    def __init__(
        self, space: ImageSpace, fill: Fill, inputs: int, channels: int, *, one_shot: bool, affine: bool
    ) -> None:
        super().__init__()
        self._output = space.dag.nodes + 1
        options, self._reads = _parents(space, fill)
        parents = reached(options)
        nodes = dict.fromkeys(range(1, self._output), channels) if one_shot else widths(parents, channels)
        self._widths = {**nodes, self._output: channels * (space.dag.nodes if one_shot else 1)}
        self._places = tuple(nodes) if one_shot else tuple(s for s in parents[self._output] if s)
        self.projections = nn.ModuleDict(
            {str(t): conv_norm_relu(inputs, self._widths[t], affine=affine) for t in parents if 0 in parents[t]}
        )
        self.nodes = nn.ModuleDict(
            {
                str(t): fill.mix(op_choice("cell"), t - 1, space.ops, OpArgs(nodes[t], affine=affine))
                for t in parents
                if t != self._output
            }
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        rows = {target: read() for target, read in self._reads.items()}
        states = {0: last}
        for target in reached({target: row.active for target, row in rows.items()}):
            terms = self._terms(target, rows[target], states)
            if target == self._output:
                return self._joined(terms, last)
            states[target] = self.nodes[str(target)](reduce(add, terms.values()))
        raise AssertionError("the output comes last")

    def _terms(self, target: int, row: Row, states: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The weighted parents of a state."""
        terms = {}
        for source in row.active:
            y = states[source]
            if source == 0:
                y = self.projections[str(target)](y)
            elif target != self._output:
                y = y[:, : self._widths[target]]  # NAS-Bench-101 leaves out the one channel too many
            terms[source] = y if row.weights is None else row.weights[source] * y
        return terms

    def _joined(self, terms: Mapping[int, Tensor], last: Tensor) -> Tensor:
        parts = [
            terms[s] if s in terms else last.new_zeros(len(last), self._widths[s], *last.shape[2:])
            for s in self._places
        ]
        y = torch.cat(parts, 1)
        return y + terms[0] if 0 in terms else y


def _parents(space: ImageSpace, fill: Fill) -> tuple[Parents, dict[int, Read]]:
    """The states that each node and the output can be computed from, and functions that give their rows in force."""
    options, reads = {}, {}
    choices = space.choices()
    for target in range(1, space.dag.nodes + 2):
        name = parent_choice("cell", target)
        options[target] = fill.options(name, 0) if name in choices else tuple(range(target))
        reads[target] = fill.weights(name, 0) if name in choices else _all(target)
    return options, reads


def _all(target: int) -> Read:
    """The row of a node that every state before it is a parent of."""
    return lambda: Row(None, tuple(range(target)), DONE)
