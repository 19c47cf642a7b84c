"""The verbs of the command line: thin, each a call into the core."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas_apps.core.errors import UserError
from nas_apps.core.files import no_space

if TYPE_CHECKING:
    from nas_apps.core.config import Recipe

_ClickError = typer.BadParameter.__mro__[2]  # of the click that typer brings along, or of the one installed

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Search network cells with any DARTS variant, train what was found, compare and report.",
)

Sources = Annotated[list[str], typer.Argument(help="YAML files, the later over the earlier, and key=value overrides.")]
Run = Annotated[Path, typer.Option(help="The folder of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a run.")]


@app.command()
def search(sources: Sources, run: Run, resume: Resume = False) -> None:
    """Search an architecture."""
    from nas_apps.core import runs

    genotype = runs.search(_recipe(sources), run, resume=resume, command=_command())
    _say(genotype.to_json())
    _say(str(run / "genotype.json"))


@app.command()
def derive(
    run: Folder, out: Annotated[Path, typer.Option(help="Where to write the genotype; its drawing goes beside it.")]
) -> None:
    """Write the architecture of a search as it stands, and draw it."""
    from nas_apps.core import files, folder, logs, runs, summary
    from nas_apps.core.diagnosis import collapsed
    from nas_apps.core.drawing.picture import cell_svg
    from nas_apps.core.genotype import Genotype

    if out.suffix == ".svg":
        raise UserError(
            f"{out}: the drawing's name; allowed: --out with another ending, such as {out.with_suffix('.json')}"
        )
    drawing = out.with_suffix(".svg")
    if drawing.exists() and not out.exists():
        raise UserError(f"{drawing}: is there, and the drawing would go there; allowed: another --out")
    genotype = runs.derive(run)
    if out.exists() and Genotype.load(out) != genotype:
        raise UserError(f"{out}: holds another genotype; allowed: another --out")
    genotype.save(out)
    space = folder.read_recipe(run).task.choices(edges=False)
    files.write_text(drawing, cell_svg(space, genotype))
    for message in collapsed(space, genotype).values():
        logs.say(message)
    _say(summary.cell_text(space, genotype))
    _say(str(out))


@app.command()
def train(
    sources: Sources,
    run: Run,
    resume: Resume = False,
    genotype: Annotated[str, typer.Option(help="A genotype's file, or the name of a published one.")] = ...,
) -> None:
    """Stack the cells of a genotype, and train the network from scratch."""
    from nas_apps.core import runs

    recipe = _recipe(sources)
    runs.train(recipe, runs.find_genotype(genotype, recipe), run, resume=resume, command=_command())
    _say(str(run / "summary.json"))


@app.command()
def evaluate(
    run: Folder, table: Annotated[Path | None, typer.Option(help="Accuracies by cell (NAS-Bench-201).")] = None
) -> None:
    """Evaluate a trained network anew, or look its cell up in a table of accuracies."""
    from nas_apps.core import runs

    figures = runs.evaluate(run) if table is None else runs.look_up(run, table)
    for name, value in figures.items():
        _say(f"{name} {value:.6g}")


@app.command()
def report(run: Folder) -> None:
    """Write report.html and summary.json over the stages of a run, and compare what was trained."""
    from nas_apps.core import files, summary
    from nas_apps.core.drawing.page import report_page
    from nas_apps.core.drawing.page_html import MARK

    page = run / "report.html"
    if page.exists() and MARK not in files.read_text(page, "a report"):
        raise UserError(f"{page}: not a report of nas_apps, and the report would go there; allowed: move it away")
    path = summary.combine(run)
    files.write_text(page, report_page(run))
    _say(summary.overview(run))
    _say(f"report: {page}")
    _say(str(path))


@app.command()
def sweep(
    run: Annotated[Path, typer.Option(help="The folder of the sweep; a trial that is finished in it is left alone.")],
    sources: Annotated[
        list[str] | None, typer.Argument(help="YAML files, folders of them, and key=value overrides, over all trials.")
    ] = None,
    variants: Annotated[str, typer.Option(help="Methods, with commas: darts,gdas,random.")] = "",
    seeds: Annotated[str, typer.Option(help="How many (3 is 0,1,2), or which, with commas.")] = "",
    recipe: Annotated[
        list[str] | None, typer.Option(help="A YAML file or a folder of them; several are compared.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time; by default one for each CUDA device.")
    ] = None,
    no_train: Annotated[bool, typer.Option("--no-train", help="Search only.")] = False,
    table: Annotated[
        Path | None, typer.Option(help="Accuracies by cell (NAS-Bench-201) to look every cell up in.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster that shares the disk; 'local' for here.")
    ] = None,
) -> None:
    """Search and train for every recipe, variant and seed, and compare them in a table and a page."""
    from nas_apps.core import sweep as plans
    from nas_apps.core import sweep_run

    names = [name.strip() for name in variants.split(",")] if variants else []
    numbers = plans.numbers(seeds) if seeds else ()
    trials = plans.plan(sources or [], run, recipes=recipe or [], variants=names, seeds=numbers)
    try:
        with _ended_as_interrupted():
            results = sweep_run.run(
                trials, run, train=not no_train, table=table, jobs=jobs, ray=ray, command=_command()
            )
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on with what is not finished", 130)
    _say(results.text())
    _say(str(run / "sweep.html"))
    if results.failures:
        failed = f"{len(results.failures)} of {len(trials)} trials failed"
        _fail(f"{failed}; the same command tries them again ({run / 'table.md'} says why each did)", 1)


@app.command()
def show(sources: Sources) -> None:
    """Print the resolved recipe, its space and its data; nothing is run."""
    from omegaconf import OmegaConf

    from nas_apps.core.refusals import search_space

    recipe = _recipe(sources)
    _say(OmegaConf.to_yaml(OmegaConf.create(recipe.plain())))
    for name, choice in search_space(recipe.task, recipe.variant).items():
        rows, options = choice.shape
        _say(
            f"# {name}: {rows} decisions of {options} options: "
            + ", ".join(dict.fromkeys(option for row in choice.rows for option in row))
        )
    _say(f"# data: {recipe.task.data_facts()}")


@app.command()
def cite(sources: Sources) -> None:
    """Print the papers behind a recipe's method."""
    from nas_apps.core.variants import PAPERS

    for paper in _recipe(sources).variant.cite:
        _say(f"{PAPERS[paper]}. arXiv:{paper}")


def main() -> None:
    """Run a verb. A user's mistake is one line and status 2."""
    interrupted = "interrupted; the same command with --resume goes on from the last checkpoint"
    try:
        if app(standalone_mode=False) == 130:
            _fail(interrupted, 130)
    except UserError as error:
        _fail(str(error))
    except _ClickError as error:
        _fail(f"{error.format_message() or 'No verb given.'} (allowed: see nas-apps --help, nas-apps VERB --help)")
    except (typer.Abort, KeyboardInterrupt):
        _fail(interrupted, 130)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _fail("out of memory on the device; a smaller batch_size, or a smaller network.channels, needs less")
    except OSError as error:
        reason = no_space(error) or (error.filename and error.strerror)
        if not reason:
            raise
        _fail(f"{error.filename}: {reason}" if error.filename else reason)


def _recipe(sources: list[str]) -> Recipe:
    from nas_apps.core import config

    return config.load([s for s in sources if "=" not in s], [s for s in sources if "=" in s])


def _command() -> str:
    return shlex.join(["nas-apps", *sys.argv[1:]])


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """What ends this process, as a batch system or a closed terminal does, ends its children too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    if _leads():
        typer.echo(text)


def _fail(message: str, status: int = 2) -> None:
    rank = "" if _leads() else f" (rank {os.environ['RANK']})"  # a mistake that only one rank meets is still told
    typer.echo(f"nas-apps{rank}: {message}", err=True)
    sys.exit(status)
