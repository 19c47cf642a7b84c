"""A recipe is merged from its sources, built, and written out again; what is wrong in it is named with its path."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import random
from collections.abc import Callable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from omegaconf import OmegaConf

from nas_apps.core import config, refusals
from nas_apps.core.config import Recipe, build, load
from nas_apps.core.errors import UserError
from nas_apps.core.parts.derive import Random, Strongest
from nas_apps.core.parts.relax import RELAXATIONS, GumbelOneHot, Sigmoid, Softmax
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.parts.schedule import FirstOrder, NoSearch, Unrolled
from nas_apps.core.parts.wiring import Full, Partial
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Ramp
from nas_apps.core.settings import TABLES, convert, in_words, to_plain
from nas_apps.core.space import Space
from nas_apps.core.variants import VARIANTS, Variant
from nas_apps.tasks.toy import Batches, Network, ToyTask, Weights

EVERY_PART = [pytest.param(kind, name, id=name) for kind, table in TABLES.items() for name in table]
TASKS = ["toy", *(["image"] if find_spec("timm") and find_spec("torchvision") else [])]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(("kind", "name"), EVERY_PART)
def test_every_part_is_given_by_its_name_and_by_a_table(kind: Any, name: str) -> None:
    part = convert(kind, name, "part")
    assert part == TABLES[kind][name]()
    assert convert(kind, {"name": name}, "part") == part
    assert convert(kind, to_plain(part), "part") == part
    assert convert(kind | None, name, "part") == part
    assert convert(kind | None, None, "part") is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["variant.relax=gumbel_one_hot"], Variant(relax=GumbelOneHot())),
        (["variant.relax=sigmoid"], Variant(relax=Sigmoid())),
        (["variant.edges=softmax"], Variant(edges=Softmax())),
        (["variant.edges={name: softmax}"], Variant(edges=Softmax())),
        (["variant=pc_darts", "variant.edges=null"], dataclasses.replace(VARIANTS["pc_darts"], edges=None)),
        (["variant.wiring=partial"], Variant(wiring=Partial())),
        (["variant.wiring={name: partial, k: 2}"], Variant(wiring=Partial(2))),
        (["variant={name: darts, wiring: {name: partial, k: 2}}"], Variant(wiring=Partial(2))),
        (["variant={wiring: partial}"], Variant(wiring=Partial())),
        (["variant.schedule=unrolled", "variant.schedule.warmup=0.1"], Variant(schedule=Unrolled(warmup=0.1))),
        (["variant.derive={name: strongest, distinct: false}"], Variant(derive=Strongest(distinct=False))),
        (["variant.derive=random", "variant.schedule=no_search"], Variant(derive=Random(), schedule=NoSearch())),
    ],
)
def test_a_variant_is_made_of_parts_by_name_and_by_table(overrides: list[str], expected: Variant) -> None:
    found = load([], ["task=toy", *overrides]).variant
    assert dataclasses.replace(found, cite=(), logits={}) == dataclasses.replace(expected, cite=(), logits={})


@pytest.mark.parametrize(
    ("variant", "override", "changed"),
    [
        ("pc_darts", "variant.wiring.k=2", {"wiring": Partial(2)}),
        ("pc_darts", "variant.wiring={k: 2}", {"wiring": Partial(2)}),
        ("pc_darts", "variant.wiring=full", {"wiring": Full()}),
        ("pc_darts", "variant.schedule.weights_first=true", {"schedule": FirstOrder(warmup=0.3, weights_first=True)}),
        ("gdas", "variant.relax.temperature=2", {"relax": GumbelOneHot(2.0)}),
        ("gdas", "variant.relax.temperature.end=1", {"relax": GumbelOneHot(Ramp(10.0, 1.0, reach="last"))}),
        ("gdas", "variant.relax.temperature={start: 5, end: 1}", {"relax": GumbelOneHot(Ramp(5.0, 1.0, reach="last"))}),
        ("darts_2nd", "variant.schedule.exact=false", {"schedule": Unrolled(exact=False)}),
    ],
)
def test_an_override_changes_one_setting_of_a_variant_and_no_other(
    variant: str, override: str, changed: dict[str, Any]
) -> None:
    for order in ([f"variant={variant}", override], [override, f"variant={variant}"]):
        assert load([], ["task=toy", *order]).variant == dataclasses.replace(VARIANTS[variant], **changed)


def test_a_later_source_wins_and_overrides_win_over_all(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "task: toy\nseed: 1\nsearch: {epochs: 7, batch_size: 8, logits: {lr: 1.0e-2}}\n")
    second = write(tmp_path / "b.yaml", "seed: 2\nsearch: {epochs: 8}\ntrain:\n  network: {channels: 16}\n")
    found = load([first, second], ["search.epochs=9", "train.network.cells=3", "search.epochs=10"])
    assert (found.seed, found.search.epochs, found.search.batch_size, found.search.logits.lr) == (2, 10, 8, 0.01)
    assert found.train.network == Network(channels=16, cells=3)
    assert load([second, first]).seed == 1
    assert load([first, write(tmp_path / "empty.yaml", "# nothing\n")]) == load([first])


def test_a_variant_or_part_of_another_name_begins_from_its_own_defaults(tmp_path: Path) -> None:
    written = write(tmp_path / "recipe.yaml", OmegaConf.to_yaml(load([], ["task=toy", "variant=pc_darts"]).plain()))
    plain = written.read_text().replace("betas:\n    - 0.5", "betas:\n    - 0.0")
    written.write_text(plain.replace("weight_decay: 0.001", "weight_decay: 0.0"))
    for name in VARIANTS:
        assert load([written], [f"variant={name}"]).variant == VARIANTS[name]
        assert load([written], [f"variant={name}"]).variant_name == name
    method = write(tmp_path / "method.yaml", "task: toy\nvariant: {schedule: {name: unrolled, exact: false}}\n")
    assert load([method], ["variant.schedule=first_order"]).variant.schedule == FirstOrder()
    assert load([method], ["variant.schedule=unrolled"]).variant.schedule == Unrolled(exact=False)
    assert load([method], ["variant=pc_darts"]).variant.schedule == Unrolled(exact=False)  # it had no name before


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_recipe_is_rebuilt_from_its_plain_form_and_from_its_text(task: str, variant: str, tmp_path: Path) -> None:
    overrides = [f"task={task}", f"variant={variant}", "seed=3", "train.drop_path=0.1", "search.logits.betas=[0.0,0.9]"]
    recipe = load([], [*overrides, "train.clip=null"])
    assert build(recipe.plain()) == recipe
    assert load([write(tmp_path / "recipe.yaml", OmegaConf.to_yaml(OmegaConf.create(recipe.plain())))]) == recipe
    assert recipe.plain() == build(recipe.plain()).plain()


def test_a_ramp_goes_through_the_plain_form() -> None:
    recipe = load([], ["task=toy", "train.drop_path={start: 0, end: 0.3, shape: cosine}"])
    assert recipe.train.drop_path == Ramp(0.0, 0.3, "cosine")
    assert build(recipe.plain()) == recipe


def test_the_plain_form_has_every_default_written_out() -> None:
    plain = load([], ["task=toy"]).plain()
    assert list(plain) == ["task", "variant", "search", "train", "seed", "device", "precision"]
    assert plain["task"] == {"name": "toy", **dataclasses.asdict(ToyTask())}
    assert plain["variant"]["name"] == "darts"
    assert plain["variant"]["schedule"] == to_plain(FirstOrder())
    assert set(plain["search"]) == {field.name for field in dataclasses.fields(Phase)} - {"name"}


def test_the_device_and_the_environment_may_be_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "cpu")
    assert load([], ["task=toy", "device=${oc.env:MINE}", "seed=4", "search.epochs=${seed}"]).search.epochs == 4


def test_nothing_is_run_from_a_recipe(tmp_path: Path) -> None:
    trap = write(tmp_path / "trap.yaml", f"task: !!python/object/apply:os.system ['touch {tmp_path / 'sprung'}']\n")
    with pytest.raises(UserError, match=r"trap.yaml: not YAML: could not determine a constructor for the tag"):
        load([trap])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "an integer"), (float | None, "a finite number or null"), (bool, "true or false"), (str, "text"),
        (Literal["a", "b"], "a, b"), (tuple[float, float], "a list of 2: a finite number, a finite number"),
        (tuple[float, ...], "a list, each a finite number"),
        (int | tuple[int, int], "an integer or a list of 2: an integer, an integer"),
        (float | Ramp, "a finite number or a table of start, end, shape, reach, begin, finish"),
        (Relaxation | None, f"{', '.join(RELAXATIONS)} or null"),
    ],
)  # fmt: skip
def test_what_a_type_takes_is_said_in_words(hint: Any, words: str) -> None:
    assert in_words(hint) == words


@dataclasses.dataclass(frozen=True)
class Rough:
    """A task whose loss has no second derivative, as CTC's has not."""

    network: ClassVar[type] = Network
    weights: ClassVar[type] = Weights
    batches: ClassVar[type] = Batches
    twice_differentiable: ClassVar[bool] = False
    classifies: ClassVar[bool] = True
    on_policy: ClassVar[bool] = False

    def choices(self, *, edges: int = 0) -> Space:
        return ToyTask().choices(edges=edges)


@pytest.fixture
def with_rough(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("rough", f"{__name__}:Rough", "nas_apps.tasks")
    monkeypatch.setattr(config, "entry_points", lambda group: [point] if group == "nas_apps.tasks" else [])


@pytest.mark.usefixtures("with_rough")
def test_a_method_that_cannot_work_on_a_task_is_refused_with_what_can() -> None:
    with pytest.raises(UserError) as caught:
        load([], ["task=rough", "variant=darts_2nd"])
    assert str(caught.value) == (
        "variant.schedule: the loss of task 'rough' has no second derivative; "
        "allowed: variant.schedule.exact=false (the paper's difference)"
    )
    differences = load([], ["task=rough", "variant=darts_2nd", "variant.schedule.exact=false"])
    assert differences.variant.schedule == Unrolled(exact=False)
    assert load([], ["task=rough", "variant=pc_darts"]).plain()["task"] == {"name": "rough"}


REFUSED = {
    "variant.edges=sigmoid": "variant.edges: weights of edges are relative to one another",
    "variant.derive=random": "variant.derive: 'random' ignores what is searched, so its schedule is 'no_search'",
    "variant.schedule=no_search": "variant.schedule: 'no_search' leaves the logits as they began; derive: 'random'",
    "variant.schedule=weights_only": "variant.schedule: 'weights_only' is that of the final training",
    "variant=random variant.stop=skip_count": "variant.stop: 'no_search' takes no step that could be left out",
    "variant.schedule=unrolled variant.relax=gumbel_one_hot": "variant.schedule: the look-ahead differentiates",
    "variant=gdas variant.schedule=unrolled": "variant.schedule: the look-ahead differentiates the training loss twice",
    "variant=darts_2nd variant.relax=gumbel_one_hot": "variant.schedule: the look-ahead differentiates",
    "variant.schedule.samples=3": "variant.schedule.samples: 3 draws without noise are 3 times the same",
    "variant=p_darts variant.stop=skip_count": "variant.stop: a rule looks back over one search",
    "variant=random variant.stages=[{}]": "variant.stages: 'no_search' takes no step",
    "variant.edges=binary_gate": "variant.edges: 'binary_gate' evaluates operations that are not run",
    "variant.edges=gumbel_ranks": "variant.edges: the sub-graphs of 'gumbel_ranks' share no operation",
    "variant.edge_set=2": "variant.edge_set: 2 chooses pairs of edges",
    "variant.edge_set=2 variant.edges=gumbel_one_hot": "variant.edge_set: a pair has one weight and two operations",
    "variant.derive.by=edges": "variant.derive.by: 'edges' ranks edges by their own weight",
    "variant.widths=gumbel_top_k": "variant.widths: a convolution has one width, whose options share",
    "variant=sdarts_rs variant.relax=gumbel_one_hot": "variant.perturb: under exact zeros a row runs some of its",
    "variant=sdarts_adv variant.relax=sigmoid": "variant.perturb: neighbours are sought on the simplex",
    "variant=single_darts variant.perturb=mean_shift": "variant.perturb: 'joint' steps weights and logits with",
    "variant=random variant.perturb=adversarial": "variant.perturb: 'no_search' takes no step",
    "variant=random variant.penalties=[cost]": "variant.penalties: 'no_search' takes no step of the logits",
    "variant=fair_darts variant.relax=softmax": "variant.penalties: 'zero_one' pushes sigmoids apart",
    "variant.penalties=[dirichlet_kl]": "variant.penalties: 'dirichlet_kl' compares Dirichlet laws",
    "variant=darts variant.distill.weight=1": "variant.distill: the teacher is the super-net under its",
    'variant=rome_v1 variant.penalties=[{"name":"cost","of":"latency"}]': "variant.penalties: the cells whose latency",
    'variant=darts variant.stages=[{"keep":2}]': "variant.stages: nothing comes before the first",
    'variant=msg_das variant.relax.k=3 variant.stages=[{},{"keep":2}]': "variant.stages: the sub-graphs",
    "variant=msg_das variant.schedule=joint": "variant.distill: sub-graphs learn from the super-net in the weights'",
}


@pytest.mark.parametrize(("overrides", "complaint"), REFUSED.items(), ids=REFUSED)
def test_parts_that_mean_nothing_together_are_refused_with_the_reason(overrides: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        load([], ["task=toy", *overrides.split()])
    assert str(caught.value).startswith(complaint)


def test_every_refusal_of_a_variant_has_its_case_above() -> None:
    tests = [node for node in ast.walk(ast.parse(inspect.getsource(refusals))) if isinstance(node, ast.BoolOp)]
    reasons = [f"variant.{_words(node.values[-1])}" for node in tests if ": " in _words(node.values[-1])]
    assert reasons
    assert [r for r in reasons if not any(r.startswith(said) or said.startswith(r) for said in REFUSED.values())] == []


def _words(node: ast.expr) -> str:
    """The text of a string, up to what is filled in."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_a_drop_of_paths_in_a_search_is_refused(recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(UserError, match=r"^search.drop_path: .*; allowed: train.drop_path, variant.wiring.drop$"):
        recipe("search.drop_path=0.1")
    with pytest.raises(UserError, match=r"^search.drop_path: "):
        recipe("search.drop_path={start: 0.2, end: 0.0}")


def test_a_method_that_does_not_search_takes_no_steps(recipe: Callable[..., Recipe]) -> None:
    assert recipe("variant=random", "search.epochs=5").search.epochs == 0


WRONG = [None, 1, -1, 1.5, "x", [1], [], {}, {"a": 1}, {"name": "x"}, {"name": None}, {"name": [1]}, {1: 2}, b"x", True,
         float("nan"), {"name": {"a": 1}}, {"start": "x", "end": []}]  # fmt: skip


def test_a_recipe_with_anything_anywhere_is_built_or_refused_in_one_line() -> None:
    rng, plain = random.Random(0), load([], ["task=toy", "variant=gdas"]).plain()
    paths = [(key,) for key in plain] + [(a, b) for a in plain if isinstance(plain[a], dict) for b in plain[a]]
    paths += [
        (a, b, c) for a, b in [p for p in paths if len(p) == 2] if isinstance(plain[a][b], dict) for c in plain[a][b]
    ]
    refusals = []
    for _ in range(400):
        *above, last = rng.choice(paths)
        changed = copy.deepcopy(plain)
        place = changed
        for key in above:
            place = place[key]
        place[last] = rng.choice(WRONG)
        try:
            build(changed)
        except UserError as error:
            refusals.append((str(error), above[0] if above else ""))
    assert len(refusals) > 200
    assert [said for said, where in refusals if "\n" in said or not said.startswith(where)] == []
