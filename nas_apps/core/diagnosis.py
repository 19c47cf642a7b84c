"""The state of a search in a few figures, and whether what it found has collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nas_apps.core.arch import Draw
from nas_apps.core.genotype import Genotype
from nas_apps.core.logs import read_lines
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.sparse import SparsestMax
from nas_apps.core.parts.stop import SKIPS
from nas_apps.core.space import NONE, SKIP, Space, decided


def figures(space: Space, expected: Draw, genotype: Genotype) -> dict[str, float]:
    """Figures of the logits' state, from the expected weights and the genotype derived now.

    `skips`: skip connections in each cell of the genotype. For each choice, as means over its rows: `entropy` of the
    options, from 0 (one is left) to 1 (all alike), `margin` of the heaviest over the second, `none`: the share of it.
    """
    found: dict[str, float] = {f"{SKIPS}{name}": skips for name, (skips, _) in _skips(space, genotype).items()}
    for name, choice in space.items():
        weights = expected.weights[name].detach().cpu().double()  # [R, O]
        shares = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
        most = weights.topk(min(2, choice.shape[1])).values  # [R, 2]
        found[f"diagnosis/entropy/{name}"] = _entropy(shares)
        found[f"diagnosis/margin/{name}"] = float((most[:, 0] - most[:, 1:].sum(-1)).mean())
        nothing = [float(shares[row, o.index(NONE)]) for row, o in enumerate(choice.rows) if NONE in o]
        if nothing:
            found[f"diagnosis/none/{name}"] = sum(nothing) / len(nothing)
    return found


def collapsed(space: Space, genotype: Genotype) -> dict[str, str]:
    """What is to be said of each cell of which half or more of the kept edges only pass their input on."""
    return {
        name: f"{name}: {skips} of {kept} edges of the found cell are {SKIP}: the search has collapsed"
        for name, (skips, kept) in _skips(space, genotype).items()
        if kept and 2 * skips >= kept
    }


def frozen(space: Space, relax: Mapping[str, Relaxation]) -> dict[str, str]:
    """What is to be said of each choice between two options that are decided long before the search ends."""
    return {
        name: f"{name}: 'sparsest_max' leaves no gradient to two options once its radius is more than they are apart: "
        "from then on the heavier one has won"
        for name, choice in space.items()
        if choice.shape[1] == 2 and isinstance(relax[choice.kind], SparsestMax)
    }


def read_history(folder: Path, step: int) -> list[dict[str, Any]]:
    """What a stop rule looks at, from the logs of a run folder up to a step: an entry an epoch."""
    epochs: dict[int, dict[str, Any]] = {}
    for name in ("choices.jsonl", "metrics.jsonl"):
        for line in read_lines(folder / name):
            if line["step"] <= step and ("weights" in line or any(key.startswith("diagnosis/") for key in line)):
                epochs.setdefault(line["epoch"], {}).update(line)
    return [epochs[epoch] for epoch in sorted(epochs)]


def _skips(space: Space, genotype: Genotype) -> Mapping[str, tuple[int, int]]:
    """Skip connections and kept edges of each cell."""
    cells = {name: genotype.kept[name] for name, choice in decided(space).items() if choice.dag is not None}
    kept = {name: [option for row in rows for option in row if option != NONE] for name, rows in cells.items()}
    return {name: (options.count(SKIP), len(options)) for name, options in kept.items()}


def _entropy(shares: Tensor) -> float:
    nats = -(shares * shares.clamp_min(1e-30).log()).sum(-1).mean()
    return float(nats) / math.log(max(shares.shape[-1], 2)) + 0.0  # not -0.0
