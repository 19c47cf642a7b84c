"""The image task, end to end on scikit-learn's digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import timm
import torch

import nas_apps
from nas_apps.core import checkpoint, learners, runs
from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.config import Recipe, load
from nas_apps.core.ending import derived_now
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.image.spaces import SPACES
from nas_apps.tasks.image.timm_model import nas_cell  # noqa: F401, importing it registers the model

CPU = Runtime(torch.device("cpu"))
SMALL = ("task=image", "task.train_images=128", "device=cpu", "search.epochs=1", "search.batch_size=16",
         "search.epoch_steps=2", "search.network.channels=8", "search.network.cells=3", "train.epochs=1",
         "train.epoch_steps=2", "train.batch_size=16", "train.network.channels=8", "train.network.cells=3")  # fmt: skip


def small(*overrides: str) -> Recipe:
    return load([], [*SMALL, *overrides])


@pytest.mark.parametrize("space", list(SPACES))
def test_every_space_is_searched_and_its_cell_trained(space: str, tmp_path: Path) -> None:
    cells = ("search.network.cells=1", "train.network.cells=1") if "bench" in space else ()
    made = small(f"task.space={space}", "variant=gdas", *cells)
    genotype = nas_apps.search(made, tmp_path / "search")
    summary = nas_apps.train(made, genotype, tmp_path / "train")
    assert 0 <= summary["metrics"]["accuracy"] <= 1
    assert summary["costs"]["params"] > 0


def test_the_exported_network_is_a_timm_model_with_the_same_logits(tmp_path: Path) -> None:
    made = small("variant=random", "train.network.auxiliary=0.4", "train.drop_path=0.2", "train.weights.ema=0.5")
    genotype = nas_apps.search(made, tmp_path / "search")
    nas_apps.train(made, genotype, tmp_path / "train")
    arguments = json.loads((tmp_path / "train" / "model.json").read_text())["create_model"]
    arguments["genotype"] = str(tmp_path / "train" / arguments["genotype"])
    model = timm.create_model(**arguments, checkpoint_path=str(tmp_path / "train" / "model.safetensors")).eval()
    learner, _ = learners.train_learner(made, genotype, CPU)
    learner.load_state_dict(torch.load(tmp_path / "train" / "checkpoint.pt", weights_only=True)["learner"])
    assert learner.evaluated is not learner.objective
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad(), learner.arch.using(learner.arch.expected()):
        assert torch.equal(model(images), learner.evaluated.eval().network(images))
        assert torch.equal(nas_apps.load(tmp_path / "train")(images), model(images))
    (tmp_path / "train" / "model.json").write_text("{}")
    with pytest.raises(UserError, match=r"model.json: not a network of this task"):
        nas_apps.load(tmp_path / "train")


def test_the_running_average_is_what_is_evaluated(tmp_path: Path) -> None:
    made = small("variant=random", "train.weights.ema=1.0")
    genotype = nas_apps.search(made, tmp_path / "search")
    nas_apps.train(made, genotype, tmp_path / "train")
    state = torch.load(tmp_path / "train" / "checkpoint.pt", weights_only=True)["learner"]
    start, _ = learners.train_learner(made, genotype, CPU)
    name = next(n for n, _ in start.objective.named_parameters())
    assert torch.equal(state["average"][f"module.{name}"], start.objective.state_dict()[name])
    assert not torch.equal(state["objective"][name], start.objective.state_dict()[name])


@pytest.mark.parametrize("variant", [name for name, v in VARIANTS.items() if v.schedule.searches])
def test_cells_computed_again_in_the_backward_give_the_same_step(variant: str) -> None:
    after = []
    for again in (False, True):
        made = small(f"variant={variant}", "search.epochs=3", "variant.penalties=[]")  # they see logits alone
        learner, streams = learners.search_learner(made, CPU)
        learner.objective.network.set_grad_checkpointing(again)
        learner.begin(Progress(9, 10))
        made.variant.schedule(learner, streams)
        after.append([p.detach().clone() for p in learner.logits])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*after, strict=True))


@pytest.mark.parametrize("space", ["darts", "s1", "s4", "nasbench201", "nasbench1shot1_2"])
def test_a_super_net_under_a_one_hot_draw_is_the_network_of_the_cell(space: str) -> None:
    made = small(f"task.space={space}", "variant=random", "seed=3")
    choices = made.task.choices()
    arch = Arch(choices, made.variant.relaxations, seed=3)
    genotype = derived_now(made, arch, None)
    supernet = made.task.build(Mixed(arch, made.variant.wiring), made.search)
    network = made.task.build(Fixed(choices, genotype), made.search)
    missing, _ = network.load_state_dict(supernet.state_dict(), strict=False)
    assert not missing
    batch = torch.randn(4, 1, 8, 8), torch.randint(10, (4,))
    torch.manual_seed(0)
    with arch.using(one_hot(choices, genotype)):
        expected = supernet(batch)
    torch.manual_seed(0)
    assert torch.equal(expected.output, network(batch).output)


@pytest.mark.parametrize("stage", ["search", "train"])
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_one_that_was_not(
    stage: str, stopping: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    varied = ("train.drop_path=0.3", "train.weights.ema=0.9", "train.data.mixup=0.2", "train.network.dropout=0.1")
    steps = [f"{phase}.{key}" for phase in ("search", "train") for key in ("epoch_steps=3", "checkpoint_steps=1")]
    made = small("variant=pc_darts", "variant.schedule.warmup=0", *varied, *steps)
    found = made.task.find("pc_darts_cifar")

    def start(name: str, *, resume: bool = False) -> None:
        if stage == "search":
            nas_apps.search(made, tmp_path / name, resume=resume)
        else:
            nas_apps.train(made, found, tmp_path / name, resume=resume)

    start("whole")
    with stopping(2):
        start("stopped")
    start("stopped", resume=True)
    states = [checkpoint.read(tmp_path / name / "checkpoint.pt")["learner"] for name in ("whole", "stopped")]
    flat = [_leaves(state) for state in states]
    assert flat[0].keys() == flat[1].keys()
    assert all(torch.equal(flat[0][key], flat[1][key]) for key in flat[0])
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


def _leaves(state: object, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return {path: state}
    if not isinstance(state, dict):
        return {}
    return {key: leaf for name, part in state.items() for key, leaf in _leaves(part, f"{path}/{name}").items()}


def test_a_search_never_reads_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small("variant=darts")
    test = made.task._sets().test
    seen: list[object] = []
    from nas_apps.tasks.image import task as module

    batches, stream = module.evaluation_batches, module.stream
    monkeypatch.setattr(module, "evaluation_batches", lambda images, *a: (seen.append(images), batches(images, *a))[1])
    monkeypatch.setattr(module, "stream", lambda images, *a: (seen.append(images), stream(images, *a))[1])
    nas_apps.search(made, tmp_path / "run")
    assert len(seen) >= 3
    rows = {int(row) for images in seen for row in images.rows}
    assert not rows & {int(row) for row in test.rows}


def test_weights_and_architecture_learn_from_disjoint_halves() -> None:
    made = small("variant=darts")
    first, second = made.task._halves()
    assert not set(first.rows.tolist()) & set(second.rows.tolist())
    assert len(first) + len(second) == 128


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("search.weights.optimizer=foo", "search.weights.optimizer: no 'foo'"),
        ("search.weights.schedule=foo", "search.weights.schedule: no 'foo'"),
        ("task.train_images=0", "task.train_images: got 0"),
        ("task.data=nowhere", "data: 'nowhere' does not exist"),
        ("search.network.channels=6", "variant.wiring.k: 4 does not divide"),
    ],
)
def test_settings_that_cannot_work_are_one_line(override: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        nas_apps.search(small("variant=pc_darts", override), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_look_ahead_through_adam_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the look-ahead is a step of SGD"):
        nas_apps.search(small("variant=darts_2nd", "search.weights.optimizer=adamw"), tmp_path / "run")


def test_published_cells_and_architecture_strings_are_found_by_name() -> None:
    made = small()
    assert runs.find_genotype("darts_v2", made) == made.task.find("darts_v2")
    with pytest.raises(UserError, match="none published of this name"):
        runs.find_genotype("darts_v9", made)
    cell = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
    bench = small("task.space=nasbench201")
    assert runs.find_genotype(cell, bench).kept["cell.op"][0] == ("nor_conv_3x3",)
    with pytest.raises(UserError, match="of another space"):
        runs.find_genotype("darts_v2", bench)


def test_the_genotype_of_a_look_up_is_that_of_the_run(tmp_path: Path) -> None:
    made = small("task.space=nasbench201", "variant=random", "train.network.cells=1")
    genotype: Genotype = nas_apps.search(made, tmp_path / "search")
    from nas_apps.tasks.image.published import to_arch_string

    table = tmp_path / "table.csv"
    table.write_text(f"arch,c10_test_200,params_c10\n{to_arch_string(genotype)},91.5,73306\n")
    with pytest.raises(UserError, match="15625|15,625"):
        runs.look_up(tmp_path / "search", table)  # a table with cells left out has no known best
