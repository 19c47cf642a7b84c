"""The command line: what each verb takes and says, and the one line that each mistake gives."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import typer

from nas_apps import cli as command_line
from nas_apps.core import checkpoint, config
from nas_apps.core.cell import Fixed
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.papers import PAPERS
from nas_apps.core.parts.relax import RELAXATIONS
from nas_apps.core.variants import VARIANTS

TASKS = ", ".join(sorted(point.name for point in entry_points(group="nas_apps.tasks")))
TINY = ("task=toy", "task.points=96", "search.epochs=4", "search.batch_size=16", "search.log_steps=1",
        "train.epochs=3", "train.batch_size=16", "train.log_steps=1")  # fmt: skip
IMAGE = ("task=image", "task.train_images=64", "search.network.channels=4", "search.network.cells=3", "search.epochs=1",
         "search.batch_size=16", "search.epoch_steps=1")  # fmt: skip
with_image = pytest.mark.skipif(not (find_spec("timm") and find_spec("torchvision")), reason="needs nas-apps[image]")


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, in an empty folder; what is not a UserError passes through."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["nas-apps", *args])
        capsys.readouterr()
        status = 0
        try:
            command_line.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Ended(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search and a finished training."""
    folder = tmp_path_factory.mktemp("made")
    recipe = config.load([], TINY)
    from nas_apps.core import runs

    runs.train(recipe, runs.search(recipe, folder / "search"), folder / "train")
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """`search` and `train`, finished, in the folder in which the command line is."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def heard() -> None:
    """A process started in the background of a shell ignores interrupts, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def refused(ended: Ended, *parts: str) -> None:
    """One line on stderr and nothing else, with these parts, and status 2."""
    assert ended.status == 2, ended
    assert ended.out == ""
    assert re.fullmatch(r"nas-apps: .+\n", ended.err), ended.err
    for part in parts:
        assert part in ended.err


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file in a folder, and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def same_run(a: Path, b: Path) -> None:
    """Weights, logits, optimisers and logs of two runs are bit-identical."""
    first, second = (checkpoint.read(folder / "checkpoint.pt")["learner"] for folder in (a, b))
    for part in ("objective", "arch"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
    for part in ("optimizer", "logits"):
        torch.testing.assert_close(first[part]["state"], second[part]["state"], rtol=0, atol=0)
    for name in ("metrics.jsonl", "choices.jsonl", "genotype.json", "recipe.yaml", "cell.svg"):
        if (a / name).exists():
            assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert contents(a / "genotypes") == contents(b / "genotypes")


# What the verbs take and say.


def test_the_options_of_the_verbs_are_frozen() -> None:
    """A knob is a key of a recipe, never an option."""
    verbs = typer.main.get_command(command_line.app).commands  # type: ignore[attr-defined]
    names = {verb: [o for p in command.params for o in (*p.opts, *p.secondary_opts)] for verb, command in verbs.items()}
    assert {verb: {name for name in found if name.startswith("-")} for verb, found in names.items()} == {
        "search": {"--run", "--resume"},
        "derive": {"--out"},
        "train": {"--run", "--genotype", "--inherit", "--like", "--resume"},
        "evaluate": {"--table"},
        "report": set(),
        "measure": {"--out", "--cells"},
        "sweep": {"--run", "--variants", "--seeds", "--recipe", "--jobs", "--no-train", "--table", "--ray"},
        "upscale": {"--out", "--tile", "--skip-faulty"},
        "show": set(),
        "cite": set(),
    }


@pytest.mark.parametrize(
    "verb", ["search", "derive", "train", "evaluate", "report", "measure", "sweep", "upscale", "show", "cite"]
)
def test_every_verb_explains_itself(cli: Run, verb: str) -> None:
    ended = cli(verb, "--help")
    first = (getattr(command_line, verb).__doc__ or "").split(",")[0].rstrip(".")
    assert (ended.status, ended.err) == (0, "")
    assert first.split(";")[0][:40] in ended.out


def test_help_names_the_verbs_and_no_verb_is_a_mistake(cli: Run) -> None:
    ended = cli("--help")
    assert (ended.status, ended.err) == (0, "")
    verbs = ("search", "derive", "train", "evaluate", "report", "sweep", "upscale", "show", "cite")
    assert all(verb in ended.out for verb in verbs)
    without = cli()
    assert without.status == 2
    assert without.err == "nas-apps: No verb given. (allowed: see nas-apps --help, nas-apps VERB --help)\n"


def test_a_search_ends_with_the_path_of_its_genotype_and_a_training_with_that_of_its_summary(cli: Run) -> None:
    searched = cli("search", *TINY, "--run", "a b/search")
    assert searched.status == 0
    *text, path = searched.out.splitlines()
    assert path == "a b/search/genotype.json"
    assert json.loads("\n".join(text)) == json.loads(Path(path).read_text())
    trained = cli("train", *TINY, "--genotype", path, "--run", "a b/train")
    assert (trained.status, trained.out) == (0, "a b/train/summary.json\n")
    summary = json.loads(Path("a b/train/summary.json").read_text())
    assert summary["command"] == shlex.join(["nas-apps", "train", *TINY, "--genotype", path, "--run", "a b/train"])
    assert "Traceback" not in searched.err + trained.err


def test_derive_evaluate_and_report_end_with_what_they_made(cli: Run, finished: Path) -> None:
    derived = cli("derive", "search", "--out", "found/g.json")
    assert (derived.status, derived.out.splitlines()[-1]) == (0, "found/g.json")
    assert Genotype.load(Path("found/g.json")) == Genotype.load(Path("search/genotype.json"))
    assert Path("found/g.svg").read_text() == Path("search/cell.svg").read_text()
    assert cli("derive", "search", "--out", "found/g.json").status == 0  # the same genotype: nothing is lost
    evaluated = cli("evaluate", "train")
    figures = dict(line.split() for line in evaluated.out.splitlines())
    metrics = json.loads(Path("train/summary.json").read_text())["metrics"]
    assert {name: float(value) for name, value in figures.items()} == pytest.approx(metrics, rel=1e-5)
    reported = cli("report", ".")
    assert (reported.status, reported.out.splitlines()[-1]) == (0, "summary.json")
    assert (finished / "report.html").exists()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_recipe_in_a_run_folder_reproduces_the_run(cli: Run, variant: str, measured: Path) -> None:
    sources = [*TINY, f"variant={variant}", "seed=5", f"search.latency.file={measured}"]
    assert cli("search", *sources, "--run", "one").status == 0
    assert cli("search", "one/recipe.yaml", "--run", "two").status == 0
    if VARIANTS[variant].schedule.searches:
        assert Path("one/metrics.jsonl").read_bytes()
        same_run(Path("one"), Path("two"))
    assert Path("one/genotype.json").read_bytes() == Path("two/genotype.json").read_bytes()


def test_the_recipe_of_a_training_reproduces_the_training(cli: Run, finished: Path) -> None:
    assert cli("train", "train/recipe.yaml", "--genotype", "train/genotype.json", "--run", "again").status == 0
    same_run(finished / "train", finished / "again")
    assert Path("train/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()


@pytest.mark.parametrize("variant", VARIANTS)
def test_show_prints_a_recipe_that_loads_again_and_runs_nothing(cli: Run, variant: str, tmp_path: Path) -> None:
    sources = [*TINY, f"variant={variant}", "seed=3", "train.drop_path=0.1"]
    ended = cli("show", *sources)
    assert (ended.status, ended.err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "shown.yaml").write_text(ended.out)
    assert config.load(["shown.yaml"]) == config.load([], sources)
    options = ["none", "skip_connect", "linear", "tanh"][not VARIANTS[variant].none :]
    assert f"# cell.op: 5 decisions of {len(options)} options: {', '.join(options)}\n" in ended.out


@pytest.mark.parametrize("variant", VARIANTS)
def test_cite_names_the_papers_of_a_method_with_their_arxiv_ids(cli: Run, variant: str) -> None:
    ended = cli("cite", "task=toy", f"variant={variant}")
    assert (ended.status, ended.err) == (0, "")
    assert tuple(re.findall(r"arXiv:(\d{4}\.\d{5})", ended.out)) == VARIANTS[variant].cite != ()
    assert all(PAPERS[paper] in ended.out for paper in VARIANTS[variant].cite)


# What is wrong in a recipe.

WRONG = {
    "": f"task: not given; allowed: {TASKS}",
    "task=audio": f"task: no 'audio'; allowed: {TASKS}",
    "task=": f"task: not given; allowed: {TASKS}",
    "task=3": f"task: no 3; allowed: {TASKS}",
    "task.name.x=3": f"task: no {{'x': 3}}; allowed: {TASKS}",
    "task=toy task.point=3": "task (toy): no 'point'; allowed: classes, name, noise, points",
    "task=toy foo=1": "recipe: no 'foo'; allowed: device, precision, search, seed, task, train, variant",
    "task=toy search=3": "search: got 3; allowed: a table of keys",
    "task=toy search.epoch=3": "search: no 'epoch'; allowed: batch_size, budget, checkpoint_steps, clip, data",
    "task=toy search.network.depth=3": "search.network: no 'depth'; allowed: cells, channels",
    "task=toy search.data.flip=true": "search.data: no 'flip'; allowed: nothing",
    "task=toy search.logits=3": "search.logits: got 3; allowed: a table of lr, betas, eps, weight_decay",
    "task=toy search.logits=": "search.logits: got None; allowed: a table of lr, betas",
    "task=toy train.logits.nope=1": "train.logits: no 'nope'; allowed: betas, clip, eps, init_std, lr, weight_decay",
    "task=toy search.epochs=abc": "search.epochs: got 'abc'; allowed: an integer",
    "task=toy search.epochs=2.5": "search.epochs: got 2.5; allowed: an integer",
    "task=toy search.epochs=true": "search.epochs: got True; allowed: an integer",
    "task=toy search.epochs=": "search.epochs: got None; allowed: an integer",
    "task=toy search.epochs.x=3": "search.epochs: got {'x': 3}; allowed: an integer",
    "task=toy search.epochs=${nope}": "search.epochs: Interpolation key 'nope' not found",
    "task=toy search.weights.lr=fast": "search.weights.lr: got 'fast'; allowed: a finite number",
    "task=toy search.weights.lr=nan": "search.weights.lr: got 'nan'; allowed: a finite number",
    "task=toy search.weights.lr=.inf": "search.weights.lr: got inf; allowed: a finite number",
    "task=toy search.clip=x": "search.clip: got 'x'; allowed: a finite number or null",
    "task=toy search.logits.betas=[1]": "search.logits.betas: got [1]; allowed: a list of 2: a finite number",
    "task=toy search.logits.betas=0.5": "search.logits.betas: got 0.5; allowed: a list of 2",
    "task=toy variant.schedule.weights_first=maybe": "variant.schedule.weights_first: got 'maybe'; allowed: true or",
    "task=toy seed=one": "seed: got 'one'; allowed: an integer",
    "task=toy device=5": "device: got 5; allowed: text",
    "task=toy precision=fp16": "precision: got 'fp16'; allowed: auto, fp32, bf16",
    "task=toy variant=dart": f"variant: no 'dart'; allowed: {', '.join(sorted(VARIANTS))}",
    "task=toy variant=3": "variant: no 3; allowed: darts, darts_2nd",
    "task=toy variant.nope=1": "variant (darts): no 'nope'; allowed: derive, distill, edge_set, edges, name",
    "task=toy variant.cite=[x]": "variant.cite: goes with the name 'darts'; allowed: nothing, or 1806.09055",
    "task=toy variant.relax=nope": f"variant.relax: no 'nope'; allowed: {', '.join(sorted(RELAXATIONS))}",
    "task=toy variant.edges=nope": f"variant.edges: no 'nope'; allowed: {', '.join(sorted([*RELAXATIONS, 'null']))}",
    "task=toy variant.edges.temperature=1": f"variant.edges.name: not given; allowed: {', '.join(sorted(RELAXATIONS))}",
    "task=toy variant.wiring=3": "variant.wiring: no 3; allowed: aux_skip, full, partial",
    "task=toy variant.wiring.k=2": "variant.wiring (full): no 'k'; allowed: drop, name",
    "task=toy variant=pc_darts variant.wiring.k=0": "variant.wiring.k: ",
    "task=toy variant=pc_darts variant.wiring.k=two": "variant.wiring.k: got 'two'; allowed: an integer",
    "task=toy variant=gdas variant.relax.temperature=hot":
        "variant.relax.temperature: got 'hot'; allowed: a finite number or a table of start, end, shape, reach",
    "task=toy variant.relax={name: gumbel_one_hot, temperature: {start: 1}}":
        "variant.relax.temperature.end: not given; allowed: a finite number",
    "task=toy variant.derive=random": "variant.derive: 'random' ignores what is searched, so its schedule",
    "task=toy variant=gdas variant.schedule=unrolled": "variant.schedule: the look-ahead differentiates the training",
    "task=toy search.drop_path=0.2": "search.drop_path: is of the final training alone; allowed: train",
    "task=toy search.epochs=-1": "search.epochs: got -1; allowed: 0 and more",
    "task=toy search.batch_size=0": "search.batch_size: got 0; allowed: 1 and more",
    "task=toy train.batch_size=-3": "train.batch_size: got -3; allowed: 1 and more",
    "task=toy train.log_steps=0": "train.log_steps: got 0; allowed: 1 and more",
    "task=toy train.evaluate_every=-1": "train.evaluate_every: got -1; allowed: 1 and more",
    "task=toy =3": "'=3': an override is written key=value",
    "task=toy search={epochs: [": "'search={epochs: [': not YAML: expected the node content, but found '<stream end>'",
    "task=toy search.epochs": "search.epochs: no such recipe; allowed: YAML files, and overrides written key=value",
    "no.yaml": "no.yaml: no such recipe; allowed: YAML files, and overrides written key=value",
    ".": ".: cannot read a recipe: Is a directory",
}  # fmt: skip

UNBOUNDED = {
    "search.checkpoint_steps=0": "search.checkpoint_steps: got 0; allowed: 1 and more",
    "search.checkpoint_steps=-1": "search.checkpoint_steps: got -1; allowed: 1 and more",
    "search.epoch_steps=0": "search.epoch_steps: got 0; allowed: 1 and more",
    "search.clip=-1": "search.clip: got -1",
    "search.logits.lr=-1": "search.logits.lr: got -1",
    "search.logits.betas=[1,2]": "search.logits.betas: got ",
    "train.drop_path=1.5": "train.drop_path: got 1.5",
    "train.drop_path={start: 0, end: 2}": "train.drop_path: got 2",
    "search.network.channels=0": "search.network.channels: got 0; allowed: 1 and more",
    "search.network.cells=-1": "search.network.cells: got -1; allowed: 1 and more",
    "search.weights.lr=-1": "search.weights.lr: got -1",
    "search.weights.momentum=-1": "search.weights.momentum: got -1",
    "task.points=0": "task.points: got 0; allowed: 2 and more",
    "task.points=-5": "task.points: got -5; allowed: 2 and more",
    "task.classes=0": "task.classes: got 0; allowed: 2 and more",
    "variant.schedule.warmup=2": "variant.schedule.warmup: got 2",
    "variant=gdas variant.relax.temperature=0": "variant.relax.temperature: got 0",
    "variant.schedule=weights_only": "variant.schedule: ",
}
SIZES = [
    *WRONG.items(),
    *((f"task=toy search.epochs=1 {key}", value) for key, value in UNBOUNDED.items()),
]


@pytest.mark.parametrize(("words", "complaint"), SIZES, ids=lambda value: value[:60] or "nothing")
def test_what_is_wrong_in_a_recipe_is_one_line_before_anything_is_written(
    cli: Run, words: str, complaint: str, tmp_path: Path
) -> None:
    sources = re.findall(r"\S+=[{\[].*|\S+", words) or ["empty.yaml"]
    (tmp_path / "empty.yaml").touch()
    refused(cli("search", *sources, "--run", "run"), f"nas-apps: {complaint}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("task: [", "r.yaml: not YAML: expected the node content, but found '<stream end>' (line 1, column 8)"),
        ("\ttask: toy", "r.yaml: not YAML: found character '\\t' that cannot start any token (line 1, column 1)"),
        ("task: toy\ntask: toy", "r.yaml: not YAML: found duplicate key task (line 2, column 1)"),
        ("- 1", "r.yaml: a recipe is a table of keys"),
        ("hello", "recipe: no 'hello'; allowed: device, precision"),
        ("1: 2", "recipe: no 1; allowed: device, precision"),
        ("task: {name: toy}\nsearch: [1]", "search: got [1]; allowed: a table of keys"),
        ("task: toy\nvariant: [1]", "variant: no [1]; allowed: darts"),
        (b"\x80\xff", "r.yaml: cannot read a recipe: not a text file"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_one_line(cli: Run, text: str | bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(cli("show", "r.yaml"), f"nas-apps: {complaint}")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("search task=toy", "Missing option '--run'."),
        ("search --run x", "Missing argument"),
        ("train task=toy --run x", "Missing option '--genotype'."),
        ("derive x", "Missing option '--out'."),
        ("evaluate", "Missing argument"),
        ("show", "Missing argument"),
        ("search task=toy --run x --epochs 3", "No such option: --epochs"),
        ("search task=toy --run", "Option '--run' requires an argument."),
        ("serch task=toy", "No such command 'serch'. Did you mean 'search'?"),
        ("report a b", "Got unexpected extra argument"),
        ("sweep task=toy", "Missing option '--run'."),
        ("sweep task=toy --run x --jobs 0", "Invalid value for '--jobs': "),
    ],
)
def test_a_wrong_command_is_one_line_that_says_where_help_is(cli: Run, words: str, complaint: str) -> None:
    refused(cli(*words.split()), f"nas-apps: {complaint}", "(allowed: see nas-apps --help, nas-apps VERB --help)")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", f"task: not given; allowed: {TASKS}"),
        ("task=toy --seeds x", "--seeds: got 'x'; allowed: how many (3 is 0,1,2), or seeds with commas"),
        ("task=toy --variants darts,gads", "gads: variant: no 'gads'; allowed: "),
        ("task=toy seed=1 --seeds 2", "seed: got 1 among the overrides and 0 in --seeds; allowed: one of the two"),
        ("task=toy --recipe none.yaml", "none: none.yaml: no such recipe; allowed"),
        ("task=toy --table none.csv", "none.csv: no such table; allowed: a file of accuracies by cell"),
        ("task=toy --ray nonsense", "--ray: "),
    ],
)
def test_what_is_wrong_with_a_sweep_is_one_line_before_anything_is_written(
    cli: Run, words: str, complaint: str, tmp_path: Path
) -> None:
    refused(cli("sweep", *words.split(), "--run", "run"), f"nas-apps: {complaint}")
    assert not list(tmp_path.iterdir())


# What is wrong where a run is computed, or with what.


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("device=nonsense", "device: no 'nonsense'; allowed: auto, cpu, cuda, cuda:N"),
        ("device=cuda", "device: 'cuda' asked for, but torch"),
        ("device=cuda:7", "device: 'cuda:7' asked for, but torch"),
        ("device=mps", "device: no 'mps'; allowed: auto, cpu, cuda, cuda:N"),
        ("device=meta", "device: no 'meta'; allowed: auto, cpu, cuda, cuda:N"),
        ("device=xpu", "device: no 'xpu'; allowed: auto, cpu, cuda, cuda:N"),
    ],
)
def test_a_device_that_is_not_here_is_one_line(
    cli: Run, override: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(cli("search", *TINY, override, "--run", "run"), f"nas-apps: {complaint}")
    assert not (tmp_path / "run").exists()


def test_a_task_without_its_extra_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['timm'] = None; from nas_apps.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "show", "task=image"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    refused(Ended(done.returncode, done.stdout, done.stderr), "task image: needs timm", "pip install 'nas-apps[image]'")


@with_image
def test_digits_without_scikit_learn_name_the_extra(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    ended = cli("search", *IMAGE, "task.image_size=11", "--run", "run")
    refused(ended, "digits needs scikit-learn: pip install 'nas-apps[image]'")


@with_image
@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ("task.data=/nowhere", "'/nowhere' does not exist; allowed: digits, a folder with cifar-10-batches-py"),
        ("task.data=notes.txt", "'notes.txt' is a file of another kind; allowed: digits"),
        ("task.space=dart", "task.space: got 'dart'; allowed: darts, darts_no_none, s1, s2, s3, s4, nasbench201"),
        ("task.image_size=0", "image_size: 0; allowed: a side, or height and width, of 1 or more"),
        ("task.in_chans=2", "in_chans: 2; allowed: 1 (grey), 3 (RGB), or nothing"),
        ("task.train_images=0", "task.train_images: got 0; allowed: 1 and more"),
        ("search.network.channels=-1", "search.network.channels: at least 2, got -1"),
        ("search.network.cells=0", "search.network.cells: at least 1, got 0"),
        ("search.weights.optimizer=sdg", "search.weights.optimizer: no 'sdg'; allowed: "),
        ("variant=pc_darts search.network.channels=6", "variant.wiring.k: 4 does not divide the 6 channels of a cell"),
        ("variant=darts_2nd search.weights.optimizer=adamw",
         "variant.schedule: the look-ahead is a step of SGD, and the weights are optimised by AdamW"),
        ("search.weights.lr=-1", "search.weights.lr: got -1"),
        ("search.weights.schedule=nope", "search.weights.schedule: no 'nope'; allowed: "),
        ("search.weights.smoothing=2", "search.weights.smoothing: got 2"),
        ("search.weights.warmup_epochs=-1", "search.weights.warmup_epochs: got -1"),
        ("search.weights.min_lr=-1", "search.weights.min_lr: got -1"),
        ("search.data.cutout=-1", "search.data.cutout: "),
    ],
)  # fmt: skip
def test_what_the_image_task_cannot_do_is_one_line(cli: Run, overrides: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    refused(cli("search", *IMAGE, *overrides.split(), "--run", "run"), complaint)
    assert not (tmp_path / "run").exists()


# What is wrong with the files of a run.


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("train {} --genotype none.json --run new", "genotype: no file 'none.json'; task toy has no published ones"),
        ("train {} --genotype notes.txt --run new", "notes.txt: not JSON (Expecting value: line 1 column 1"),
        ("train {} --genotype search/summary.json --run new", 'search/summary.json: not a genotype (no "format"'),
        ("train {} --genotype search/checkpoint.pt --run new", "search/checkpoint.pt: cannot read a genotype: not a"),
        ("train {} --genotype search --run new", "search: cannot read a genotype: Is a directory"),
        ("train {} --genotype version.json --run new", "version.json: genotype version 9; this release reads"),
        ("train {} --genotype space.json --run new", "space.json: of another space: it decides gate, normal.op; this"),
        ("train {} --genotype option.json --run new", "option.json: gate[0]: no option 'conv9' in ('identity', "),
        (f"train {{}} --genotype {'x' * 300} --run new", "x: File name too long"),
        ("train {} --genotype gate.json --run new", "gate[0]: keeps nothing; allowed: "),
        ("search {} --run search", "search: holds a run; allowed: --resume to go on with it, or another folder"),
        ("search {} seed=3 --run search --resume", "search: holds a run of another recipe: seed is 0 there and 3 here"),
        (
            "search {} --run train --resume",
            "checkpoint.pt: written by a training; allowed: the folder of a search",
        ),
        ("train {} --genotype search/genotype.json --run search --resume", "written by a search, and this is a"),
        ("search {} --run notes.txt", "notes.txt: is a file; allowed: a folder for the run"),
        ("search {} --run notes.txt/run", "notes.txt/run: cannot write: "),
        ("search {} --run .", ".: holds other files and no recipe.yaml; allowed: a new folder, or that of a run"),
        (f"search {{}} --run {'x' * 300}", "File name too long; allowed: a folder for the run"),
        ("derive none --out new.json", "none: no recipe.yaml in it; allowed: the folder of a search or of a training"),
        ("derive train --out new.json", "checkpoint.pt: written by a training; allowed: the folder of a search"),
        ("derive search --out option.json", "option.json: holds another genotype; allowed: another --out"),
        ("derive search --out notes.txt", "notes.txt: not JSON"),
        ("derive search --out search/cell.svg", "search/cell.svg: the drawing's name; allowed: --out with another"),
        ("evaluate none", "none: no recipe.yaml in it; allowed: the folder of a search or of a training"),
        ("evaluate search", "search/checkpoint.pt: written by a search; allowed: the folder of a training"),
        ("evaluate train --table notes.txt", "notes.txt: task toy has no tables of known results"),
        ("report none", "none: no finished stage (no summary.json); allowed: the folder of a run, or of one stage"),
        ("report notes.txt", "notes.txt: no finished stage (no summary.json); allowed: the folder of a run"),
    ],
)
def test_a_wrong_file_or_folder_is_one_line_and_nothing_is_touched(
    cli: Run, finished: Path, words: str, complaint: str
) -> None:
    genotype = Path("search/genotype.json").read_text()
    Path("version.json").write_text(genotype.replace('"version": 1', '"version": 9'))
    Path("space.json").write_text(genotype.replace("cell.op", "normal.op"))
    Path("option.json").write_text(re.sub("identity|sine", "conv9", genotype))
    Path("gate.json").write_text(re.sub(r'\["(identity|sine)"\]', "[]", genotype))
    Path("notes.txt").write_text("mine")
    if "out option.json" in words:
        Path("option.json").write_text(genotype.replace("[]", '["tanh"]', 1))
    before = contents(finished)
    refused(cli(*words.format(" ".join(TINY)).split()), complaint)
    assert contents(finished) == before


DAMAGED = {
    "truncated": "checkpoint.pt: truncated, or not a checkpoint; move it away to start anew",
    "empty": "checkpoint.pt: truncated, or not a checkpoint; move it away to start anew",
    "foreign": "checkpoint.pt: not a checkpoint of nas_apps; move it away to start anew",
    "headless": "checkpoint.pt: checkpoint version None; this release reads version 3",
    "later": "checkpoint.pt: checkpoint version 7; this release reads version 3",
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("verb", ["search", "derive", "train", "evaluate"])
def test_a_damaged_or_foreign_checkpoint_is_one_line(cli: Run, finished: Path, damage: str, verb: str) -> None:
    stage = "search" if verb in ("search", "derive") else "train"
    path, content = Path(stage) / "checkpoint.pt", (Path(stage) / "checkpoint.pt").read_bytes()
    if damage in ("truncated", "empty"):
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    else:
        foreign, state = {"state_dict": {"w": torch.zeros(2)}}, checkpoint.read(path)
        headless = {"format": checkpoint.FORMAT}
        torch.save({"foreign": foreign, "headless": headless, "later": state | {"version": 7}}[damage], path)
    before = contents(finished)
    command = {
        "search": ["search", *TINY, "--run", "search", "--resume"],
        "derive": ["derive", "search", "--out", "new.json"],
        "train": ["train", *TINY, "--genotype", "search/genotype.json", "--run", "train", "--resume"],
        "evaluate": ["evaluate", "train"],
    }
    refused(cli(*command[verb]), f"nas-apps: {stage}/{DAMAGED[damage]}")
    assert contents(finished) == before


@pytest.mark.parametrize("verb", ["derive", "evaluate"])
def test_a_run_without_its_checkpoint_is_one_line(cli: Run, finished: Path, verb: str) -> None:
    for stage in ("search", "train"):
        (finished / stage / "checkpoint.pt").unlink()
    command = ["derive", "search", "--out", "new.json"] if verb == "derive" else ["evaluate", "train"]
    refused(cli(*command), "checkpoint.pt: no such checkpoint")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("task: [", "search/recipe.yaml: not YAML: expected the node content, but found '<stream end>'"),
        ("task: toy\nfoo: 1", "search/recipe.yaml: recipe: no 'foo'; allowed: device"),
        ("task: toy\nsearch: {epochs: x}", "search/recipe.yaml: search.epochs: got 'x'; allowed: an integer"),
    ],
)
def test_a_run_folder_with_a_broken_recipe_is_one_line(cli: Run, finished: Path, text: str, complaint: str) -> None:
    (finished / "search" / "recipe.yaml").write_text(text)
    refused(cli("derive", "search", "--out", "new.json"), complaint)
    refused(cli("search", *TINY, "--run", "search", "--resume"), complaint)


@pytest.mark.parametrize("text", ["", "torn {", "[1]", "{}"])
def test_a_report_over_a_broken_summary_is_one_line(cli: Run, finished: Path, text: str) -> None:
    (finished / "train" / "summary.json").write_text(text)
    refused(cli("report", "."), "train/summary.json: not a summary of nas_apps; move it away, and run its stage again")


def test_lines_of_a_log_that_are_not_ours_do_not_stop_a_resume(cli: Run, finished: Path) -> None:
    for name in ("metrics.jsonl", "choices.jsonl", "timing.jsonl"):
        path = finished / "search" / name
        whole = path.read_text()
        path.write_text(f'[1]\n{{"note": "mine"}}\n\n{whole}{{"step": 3, "to')
        assert cli("search", *TINY, "--run", "search", "--resume").status == 0
        assert path.read_text() == whole


# Disks that fill up, folders that may not be written, a user who stops.


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip() if done else 'no mount'}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def stopped_for_space(ended: Ended) -> None:
    """The last line says so, and no other line is a mistake's."""
    assert ended.status == 2, ended
    assert "Traceback" not in ended.err
    lines = [line for line in ended.err.splitlines() if "nas-apps: " in line]
    assert lines == ended.err.splitlines()[-1:]
    what = r"no space left \((No space left on device|File too large)\); nothing is lost: make some, and run the same"
    assert re.fullmatch(rf"nas-apps: .*: {what} command again \(a search or a training with --resume\)", lines[0])


def commands(folder: str) -> list[list[str]]:
    """A search and a training in a folder, that go on with what is there."""
    return [["search", *TINY, "search.checkpoint_steps=2", "--run", f"{folder}/search", "--resume"],
            ["train", *TINY, "train.checkpoint_steps=2", "--genotype", f"{folder}/search/genotype.json",
             "--run", f"{folder}/train", "--resume"]]  # fmt: skip


@pytest.mark.parametrize("kilobytes", [4, 12, 60, 120, 148])
def test_a_search_on_a_disk_that_fills_up_goes_on_when_there_is_space(cli: Run, kilobytes: int, tmp_path: Path) -> None:
    command = commands("disk")[0]
    with mounted(tmp_path / "disk", f"size={kilobytes}k"):
        stopped_for_space(cli(*command))
        left = contents(tmp_path / "disk")
        assert not [name for name in left if name.endswith(".new")]
        stopped_for_space(cli(*command))  # it is no worse the second time
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path / "disk")], check=True)
        assert cli(*command).status == 0
        assert cli(*commands("whole")[0]).status == 0
        same_run(tmp_path / "whole" / "search", tmp_path / "disk" / "search")


@contextmanager
def files_up_to(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [300, 1200, 1500, 30_000])
@pytest.mark.parametrize("stage", [0, 1], ids=["search", "train"])
def test_a_run_that_may_write_no_larger_files_goes_on_when_it_may(
    cli: Run, stage: int, limit: int, tmp_path: Path
) -> None:
    for folder in ("whole", "limited"):
        for command in commands(folder)[: stage + (folder == "whole")]:
            assert cli(*command).status == 0
    command = commands("limited")[stage]
    with files_up_to(limit):
        stopped_for_space(cli(*command))
    assert cli(*command).status == 0
    name = ("search", "train")[stage]
    same_run(tmp_path / "whole" / name, tmp_path / "limited" / name)


def test_an_export_that_may_write_no_larger_files_is_one_line(finished: Path) -> None:
    recipe, genotype = config.load([], TINY), Genotype.load(finished / "search" / "genotype.json")
    network = recipe.task.build(Fixed(recipe.task.choices(), genotype), recipe.train)
    with files_up_to(2000), pytest.raises(UserError, match="no space left"):
        recipe.task.export(network, genotype, recipe.train, finished / "new")
    assert not (finished / "new" / "model.safetensors").exists()
    recipe.task.export(network, genotype, recipe.train, finished / "new")
    assert (finished / "new" / "model.safetensors").exists()


def test_a_folder_that_may_not_be_written_is_one_line(cli: Run, tmp_path: Path) -> None:
    with mounted(tmp_path / "readonly", "ro"):
        for folder in ("readonly", "readonly/run"):
            refused(cli("search", *TINY, "--run", folder), f"{folder}: cannot write: Read-only file system")


def test_a_derivation_into_a_folder_that_may_not_be_written_is_one_line(cli: Run, finished: Path) -> None:
    with mounted(finished / "readonly", "ro"):
        ended = cli("derive", "search", "--out", "readonly/g.json")
        refused(ended, "readonly/g.json: cannot write: Read-only file system")


def test_a_search_that_the_user_stops_says_so_and_goes_on_later(cli: Run, tmp_path: Path) -> None:
    command = ["search", *TINY, "search.epoch_steps=50", "search.checkpoint_steps=10", "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nas_apps", *command, "--run", "stopped"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heard,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "stopped" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    last = "nas-apps: interrupted; the same command with --resume goes on from the last checkpoint"
    assert [line for line in err.splitlines() if "nas-apps: " in line] == err.splitlines()[-1:] == [last]
    assert not (tmp_path / "stopped" / "summary.json").exists()
    assert cli(*command, "--run", "stopped").status == 0
    assert cli(*command, "--run", "whole").status == 0
    same_run(tmp_path / "whole", tmp_path / "stopped")


def test_an_interrupt_within_the_process_is_one_line(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas_apps.core import runs

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "search", interrupted)
    ended = cli("search", *TINY, "--run", "run")
    assert (ended.status, ended.out) == (130, "")
    assert ended.err.strip() == "nas-apps: interrupted; the same command with --resume goes on from the last checkpoint"


def test_a_bug_of_ours_keeps_its_traceback(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas_apps.core import runs

    monkeypatch.setattr(runs, "search", lambda *_, **__: {}["bug"])
    with pytest.raises(KeyError):
        cli("search", *TINY, "--run", "run")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_each_says_which_it_is(cli: Run, rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    ended = cli("show", "task=nope")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("nas-apps: task: no 'nope'" if rank == "0" else "nas-apps (rank 1): task: no 'nope'")
    assert os.environ["RANK"] == rank


def test_measure_says_what_it_measured_and_leaves_a_file_that_a_search_takes(cli: Run) -> None:
    ended = cli("measure", *TINY, "search.latency.repeats=3", "--out", "there/latency.safetensors", "--cells", "12")
    assert ended.status == 0
    assert re.search(r"^measured: \S+ to \S+ ms, half of them under \S+ ms$", ended.out, re.MULTILINE)
    assert re.search(r"error \S+%, Kendall's tau \S+$", ended.out, re.MULTILINE)
    assert ended.out.endswith("there/latency.safetensors\n")
    budget = ("search.budget.of=latency", "search.budget.cap=1e6", "search.latency.file=there/latency.safetensors")
    assert cli("search", *TINY, *budget, "search.latency.repeats=3", "--run", "run").status == 0
    assert cli("measure", *TINY, "--out", "there/latency.safetensors").err.startswith("nas-apps: there/latency.safet")
