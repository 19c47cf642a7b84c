"""The report page, on run folders as a search and its trainings leave them."""

from __future__ import annotations

import html.parser
import json
import math
import random
import re
from pathlib import Path
from typing import Any

from nas_apps.core.drawing.page import report_page
from nas_apps.core.drawing.page_text import figure, seconds, short
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import Choice, Dag, Space, cell_choices
from nas_apps.core.space_json import read_space, space_to_json

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
VERSIONS = {"nas_apps": "0.1.0", "python": "3.11.7", "torch": "2.11.0", "timm": "1.0.31", "numpy": "2.4.6"}
RECIPE = """task:
  name: image
  data: digits
variant: pc_darts
seed: 3
search:
  epochs: 30
  batch_size: 64   # over all ranks
"""


def darts_space() -> Space:
    dag = Dag(2, 4, keep=2)
    return cell_choices("normal", dag, (OPS,) * 14) | cell_choices("reduce", dag, (OPS,) * 14)


def darts_genotype(rng: random.Random) -> Genotype:
    kept = {}
    for name, choice in darts_space().items():
        rows: list[tuple[str, ...]] = [()] * len(choice.rows)
        for target in Dag(2, 4).targets():
            for edge in rng.sample(list(Dag(2, 4).into(target)), 2):
                rows[edge] = (rng.choice(OPS[1:]),)
        kept[name] = tuple(rows)
    return Genotype(kept)


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def write_choices(path: Path, space: Space, genotype: Genotype, epochs: int, rng: random.Random) -> None:
    logits = {name: [[0.0] * len(row) for row in choice.rows] for name, choice in space.items()}
    lines = []
    for epoch in range(epochs):
        for name, choice in space.items():
            for row, options in enumerate(choice.rows):
                for index, option in enumerate(options):
                    pull = 0.06 if option in genotype.kept[name][row] else 0.01 if option == "none" else 0.0
                    logits[name][row][index] += pull + rng.gauss(0, 0.02)
        weights = {name: [softmax(row) for row in rows] for name, rows in logits.items()}
        lines.append(json.dumps({"epoch": epoch, "step": 20 * (epoch + 1), "weights": weights}))
    path.write_text("\n".join(lines) + "\n")


def write_metrics(path: Path, epochs: int, rng: random.Random, *, search: bool, extra: str = "") -> None:
    lines: list[dict[str, Any]] = []
    for step in range(5, 20 * epochs + 1, 5):
        left = math.exp(-step / (6 * epochs))
        entry = {"step": step, "epoch": (step - 1) // 20, "train/loss": 0.12 + 2.2 * left + rng.gauss(0, 0.05)}
        if search:
            entry |= {"valid/loss": 0.2 + 2.1 * left + rng.gauss(0, 0.06)}
        entry |= {"train/lr": 0.0125 * (1 + math.cos(math.pi * step / (20 * epochs)))}
        lines.append(entry | ({extra: 1.0} if extra else {}))
        if step % 20 == 0:
            accuracy = {"step": step, "epoch": step // 20 - 1, "evaluation/accuracy": 0.985 - 0.8 * left}
            lines.append(accuracy | ({"evaluation/accuracy_one_hot": 0.93 - 0.9 * left} if search else {}))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_stage(folder: Path, genotype: Genotype, accuracy: float, *, search: bool = False, epochs: int = 30) -> None:
    rng, name = random.Random(folder.name), folder.name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "space.json").write_text(space_to_json(darts_space()))
    genotype.save(folder / "genotype.json")
    write_metrics(folder / "metrics.jsonl", epochs, rng, search=search)
    if search:
        write_choices(folder / "choices.jsonl", darts_space(), genotype, epochs, rng)
    verb = "search" if search else "train"
    metrics = {"accuracy": accuracy, "loss": 0.0713} | ({"accuracy_one_hot": 0.9017} if search else {})
    summary = {
        "stage": verb,
        "task": "image",
        "variant": "pc_darts",
        "seed": 3,
        "metrics": metrics,
        "costs": {"params": 1930618.0 + len(name), "macs": 312412160.0, "latency_ms": 4.2371},
        "seconds": {verb: 412.41 if search else 96.3},
        "device": "NVIDIA H200",
        "versions": VERSIONS,
        "command": f"nas-apps {verb} recipes/conf/image/base.yaml recipes/conf/image/pc_darts.yaml --run runs/a/{name}",
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def write_run(folder: Path) -> Path:
    genotype = darts_genotype(random.Random(3))
    write_stage(folder / "search", genotype, 0.9611, search=True)
    write_stage(folder / "train", genotype, 0.9832)
    write_stage(folder / "random", darts_genotype(random.Random(8)), 0.9744)
    return folder


class Reader(html.parser.HTMLParser):
    """Checks that elements close in order, and collects their names and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "srcset", "action")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.remove(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_a_whole_run_is_shown_in_order(tmp_path: Path) -> None:
    page = report_page(write_run(tmp_path / "a"))
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "Comparison",
        "Cell",
        "Curves",
        "Weights of each choice over time",
        "Cost of the network",
        "Reproduce",
        "Resolved recipe",
        "Versions",
    ]
    assert "<h1>image / pc_darts</h1>" in page
    assert "seed 3" in page
    text = read(page).text
    figures = ("98.3 %", "1.93 M", "312 M", "1,930,623 (1.93 M)", "1 min 36 s", "6 min 52 s", "NVIDIA H200", "2.11.0")
    assert [shown for shown in figures if shown not in text] == []


def test_the_headline_is_of_the_final_training_and_the_best_one_is_marked(tmp_path: Path) -> None:
    page = report_page(write_run(tmp_path / "a"))
    assert "Metrics and costs of train." in page
    assert re.findall('<td class="best">(.*?)</td>', page)[0] == "98.3 %"


def test_a_genotype_that_two_stages_share_is_drawn_once(tmp_path: Path) -> None:
    page = report_page(write_run(tmp_path / "a"))
    assert page.count("<title>cells: ") == 2
    assert "<figcaption>search, train</figcaption>" in page


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = report_page(write_run(tmp_path / "a"))
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not {"script", "link", "img", "iframe", "object"} & set(read(page).names)
    assert not read(page).links
    assert "@import" not in page
    assert "url(" not in page


def test_equal_files_give_an_equal_page(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "1" / "a"), write_run(tmp_path / "2" / "a")
    assert report_page(first) == report_page(second)


def test_a_page_is_ascii_free_of_control_characters_and_not_large(tmp_path: Path) -> None:
    page = report_page(write_run(tmp_path / "a"))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", page)
    assert len(page) < 600_000


def test_text_from_files_is_escaped_wherever_it_stands(tmp_path: Path) -> None:
    bad = "<script>alert('1')</script>&\"\x00"
    stage = tmp_path / "a" / "train"
    write_stage(stage, darts_genotype(random.Random(0)), 0.5)
    write_metrics(stage / "metrics.jsonl", 2, random.Random(0), search=True, extra=f"train/{bad}")
    (stage / "recipe.yaml").write_text(f"task: {bad}\nseed: {bad}\n")
    table = {bad: 1.0}
    (stage / "summary.json").write_text(
        json.dumps(
            {"metrics": table, "costs": table, "seconds": table, "versions": {bad: bad}, "command": bad, "device": bad}
        )
    )
    (stage / "choices.jsonl").write_text(json.dumps({"epoch": 0, "weights": {bad: [[0.5, 0.5]]}}) + "\n")
    (stage / "space.json").write_text(space_to_json({bad: Choice.uniform((bad, "b"), 1)}))
    Genotype({bad: ((bad,),)}).save(stage / "genotype.json")
    page = report_page(tmp_path / "a")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x00" not in page
    read(page)


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    stage = tmp_path / "train"
    write_stage(stage, darts_genotype(random.Random(0)), 0.5)
    whole = report_page(stage)
    with (stage / "metrics.jsonl").open("a") as file:
        file.write('{"step": 700, "train/lo')
    torn = report_page(stage)
    assert "metrics.jsonl: left out, not whole: line 151" in torn
    assert re.findall("<svg.*?</svg>", torn, re.DOTALL) == re.findall("<svg.*?</svg>", whole, re.DOTALL)


def test_any_file_may_be_absent_empty_or_nonsense(tmp_path: Path) -> None:
    names = ("recipe.yaml", "space.json", "genotype.json", "metrics.jsonl", "choices.jsonl", "summary.json")
    nonsense = (
        None,
        b"",
        b"\xff\xfe\x00",
        b"[1, 2",
        b"[]",
        b"{}",
        b"null\n3\n",
        b'{"a": {"rows": 3}, "metrics": 5, "weights": [1], "genotype": {"a": 1}}',
        b'{"metrics": {"loss": NaN}, "seconds": {"x": NaN}, "costs": {"params": "many"}}',
    )
    for number, name in enumerate(names):
        for index, content in enumerate(nonsense):
            stage = tmp_path / f"search-{number}-{index}"
            write_stage(stage, darts_genotype(random.Random(0)), 0.5, search=True, epochs=2)
            (stage / name).unlink()
            if content is not None:
                (stage / name).write_bytes(content)
            page = report_page(stage)
            read(page)
            assert (f"not there: {name}" in page) == (content is None)


def test_a_stage_folder_is_a_report_of_its_own_and_an_empty_folder_says_so(tmp_path: Path) -> None:
    page = report_page(write_run(tmp_path / "a") / "search")
    assert "<h2>Comparison</h2>" not in page
    assert "<h3>" not in page
    assert "96.1 %" in page
    (tmp_path / "empty").mkdir()
    assert "Nothing of a run was found" in report_page(tmp_path / "empty")
    assert "Nothing of a run was found" in report_page(tmp_path / "absent")


def test_stages_are_found_in_nested_folders_and_task_and_seed_in_the_recipe(tmp_path: Path) -> None:
    write_stage(tmp_path / "seed0" / "train", darts_genotype(random.Random(0)), 0.5)
    (tmp_path / "seed0" / "train" / "summary.json").unlink()
    page = report_page(tmp_path)
    assert "<h1>image / pc_darts</h1>" in page
    assert "seed 3" in page


def test_the_summary_and_genotype_of_a_run_over_its_stages_are_no_stage(tmp_path: Path) -> None:
    page = report_page(write_run(tmp_path / "a"))
    (tmp_path / "a" / "summary.json").write_text((tmp_path / "a" / "train" / "summary.json").read_text())
    Genotype({}).save(tmp_path / "a" / "genotype.json")
    assert report_page(tmp_path / "a") == page


def test_a_genotype_is_found_in_the_summary(tmp_path: Path) -> None:
    genotype = darts_genotype(random.Random(0))
    write_stage(tmp_path / "train", genotype, 0.5)
    (tmp_path / "train" / "genotype.json").unlink()
    (tmp_path / "train" / "summary.json").write_text(json.dumps({"genotype": genotype.kept}))
    assert "<h2>Cell</h2>" in report_page(tmp_path / "train")


def test_a_genotype_without_its_space_is_listed(tmp_path: Path) -> None:
    Genotype({"net.path": (("up",), ())}).save(tmp_path / "genotype.json")
    page = report_page(tmp_path)
    assert "net.path[0]: up" in page
    assert "no space.json" in page


def test_metrics_of_one_name_share_a_chart_and_odd_values_do_no_harm(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "epoch": 0, "train/loss": 1.0, "valid/loss": 2.0, "note": "x", "ok": true}',
        '{"step": 2, "epoch": 0, "train/loss": NaN, "valid/loss": null}',
        '{"step": 3, "epoch": 0, "train/loss": Infinity, "evaluation/accuracy": 0.5}',
        '{"step": 4, "evaluation/accuracy_one_hot": 0.4, "big": 1' + "0" * 400 + "}",
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    page = report_page(tmp_path)
    assert re.findall("<svg[^>]*><title>(.*?)</title>", page) == ["loss", "accuracy", "big"]
    assert "evaluation, one-hot" in page
    assert "nan" not in page.lower()


def test_a_space_is_read_back_as_written(tmp_path: Path) -> None:
    space = {**darts_space(), "ff.width": Choice(((("128", "256")),), "width")}
    (tmp_path / "space.json").write_text(space_to_json(space))
    assert read_space(tmp_path / "space.json") == space


def test_figures_are_written_as_a_reader_wants_them() -> None:
    assert figure("params", 1930618) == "1,930,618"
    assert figure("top1", 0.9832) == "98.3 %"
    assert figure("accuracy", 98.3) == "98.3"
    assert figure("evaluation/cer", 0.0412) == "4.1 %"
    assert figure("loss", float("nan")) == "nan"
    assert figure("psnr", 32.14159) == "32.14"
    assert figure("upper_bound", 0.5) == "0.5"
    assert seconds(59.99) == "1 min 00 s"
    assert short("macs", 999_950_000) == "1.00 G"
    assert short("params", 1234) == "1,234"
