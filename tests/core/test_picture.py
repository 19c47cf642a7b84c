"""Drawings: the cells of a genotype, curves, the weights of choices."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest

from nas_apps.core.drawing.picture import cell_svg, kept_ops
from nas_apps.core.drawing.picture_curve import Scale, curves_svg, running_means, segments, ticks, y_range
from nas_apps.core.drawing.picture_layout import Box, Layout, cell_layout
from nas_apps.core.drawing.picture_weights import row_name, weights_svg
from nas_apps.core.drawing.svg import escape, option_pens
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.space import Choice, Dag, Space, cell_choices

DARTS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NB201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
SVG = "{http://www.w3.org/2000/svg}"


def darts_rows(rng: random.Random, dag: Dag) -> list[tuple[str, ...]]:
    """Two edges into each node, as most methods keep."""
    rows: list[tuple[str, ...]] = [()] * len(dag.edges())
    for target in dag.targets():
        for edge in rng.sample(list(dag.into(target)), 2):
            rows[edge] = (rng.choice(DARTS[1:]),)
    return rows


def any_rows(rng: random.Random, dag: Dag, options: Sequence[str]) -> list[tuple[str, ...]]:
    """No, one, two or three options on each edge."""
    return [tuple(rng.sample(options, rng.choice((0, 1, 1, 1, 2, 3)))) for _ in dag.edges()]


def nb201_space() -> Space:
    return cell_choices("cell", Dag(1, 3), (NB201,) * 6)


def check(layout: Layout) -> None:
    """No box on another, all on the paper, and no wire over a box that it does not belong to."""
    boxes = [place.box for place in layout.places]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    for box in boxes:
        assert min(box.x, box.y) >= -1e-6
        assert box.x + box.width <= layout.width + 1e-6
        assert box.y + box.height <= layout.height + 1e-6
    for wire in layout.wires:
        for left, right, y in wire.levels:
            stretch = Box(left, y - 1, right - left, 2)
            crossed = [box for box in boxes if stretch.overlaps(box)]
            assert all(abs(box.middle[1] - y) < 1e-6 for box in crossed), "a wire meets only its own operations"
        for (_, start, _), (end, _, _) in pairwise(wire.levels):
            assert end - start >= 20, "room for a curve"
            gap = Box(start + 1e-6, -1e6, end - start - 2e-6, 2e6)
            assert not [box for box in boxes if gap.overlaps(box)], "no box stands where curves run"


def test_nothing_overlaps_in_darts_cells() -> None:
    dag, rng = Dag(2, 4), random.Random(0)
    for _ in range(300):
        check(cell_layout(dag, darts_rows(rng, dag), dag.targets()))


def test_nothing_overlaps_whatever_the_dag_and_the_options_kept() -> None:
    rng = random.Random(1)
    for dag, number in ((Dag(1, 1), 5), (Dag(1, 3), 60), (Dag(2, 4), 40), (Dag(3, 5), 15), (Dag(2, 7), 6)):
        for _ in range(number):
            rows = kept_ops(any_rows(rng, dag, DARTS))
            check(cell_layout(dag, rows, [dag.inputs + dag.nodes - 1]))


def test_every_wire_starts_at_its_source_and_ends_at_its_target() -> None:
    dag = Dag(2, 4)
    rows = darts_rows(random.Random(3), dag)
    layout = cell_layout(dag, rows, dag.targets())
    states = {place.texts[0]: place.box for place in layout.places if place.kind != "op"}
    names = ["c_k-2", "c_k-1", "0", "1", "2", "3"]
    wanted = [(names[source], names[target]) for (source, target), row in zip(dag.edges(), rows, strict=True) if row]
    wanted += [(names[target], "output") for target in dag.targets()]
    ends = []
    for wire in layout.wires:
        (x, _, y), (_, end, last) = wire.levels[0], wire.levels[-1]
        source = [name for name, box in states.items() if math.isclose(box.x + box.width, x) and box.middle[1] == y]
        target = [name for name, box in states.items() if math.isclose(box.x, end) and box.middle[1] == last]
        ends.append((*source, *target))
    assert sorted(ends) == sorted(wanted)


def labels(svg: str) -> Counter[str]:
    return Counter("".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))  # noqa: S314


def test_every_kept_op_is_shown_as_often_as_kept_and_none_is_not() -> None:
    space, rng = nb201_space(), random.Random(4)
    for _ in range(50):
        genotype = Genotype({"cell.op": tuple(any_rows(rng, Dag(1, 3), NB201))})
        kept = Counter(option for row in genotype.kept["cell.op"] for option in row if option != "none")
        shown = labels(cell_svg(space, genotype))
        assert {option: shown[option] for option in NB201} == {option: kept[option] for option in NB201}


def test_a_cell_is_drawn_with_its_name_its_states_and_its_output() -> None:
    dag = Dag(2, 4)
    space = cell_choices("normal", dag, (DARTS,) * 14, edges=True)
    shown = labels(cell_svg(space, Genotype({"normal.op": tuple(darts_rows(random.Random(0), dag))})))
    assert {"normal", "ck-2", "ck-1", "0", "1", "2", "3", "output"} <= set(shown)
    assert "normal.edge.3" not in shown
    assert "no input" not in shown


def test_a_node_without_an_edge_says_so() -> None:
    genotype = Genotype({"cell.op": (("none",), ("skip_connect",), (), ("nor_conv_3x3",), (), ())})
    assert labels(cell_svg(nb201_space(), genotype))["no input"] == 1
    assert labels(cell_svg(nb201_space(), Genotype({"cell.op": ((),) * 6})))["no input"] == 3


def test_the_output_is_made_of_the_states_that_the_genotype_names() -> None:
    rows = (("skip_connect",),) * 6

    def wires(meta: dict[str, object]) -> int:
        return cell_svg(nb201_space(), Genotype({"cell.op": rows}, meta)).count('class="gather"')

    assert wires({}) == 1
    assert wires({"outputs": {"cell": [1, 2, 3]}}) == 3
    assert wires({"outputs": {"cell": [9]}}) == 1
    assert wires({"outputs": 5}) == 1


def test_plain_decisions_are_listed_under_the_cells() -> None:
    space = {
        **nb201_space(),
        "net.path": Choice.uniform(("keep", "down", "up"), 30, "path"),
        "ff.width": Choice.uniform(("128", "256"), 1, "width"),
    }
    paths = tuple((("keep", "down", "up")[index % 3],) for index in range(29))
    genotype = Genotype({"cell.op": (("skip_connect",),) * 6, "net.path": (*paths, ()), "ff.width": (("256",),)})
    svg = cell_svg(space, genotype)
    shown = labels(svg)
    assert (shown["keep"], shown["down"], shown["up"], shown["256"], shown["(nothing)"]) == (10, 10, 9, 1, 1)
    assert shown["net.path"] == shown["ff.width"] == 1
    width = float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0])
    assert all(float(x) < width for x in re.findall(r"translate\(([\d.]+)", svg))


def test_plain_decisions_alone_make_a_picture() -> None:
    space = {"net.path": Choice.uniform(("keep", "down"), 2)}
    assert labels(cell_svg(space, Genotype({"net.path": (("keep",), ("down",))})))["down"] == 1


def test_a_genotype_of_another_space_is_refused() -> None:
    with pytest.raises(UserError, match="another space"):
        cell_svg(nb201_space(), Genotype({"other.op": ()}))


def test_names_are_escaped_in_drawings() -> None:
    bad = "<script>&'\"\x00\ud800"
    space = {f"{bad}.op": Choice(((bad, "b"),), dag=Dag(1, 1)), bad: Choice(((bad, "b"),))}
    svg = cell_svg(space, Genotype({f"{bad}.op": ((bad,),), bad: ((bad,),)}))
    assert labels(svg)["<script>&'\"\ufffd\ufffd"] == 4
    svg.encode()
    ElementTree.fromstring(curves_svg(bad, {bad: [(0, 1)]}))  # noqa: S314
    assert escape("a<b") == "a&lt;b"


def test_pens_are_the_same_in_every_choice_and_differ_within_one() -> None:
    space = {**cell_choices("a", Dag(1, 3), (NB201,) * 6), "b.op": Choice.uniform(tuple(map(str, range(20))), 1)}
    pens = option_pens(space)
    assert len({pens[option] for option in NB201}) == len(NB201)
    assert len({pens[option] for option in space["b.op"].rows[0]}) == 20
    assert option_pens(dict(reversed(space.items())))["none"] == pens["none"]


def paths(svg: str) -> list[str]:
    """The data of the curves of a drawing, which are the paths without a role."""
    drawn = [path for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if "class" not in path.attrib]  # noqa: S314
    return [path.attrib["d"] for path in drawn if "h16" not in path.attrib["d"]]


def test_values_that_are_not_finite_leave_gaps() -> None:
    points = [(float(x), math.nan if 4 <= x < 6 else math.inf if x == 8 else math.sin(x)) for x in range(12)]
    svg = curves_svg("loss", {"train": points})
    assert "nan" not in svg
    assert "inf" not in svg
    (data,) = paths(svg)
    assert data.count("M") == 3
    assert "no finite value" in curves_svg("loss", {"train": [(0, math.nan)], "valid": []})


SERIES = ([3.0], [0.0, 0.0], [1e-9, 2e-9], [-5e6, 7e8], [1.0] * 50 + [1e9], [0.1, 0.1 + 2e-17])


@pytest.mark.parametrize("values", SERIES)
def test_curves_lie_inside_their_axes(values: list[float]) -> None:
    svg = curves_svg("x", {"a": list(enumerate(values))})
    numbers = [float(number) for data in paths(svg) for number in re.findall(r"-?[\d.]+", data)]
    assert all(0 <= number <= 480 for number in numbers)
    low, high = y_range(values)
    assert low <= min(values)
    assert low < high
    assert 2 <= len(ticks(low, high)) <= 8


def test_a_lone_peak_does_not_flatten_the_rest() -> None:
    values = [1.0 + 0.01 * (index % 7) for index in range(100)]
    assert y_range([*values, 1e4])[1] < 2
    assert "highest 10k" in curves_svg("loss", {"train": list(enumerate([*values, 1e4]))})
    assert y_range([0.0, 1.0, 10.0])[1] == 10


def test_long_series_are_thinned_but_keep_their_extremes() -> None:
    points = [(float(x), math.sin(x / 50)) for x in range(20_000)]
    points[777] = (777.0, 9.0)
    (run,) = segments(points)
    assert len(run) < 700
    assert (777.0, 9.0) in run
    assert run[0] == points[0]
    assert run[-1] == points[-1]
    assert run == sorted(run)


def test_running_means_are_means_of_neighbours() -> None:
    points = [(float(x), float(x % 2)) for x in range(200)]
    (run,) = running_means(points, 20)
    assert all(abs(y - 0.5) < 0.05 for _, y in run)
    assert (run[0][0], run[-1][0]) == (0, 199)


def test_a_scale_draws_what_is_beyond_at_its_end() -> None:
    scale = Scale(0, 10, 100, 0)
    assert (scale(5), scale(-3), scale(30)) == (50, 100, 0)


def test_weights_have_a_panel_for_each_row_and_a_line_for_each_option() -> None:
    choice = nb201_space()["cell.op"]
    history = [(float(epoch), [[0.2] * 5 for _ in range(6)]) for epoch in range(10)]
    kept = (("none",), ("skip_connect",), (), ("nor_conv_3x3",), (), ())
    svg = weights_svg("cell.op", choice, history, pens=option_pens(nb201_space()), kept=kept)
    assert len(paths(svg)) == 30
    assert svg.count('opacity="0.5"') + svg.count('opacity="0.4') == 3
    assert {row_name(choice, row) for row in range(6)} <= set(labels(svg))
    assert set(NB201) <= set(labels(svg))


def test_many_rows_stay_compact_and_weights_may_be_missing() -> None:
    choice = Choice.uniform(DARTS, 14)
    history = [(float(epoch), [[math.nan if epoch == 3 else 0.1] * 8 for _ in range(14)]) for epoch in range(8)]
    svg = weights_svg("many", choice, history, pens={})
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    assert width <= 900
    assert height <= 260
    assert "nan" not in svg
    ElementTree.fromstring(weights_svg("one", choice, history[:1], pens={}))  # noqa: S314
    ElementTree.fromstring(weights_svg("nothing", choice, [], pens={}))  # noqa: S314


def test_pictures_of_darts_weights_stand_side_by_side_on_a_page() -> None:
    choice = cell_choices("normal", Dag(2, 4), (DARTS,) * 14)["normal.op"]
    svg = weights_svg("normal.op", choice, [(0.0, [[0.1] * 8] * 14)], pens={})
    assert float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0]) <= 564
