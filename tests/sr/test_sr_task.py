"""The whole task: searched and trained at once, what is left is the network; methods, budgets, order, resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

pytest.importorskip("PIL")

import nas_apps
from nas_apps.core import checkpoint
from nas_apps.core.arch import one_hot
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.latency import measure
from nas_apps.core.learners import search_learner
from nas_apps.core.price import describe, prices_of
from nas_apps.core.progress import DONE
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import decided
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.sr.patches import Patches

Small = Callable[..., Recipe]
EAGER = ("search.logits.lr=0.05", "search.logits.init_std=0.01")


def last(folder: Path) -> dict[str, float]:
    """The last figures of a run."""
    figures: dict[str, float] = json.loads((folder / "summary.json").read_text())["metrics"]
    return figures


@pytest.mark.parametrize("variant", ["trilevel", "darts"])
def test_what_a_trilevel_search_leaves_is_its_super_net_and_a_softmax_leaves_another(
    variant: str, small: Small, tmp_path: Path
) -> None:
    made = small(f"variant={variant}", *EAGER, "search.weights.lr=0.01")
    genotype = nas_apps.search(made, tmp_path / "search")
    assert nas_apps.derive(tmp_path / "search").kept == genotype.kept
    inheriting = small(f"variant={variant}", f"train.inherit={tmp_path / 'search'}", "train.epochs=0")
    summary = nas_apps.train(inheriting, genotype, tmp_path / "train")
    assert summary["warnings"] == []
    before, after = last(tmp_path / "search"), summary["metrics"]
    whole, derived = ([before[f"{name}{end}"] for name in ("psnr_c", "ssim_c")] for end in ("", "_one_hot"))
    assert derived == [after[name] for name in ("psnr_c", "ssim_c")]
    assert after == nas_apps.evaluate(tmp_path / "train")
    x, network = torch.rand(2, 3, 9, 11), nas_apps.load(tmp_path / "train").network
    learner, _ = search_learner(made, Runtime(torch.device("cpu")))
    learner.load_state_dict(checkpoint.read(tmp_path / "search" / "checkpoint.pt")["learner"])
    with torch.no_grad(), learner.arch.using(learner.arch.expected(DONE)):
        mixed = learner.objective.eval().network(x)
    if variant == "trilevel":
        assert whole == derived
        assert torch.equal(mixed, network(x))
    else:
        assert abs(whole[0] - derived[0]) > 0.1
        assert (mixed - network(x)).abs().max() > 0.01


def test_a_trained_network_enlarges_images(small: Small, photos: Path, tmp_path: Path) -> None:
    made = small("variant=random", "train.epochs=1")
    summary = nas_apps.train(made, nas_apps.search(made, tmp_path / "search"), tmp_path / "train")
    enlarger = nas_apps.load(tmp_path / "train")
    assert enlarger.upscale(photos / "0.png").size == (96, 80)
    assert sum(p.numel() for p in enlarger.network.parameters()) == summary["costs"]["params"]
    assert (tmp_path / "train" / "comparison.png").exists()


def test_a_found_network_is_trained_on_for_another_scale(small: Small, tmp_path: Path) -> None:
    genotype = nas_apps.search(small("variant=trilevel"), tmp_path / "search")
    made = small("task.scale=4", "train.data.side=4", "train.epochs=1", f"train.inherit={tmp_path / 'search'}")
    summary = nas_apps.train(made, genotype, tmp_path / "train")
    (warning,) = summary["warnings"]
    assert "the others begin anew (the first is network.tail.x4.weight)" in warning
    assert nas_apps.load(tmp_path / "train").upscale(torch.rand(3, 8, 9)).shape == (3, 32, 36)


def same(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two states differ."""
    if isinstance(a, dict):
        return [d for key in a for d in same(a[key], b[key], f"{path}.{key}")] if a.keys() == b.keys() else [path]
    if isinstance(a, list | tuple):
        pairs = zip(a, b, strict=False)
        return [d for k, (x, y) in enumerate(pairs) for d in same(x, y, f"{path}[{k}]")] if len(a) == len(b) else [path]
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    return [] if a == b else [path]


@pytest.mark.parametrize("variant", ["trilevel", "darts", "gdas"])
@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_search_that_ends_anywhere_goes_on_to_the_bit(
    variant: str, step: int, small: Small, stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    made = small(f"variant={variant}", *EAGER, "search.checkpoint_steps=1")
    nas_apps.search(made, tmp_path / "whole")
    with stopping(step):
        nas_apps.search(made, tmp_path / "stopped")
    nas_apps.search(made, tmp_path / "stopped", resume=True)
    assert same(*(checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("whole", "stopped"))) == []
    for name in ("metrics.jsonl", "choices.jsonl", "genotype.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "stopped" / name).read_text()


@pytest.mark.parametrize("left_out", ["patches", "nothing"])
def test_a_training_that_inherits_and_ends_anywhere_goes_on_to_the_bit(
    left_out: str,
    small: Small,
    stopping: Callable[[int], AbstractContextManager[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = small("variant=trilevel", *EAGER, f"train.inherit={tmp_path / 'search'}", "train.checkpoint_steps=1")
    genotype = nas_apps.search(made, tmp_path / "search")
    nas_apps.train(made, genotype, tmp_path / "whole")
    with stopping(3):
        nas_apps.train(made, genotype, tmp_path / "stopped")
    if left_out == "patches":
        monkeypatch.setattr(Patches, "load_state_dict", lambda *_: None)
    nas_apps.train(made, genotype, tmp_path / "stopped", resume=True)
    states = [checkpoint.read(tmp_path / name / "checkpoint.pt")["learner"] for name in ("whole", "stopped")]
    assert (same(*states) == []) == (left_out == "nothing")


WHOLE = "task.widths=[1.0]"  # what sees a share of the channels needs one width
FIRST = "variant.schedule=first_order"
REFUSED = {
    "darts_2nd": (r"^variant.schedule: the look-ahead is a step of SGD, and .* by Adam; allowed: ", (FIRST,)),
    "darts_es": (r"^variant.schedule: the look-ahead is a step of SGD, and .* by Adam; allowed: ", (FIRST,)),
    "darts_ada": (r"^variant.schedule: the look-ahead is a step of SGD, and .* by Adam; allowed: ", (FIRST,)),
    "pc_darts": (r"^variant.edges: this space has no edges; allowed here: null$", ("variant.edges=null", WHOLE)),
    "la_darts": (r"^variant.edges: this space has no edges; allowed here: null$", ("variant.edges=null", WHOLE)),
    "rome_v1": (
        r"^variant.edges: this space has no edges; allowed here: null$",
        ("variant.edges=null", "variant.edge_set=1", "variant.derive.by=options"),
    ),
    "rome_v2": (
        r"^variant.edges: this space has no edges; allowed here: null$",
        ("variant.edges=null", "variant.derive.by=options"),
    ),
    "msg_das": (r"^variant.distill: compares the odds of classes, .* allowed here: null$", ("variant.distill=null",)),
    "dr_nas": (r"^variant.wiring: got 8 of 16 channels, and widths vary; allowed: full, or one width \(task", (WHOLE,)),
}
"""Why a method is refused as it is, and with what it is not."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_method_searches_or_is_refused_with_the_reason(variant: str, small: Small, tmp_path: Path) -> None:
    given = [f"variant={variant}", "search.epoch_steps=1", "search.epochs=3", "search.evaluate_every=3"]
    if variant == "la_darts":
        quick = ("search.latency.repeats=1", "search.latency.warmup=0")
        measure(small("variant=darts", WHOLE, *quick), tmp_path / "latency.safetensors", cells=10)
        given += [*quick, f"search.latency.file={tmp_path / 'latency.safetensors'}"]
    if variant in REFUSED:
        reason, instead = REFUSED[variant]
        with pytest.raises(UserError, match=reason) as refused:
            nas_apps.search(small(*given), tmp_path / "run")
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "run").exists()
        given += instead
    made = small(*given)
    genotype = nas_apps.search(made, tmp_path / "run")
    assert genotype.kept.keys() == decided(made.task.choices()).keys()
    assert describe(made.task, genotype, made.train)["params"] > 0
    if VARIANTS[variant].schedule.searches:
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        figures = {key for line in lines for key in json.loads(line)}
        assert {"train/loss", "train/mse", "evaluation/psnr_c", "evaluation/psnr_c_one_hot"} <= figures


@pytest.mark.parametrize("given", ["variant=gdas variant.schedule.samples=3", "variant=snas", "variant=darts"])
def test_widths_may_have_a_relaxation_of_their_own(given: str, small: Small, tmp_path: Path) -> None:
    made = small(*given.split(), "variant.widths=gumbel_one_hot")
    assert nas_apps.search(made, tmp_path / "run").kept["cell.width"]


def macs(recipe: Recipe, folder: Path) -> float:
    """The multiply-adds of what a search ends with."""
    return float(describe(recipe.task, nas_apps.search(recipe, folder), recipe.train)["macs"])


DRAWN = ("search.epochs=2", "search.epoch_steps=8", "search.evaluate_every=2", "search.logits.lr=0.1",
         "search.logits.init_std=0.01")  # fmt: skip


@pytest.mark.parametrize("variant", ["trilevel", pytest.param("darts", marks=pytest.mark.slow)])
def test_half_the_target_leaves_fewer_multiply_adds(variant: str, small: Small, tmp_path: Path) -> None:
    found = {}
    for target in (4e8, 2e8):
        budget = ("search.budget.of=macs", f"search.budget.target={target}")
        runs = [small(f"variant={variant}", *DRAWN, *budget, f"seed={seed}") for seed in range(3)]
        found[target] = median(macs(made, tmp_path / f"{target}_{made.seed}") for made in runs)
    assert found[2e8] <= found[4e8]
    free = macs(small(f"variant={variant}", *DRAWN), tmp_path / "free")
    assert found[2e8] < free


@pytest.mark.parametrize("variant", ["trilevel", "darts", "gdas", "random"])
def test_a_cap_is_kept_to_the_unit(variant: str, small: Small, tmp_path: Path) -> None:
    made = small(f"variant={variant}", *DRAWN)
    free = describe(made.task, nas_apps.search(made, tmp_path / "free"), made.train)
    for of in ("macs", "params"):
        cheapest = prices_of(made.task, made.train)[of]
        least = float(cheapest(one_hot(cheapest.space, CHEAPEST).weights))
        cap = (0.5 * free[of] + 0.5 * least) // 1
        capped = small(f"variant={variant}", *DRAWN, f"search.budget.of={of}", f"search.budget.cap={cap}")
        genotype = nas_apps.search(capped, tmp_path / of)
        assert least <= describe(made.task, genotype, made.train)[of] <= cap
        below = small(f"variant={variant}", *DRAWN, f"search.budget.of={of}", f"search.budget.cap={least - 1}")
        with pytest.raises(UserError, match=rf"^search.budget.cap: got {least - 1:.0f} .*; allowed: {least:.0f} and m"):
            nas_apps.search(below, tmp_path / f"{of}_below")
        assert not (tmp_path / f"{of}_below").exists()


NARROW = (("8",), ("8",), ("8",))
CHEAPEST = nas_apps.Genotype({"net.exit": (("c",),), "cell.op": (("conv1",),) * 6, "cell.width": NARROW})


@pytest.mark.parametrize("variant", ["trilevel", "darts"])
@pytest.mark.parametrize("form", ["hinge", "telescoped"])
def test_a_large_order_weight_leaves_the_root(form: str, variant: str, small: Small, tmp_path: Path) -> None:
    given = (f"variant={variant}", *DRAWN)
    free = nas_apps.search(small(*given, "variant.penalties=[]"), tmp_path / "free")
    assert free.kept["net.exit"] != (("c",),)
    # Adam moves a logit that only the data move, as they do a node within a path of the telescoped form, as fast as one
    # that the order moves; but not where its steps have such a floor under their denominator.
    floor = ["search.logits.eps=1.0"] if form == "telescoped" else []
    for seed in range(2):
        order = f"variant.penalties=[{{name: order, form: {form}, weight: 100.0}}]"
        found = nas_apps.search(small(*given, order, *floor, f"seed={seed}"), tmp_path / f"ordered{seed}")
        assert found.kept["net.exit"] == (("c",),)
