"""A control with a known answer: where one option is noise, every method finds the other."""

from __future__ import annotations

from pathlib import Path

import pytest

import nas_apps
from nas_apps.core.parts.derive import Threshold
from nas_apps.core.parts.penalty import Cost
from nas_apps.core.parts.sparse import SparsestMax
from nas_apps.core.variants import VARIANTS

SEARCH = ("task=image", "task.space=s4", "task.train_images=600", "search.epoch_steps=5",
          "search.batch_size=32", "search.network.channels=8", "search.network.cells=3", "search.weights.lr=0.1",
          "search.logits.lr=0.03", "search.evaluate_every=20")  # fmt: skip


@pytest.mark.parametrize("variant", [name for name, v in VARIANTS.items() if v.schedule.searches])
def test_a_search_prefers_convolutions_to_noise(variant: str, tmp_path: Path) -> None:
    more = ["search.epochs=6"]
    if any(stage.deeper > 1 for stage in VARIANTS[variant].stages):  # what begins anew and is deeper learns for longer
        more = ["search.epochs=36", "search.network.cells=2"]
    if any(isinstance(penalty, Cost) for penalty in VARIANTS[variant].penalties):
        more.append("variant.penalties=[]")  # noise is cheaper than a convolution
    if isinstance(VARIANTS[variant].relax, SparsestMax):
        more.append("variant.relax.radius=0")  # between two options it decides within the first epochs, and says so
    genotype = nas_apps.search(nas_apps.recipe(*SEARCH, *more, f"variant={variant}"), tmp_path / "run")
    kept = [option for rows in genotype.kept.values() for row in rows for option in row]
    assert len(kept) == 16 or isinstance(VARIANTS[variant].derive, Threshold)
    assert kept.count("sep_conv_3x3") >= 13 / 16 * len(kept)  # a coin gives 13 of 16 or more once in a hundred times
