"""Curves: smoothing, thinning and the SVG that goes into a page."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib import _pylab_helpers

from captrain.report.curves import MOST_POINTS, Chart, Line, draw_curve, smooth, thin

NAN = math.nan


def test_smoothing_keeps_a_constant_and_calms_noise() -> None:
    noisy = 1.0 + np.random.default_rng(0).normal(0, 0.3, 500)
    assert smooth(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    assert smooth(noisy).std() < noisy.std() / 3


def test_smoothing_steps_over_what_is_not_finite() -> None:
    values = smooth([1.0, NAN, math.inf, 1.0, 1.0, 1.0])
    assert values == pytest.approx(np.ones(6))
    assert np.isnan(smooth([NAN, NAN])).all()
    assert len(smooth([])) == 0


def test_thinning_averages_neighbours_and_keeps_gaps() -> None:
    steps, values = thin(range(10_000), [NAN] * 5_000 + [2.0] * 5_000)
    assert len(steps) == len(values) == MOST_POINTS
    assert np.isnan(values[: MOST_POINTS // 2]).all()
    assert (values[MOST_POINTS // 2 :] == 2.0).all()
    assert (np.diff(steps) > 0).all()


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (Line("one point", [3], [0.5]),),
        (Line("nothing finite", [1, 2], [NAN, NAN], noisy=True),),
        (Line("noisy", list(range(2000)), [1 / (1 + step) for step in range(2000)], noisy=True), Line("b", [5], [1.0])),
        (Line("huge", [1, 2, 3], [1e300, -1e300, 0.0], noisy=True),),
    ],
)
def test_any_lines_become_well_formed_svg_in_the_colours_of_the_page(lines: tuple[Line, ...]) -> None:
    svg = draw_curve(Chart("a $ <title> & more", lines, best=5.0))
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and "width" not in root.attrib and "viewBox" in root.attrib
    assert "#0102" not in svg and "var(--muted)" in svg
    assert "<style" not in svg and len(svg) < 200_000


def test_best_checkpoint_is_marked() -> None:
    line = Line("CIDEr", [1, 2, 3], [0.1, 0.4, 0.2])
    assert "var(--best)" in draw_curve(Chart("CIDEr", (line,), best=2))
    assert "var(--best)" not in draw_curve(Chart("CIDEr", (line,)))


def test_same_data_gives_the_same_bytes() -> None:
    chart = Chart("Loss", (Line("loss", [1, 2, 3], [3.0, 2.0, 1.0], noisy=True),))
    assert draw_curve(chart) == draw_curve(chart)


def test_drawing_leaves_no_figure_and_no_setting_behind() -> None:
    before = matplotlib.rcParams["svg.fonttype"]
    draw_curve(Chart("Loss", (Line("loss", [1, 2], [2.0, 1.0]),)))
    assert matplotlib.rcParams["svg.fonttype"] == before
    assert not _pylab_helpers.Gcf.figs
