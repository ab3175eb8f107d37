"""Curves as inline SVG, in colours that the page chooses (light or dark), with noisy lines smoothed.

Drawn by matplotlib's objects alone: no pyplot, hence no global figure list and no window system.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

# Each is drawn in a colour that occurs nowhere else and then becomes a CSS variable, so that one SVG suits both modes.
MUTED, RULE, FIRST, SECOND, BEST, CARD = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
INK = {MUTED: "muted", RULE: "rule", FIRST: "series-1", SECOND: "series-2", BEST: "best", CARD: "card"}
MOST_POINTS = 800  # points of a line: more than a screen shows
TEXT, DIGIT, GAP, EDGE = (
    9.0,
    5.8,
    5.0,
    3.0,
)  # points: size of the numbers, width of a digit, space beside numbers, around all
SMOOTHING = 0.012  # width of the smoothing window, in parts of the whole curve

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """One series: values (N) at steps (N, ascending); a value that is not finite leaves a gap.

    `noisy`: draw the raw values faintly and a smoothed line over them.
    """

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One or two lines over steps. `best` is the step of the checkpoint kept, marked on the last line."""

    title: str
    lines: tuple[Line, ...]
    best: float | None = None
    remark: str = ""


def smooth(values: Sequence[float] | Floats, window: float = SMOOTHING) -> Floats:
    """Gaussian average (N -> N) that has no lag and steps over values that are not finite.

    `window` is its standard deviation in parts of N. A constant stays what it is, also at both ends:

    >>> smooth([2.0, 2.0, float("nan"), 2.0]).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    raw = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(raw)
    if not finite.any():
        return np.full(len(raw), np.nan)
    spread = max(window * len(raw), 0.5)
    reach = min(math.ceil(3 * spread), len(raw))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    weight = np.convolve(finite.astype(np.float64), kernel)[reach : reach + len(raw)]
    total = np.convolve(np.where(finite, raw, 0.0), kernel)[reach : reach + len(raw)]
    # the lightest weight counts as nothing: far from any value there is nothing to average
    averages: Floats = np.divide(total, weight, out=np.full(len(raw), np.nan), where=weight > 1e-3)
    return averages


def thin(steps: Sequence[float], values: Sequence[float], most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """At most `most` points, each the mean of its neighbours (finite ones where there are any).

    >>> [points.tolist() for points in thin([1, 2, 3, 4], [1.0, 3.0, 5.0, 7.0], most=2)]
    [[1.5, 3.5], [2.0, 6.0]]
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(x) <= most:
        return x, y
    starts = np.linspace(0, len(x), most, endpoint=False).astype(np.int64)
    finite = np.isfinite(y)
    count = np.add.reduceat(finite.astype(np.float64), starts)
    total = np.add.reduceat(np.where(finite, y, 0.0), starts)
    means = np.divide(total, count, out=np.full(most, np.nan), where=count > 0)
    return np.add.reduceat(x, starts) / np.diff(np.append(starts, len(x))), means


def draw_curve(chart: Chart, width: float = 4.6, height: float = 2.5) -> str:
    """The chart as an SVG element that fills its container; `width` and `height` (inches) set how large text appears.

    Colours are CSS variables (--series-1, --series-2, --muted, --rule, --best, --card) of the page it is put in.
    """
    # text stays text, in the page's font; the fixed salt makes the same data give the same bytes
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{chart.title} {width}"}):
        figure = Figure(figsize=(width, height))
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        _plot(axes, chart)
        _leave_room(figure, axes)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _themed(file.getvalue().decode("utf-8"))


def _plot(axes: Axes, chart: Chart) -> None:
    seen: list[Floats] = []
    for line, colour in zip(chart.lines, (FIRST, SECOND), strict=False):
        steps, values = thin(line.steps, line.values)
        if line.noisy and len(steps) > 2:
            axes.plot(steps, values, color=colour, alpha=0.28, linewidth=1.0)
            seen.append(_without_outliers(values))
            values = smooth(values)
        marker = "o" if len(steps) <= 40 and not line.noisy else ""
        axes.plot(steps, values, color=colour, linewidth=2.0, marker=marker, markersize=4, solid_capstyle="round")
        seen.append(values[np.isfinite(values)])
    _limit(axes, np.concatenate(seen) if seen else np.zeros(0))
    if chart.best is not None and chart.lines:
        _mark_best(axes, chart.lines[-1], chart.best)
    _dress(axes)


def _without_outliers(values: Floats) -> Floats:
    """Values between the 1st and 99th percentile: one spike must not flatten the whole curve."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return finite
    low, high = np.percentile(finite, [1, 99])
    usual: Floats = finite[(finite >= low) & (finite <= high)]
    return usual


def _limit(axes: Axes, values: Floats) -> None:
    if len(values):
        low, high = float(values.min()), float(values.max())
        margin = 0.08 * (high - low) or max(abs(high), 1e-6) * 0.1
        axes.set_ylim(low - margin, high + margin)


def _mark_best(axes: Axes, line: Line, best: float) -> None:
    axes.axvline(best, color=BEST, linewidth=1.2, linestyle=(0, (3, 3)), zorder=0.5)
    value = next((value for step, value in zip(line.steps, line.values, strict=False) if step == best), math.nan)
    if math.isfinite(value):
        axes.plot([best], [value], "o", color=BEST, markersize=9, markeredgecolor=CARD, markeredgewidth=2, zorder=5)


def _dress(axes: Axes) -> None:
    """Few thin lines and small numbers: the curve is what one should see."""
    axes.patch.set_visible(False)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.tick_params(colors=MUTED, labelsize=TEXT, length=0, pad=GAP)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick("{:,.0f}")))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick("{:.4g}")))


def _leave_room(figure: Figure, axes: Axes) -> None:
    """Margins that the numbers need, from how many characters they have.

    The page sets them in its own font, so there is nothing to measure: matplotlib's layout takes as long as two drawings.
    """
    width, height = 72 * figure.get_size_inches()
    left = EDGE + GAP + DIGIT * max((len(text) for _, text in _numbers(axes.yaxis)), default=0)
    right = width - EDGE
    low, high = axes.get_xlim()
    for step, text in _numbers(axes.xaxis):  # a number in the middle of its step must not be cut off on the right
        place, half = (step - low) / (high - low), DIGIT * len(text) / 2
        if left + place * (right - left) + half > width - EDGE:
            right = left + (width - EDGE - half - left) / place
    bottom, top = EDGE + GAP + TEXT, height - EDGE - TEXT / 2
    figure.subplots_adjust(left / width, bottom / height, right / width, top / height)


def _numbers(axis: Axis) -> list[tuple[float, str]]:
    """Where the numbers of an axis stand, and their text."""
    low, high = axis.get_view_interval()
    places = [float(place) for place in axis.get_majorticklocs() if low <= place <= high]
    return list(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def _tick(form: str) -> Callable[[float, int | None], str]:
    return lambda value, _position: form.format(value)


def _themed(svg: str) -> str:
    """The bare <svg> element with colours by name: no prologue, style sheet, fixed size, nor ids that would repeat."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<svg[^>]*>", lambda tag: re.sub(r' (width|height)="[^"]*"', "", tag[0]), svg, count=1)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    for colour, name in INK.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
