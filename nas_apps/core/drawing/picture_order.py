"""Columns of items joined by links: which goes above which, and how high.

The layered drawing of Sugiyama: links run between neighbouring columns only, columns are sorted until few links cross,
then heights are chosen that make links straight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

Columns = list[list[int]]
Links = Sequence[tuple[int, int]]

SWEEPS = 12
MOST_SWEEPS, STILL = 120, 0.1


def untangle(columns: Columns, links: Links) -> Columns:
    """The same columns, each in an order with few crossings."""
    left, right = _neighbours(links)
    now = [list(column) for column in columns]
    best, least = now, _crossings(now, links)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        now = _swept(now, left if forward else right, forward=forward)
        now = _swapped(now, links)
        count = _crossings(now, links)
        if count < least:
            best, least = now, count
    return best


def straighten(
    columns: Columns, stiffness: Mapping[tuple[int, int], float], room: Mapping[int, float]
) -> dict[int, float]:
    """The height of the middle of each item: the least sum of squares of the links' rises, by their stiffness.

    room: how much height an item takes, its distance to the next included.
    """
    beside: dict[int, list[tuple[int, float]]] = {item: [] for column in columns for item in column}
    for (source, target), stiff in stiffness.items():
        beside[source].append((target, stiff))
        beside[target].append((source, stiff))
    pull = {item: sum(stiff for _, stiff in others) or 1.0 for item, others in beside.items()}
    heights = {item: y for column in columns for item, y in zip(column, _stacked(column, room), strict=True)}
    for sweep in range(MOST_SWEEPS):
        before = dict(heights)
        for column in columns if sweep % 2 else reversed(columns):
            wanted = [
                sum(stiff * heights[other] for other, stiff in beside[item] or [(item, 1.0)]) / pull[item]
                for item in column
            ]
            heights |= dict(zip(column, _apart(column, wanted, room, pull), strict=True))
        if max(abs(heights[item] - y) for item, y in before.items()) < STILL:
            break
    return heights


def level(
    chains: Sequence[Sequence[int]], columns: Columns, room: Mapping[int, float], heights: dict[int, float]
) -> None:
    """Bring the items inside each chain to one height, or to as few as their neighbours in the columns allow."""
    limits = {item: pair for column in columns for item, pair in zip(column, _beside(column), strict=True)}
    for chain in chains:
        run: list[int] = []
        low, high = -math.inf, math.inf
        for item in chain[1:-1]:
            least, most = _freedom(item, limits[item], room, heights)
            if run and max(low, least) > min(high, most):
                _set(run, low, high, heights)
                run, low, high = [], -math.inf, math.inf
            run, low, high = [*run, item], max(low, least), min(high, most)
        _set(run, low, high, heights)


def _beside(column: list[int]) -> list[tuple[int | None, int | None]]:
    return list(zip([None, *column[:-1]], [*column[1:], None], strict=True))


def _freedom(
    item: int, beside: tuple[int | None, int | None], room: Mapping[int, float], heights: Mapping[int, float]
) -> tuple[float, float]:
    upper, lower = beside
    least = -math.inf if upper is None else heights[upper] + (room[upper] + room[item]) / 2
    most = math.inf if lower is None else heights[lower] - (room[lower] + room[item]) / 2
    return least, max(most, least)


def _set(run: list[int], low: float, high: float, heights: dict[int, float]) -> None:
    if run:
        mean = sum(heights[item] for item in run) / len(run)
        heights |= dict.fromkeys(run, min(max(mean, low), high))


def _neighbours(links: Links) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    left: dict[int, list[int]] = {}
    right: dict[int, list[int]] = {}
    for source, target in links:
        right.setdefault(source, []).append(target)
        left.setdefault(target, []).append(source)
    return left, right


def _swept(columns: Columns, neighbours: Mapping[int, list[int]], *, forward: bool) -> Columns:
    done: Columns = []
    for column in columns if forward else reversed(columns):
        place = {item: index for index, item in enumerate(done[-1])} if done else {}
        own = {item: float(index) for index, item in enumerate(column)}
        for item in column:
            beside = [place[other] for other in neighbours.get(item, []) if other in place]
            if beside:
                own[item] = sum(beside) / len(beside)
        done.append(sorted(column, key=own.__getitem__))
    return done if forward else done[::-1]


def _swapped(columns: Columns, links: Links) -> Columns:
    left, right = _neighbours(links)
    place = {item: index for column in columns for index, item in enumerate(column)}
    columns = [list(column) for column in columns]
    for column in columns:
        for _ in column:
            swaps = [
                index
                for index, (upper, lower) in enumerate(pairwise(column))
                if _gain(left, place, upper, lower) + _gain(right, place, upper, lower) > 0
            ]
            if not swaps:
                break
            first = swaps[0]
            column[first], column[first + 1] = column[first + 1], column[first]
            place |= {column[first]: first, column[first + 1]: first + 1}
    return columns


def _gain(neighbours: Mapping[int, list[int]], place: Mapping[int, int], upper: int, lower: int) -> int:
    """Crossings saved on one side when two items that lie one above the other change places."""
    pairs = [(place[u], place[v]) for u in neighbours.get(upper, []) for v in neighbours.get(lower, [])]
    return sum(u > v for u, v in pairs) - sum(u < v for u, v in pairs)


def _crossings(columns: Columns, links: Links) -> int:
    place = {item: (number, index) for number, column in enumerate(columns) for index, item in enumerate(column)}
    gaps: dict[int, list[tuple[int, int]]] = {}
    for source, target in links:
        gaps.setdefault(place[source][0], []).append((place[source][1], place[target][1]))
    return sum((a - c) * (b - d) < 0 for gap in gaps.values() for a, b in gap for c, d in gap) // 2


def _stacked(column: list[int], room: Mapping[int, float]) -> list[float]:
    heights, y = [], -sum(room[item] for item in column) / 2
    for item in column:
        heights.append(y + room[item] / 2)
        y += room[item]
    return heights


def _apart(column: list[int], wanted: list[float], room: Mapping[int, float], pull: Mapping[int, float]) -> list[float]:
    """The heights nearest to the wanted ones at which no two items touch: isotonic regression, pooling neighbours."""
    offsets = _stacked(column, room)
    pools: list[tuple[float, float, int]] = []  # mean, weight, items
    for item, height, offset in zip(column, wanted, offsets, strict=True):
        mean, weight, items = height - offset, pull[item], 1
        while pools and pools[-1][0] > mean:
            before, more, number = pools.pop()
            mean = (mean * weight + before * more) / (weight + more)
            weight, items = weight + more, items + number
        pools.append((mean, weight, items))
    shifts = [mean for mean, _, items in pools for _ in range(items)]
    return [offset + shift for offset, shift in zip(offsets, shifts, strict=True)]
