"""Mean and spread, against numbers computed by hand, and the charts of them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from nas_apps.core.drawing.picture_spread import bands_svg, dots_svg, scatter_svg
from nas_apps.core.drawing.svg import pen
from nas_apps.core.spread import Spread

PENS = {"a": pen(0), "b": pen(1)}


def numbers(svg: str, name: str, key: str) -> list[float]:
    """An attribute of every element of one name, as numbers."""
    root = ElementTree.fromstring(svg)  # noqa: S314, our own text
    return [float(node.attrib[key]) for node in root.iter(f"{{http://www.w3.org/2000/svg}}{name}")]


def test_the_spread_is_the_sample_standard_deviation_and_one_search_has_none() -> None:
    assert Spread.of([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == pytest.approx((8, 5.0, math.sqrt(32 / 7)))
    assert Spread.of([0.96, 0.98]) == pytest.approx((2, 0.97, 0.01 * math.sqrt(2)))
    assert Spread.of([0.25]) == (1, 0.25, None)
    assert Spread.of([]) is None


@pytest.mark.parametrize(
    ("spread", "name", "text"),
    [
        (Spread(3, 0.97124, 0.00412), "accuracy", "97.12 \u00b1 0.41 %"),
        (Spread(1, 0.97124, None), "accuracy", "97.12 \u00b1 - %"),
        (Spread(2, 94.37, 0.21), "table/cifar10/test", "94.37 \u00b1 0.21"),
        (Spread(2, 1930618.0, 12000.0), "params", "1.93 M \u00b1 12,000"),
        (Spread(2, 412.41, 3.0), "search_seconds", "6 min 52 s \u00b1 3.0 s"),
        (Spread(2, math.nan, math.nan), "loss", "nan \u00b1 nan"),
    ],
)
def test_a_spread_is_written_in_the_unit_of_its_figure(spread: Spread, name: str, text: str) -> None:
    assert spread.text(name) == text


def test_a_value_that_is_no_number_spoils_the_mean_and_is_not_left_out() -> None:
    found = Spread.of([0.5, math.nan])
    assert found is not None
    assert math.isnan(found.mean)


def test_dots_stand_around_their_mean_and_the_bar_ends_within_the_chart() -> None:
    svg = dots_svg("accuracy", {"a": [0.2, 0.4, math.nan], "b": [0.9]}, pens=PENS)
    dots = numbers(svg, "circle", "cx")
    assert len(dots) == 3
    bar, tick = re.findall(rf'd="M([\d.]+),[\d.]+L([\d.]+),[\d.]+"[^>]*stroke="{pen(0).colour}"', svg)
    assert float(tick[0]) == pytest.approx((dots[0] + dots[1]) / 2, abs=0.1)
    reach = (dots[1] - dots[0]) / math.sqrt(2)  # of two values, the sample deviation is |a - b| / sqrt(2)
    assert float(bar[1]) - float(bar[0]) == pytest.approx(2 * reach, abs=0.2)
    assert 0 < float(bar[0]) < dots[0] < dots[1] < float(bar[1]) < 372


def test_a_chart_of_nothing_finite_is_a_chart() -> None:
    for svg in (
        dots_svg("a", {"a": [math.nan]}, pens=PENS),
        scatter_svg("a", {"a": [(math.nan, 1.0)]}, x_label="x", pens=PENS),
        bands_svg("a", {"a": [[(1.0, math.nan)]]}, x_label="x", pens=PENS),
    ):
        assert numbers(svg, "circle", "cx") == []
        assert "nan" not in svg


def test_a_scatter_has_a_dot_for_each_point() -> None:
    svg = scatter_svg("a", {"a": [(1.0, 2.0), (3.0, 4.0)], "b": [(2.0, 3.0)]}, x_label="x", pens=PENS)
    xs, ys = numbers(svg, "circle", "cx"), numbers(svg, "circle", "cy")
    assert xs[2] == pytest.approx((xs[0] + xs[1]) / 2, abs=0.1)
    assert ys[2] == pytest.approx((ys[0] + ys[1]) / 2, abs=0.1)


def test_a_band_goes_from_the_lowest_to_the_highest_curve_around_their_mean() -> None:
    curves = [[(1.0, 0.0), (2.0, 1.0)], [(1.0, 1.0), (2.0, 1.0)], [(2.0, 1.0)]]
    svg = bands_svg("a", {"a": curves}, x_label="epoch", pens=PENS)
    corners = [float(y) for y in re.findall(r",([\d.]+)", next(re.finditer(r'd="(M[^"]*)Z"', svg)).group(1))]
    top, _, _, low = corners  # the upper edge from left to right, the lower one back
    mean = re.findall(rf'd="M[\d.]+,([\d.]+)L[\d.]+,([\d.]+)" fill="none" stroke="{pen(0).colour}"', svg)[-1]
    assert float(mean[0]) == pytest.approx((top + low) / 2, abs=0.1)
    assert float(mean[1]) == pytest.approx(corners[1], abs=0.1)
