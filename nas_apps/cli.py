"""The verbs of the command line: thin, each a call into the core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nas_apps import recipe as read_recipe
from nas_apps.console import command, ended_as_interrupted, fail, say
from nas_apps.core.errors import UserError
from nas_apps.core.files import no_space

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

    genotype = runs.search(read_recipe(*sources), run, resume=resume, command=command())
    say(genotype.to_json())
    say(str(run / "genotype.json"))


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
    space = folder.read_recipe(run).task.choices()
    files.write_text(drawing, cell_svg(space, genotype))
    for message in collapsed(space, genotype).values():
        logs.say(message)
    say(summary.cell_text(space, genotype))
    say(str(out))


@app.command()
def train(
    sources: Sources,
    run: Run,
    resume: Resume = False,
    genotype: Annotated[str, typer.Option(help="A genotype's file, or the name of a published one.")] = ...,
    like: Annotated[
        Path | None, typer.Option(help="The folder of a training: as many parameters as its network, by the width.")
    ] = None,
    inherit: Annotated[
        Path | None,
        typer.Option(help="A search or a training: begin with its weights; with train.epochs=0, keep them."),
    ] = None,
) -> None:
    """Stack the cells of a genotype, and train the network, from scratch or from a search's weights."""
    from nas_apps.core import runs

    given = [] if inherit is None else [f"train.inherit={json.dumps(str(inherit))}"]
    recipe = read_recipe(*sources, *given)
    found = runs.find_genotype(genotype, recipe)
    recipe = recipe if like is None else runs.as_large(recipe, found, like)
    runs.train(recipe, found, run, resume=resume, command=command())
    say(str(run / "summary.json"))


@app.command()
def evaluate(
    run: Folder, table: Annotated[Path | None, typer.Option(help="Accuracies by cell (NAS-Bench-201).")] = None
) -> None:
    """Evaluate a trained network anew, or look its cell up in a table of accuracies."""
    from nas_apps.core import runs

    figures = runs.evaluate(run) if table is None else runs.look_up(run, table)
    for name, value in figures.items():
        say(f"{name} {value:.6g}")


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
    say(summary.overview(run))
    say(f"report: {page}")
    say(str(path))


@app.command()
def measure(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Where to write what predicts the latency of other networks.")],
    cells: Annotated[int, typer.Option(help="How many random cells are measured.")] = 200,
) -> None:
    """Measure the latency of random cells' networks on this machine, and fit a predictor of it."""
    from nas_apps.core import latency

    figures = latency.measure(read_recipe(*sources), out, cells=cells)
    low, middle, high = (figures[name] for name in ("min", "median", "max"))
    say(f"measured: {low:.4g} to {high:.4g} ms, half of them under {middle:.4g} ms")
    say(f"measured again, a cell differs by {figures['noise']:.2%}: the noise that no predictor sees through")
    say(f"predictor, on the held-out fifth: error {figures['error']:.2%}, Kendall's tau {figures['tau']:.3f}")
    say(str(out))


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
        with ended_as_interrupted():
            results = sweep_run.run(trials, run, train=not no_train, table=table, jobs=jobs, ray=ray, command=command())
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on with what is not finished", 130)
    say(results.text())
    say(str(run / "sweep.html"))
    if results.failures:
        failed = f"{len(results.failures)} of {len(trials)} trials failed"
        fail(f"{failed}; the same command tries them again ({run / 'table.md'} says why each did)", 1)


@app.command()
def upscale(
    run: Folder,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or a folder of images.")],
    out: Annotated[
        Path, typer.Option(help="The PNG of an image, or a folder for those of a folder; nothing is there.")
    ],
    tile: Annotated[int, typer.Option(min=1, help="Side of the squares it is done in: less needs less memory.")] = 256,
    skip_faulty: Annotated[bool, typer.Option("--skip-faulty", help="Leave out images that cannot be read.")] = False,
) -> None:
    """Enlarge images with a trained network of super-resolution."""
    from nas_apps.tasks.sr.upscale_files import upscale_files

    try:
        for line in upscale_files(run, source, out, tile=tile, skip_faulty=skip_faulty):
            say(line)
    except KeyboardInterrupt:
        fail("interrupted; the images that were enlarged stay", 130)


@app.command()
def show(sources: Sources) -> None:
    """Print the resolved recipe, its space and its data; nothing is run."""
    from omegaconf import OmegaConf

    from nas_apps.core.refusals import search_space

    recipe = read_recipe(*sources)
    say(OmegaConf.to_yaml(OmegaConf.create(recipe.plain())))
    for name, choice in search_space(recipe.task, recipe.variant).items():
        rows, options = choice.shape
        say(
            f"# {name}: {rows} decisions of {options} options: "
            + ", ".join(dict.fromkeys(option for row in choice.rows for option in row))
        )
    say(f"# data: {recipe.task.data_facts()}")


@app.command()
def cite(sources: Sources) -> None:
    """Print the papers behind a recipe's method."""
    from nas_apps.core.papers import PAPERS

    for paper in read_recipe(*sources).variant.cite:
        say(f"{PAPERS[paper]}. arXiv:{paper}")


def main() -> None:
    """Run a verb. A user's mistake is one line and status 2."""
    interrupted = "interrupted; the same command with --resume goes on from the last checkpoint"
    try:
        if app(standalone_mode=False) == 130:
            fail(interrupted, 130)
    except UserError as error:
        fail(str(error))
    except _ClickError as error:
        fail(f"{error.format_message() or 'No verb given.'} (allowed: see nas-apps --help, nas-apps VERB --help)")
    except (typer.Abort, KeyboardInterrupt):
        fail(interrupted, 130)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        fail("out of memory on the device; a smaller batch_size, network.channels or --tile needs less")
    except OSError as error:
        reason = no_space(error) or (error.filename and error.strerror)
        if not reason:
            raise
        fail(f"{error.filename}: {reason}" if error.filename else reason)
