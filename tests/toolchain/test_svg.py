"""Charts: scales, bins, the frontier, and what goes into the drawing."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.page.svg import Axis, Point, bins, frontier, histogram, pareto, runs

FINITE = st.floats(1e-6, 1e6, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=300))
def test_every_value_within_the_range_is_in_exactly_one_bin(values: list[float]) -> None:
    assert sum(bins(values, min(values), max(values))) == len(values)


def test_values_outside_are_in_no_bin() -> None:
    assert sum(bins([1.0, 2.0, 9.0], 1.0, 3.0)) == 2


@given(FINITE, FINITE)
def test_ticks_are_round_few_and_within_the_scale(a: float, b: float) -> None:
    axis = Axis(min(a, b), max(a, b), 0, 100)
    ticks = axis.ticks()
    span = axis.high - axis.low
    assert len(ticks) <= 11
    assert all(axis.low - 1e-6 * span <= tick <= axis.high + 1e-6 * span for tick in ticks)


def test_an_axis_maps_its_ends_to_its_ends() -> None:
    axis = Axis(2.0, 4.0, 10.0, 110.0)
    assert [axis.at(value) for value in (2.0, 3.0, 4.0)] == [10.0, 60.0, 110.0]
    assert axis.ticks() == [2.0, 2.5, 3.0, 3.5, 4.0]


def test_the_frontier_leaves_out_what_another_beats_in_both() -> None:
    fast, slow, good, same = Point("fast", 1, 70), Point("slow", 5, 60), Point("good", 3, 90), Point("same", 3, 80)
    assert frontier([slow, good, same, fast], higher_is_better=True) == [fast, good]
    assert frontier([slow, good, same, fast], higher_is_better=False) == [fast, slow]


@given(st.lists(FINITE, min_size=1, max_size=60))
def test_charts_are_well_formed_and_stay_inside_their_box(values: list[float]) -> None:
    ranked = sorted(values)
    drawn = histogram(values, [("median", ranked[len(ranked) // 2]), ("p99", ranked[-1])], label="a <b> & c")
    for chart in (drawn, runs(values, label="runs")):
        root = ET.fromstring(str(chart))  # noqa: S314  our own text
        width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
        for shape in root.iter():
            for name, limit in (
                ("x", width),
                ("cx", width),
                ("x1", width),
                ("y", height),
                ("cy", height),
                ("y1", height),
            ):
                assert -0.1 <= float(shape.attrib.get(name, 0)) <= limit + 0.1


def test_a_histogram_says_how_many_lie_beyond_its_axis() -> None:
    drawn = str(histogram([1.0, 1.1] * 50 + [50.0], [("median", 1.0)], label="x"))
    assert "1 slower" in drawn


def test_many_runs_are_drawn_as_few_dots() -> None:
    assert str(runs([1.0] * 10_000, label="x")).count("<circle") <= 240


@pytest.mark.parametrize("name", ['<script>"', "a & b"])
def test_names_are_escaped(name: str) -> None:
    points = [Point(name, 1.0, 2.0), Point("other", 2.0, 3.0)]
    root = ET.fromstring(str(pareto(points, x_name=name, y_name=name, higher_is_better=True, label=name)))  # noqa: S314  our own text
    assert root.attrib["aria-label"] == name
    assert name in [element.text for element in root.iter()]
